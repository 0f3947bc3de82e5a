/** Packs a kit's folder. */
import { spawn, spawnSync } from 'node:child_process';
import { createWriteStream, statSync } from 'node:fs';
import { basename, dirname } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { createGzip } from 'node:zlib';

/** xz at its best: code of this processor is rewritten so that it repeats more. Takes 700 MB here and 65 MB to unpack. */
const XZ = ['--compress', '--stdout', '--x86', '--lzma2=preset=9e'];

const exists = (command) => spawnSync(command, ['--version'], { stdio: 'ignore' }).status === 0;

/** Resolves when the process has ended. @throws Error unless with exit code 0 */
const ended = (child, name) =>
  new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code) => (code === 0 ? resolve() : reject(new Error(`${name} must succeed, got exit code ${code}; see above`))));
  });

/**
 * Packs `folder` beside itself: as .tar.xz, or as .tar.gz where xz is not installed.
 * @returns {file, sizeBytes, isXz}
 * @throws Error where there is no tar
 */
export async function pack(folder) {
  if (!exists('tar')) throw new Error('tar must be installed, got nothing; pass --no-archive to build the folder alone');
  const isXz = exists('xz');
  const file = `${folder}.tar.${isXz ? 'xz' : 'gz'}`;
  // This format keeps times to the nanosecond, by which dist/ stays newer than the sources.
  const tar = spawn('tar', ['--format=posix', '-C', dirname(folder), '-cf', '-', basename(folder)], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const target = createWriteStream(file);
  if (isXz) {
    const xz = spawn('xz', XZ, { stdio: ['pipe', 'pipe', 'inherit'] });
    await Promise.all([ended(tar, 'tar'), ended(xz, 'xz'), pipeline(tar.stdout, xz.stdin), pipeline(xz.stdout, target)]);
  } else {
    await Promise.all([ended(tar, 'tar'), pipeline(tar.stdout, createGzip({ level: 9 }), target)]);
  }
  return { file, sizeBytes: statSync(file).size, isXz };
}
