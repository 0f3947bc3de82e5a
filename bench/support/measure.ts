/**
 * Time of a piece of work: wall time, and the CPU time (user + system, all threads) of this process. A software adapter computes inside the
 * process, so there CPU time is the cost and holds on a busy machine too; wall time needs an idle one. Cases are measured in turn, so that
 * whatever else the machine does falls on all of them alike.
 */
import { loadavg } from 'node:os';

export interface Sample {
  readonly wallMs: number;
  readonly cpuMs: number;
  /** Where timestamps were taken. */
  readonly gpuMs?: number;
}

export interface Spread {
  readonly median: number;
  /** Distance of the quartiles. */
  readonly iqr: number;
  readonly min: number;
}

export interface Timing {
  readonly wallMs: Spread;
  readonly cpuMs: Spread;
  readonly samples: number;
}

export function cpuMs(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
}

/** The work's time divided by `repeats`, which the work is to do by itself. */
export async function sample(work: () => Promise<void>, repeats = 1): Promise<Sample> {
  const wallBefore = performance.now();
  const cpuBefore = cpuMs();
  await work();
  return { wallMs: (performance.now() - wallBefore) / repeats, cpuMs: (cpuMs() - cpuBefore) / repeats };
}

function quantile(sorted: readonly number[], q: number): number {
  const at = (sorted.length - 1) * q;
  const below = Math.floor(at);
  return sorted[below] + (sorted[Math.min(below + 1, sorted.length - 1)] - sorted[below]) * (at - below);
}

const round = (value: number): number => Number(value.toPrecision(4));

export function spread(values: readonly number[]): Spread {
  const sorted = [...values].sort((a, b) => a - b);
  return { median: round(quantile(sorted, 0.5)), iqr: round(quantile(sorted, 0.75) - quantile(sorted, 0.25)), min: round(sorted[0]) };
}

export const timing = (samples: readonly Sample[]): Timing => ({
  wallMs: spread(samples.map((one) => one.wallMs)),
  cpuMs: spread(samples.map((one) => one.cpuMs)),
  samples: samples.length,
});

/** Each case once a round, every round from another one on, after `warmup` rounds that do not count. */
export async function interleave<K extends string>(cases: Record<K, () => Promise<Sample>>, rounds: number, warmup = 1): Promise<Record<K, Sample[]>> {
  const names = Object.keys(cases) as K[];
  const samples = Object.fromEntries(names.map((name) => [name, [] as Sample[]])) as Record<K, Sample[]>;
  for (let round = -warmup; round < rounds; round++) {
    const first = (round + warmup) % names.length;
    for (const name of [...names.slice(first), ...names.slice(0, first)]) {
      const one = await cases[name]();
      if (round >= 0) samples[name].push(one);
    }
  }
  return samples;
}

/** The machine's load over the last minute: above 1 or so, other work was running, and wall times say little. */
export const load = (): number => round(loadavg()[0]);
