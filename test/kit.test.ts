/** The portable kit: built here without what takes a network, and run out of another folder with an empty environment. */
import { spawnSync } from 'node:child_process';
import {
  appendFileSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { builtinModules } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { ROOT } from '../scripts/build.mjs';
import { buildKit } from '../scripts/kit.mjs';
import { carriedPackages } from '../scripts/kit/files.mjs';
import { leftOut } from '../scripts/kit/info.mjs';
import { kitCandidates, loaderEnvironment, opens } from '../scripts/kit/vulkan.mjs';

const temporary = mkdtempSync(join(tmpdir(), 'forkstep-kit-'));
afterAll(() => rmSync(temporary, { recursive: true, force: true }));

/** A new folder with empty files (or the texts given) in it. */
function folderOf(files: Record<string, string>): string {
  const folder = mkdtempSync(join(temporary, 'files-'));
  for (const [name, text] of Object.entries(files)) {
    mkdirSync(join(folder, name, '..'), { recursive: true });
    writeFileSync(join(folder, name), text);
  }
  return folder;
}

describe('where a kit finds Vulkan', () => {
  const candidates = (root: string, env = {}, folders: string[] = []) =>
    kitCandidates(root, mkdtempSync(join(temporary, 'manifests-')), env, folders);
  const libraryOf = (manifest: string): string => JSON.parse(readFileSync(manifest, 'utf8')).ICD.library_path;

  it('tells libraries that open from those that do not', () => {
    expect([opens('libc.so.6'), opens('libforkstep-none.so.1')]).toEqual([process.platform === 'linux', false]);
  });

  it("takes the machine's loader, else one in driver/, else its own", () => {
    const both = folderOf({ 'driver/usr/lib/x86_64-linux-gnu/libvulkan.so.1': '', 'lib/vulkan/libvulkan.so.1': '' });
    const own = folderOf({ 'lib/vulkan/libvulkan.so.1': '' });
    expect(loaderEnvironment(both, {}, () => true)).toEqual({});
    expect(loaderEnvironment(both, { LD_LIBRARY_PATH: '/a' }, () => false)).toEqual({
      LD_LIBRARY_PATH: `${both}/driver/usr/lib/x86_64-linux-gnu:/a`,
    });
    expect(loaderEnvironment(own, {}, () => false)).toEqual({ LD_LIBRARY_PATH: `${own}/lib/vulkan` });
    expect(loaderEnvironment(folderOf({}), {}, () => false)).toEqual({});
  });

  it("writes manifests for NVIDIA's driver where its libraries are", () => {
    const machine = folderOf({ 'a/libGLX_nvidia.so.0': '', 'b/libGLX_nvidia.so.0': '', 'b/libEGL_nvidia.so.0': '' });
    const found = candidates(folderOf({}), { LD_LIBRARY_PATH: '/c++' }, [`${machine}/none`, `${machine}/a`, `${machine}/b`]);
    expect(found.map(({ env }) => libraryOf(env.VK_DRIVER_FILES))).toEqual([
      `${machine}/a/libGLX_nvidia.so.0`,
      `${machine}/b/libEGL_nvidia.so.0`,
    ]);
    expect(found.map(({ env, isLavapipe }) => [env.LD_LIBRARY_PATH, isLavapipe])).toEqual([
      [`/c++:${machine}/a`, false],
      [`/c++:${machine}/b`, false],
    ]);
  });

  it('takes the drivers in driver/ last, from where they lie now', () => {
    const manifest = (library: string) =>
      JSON.stringify({ file_format_version: '1.0.1', ICD: { library_path: library, api_version: '1.4.305' } });
    const kit = folderOf({
      'driver/usr/share/vulkan/icd.d/lvp_icd.x86_64.json': manifest('/usr/lib/x86_64-linux-gnu/libvulkan_lvp.so'),
      'driver/usr/share/vulkan/icd.d/radeon_icd.json': manifest('libvulkan_radeon.so'),
      'driver/usr/lib/x86_64-linux-gnu/libvulkan_lvp.so': '',
      'driver/lib/x86_64-linux-gnu/libz.so.1': '',
    });
    const [{ env, isLavapipe }, ...others] = candidates(kit, { LD_LIBRARY_PATH: '/a' });
    expect([others, isLavapipe]).toEqual([[], true]);
    expect(libraryOf(env.VK_DRIVER_FILES)).toBe(`${kit}/driver/usr/lib/x86_64-linux-gnu/libvulkan_lvp.so`);
    expect(env.LD_LIBRARY_PATH).toBe(`${kit}/driver/lib/x86_64-linux-gnu:${kit}/driver/usr/lib/x86_64-linux-gnu:/a`);
  });

  it('leaves out a manifest that is none', () => {
    const write = vi.spyOn(process.stderr, 'write').mockReturnValue(true);
    const kit = folderOf({ 'driver/broken_icd.json': '{', 'driver/empty_icd.json': 'null', 'driver/libvulkan_lvp.so': '' });
    expect(candidates(kit)).toEqual([]);
    expect(write).toHaveBeenCalledExactlyOnceWith(
      expect.stringMatching(/broken_icd\.json must be a driver's manifest, got .*; left out\n$/),
    );
    write.mockRestore();
  });

  it('leaves a driver that the environment names', () => {
    const machine = folderOf({ 'libGLX_nvidia.so.0': '' });
    expect(candidates(folderOf({}), { VK_DRIVER_FILES: '/b.json' }, [machine])).toEqual([]);
    expect(candidates(folderOf({}), { VK_ICD_FILENAMES: '/b.json' }, [machine])).toEqual([]);
  });
});

describe('what a kit carries', () => {
  it('has the packages that the tests import, but for those left out', () => {
    const packages = new Set([...carriedPackages(), ...builtinModules]);
    const files = readdirSync(join(ROOT, 'test'), { recursive: true, encoding: 'utf8' }).filter((name) => name.endsWith('.test.ts'));
    const lacking = files.filter((file) => importedPackages(`test/${file}`).some((name) => !packages.has(name)));
    expect(lacking.filter((file) => !(`test/${file}` in leftOut))).toEqual([]);
    for (const file of Object.keys(leftOut)) expect(files).toContain(file.replace('test/', ''));
  });

  /** The packages that a file of test/ imports, by itself or through other files of test/. */
  function importedPackages(file: string, seen = new Set<string>()): string[] {
    if (seen.has(file)) return [];
    seen.add(file);
    const text = readFileSync(join(ROOT, file), 'utf8').replace(/^import type .*$/gm, '');
    const specifiers = [...text.matchAll(/^(?:import|export)\b[^;]*?from '([^']+)'/gm)].map(([, specifier]) => specifier);
    return specifiers.flatMap((specifier) => {
      if (!specifier.startsWith('.')) return specifier.startsWith('node:') ? [] : [specifier];
      const path = join(file, '..', specifier);
      return path.startsWith('test') && path.endsWith('.ts') ? importedPackages(path, seen) : [];
    });
  }
});

const reasonAgainst =
  process.platform !== 'linux' || process.arch !== 'x64'
    ? `kits are built on Linux x64, and this is ${process.platform} ${process.arch}`
    : (process.config.variables as { node_shared?: boolean }).node_shared
      ? "this Node is its system's own build, which runs nowhere else"
      : null;
if (reasonAgainst) console.warn(`skipping the tests that run a kit: ${reasonAgainst}`);

describe.skipIf(reasonAgainst !== null)('a kit, with an empty environment,', () => {
  let folder: string;
  beforeAll(async () => {
    ({ folder } = await buildKit({ out: temporary, node: process.execPath, lavapipe: false, peers: false, loader: false }));
  });

  it('is not built, nor an earlier one removed, with a Node that is not there', async () => {
    const none = join(temporary, 'none');
    const options = { out: temporary, node: none, lavapipe: false, peers: false, loader: false };
    await expect(buildKit(options)).rejects.toThrow(`--node must be a file that exists, got "${none}"; name another`);
    expect(readdirSync(folder)).toContain('run');
  });

  /** Runs it from a folder that is not its own. The driver is the one that these tests run on. */
  function run(...args: string[]) {
    const { VK_DRIVER_FILES } = process.env;
    const env = VK_DRIVER_FILES ? { VK_DRIVER_FILES } : {};
    const { status, stdout, stderr } = spawnSync(join(folder, 'run'), args, { cwd: temporary, env, encoding: 'utf8', timeout: 100_000 });
    return { status, stdout, stderr };
  }

  it('is of this commit', () => {
    const { commit } = JSON.parse(readFileSync(join(folder, 'kit.json'), 'utf8'));
    expect(commit).toMatch(/^([\da-f]{12}(\+changes)?|unknown)$/);
    expect(run('--version')).toMatchObject({
      status: 0,
      stdout: `${JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')).version}\n`,
    });
  });

  it('says what there is to run', () => {
    const { status, stdout } = run();
    expect(status).toBe(2);
    for (const command of ['test', 'bench', 'example', 'train']) expect(stdout).toContain(`  ${command}`);
    expect(run('trian')).toMatchObject({ status: 2, stderr: expect.stringContaining('did you mean train?') });
  });

  it('lists devices', () => {
    const { status, stdout } = run('devices', '--json');
    expect(status).toBe(0);
    expect(JSON.parse(stdout).adapters[0].isChosen).toBe(true);
  });

  it('trains, and writes where it was called', () => {
    const small = ['--width', '1', '--batch', '2', '--train-limit', '4', '--test-limit', '2', '--max-steps', '1'];
    const { status, stdout, stderr } = run('train', ...small, '--json');
    expect(status, stderr).toBe(0);
    expect(JSON.parse(stdout.trimEnd().split('\n').at(-1)!)).toMatchObject({ steps: 1, diverged: null });
    const written = ['checkpoint.safetensors', 'events.jsonl', 'model.safetensors', 'report.html', 'result.json'];
    expect(readdirSync(join(temporary, 'runs/train')).sort()).toEqual(written);
  });

  it('has every bench', () => {
    const { stdout } = run('bench');
    for (const name of readdirSync(join(ROOT, 'bench')))
      if (name.endsWith('.ts')) expect(stdout).toMatch(new RegExp(`^  ${name.slice(0, -3)} `, 'm'));
  });

  it('tests what was built, and tells a failure by its last line and exit code', () => {
    const builtAt = statSync(join(folder, 'dist/cli.js')).mtimeMs;
    writeFileSync(join(folder, 'test/planted.test.ts'), "import { expect, it } from 'vitest';\nit('fails', () => expect(1).toBe(2));\n");
    const { status, stdout } = run('test', 'test/sched/update.test.ts', 'test/planted.test.ts', 'test/kit.test.ts');
    expect(stdout).toContain(`left out test/kit.test.ts: ${leftOut['test/kit.test.ts']}\n`);
    expect(stdout.trimEnd().split('\n').at(-1)).toMatch(/^[1-9]\d+ passed, 1 failed$/);
    expect(status).toBe(1);
    expect(run('test', 'test/sched/update.test.ts').status).toBe(0);
    expect(statSync(join(folder, 'dist/cli.js')).mtimeMs).toBe(builtAt);
  });

  it('runs through a link', () => {
    symlinkSync(join(folder, 'run'), join(temporary, 'link'));
    expect(spawnSync(join(temporary, 'link'), ['--version'], { env: {} }).status).toBe(0);
  });

  it('says in a line what the system refuses', () => {
    const { status, stderr } = spawnSync(join(folder, 'run'), ['--version'], {
      env: { TMPDIR: join(temporary, 'none') },
      encoding: 'utf8',
    });
    expect([status, stderr]).toEqual([1, expect.stringMatching(/^run: ENOENT: .*\n$/)]);
  });

  it('builds anew once its sources are changed, and once they are changed back', () => {
    const file = join(folder, 'src/cli/main.ts');
    const { atime, mtime } = statSync(file);
    const text = readFileSync(file, 'utf8');
    appendFileSync(file, "\nprocess.stdout.write('changed\\n');\n");
    expect(run('--version').stdout).toContain('changed\n');
    writeFileSync(file, text);
    utimesSync(file, atime, mtime);
    expect(run('--version').stdout).not.toContain('changed');
  });
});
