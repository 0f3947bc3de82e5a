/** GPU time of single dispatches: by timestamps around each, or by the clock around replays of each. */
import type { Device } from '../gpu/device.ts';
import { mostTimedPasses, PassTimes } from '../gpu/timestamps.ts';
import { record, type Dispatch } from './plan.ts';

/**
 *   timestamps  each dispatch in a pass of its own, with timestamp queries at both ends, all in one submit: every dispatch runs once a
 *               sample, in order, on the data it has in the plan
 *   serial      each dispatch replayed as often as it takes to see it, submitted and waited for; less the time of an empty submit
 */
export const timingMethods = ['timestamps', 'serial'] as const;
export type TimingMethod = (typeof timingMethods)[number];

export interface TimingOptions {
  readonly method: TimingMethod;
  /** Times of each dispatch, after one that does not count. ≥ 1 */
  readonly samples: number;
  /** Puts back what running a dispatch more than once would spoil: called before each sample, and before each replayed dispatch. */
  readonly prepare?: () => void;
}

export const median = (values: readonly number[]): number => {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
};

/** A replayed dispatch lasts so long, unless that takes more than `mostReplays`: what it leaves in place must stay finite. */
const leastMs = 4;
const mostReplays = 64;

/** Wall time of dispatches in one pass and one submit, until they have run. */
async function clockMs(device: Device, dispatches: readonly Dispatch[], replays = 1): Promise<number> {
  const start = performance.now();
  const encoder = device.gpu.createCommandEncoder({ label: 'timing' });
  const pass = encoder.beginComputePass({ label: 'timing' });
  for (let i = 0; i < replays; i++) record(pass, dispatches);
  pass.end();
  device.gpu.queue.submit([encoder.finish()]);
  await device.idle();
  return performance.now() - start;
}

/** What a submit and the wait for it take by themselves. */
async function emptyMs(device: Device): Promise<number> {
  const taken: number[] = [];
  for (let i = 0; i < 15; i++) taken.push(await clockMs(device, []));
  return median(taken);
}

async function serially(device: Device, dispatches: readonly Dispatch[], { samples, prepare }: TimingOptions): Promise<number[][]> {
  const empty = await emptyMs(device);
  const taken = dispatches.map(() => [] as number[]);
  const replays: number[] = [];
  for (let sample = -1; sample < samples; sample++) {
    for (const [i, one] of dispatches.entries()) {
      prepare?.();
      if (sample < 0) {
        await clockMs(device, [one]);
        const once = Math.max(0, (await clockMs(device, [one])) - empty);
        replays.push(Math.min(mostReplays, Math.ceil(leastMs / Math.max(once, leastMs / mostReplays))));
      } else {
        taken[i].push(Math.max(0, (await clockMs(device, [one], replays[i])) - empty) / replays[i]);
      }
    }
  }
  return taken;
}

/** Each group of dispatches in a pass of its own: ms of every group in every sample. */
async function byTimestamps(device: Device, groups: readonly (readonly Dispatch[])[], { samples, prepare }: TimingOptions) {
  const cuts: (readonly (readonly Dispatch[])[])[] = [];
  for (let first = 0; first < groups.length; first += mostTimedPasses) cuts.push(groups.slice(first, first + mostTimedPasses));
  const timers = cuts.map((cut) => PassTimes.create(device, cut.length)!);
  const taken = groups.map(() => [] as number[]);
  try {
    for (let sample = -1; sample < samples; sample++) {
      prepare?.();
      for (const [c, cut] of cuts.entries()) {
        const encoder = device.gpu.createCommandEncoder({ label: 'timing' });
        for (const [i, group] of cut.entries()) {
          const pass = encoder.beginComputePass({ label: 'timing', timestampWrites: timers[c].writes(i) });
          record(pass, group);
          pass.end();
        }
        timers[c].resolve(encoder);
        device.gpu.queue.submit([encoder.finish()]);
        const ms = await timers[c].readMs();
        if (sample >= 0) ms.forEach((one, i) => taken[c * mostTimedPasses + i].push(one));
      }
    }
  } finally {
    for (const timer of timers) timer.release();
  }
  return taken;
}

/** Milliseconds of each dispatch in each sample. Timestamps need an adapter that has them. */
export function timeDispatches(device: Device, dispatches: readonly Dispatch[], options: TimingOptions): Promise<number[][]> {
  if (options.method === 'serial') return serially(device, dispatches, options);
  return byTimestamps(
    device,
    dispatches.map((one) => [one]),
    options,
  );
}

/** Milliseconds of all dispatches in one pass, in each sample. */
export async function timePass(device: Device, dispatches: readonly Dispatch[], options: TimingOptions): Promise<number[]> {
  if (options.method === 'timestamps') return (await byTimestamps(device, [dispatches], options))[0];
  const empty = await emptyMs(device);
  const taken: number[] = [];
  for (let sample = -1; sample < options.samples; sample++) {
    options.prepare?.();
    const ms = Math.max(0, (await clockMs(device, dispatches)) - empty);
    if (sample >= 0) taken.push(ms);
  }
  return taken;
}

/** Steps of timestamps that a browser coarsens them to, in ns. */
const coarseNs = 65_536;

/** How far timestamps and clock may be apart, either way, where something else may run on the machine too. */
const apart = 2;

/**
 * Timestamps where they mean something: where they tell of a dispatch that lasts some milliseconds what the clock tells.
 * @returns the method, and why
 */
export async function chooseTiming(device: Device, yardstick: Dispatch): Promise<{ method: TimingMethod; why: string }> {
  if (!device.gpu.features.has('timestamp-query')) return { method: 'serial', why: 'the adapter has no timestamp queries' };
  const [stamped] = await timeDispatches(device, [yardstick], { method: 'timestamps', samples: 5 });
  const [clocked] = await timeDispatches(device, [yardstick], { method: 'serial', samples: 5 });
  const [stamps, clock] = [median(stamped), median(clocked)];
  const told = `of ${yardstick.name}, ${stamps.toPrecision(3)} ms by timestamps and ${clock.toPrecision(3)} ms by the clock`;
  if (!(stamps * apart >= clock && clock * apart >= stamps)) return { method: 'serial', why: `timestamps disagree with the clock: ${told}` };
  const isCoarse = stamped.every((ms) => Math.round(ms * 1e6) % coarseNs === 0);
  if (isCoarse) return { method: 'serial', why: `timestamps come in steps of ${coarseNs / 1e3} µs` };
  return { method: 'timestamps', why: `they agree with the clock: ${told}` };
}
