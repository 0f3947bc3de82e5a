/** What a kit carries of the checkout and of node_modules. */
import { spawnSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { basename, dirname, join, relative } from 'node:path';
import { build } from 'esbuild';
import { ROOT } from '../build.mjs';

const MODULES = join(ROOT, 'node_modules');
const PEERS = '.cache/peers';

/** What runs in a kit: Dawn, the bundler of benches and examples, the runner of tests; what is bundled into reports. */
const CARRIED = ['webgpu', 'esbuild', 'vitest', 'uplot'];

/** Dependencies of those that nothing loads here: what webgpu is built with, and the half of vite that compiles CSS. */
const UNUSED = new Set(['@webgpu/types', 'debug', 'lightningcss']);

const readJson = (file) => JSON.parse(readFileSync(file, 'utf8'));

/** git's output, or null where there is no git or no repository. */
function git(...args) {
  const { status, stdout } = spawnSync('git', args, { cwd: ROOT, encoding: 'utf8', maxBuffer: 1 << 26 });
  return status === 0 ? stdout : null;
}

/** The commit, with `+changes` where the folder differs from it; 'unknown' outside a repository. */
export function commit() {
  const head = git('rev-parse', '--short=12', 'HEAD');
  if (head === null) return 'unknown';
  return head.trim() + (git('status', '--porcelain')?.trim() ? '+changes' : '');
}

/** Copies every file that git tracks or would add, but for the archives of earlier kits beside `folder`. @throws Error outside a repository */
export function copyCheckout(folder) {
  const listed = git('ls-files', '-z', '--cached', '--others', '--exclude-standard');
  if (listed === null)
    throw new Error('git must list the files of this checkout, got an error; build the kit in a clone, with git installed');
  const isOurs = (name) => name !== 'node_modules' && !join(ROOT, name).startsWith(folder) && existsSync(join(ROOT, name));
  const names = [...new Set(listed.split('\0'))].filter((name) => name && isOurs(name));
  for (const name of names) cpSync(join(ROOT, name), join(folder, name), { preserveTimestamps: true });
}

/** Copies what is built, which has to come after the sources: the time of a build says whether it is up to date. */
export function copyBuilt(folder) {
  const types = join(ROOT, 'dist/types');
  cpSync(join(ROOT, 'dist'), join(folder, 'dist'), { recursive: true, filter: (path) => path !== types });
}

/**
 * The packages that a kit carries: those of CARRIED and, package by package, what they depend on.
 * @throws Error if one is not installed, other than an optional one (the native parts for other systems)
 */
export function carriedPackages() {
  const found = new Set();
  const visit = (name, isOptional) => {
    if (found.has(name) || UNUSED.has(name)) return;
    const file = join(MODULES, name, 'package.json');
    if (!existsSync(file) && isOptional) return;
    if (!existsSync(file)) throw new Error(`the package ${name} must be installed, got nothing at node_modules/${name}; run npm ci`);
    found.add(name);
    const { dependencies = {}, optionalDependencies = {} } = readJson(file);
    for (const dependency of Object.keys(dependencies)) visit(dependency, dependency in optionalDependencies);
    for (const dependency of Object.keys(optionalDependencies)) visit(dependency, true);
  };
  for (const name of CARRIED) visit(name, false);
  return [...found].sort();
}

/** Whether a file of a package is needed at run time, or is its licence. */
function isNeeded(path) {
  if (/^webgpu\/dist\/(?!linux-x64)/.test(path)) return false;
  // esbuild's library runs the binary of its package for this system; this is another copy of it.
  if (path === 'esbuild/bin/esbuild') return false;
  return !/\.(map|d\.[cm]?ts|md)$/i.test(path) || /^licen[cs]e/i.test(basename(path));
}

/** Copies the packages of carriedPackages() without what nothing reads. */
export function copyPackages(folder) {
  for (const name of carriedPackages()) {
    cpSync(join(MODULES, name), join(folder, 'node_modules', name), {
      recursive: true,
      dereference: true,
      filter: (path) => isNeeded(relative(MODULES, path)),
    });
  }
}

/** Installs the libraries that the bench `peers` compares with, as that bench does. @throws Error with npm's messages printed */
function installPeers(packages) {
  const folder = join(ROOT, PEERS);
  const isThere = (name) =>
    existsSync(join(folder, 'node_modules', name)) &&
    readJson(join(folder, 'node_modules', name, 'package.json')).version === packages[name];
  if (Object.keys(packages).every(isThere)) return;
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, 'package.json'), '{ "private": true, "type": "module" }\n');
  const wanted = Object.entries(packages).map(([name, version]) => `${name}@${version}`);
  const { status } = spawnSync('npm', ['install', '--no-audit', '--no-fund', '--save-exact', ...wanted], {
    cwd: folder,
    stdio: ['ignore', 2, 2],
  });
  if (status !== 0)
    throw new Error(`npm must install ${wanted.join(', ')}, got exit code ${status}; connect to a registry or pass --no-peers`);
}

/** Copies, of the libraries to compare with, the files that loading them reaches, as they are published. */
export async function copyPeers(folder) {
  const packages = readJson(join(ROOT, 'bench/peers/packages.json'));
  installPeers(packages);
  const from = join(ROOT, PEERS);
  const rivals = Object.keys(packages).filter((name) => name !== 'webgpu');
  const reached = async (kind, conditions) => {
    const contents = rivals.map((name) => (kind === 'require' ? `require('${name}');` : `import '${name}';`)).join('\n');
    const options = { absWorkingDir: from, bundle: true, platform: 'node', format: 'esm', write: false, metafile: true, outdir: 'unused' };
    const stdin = { contents, resolveDir: from };
    const { metafile } = await build({ ...options, conditions, mainFields: ['main'], stdin, external: ['webgpu'], logLevel: 'error' });
    return Object.keys(metafile.inputs).filter((path) => path.startsWith('node_modules/'));
  };
  const files = new Set([...(await reached('require', ['require'])), ...(await reached('import', ['import']))]);
  for (const file of [...files]) {
    const home = /^(?:.*\/)?node_modules\/(?:@[^/]+\/)?[^/]+/.exec(file)[0];
    for (const name of ['package.json', 'LICENSE', 'LICENSE.md']) if (existsSync(join(from, home, name))) files.add(`${home}/${name}`);
  }
  for (const file of files) cpSync(join(from, file), join(folder, PEERS, file));
  cpSync(join(from, 'package.json'), join(folder, PEERS, 'package.json'));
  symlinkSync('../../../node_modules/webgpu', join(folder, PEERS, 'node_modules/webgpu'));
}

/** Copies one file, making its folder. */
export function copyTo(from, to) {
  mkdirSync(dirname(to), { recursive: true });
  cpSync(from, to, { dereference: true });
}
