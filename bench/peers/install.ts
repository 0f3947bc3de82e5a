/** The libraries that forkstep is compared with: where they lie, and how they come there. */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { packageVersion } from '../support/report.ts';
import packages from './packages.json';

export { packages };

/** Where the peers are installed: never a dependency of the package. */
export const peersFolder = '.cache/peers';

/** Whether all of them are there, in the versions that are asked for. */
export const hasPeers = (): boolean =>
  Object.entries(packages).every(
    ([name, version]) =>
      existsSync(join(peersFolder, 'node_modules', name, 'package.json')) && packageVersion(name, peersFolder) === version,
  );

export function installPeers(): void {
  mkdirSync(peersFolder, { recursive: true });
  if (hasPeers()) return;
  writeFileSync(join(peersFolder, 'package.json'), '{ "private": true, "type": "module" }\n');
  const wanted = Object.entries(packages).map(([name, version]) => `${name}@${version}`);
  execFileSync('npm', ['install', '--no-audit', '--no-fund', '--save-exact', ...wanted], { cwd: peersFolder, stdio: 'inherit' });
}
