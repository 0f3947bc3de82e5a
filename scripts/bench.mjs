/**
 * `npm run bench -- NAME […]` bundles bench/NAME.ts into .cache/bench and runs it with the arguments that follow; without NAME it lists
 * them.
 */
import { spawn } from 'node:child_process';
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { build } from 'esbuild';
import { ensureAdapter } from './adapter.mjs';
import { ROOT } from './build.mjs';

const SOURCES = join(ROOT, 'bench');

/** The benches, each with the first line of the comment it begins with. */
function benches() {
  const names = existsSync(SOURCES) ? readdirSync(SOURCES).filter((name) => name.endsWith('.ts')) : [];
  return names.sort().map((file) => {
    const summary = /\/\*\*\s*(?:\*\s*)?(.*?)\s*(?:\*\/)?$/m.exec(readFileSync(join(SOURCES, file), 'utf8'));
    return { name: file.slice(0, -3), summary: summary?.[1] ?? '' };
  });
}

/** Bundles bench/NAME.ts; packages stay imports, so that rivals are measured as published. Returns the bundle's path. */
async function bundle(name) {
  const outfile = join(ROOT, '.cache/bench', `${name}.js`);
  const options = { bundle: true, format: 'esm', platform: 'node', target: 'es2022', sourcemap: true, logLevel: 'warning' };
  const inside = {
    name: 'inside',
    setup: ({ onResolve }) => onResolve({ filter: /^[^.#/]/ }, ({ kind }) => (kind === 'entry-point' ? undefined : { external: true })),
  };
  await build({ ...options, absWorkingDir: ROOT, entryPoints: [join(SOURCES, `${name}.ts`)], outfile, plugins: [inside] });
  return outfile;
}

const [name, ...args] = process.argv.slice(2);
const known = benches();
if (name === undefined || name === '--help') {
  const width = Math.max(...known.map((bench) => bench.name.length), 4);
  process.stdout.write(
    `npm run bench -- NAME [arguments]\n\n${known.map((bench) => `  ${bench.name.padEnd(width)}  ${bench.summary}\n`).join('')}`,
  );
} else if (!known.some((bench) => bench.name === name)) {
  process.stderr.write(
    `bench: there is no bench ${JSON.stringify(name)}; there is ${known.map((bench) => bench.name).join(', ') || 'none yet'}\n`,
  );
  process.exitCode = 2;
} else {
  await ensureAdapter();
  const child = spawn(process.execPath, ['--enable-source-maps', '--expose-gc', await bundle(name), ...args], {
    cwd: ROOT,
    stdio: 'inherit',
  });
  process.on('SIGINT', () => {});
  child.on('close', (code) => {
    process.exitCode = code ?? 1;
  });
}
