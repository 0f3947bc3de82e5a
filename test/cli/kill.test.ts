/**
 * A run that is killed again and again, at random moments of its start, its steps and its writing, and resumed each time, ends as the unbroken
 * run does. FORKSTEP_KILLS is how often, FORKSTEP_KILL_SEED repeats a run of the test.
 */
import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { ROOT } from '../../scripts/build.mjs';
import { findRun, parseRunLog, type FoundRun } from '../../src/train/runFolder.node.ts';
import { buildCli, forkstep } from '../support/builtCli.ts';
import { uniformStream } from '../support/random.ts';

const kills = Number(process.env.FORKSTEP_KILLS ?? 6);
const seed = Number(process.env.FORKSTEP_KILL_SEED ?? Math.floor(Math.random() * 2 ** 31));

const folder = mkdtempSync(join(tmpdir(), 'forkstep-kill-'));
beforeAll(buildCli);
afterAll(() => rmSync(folder, { recursive: true }));

/** A command that is killed. */
interface Job {
  readonly flags: readonly string[];
  readonly kills: number;
  /** Steps between checkpoints. */
  readonly every: number;
}

const both = [
  'train', '--width', '4', '--batch', '4', '--test-limit', '8', '--momentum', '0.9', '--augment', 'crop-flip', '--epochs', '1000', '--tensorboard',
];
const jobs: Record<string, Job> = {
  trials: {
    flags: [
      ...both, '--train-limit', '32', '--max-steps', String(6 * kills), '--preset', 'robust', '--every', '3steps', '--factors', 'factor3',
      '--checkpoint-every', '2steps',
    ],
    kills, every: 2,
  },
  // An epoch of 4 steps is logged at its end.
  alr: {
    flags: [...both, '--train-limit', '16', '--max-steps', String(16 * Math.ceil(kills / 2)), '--scheduler', 'alr', '--factors', '2,1'],
    kills: Math.ceil(kills / 2), every: 4,
  },
};
const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
const logOf = (out: string): Uint8Array => (existsSync(join(out, 'events.jsonl')) ? readFileSync(join(out, 'events.jsonl')) : new Uint8Array(0));
const stepsIn = (out: string): number => parseRunLog(logOf(out)).steps.length;

/** When a process dies: so long after its start, or so long after it has logged so many steps. */
type Moment = { readonly afterMs: number; readonly steps: number };

/** Runs the command until then. @returns whether it was killed, rather than at its end before */
async function live(flags: readonly string[], out: string, { afterMs, steps }: Moment): Promise<boolean> {
  const child = spawn(process.execPath, [join(ROOT, 'dist/cli.js'), ...flags, '--out', out, '--resume'], { stdio: 'ignore' });
  const closed = new Promise<NodeJS.Signals | null>((resolve) => child.on('close', (_, signal) => resolve(signal)));
  if (steps > 0) {
    const from = findRun(out)?.checkpoint.state.step ?? 0;
    const cut = logOf(out).length;
    // What is logged past the checkpoint goes first.
    const hasBegun = () => logOf(out).length !== cut;
    while (child.exitCode === null && !hasBegun()) await sleep(3);
    while (child.exitCode === null && stepsIn(out) < from + steps) await sleep(3);
  }
  await sleep(afterMs);
  child.kill('SIGKILL');
  return (await closed) === 'SIGKILL';
}

/** What stands in the folder after a kill is whole, and lacks the steps since the last checkpoint at most. */
function check(out: string, every: number): FoundRun | null {
  const found = findRun(out);
  const step = found?.checkpoint.state.step ?? 0;
  expect(stepsIn(out) - step).toBeLessThanOrEqual(every);
  return found;
}

it.each(Object.keys(jobs))(`a run by %s that is killed again and again ends as the unbroken one (FORKSTEP_KILL_SEED=${seed})`, { timeout: 1_800_000 }, async (name) => {
  const { flags, kills, every } = jobs[name];
  const random = uniformStream(seed);
  const [whole, broken] = [join(folder, name, 'whole'), join(folder, name, 'broken')];
  const began = performance.now();
  const unbroken = forkstep([...flags, '--out', whole]);
  expect([unbroken.code, unbroken.stderr]).toEqual([0, expect.anything()]);
  const startMs = Math.min(3000, (performance.now() - began) / 2);

  const starts = new Set<number>();
  for (let kill = 0; kill < kills; kill++) {
    // The first leaves a checkpoint, and one on the way another, wherever the others fall.
    const isLong = kill === 0 || kill === kills >> 1;
    const isStart = !isLong && random() < 0.25;
    const steps = isLong ? 2 * every + 1 : 1 + Math.floor(random() * (2 * every + 1));
    const moment = isStart ? { afterMs: random() * startMs, steps: 0 } : { afterMs: random() * 40, steps };
    expect(await live(flags, broken, moment)).toBe(true);
    starts.add(check(broken, every)?.checkpoint.state.step ?? 0);
  }
  expect(Math.max(...starts)).toBeGreaterThan(0);
  if (kills > 3) expect(starts.size).toBeGreaterThan(1);

  const from = check(broken, every)?.checkpoint.state.step ?? 0;
  const last = forkstep([...flags, '--out', broken, '--resume']);
  expect([last.code, last.stderr]).toEqual([0, expect.stringContaining(from > 0 ? `from step ${from}\n` : '')]);
  for (const file of ['events.jsonl', 'model.safetensors']) expect(readFileSync(join(broken, file)).equals(readFileSync(join(whole, file)))).toBe(true);
  const checkpointOf = (out: string) => findRun(out)!.checkpoint;
  expect(checkpointOf(broken)).toEqual(checkpointOf(whole));
  console.log(`${name}: killed ${kills} times (FORKSTEP_KILL_SEED=${seed}), resumed at steps ${[...starts].join(', ')}`);
});
