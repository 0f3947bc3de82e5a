import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { ROOT, buildPackage, isFresh } from '../../scripts/build.mjs';

export interface CliResult {
  code: number | null;
  stdout: string;
  stderr: string;
}

/** Builds dist/ where it is older than src/, so that what runs is what is tested. */
export async function buildCli(): Promise<void> {
  if (!isFresh({ types: false })) await buildPackage({ types: false });
}

/** Runs the built command to its end. */
export function forkstep(args: readonly string[], env: NodeJS.ProcessEnv = {}): CliResult {
  const options = { cwd: ROOT, env: { ...process.env, ...env }, encoding: 'utf8', timeout: 300_000 } as const;
  const { status, stdout, stderr } = spawnSync(process.execPath, [join(ROOT, 'dist/cli.js'), ...args], options);
  return { code: status, stdout, stderr };
}
