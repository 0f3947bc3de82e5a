/**
 * Builds the package into dist/: index.node.js, node.js and cli.js (which share chunks, so that an error class is one class whatever
 * entry it came through), index.browser.js, and the declarations in dist/types.
 *
 *   node scripts/build.mjs [--no-types]
 */
import { spawnSync } from 'node:child_process';
import { chmodSync, existsSync, readFileSync, readdirSync, realpathSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import { bundledTexts } from './bundled.mjs';

export const ROOT = fileURLToPath(new URL('..', import.meta.url));
const DIST = join(ROOT, 'dist');

/** The commit as build metadata of the version, `+b59dbc5`, with `.changes` where src/ differs from it; nothing outside a repository. */
function buildMetadata() {
  const git = (...args) => spawnSync('git', args, { cwd: ROOT, encoding: 'utf8' });
  const top = git('rev-parse', '--show-toplevel');
  // A repository around this folder, of a kit or an installed package, says nothing of it.
  if (top.status !== 0 || realpathSync(top.stdout.trim()) !== realpathSync(ROOT)) return '';
  const { stdout } = git('rev-parse', '--short=7', 'HEAD');
  return `+${stdout.trim()}${git('status', '--porcelain', 'src', 'package.json').stdout.trim() ? '.changes' : ''}`;
}

const shared = {
  absWorkingDir: ROOT,
  bundle: true,
  format: 'esm',
  target: 'es2022',
  sourcemap: true,
  logLevel: 'warning',
  metafile: true,
  outdir: 'dist',
};

/** Node's entries: what package.json exports for Node, and the command. */
const nodeOptions = {
  ...shared,
  entryPoints: { 'index.node': 'src/index.ts', node: 'src/node.ts', cli: 'src/cli/main.ts' },
  platform: 'node',
  splitting: true,
  chunkNames: 'chunks/[name]-[hash]',
  external: ['webgpu'],
  plugins: [bundledTexts],
};

/** The browser's entry, with nothing left to resolve; test/browserBundle.test.ts checks what is in it. */
export const browserOptions = {
  ...shared,
  entryPoints: { 'index.browser': 'src/index.ts' },
  platform: 'browser',
};

/** Removes the .js files of earlier builds that the latest did not write. */
function removeStale(outputs) {
  const written = new Set(outputs.map((path) => join(ROOT, path)));
  for (const folder of [DIST, join(DIST, 'chunks')]) {
    for (const name of existsSync(folder) ? readdirSync(folder) : []) {
      const path = join(folder, name);
      if (/\.js(\.map)?$/.test(name) && !written.has(path)) rmSync(path);
    }
  }
}

/** The declarations, by tsc; its errors are printed. @throws Error if there are any */
function buildTypes() {
  rmSync(join(DIST, 'types'), { recursive: true, force: true });
  const tsc = join(ROOT, 'node_modules/typescript/bin/tsc');
  const { status } = spawnSync(process.execPath, [tsc, '-p', 'tsconfig.build.json'], { cwd: ROOT, stdio: ['ignore', 2, 2] });
  if (status !== 0) throw new Error('tsc found errors in src/ (above)');
  // The declarations name WebGPU's types, which no user's compiler looks for on its own.
  for (const name of ['index.d.ts', 'node.d.ts']) {
    const path = join(DIST, 'types', name);
    writeFileSync(path, `/// <reference types="@webgpu/types" />\n${readFileSync(path, 'utf8')}`);
  }
}

/** Builds everything; declarations only with types: true. @throws Error with the messages of esbuild or tsc printed */
export async function buildPackage({ types }) {
  const define = { FORKSTEP_BUILD: JSON.stringify(buildMetadata()) };
  const results = [await build({ ...nodeOptions, define }), await build(browserOptions)];
  removeStale(results.flatMap((result) => Object.keys(result.metafile.outputs)));
  chmodSync(join(DIST, 'cli.js'), 0o755);
  if (types) buildTypes();
}

/** The time of the last change below a path, in ms. */
function newestChange(path) {
  const stat = statSync(path);
  if (!stat.isDirectory()) return stat.mtimeMs;
  return Math.max(stat.mtimeMs, ...readdirSync(path).map((name) => newestChange(join(path, name))));
}

/** Whether dist/ is newer than everything it is made from. */
export function isFresh({ types }) {
  const outputs = ['index.node.js', 'index.browser.js', 'node.js', 'cli.js', ...(types ? ['types/index.d.ts', 'types/node.d.ts'] : [])];
  const paths = outputs.map((name) => join(DIST, name));
  if (!paths.every((path) => existsSync(path))) return false;
  const sources = ['src', 'package.json', 'tsconfig.json', 'tsconfig.build.json', 'scripts/build.mjs', 'scripts/bundled.mjs'];
  return Math.min(...paths.map((path) => statSync(path).mtimeMs)) > Math.max(...sources.map((path) => newestChange(join(ROOT, path))));
}

/** Builds where isFresh() says so; ends the process with code 1 where that fails, the messages being printed. */
export async function ensureBuilt({ types }) {
  if (isFresh({ types })) return;
  try {
    await buildPackage({ types });
  } catch (error) {
    // esbuild has printed its own messages, file by file.
    process.stderr.write(`forkstep: the build failed: ${error.errors ? 'see above' : error.message}\n`);
    process.exit(1);
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const unknown = process.argv.slice(2).filter((argument) => argument !== '--no-types');
  if (unknown.length) {
    process.stderr.write(`build: unknown argument ${unknown[0]}; there is --no-types\n`);
    process.exit(2);
  }
  try {
    await buildPackage({ types: !process.argv.includes('--no-types') });
  } catch (error) {
    process.stderr.write(`build failed: ${error.errors ? 'see above' : error.message}\n`);
    process.exit(1);
  }
}
