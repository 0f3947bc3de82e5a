/** What a kit's `run` starts: finds a Vulkan driver, then runs what is asked for. */
import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { findAdapter } from '../adapter.mjs';
import { ROOT, buildPackage } from '../build.mjs';
import { kit, sourcesDigest } from './info.mjs';
import { kitCandidates, loaderEnvironment, opens } from './vulkan.mjs';

const USAGE = `./run COMMAND […]

  test [FILTER …]       the tests; ends in "N passed, N failed"
  bench [NAME …]        a bench; without a name it lists them; paths are relative to the kit
  example [NAME …]      an example; without a name it lists them
  train, devices, …     the command forkstep; ./run --help lists them

Forkstep ${kit.commit}, Node ${kit.node}. A GPU's driver is found by itself; other drivers go into driver/ (docs/benches.md, "The portable kit").
`;

/** What dist/ was last built from here; not there while it is as the kit came. */
const BUILT = join(ROOT, 'dist/sources');

const script = (name) => join(ROOT, 'scripts', name);

/** The arguments for Node and the folder to run in. */
function commandOf([name, ...args]) {
  if (name === 'test') return { args: [script('test.mjs'), ...args], cwd: ROOT };
  if (name === 'bench') return { args: [script('bench.mjs'), ...args], cwd: ROOT };
  if (name === 'example') return { args: [script('example.mjs'), ...args], cwd: process.cwd() };
  return { args: [join(ROOT, 'dist/cli.js'), name, ...args], cwd: process.cwd() };
}

/** Runs to its end. Resolves with the exit code. */
function run({ args, cwd }) {
  const child = spawn(process.execPath, args, { cwd, stdio: 'inherit' });
  // Ctrl-C reaches the child as well: it ends, and with it this process.
  process.on('SIGINT', () => {});
  process.on('SIGTERM', () => child.kill('SIGTERM'));
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code) => resolve(code ?? 1));
  });
}

/** Puts the environment in which there is an adapter into this process's, for children; says on stderr where there is none. */
function findDriver(folder) {
  Object.assign(process.env, loaderEnvironment(ROOT, process.env, opens));
  const adapter = findAdapter(kitCandidates(ROOT, folder, process.env));
  if (adapter.found) Object.assign(process.env, adapter.env);
  else
    process.stderr.write(
      `run: no WebGPU adapter found (${adapter.reason}); put a Vulkan driver into driver/ (docs/benches.md, "The portable kit")\n`,
    );
}

/** Builds dist/ anew where it is not of these sources: they were edited, or an edit was taken back. */
async function bringUpToDate(sources) {
  if (sources === (existsSync(BUILT) ? readFileSync(BUILT, 'utf8') : kit.sources)) return;
  writeFileSync(BUILT, 'unfinished');
  await buildPackage({ types: false });
  writeFileSync(BUILT, sources);
}

/** The exit code of what the arguments ask for. */
async function main(args) {
  if (args.length === 0) {
    process.stdout.write(USAGE);
    return 2;
  }
  const sources = sourcesDigest(ROOT);
  const isChanged = sources !== kit.sources;
  process.env.FORKSTEP_COMMIT = kit.commit + (isChanged && !kit.commit.endsWith('+changes') ? '+changes' : '');
  await bringUpToDate(sources);
  const manifests = mkdtempSync(join(tmpdir(), 'forkstep-'));
  try {
    findDriver(manifests);
    return await run(commandOf(args));
  } finally {
    rmSync(manifests, { recursive: true });
  }
}

/** One line for what the system reports (a folder that cannot be written, say); what nobody foresaw keeps its stack. */
function report(error) {
  if (!error.code) throw error;
  process.stderr.write(`run: ${error.message}\n`);
  return 1;
}

process.exitCode = await main(process.argv.slice(2)).catch(report);
