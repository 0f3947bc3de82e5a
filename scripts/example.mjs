/**
 * `node scripts/example.mjs NAME […]` bundles examples/NAME.ts into .cache/examples, `forkstep` being the sources of this checkout, and
 * runs it with the arguments that follow; without NAME it lists them.
 */
import { spawn } from 'node:child_process';
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { build } from 'esbuild';
import { ensureAdapter } from './adapter.mjs';
import { ROOT } from './build.mjs';

const SOURCES = join(ROOT, 'examples');

/** The examples, each with the first line of the comment it begins with. */
function examples() {
  const names = readdirSync(SOURCES).filter((name) => name.endsWith('.ts'));
  return names.sort().map((file) => {
    const summary = /\/\*\*\s*(?:\*\s*)?(.*?)\s*(?:\*\/)?$/m.exec(readFileSync(join(SOURCES, file), 'utf8'));
    return { name: file.slice(0, -3), summary: summary?.[1] ?? '' };
  });
}

const [name, ...args] = process.argv.slice(2);
const known = examples();
if (name === undefined || name === '--help') {
  const width = Math.max(...known.map((example) => example.name.length));
  const lines = known.map((example) => `  ${example.name.padEnd(width)}  ${example.summary}\n`);
  process.stdout.write(`node scripts/example.mjs NAME [arguments]\n\n${lines.join('')}`);
} else if (!existsSync(join(SOURCES, `${name}.ts`))) {
  process.stderr.write(`example: no example ${JSON.stringify(name)}; there is ${known.map((example) => example.name).join(', ')}\n`);
  process.exit(2);
} else {
  await ensureAdapter();
  const outfile = join(ROOT, '.cache/examples', `${name}.js`);
  await build({
    absWorkingDir: ROOT, entryPoints: [join(SOURCES, `${name}.ts`)], outfile, external: ['webgpu'],
    bundle: true, format: 'esm', platform: 'node', target: 'es2022', sourcemap: true, logLevel: 'warning',
  });
  const child = spawn(process.execPath, [outfile, ...args], { stdio: 'inherit' });
  process.on('SIGINT', () => {});
  child.on('close', (code, signal) => process.exit(code ?? (signal ? 1 : 0)));
}
