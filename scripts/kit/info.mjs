/** What makes a folder a portable kit, and what is different in one. */
import { createHash } from 'node:crypto';
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { networkInterfaces } from 'node:os';
import { join } from 'node:path';
import { ROOT } from '../build.mjs';

const FILE = join(ROOT, 'kit.json');

/** What scripts/kit.mjs noted of the kit that this is: {commit, node, sources}; null in a checkout. */
export const kit = existsSync(FILE) ? JSON.parse(readFileSync(FILE, 'utf8')) : null;

/** Test files that a kit leaves out, each with the reason that is printed there. */
export const leftOut = {
  'test/arch.test.ts': "it reads imports with TypeScript's compiler, which a kit does not carry",
  'test/package.test.ts': 'it packs and installs the package, which takes npm, a registry and TypeScript',
  'test/kit.test.ts': 'it builds a kit, which takes a checkout',
};

/** Those, and what this machine cannot run: one shut off from all networks may not even reach itself. */
export function leftOutHere() {
  const hasLoopback = Object.values(networkInterfaces())
    .flat()
    .some(({ internal }) => internal);
  return hasLoopback
    ? leftOut
    : { ...leftOut, 'test/data/fetch.test.ts': 'it downloads from a server of its own, and this machine has no loopback interface' };
}

/** A digest of what the benches and the command are made of, below a root. */
export function sourcesDigest(root) {
  const hash = createHash('sha256');
  for (const top of ['package.json', 'tsconfig.json', 'src', 'bench']) {
    const names = top.includes('.') ? [''] : readdirSync(join(root, top), { recursive: true }).filter((name) => /\.(ts|json)$/.test(name));
    for (const name of names.filter((path) => !path.startsWith('results')).sort())
      hash.update(`${top}/${name}\n`).update(readFileSync(join(root, top, name)));
  }
  return hash.digest('hex');
}
