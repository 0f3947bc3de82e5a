/** Real CIFAR for tests: where the person points us, or unpacked once from the data that lie beside the checkout. */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const UNPACK = fileURLToPath(new URL('../../../shared/data/unpack.py', import.meta.url));
const MARKER = 'complete';

type Found = { dir: string } | { reason: string };
const found = new Map<string, Found>();

/** A directory `readCifar10` reads, from FORKSTEP_CIFAR10 or the shared data; null, with the reason printed once, where there is none. */
export function realCifar10Dir(): string | null {
  return dirOf('cifar10', 'FORKSTEP_CIFAR10');
}

/** A directory `readCifar100` reads, from FORKSTEP_CIFAR100 or the shared data (a part of the set); null, as above. */
export function realCifar100Dir(): string | null {
  return dirOf('cifar100', 'FORKSTEP_CIFAR100');
}

function dirOf(name: 'cifar10' | 'cifar100', variable: string): string | null {
  let result = found.get(name);
  if (result === undefined) {
    const given = process.env[variable];
    result = given ? { dir: given } : unpackShared(name, variable);
    found.set(name, result);
    if ('reason' in result) console.warn(`skipping tests on real ${name}: ${result.reason}`);
  }
  return 'dir' in result ? result.dir : null;
}

/** Unpacks into a folder of its own and renames it, so that test files running side by side cannot see half of it. */
function unpackShared(name: 'cifar10' | 'cifar100', variable: string): Found {
  const dir = path.join(os.tmpdir(), `forkstep-${name}-${process.getuid?.() ?? 0}`);
  if (existsSync(path.join(dir, MARKER))) return { dir };
  if (!existsSync(UNPACK)) return { reason: `set ${variable} to its directory (no shared/data/unpack.py beside the checkout)` };
  const hasPillow = spawnSync('/usr/bin/python3', ['-c', 'import PIL']).status === 0;
  if (!hasPillow) return { reason: `set ${variable} to its directory, or install python3-pil to unpack shared/data` };
  const staging = mkdtempSync(`${dir}-`);
  const unpacked = spawnSync('/usr/bin/python3', [UNPACK, name, staging], { encoding: 'utf8' });
  if (unpacked.status !== 0) {
    rmSync(staging, { recursive: true });
    throw new Error(`unpack.py ${name} failed: ${unpacked.stderr}`);
  }
  writeFileSync(path.join(staging, MARKER), '');
  try {
    renameSync(staging, dir);
  } catch (error) {
    rmSync(staging, { recursive: true });
    if (!existsSync(path.join(dir, MARKER))) throw error;
  }
  return { dir };
}
