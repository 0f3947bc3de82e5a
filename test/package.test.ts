import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { transform } from 'esbuild';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import packageJson from '../package.json';
import { ROOT } from '../scripts/build.mjs';
import { markedBlock, outputDifferences } from './support/readme.ts';

const project = mkdtempSync(join(tmpdir(), 'forkstep-package-'));
const installed = join(project, 'node_modules', packageJson.name);
const minutes = 60_000;

/** Runs a command to its end. @throws Error with its output unless it exits with 0 */
function run(cwd: string, command: string, ...args: string[]): string {
  const { status, stdout, stderr, error } = spawnSync(command, args, {
    cwd,
    encoding: 'utf8',
    timeout: 10 * minutes,
    shell: process.platform === 'win32',
  });
  if (status !== 0) throw new Error(`${command} ${args.join(' ')}: ${error?.message ?? `exit code ${status}`}\n${stdout}\n${stderr}`);
  return stdout;
}

/** Packs this package (which builds it) and installs the tarball into an empty project. */
beforeAll(() => {
  run(ROOT, 'npm', 'pack', '--pack-destination', project);
  const tarball = readdirSync(project).find((name) => name.endsWith('.tgz'));
  writeFileSync(join(project, 'package.json'), JSON.stringify({ name: 'empty', private: true, type: 'module' }));
  run(project, 'npm', 'install', '--prefer-offline', '--no-audit', '--no-fund', '--prefix', project, `./${tarball}`);
}, 15 * minutes);
afterAll(() => rmSync(project, { recursive: true, force: true }));

describe('the package', () => {
  it('holds what package.json points to, and no sources or tests', () => {
    const files = readdirSync(installed, { recursive: true, encoding: 'utf8' }).map((name) => name.replaceAll('\\', '/'));
    const targets = [...Object.values(packageJson.exports).flatMap((entry) => Object.values(entry)), ...Object.values(packageJson.bin)];
    expect(files).toEqual(expect.arrayContaining(targets.map((target) => target.replace(/^\.\//, ''))));
    const tops = new Set(files.map((name) => name.split('/')[0]));
    expect([...tops].sort()).toEqual(['CHANGELOG.md', 'LICENSE', 'README.md', 'dist', 'docs', 'package.json']);
    expect(files.filter((name) => /(^|\/)cli\.d\.ts$|\.test\./.test(name))).toEqual([]);
  });

  it('has one class for one error, whichever entry it comes from', () => {
    const program = `import * as a from 'forkstep';
      import * as b from 'forkstep/node';
      console.log(Object.keys(a).length > 0, Object.keys(b).every((name) => !(name in a) || a[name] === b[name]));`;
    expect(run(project, process.execPath, '--input-type=module', '-e', program)).toBe('true true\n');
  });

  it('has a command that runs', () => {
    expect(run(project, 'npx', '--no-install', 'forkstep', '--version')).toBe(`${packageJson.version}\n`);
  });
});

describe("the README's program", () => {
  const readme = (): string => readFileSync(join(installed, 'README.md'), 'utf8');

  it('has at most 12 lines', () => {
    expect(markedBlock(readme(), 'readme-program', 'ts').split('\n').length).toBeLessThanOrEqual(12);
  });

  it('passes the type checker against the package alone', () => {
    writeFileSync(join(project, 'program.ts'), `${markedBlock(readme(), 'readme-program', 'ts')}\nexport {};\n`);
    const options = '--noEmit --strict --target es2022 --module nodenext --lib es2023,dom --types'.split(' ');
    run(project, process.execPath, join(ROOT, 'node_modules/typescript/bin/tsc'), ...options, '@webgpu/types', 'program.ts');
  });

  it(
    'prints what the README says, numbers within 2 %',
    async () => {
      const { code } = await transform(markedBlock(readme(), 'readme-program', 'ts'), { loader: 'ts', format: 'esm', target: 'es2022' });
      writeFileSync(join(project, 'program.mjs'), code);
      const printed = run(project, process.execPath, 'program.mjs');
      expect(outputDifferences(printed, markedBlock(readme(), 'readme-output', 'text'), 0.02)).toEqual([]);
    },
    10 * minutes,
  );
});

describe('the comparison of outputs', () => {
  const expected = 'step 10  loss 2.303\nlr 1e-2, 11,173,962 parameters';
  it.each([
    ['itself', expected, []],
    ['numbers 1 % away', 'step 10 loss 2.32\nlr 0.0101, 11173962 parameters\n', []],
    ['a number 3 % away', 'step 10  loss 2.38\nlr 1e-2, 11,173,962 parameters', [/^line 1/]],
    ['another sign', 'step 10  loss -2.303\nlr 1e-2, 11,173,962 parameters', [/^line 1/]],
    ['NaN', 'step 10  loss NaN\nlr 1e-2, 11,173,962 parameters', [/^line 1/]],
    ['another word', 'step 10  loss 2.303\nlr 1e-2, 11,173,962 weights', [/^line 2/]],
    ['a line too few', 'step 10  loss 2.303', [/^expected 2 lines, got 1/]],
  ] as const)('%s', (_name, actual, differences) => {
    expect(outputDifferences(actual, expected, 0.02)).toEqual(differences.map((pattern) => expect.stringMatching(pattern)));
  });
});
