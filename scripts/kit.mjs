/**
 * `npm run kit`: one folder, and its archive, that runs the command, the benches, the examples and the tests on a Linux x86-64 machine with
 * nothing installed and no network. See docs/benches.md, "The portable kit".
 */
import { chmodSync, copyFileSync, existsSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join, relative, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { ROOT, ensureBuilt } from './build.mjs';
import { pack } from './kit/archive.mjs';
import { commit, copyBuilt, copyCheckout, copyPackages, copyPeers } from './kit/files.mjs';
import { sourcesDigest } from './kit/info.mjs';
import { copyLavapipe, copyLoader, copyNode } from './kit/system.mjs';

const CACHE = join(ROOT, '.cache/kit');
const NAME = 'forkstep-kit';
/** What an archive may be large: machines that are lent by the hour take little more in one transfer. */
const LIMIT_MIB = 45;

const USAGE = `npm run kit -- [options]

  --out DIR       where the folder ${NAME} and its archive are written (default: kit)
  --node FILE     this Node binary instead of the one from npm
  --lavapipe      carry this machine's lavapipe too, for machines without a GPU; the archive is larger then
  --no-peers      leave out the libraries that the bench peers compares with
  --no-loader     leave out the Vulkan loader and the C++ runtime of Debian's packages
  --no-archive    build the folder alone
`;

/**
 * Builds the folder anew.
 * @param options {out, node, lavapipe, peers, loader}: `node` a file or undefined, the others as on the command line
 * @returns {folder, warnings}
 * @throws Error naming what is missing
 */
export async function buildKit({ out, node, lavapipe, peers, loader }) {
  if (process.platform !== 'linux' || process.arch !== 'x64')
    throw new Error(
      `a kit must be built on Linux x64, whose packages npm has installed, got ${process.platform} ${process.arch}; use such a machine`,
    );
  if (node !== undefined && !existsSync(node))
    throw new Error(`--node must be a file that exists, got ${JSON.stringify(node)}; name another`);
  await ensureBuilt({ types: false });
  const folder = join(resolve(out), NAME);
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(join(folder, 'driver'), { recursive: true });
  copyCheckout(folder);
  copyPackages(folder);
  if (peers) await copyPeers(folder);
  copyNode(folder, CACHE, node);
  const missing = loader ? copyLoader(folder) : null;
  if (lavapipe) copyLavapipe(folder);
  copyBuilt(folder);
  copyFileSync(join(ROOT, 'scripts/kit/run.sh'), join(folder, 'run'));
  chmodSync(join(folder, 'run'), 0o755);
  const noted = { commit: commit(), node: process.versions.node, sources: sourcesDigest(folder) };
  writeFileSync(join(folder, 'kit.json'), `${JSON.stringify(noted, null, 1)}\n`);
  const warnings = missing ? [`built without a Vulkan loader and C++ runtime of its own (${missing}): the machine must have them`] : [];
  return { folder, warnings };
}

/** Builds and packs as the command line says. Returns the exit code. */
async function main(values) {
  const started = Date.now();
  const { folder, warnings } = await buildKit({
    out: values.out,
    node: values.node,
    lavapipe: values.lavapipe,
    peers: !values['no-peers'],
    loader: !values['no-loader'],
  });
  for (const warning of warnings) process.stderr.write(`kit: ${warning}\n`);
  process.stdout.write(`${relative('.', folder)}: built\n`);
  if (values['no-archive']) return 0;
  const { file, sizeBytes, isXz } = await pack(folder);
  const sizeMiB = sizeBytes / 2 ** 20;
  process.stdout.write(`${relative('.', file)}: ${sizeMiB.toFixed(1)} MiB, after ${Math.round((Date.now() - started) / 1000)} s\n`);
  if (!isXz) process.stderr.write('kit: xz is not installed, so this is gzip, which packs less\n');
  if (sizeMiB <= LIMIT_MIB || !isXz || values.lavapipe) return 0;
  process.stderr.write(`kit: the archive must have at most ${LIMIT_MIB} MiB, got ${sizeMiB.toFixed(1)}; leave something out\n`);
  return 1;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const flag = { type: 'boolean', default: false };
  const options = {
    out: { type: 'string', default: 'kit' },
    node: { type: 'string' },
    lavapipe: flag,
    'no-peers': flag,
    'no-loader': flag,
    'no-archive': flag,
    help: flag,
  };
  let values;
  try {
    ({ values } = parseArgs({ options }));
  } catch (error) {
    process.stderr.write(`kit: ${error.message.split('\n')[0]}\n\n${USAGE}`);
    process.exit(2);
  }
  if (values.help) {
    process.stdout.write(USAGE);
  } else {
    try {
      process.exitCode = await main(values);
    } catch (error) {
      process.stderr.write(`kit: ${error.message}\n`);
      process.exitCode = 1;
    }
  }
}
