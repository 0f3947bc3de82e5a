/** What an adapter can do at most, measured: the yardsticks of a profile. */
import type { Device } from '../gpu/device.ts';
import { grid1d } from '../kernels/contract.ts';
import { copyPeak, fmaPeak, fmaPeakFlops } from '../kernels/peak.ts';
import { emit } from './lower/context.ts';
import { Memory } from './memory.ts';
import { buildPlan, draft } from './plan.ts';
import { chooseTiming, timeDispatches, type TimingMethod } from './timing.ts';

export interface Peaks {
  /** How dispatches are timed on this adapter, and why so. */
  readonly method: TimingMethod;
  readonly why: string;
  /** Multiply-adds in registers, 10⁹ operations a second, two each. */
  readonly gflopsPerSecond: number;
  /** Read and written by a copy of `copyBytes`, 10⁹ bytes a second. */
  readonly gigabytesPerSecond: number;
}

/** Work that lasts milliseconds: threads and rounds of multiply-adds, and bytes that no cache holds. */
const sizesOf = ({ adapter, limits }: Device) => ({
  threads: adapter.isSoftware ? 2 ** 13 : 2 ** 19,
  rounds: adapter.isSoftware ? 64 : 512,
  copyBytes: Math.min(limits.maxStorageBufferBindingSize, limits.maxBufferSize, adapter.isSoftware ? 2 ** 26 : 2 ** 28),
});

const samples = 9;

/**
 * Measures the adapter by `fmaPeak` and `copyPeak`, the best of 9 times each.
 * @param wanted the method; @default timestamps where they mean something
 */
export async function measurePeaks(device: Device, wanted?: TimingMethod): Promise<Peaks> {
  const { threads, rounds, copyBytes } = sizesOf(device);
  const memory = new Memory(device);
  try {
    const [x, y] = ['x', 'y'].map((name) => memory.storage('slots', `peak ${name}`, copyBytes));
    const n = Math.floor(copyBytes / 16);
    const launches = [
      emit(fmaPeak, { bindings: { y }, uniforms: { rounds, a: 0.999, b: 0.001 }, grid: grid1d(threads, 64), flops: threads * rounds * fmaPeakFlops }),
      emit(copyPeak, { bindings: { x, y }, uniforms: { n }, grid: grid1d(n, 128) }),
    ];
    const { steps } = await buildPlan(memory, draft(memory, 'peaks', [], launches), { slots: [], places: [] });
    const { method, why } = wanted ? { method: wanted, why: 'it was asked for' } : await chooseTiming(device, steps[0]);
    const [fma, copy] = (await timeDispatches(device, steps, { method, samples })).map((taken) => Math.min(...taken));
    return { method, why, gflopsPerSecond: steps[0].flops / fma / 1e6, gigabytesPerSecond: steps[1].bytes / copy / 1e6 };
  } finally {
    memory.release();
  }
}
