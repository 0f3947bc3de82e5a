/** How long a plan takes, by the clocks that say something on an adapter. */
import { cpuTimeMs } from '#gpu-host';
import type { Device } from '../../gpu/device.ts';
import { PassTimes } from '../../gpu/timestamps.ts';
import type { Plan } from '../plan.ts';

/** Milliseconds of one of `repeats` runs of a plan in one pass, by each clock. */
export type Sampler = (plan: Plan, repeats: number) => Promise<readonly number[]>;

export interface Meter {
  /** Names of the clocks, in the order of a sample's times. */
  readonly clocks: readonly string[];
  readonly sample: Sampler;
  /** A sample must last so long for its clocks to be exact enough: browsers round timestamps to 0.1 ms. */
  readonly leastMs: number;
  release(): void;
}

/**
 * GPU time by timestamps; without them wall time. A software adapter computes in this process: there wall time is what one waits for, and
 * processor time is what holds on a busy machine, so that both are taken.
 */
export function meterOf(device: Device): Meter {
  const { isSoftware } = device.adapter;
  const timer = isSoftware ? null : PassTimes.create(device);
  const hasCpuTime = isSoftware && cpuTimeMs() !== null;
  const sample: Sampler = async (plan, repeats) => {
    const [wallBefore, cpuBefore] = [performance.now(), cpuTimeMs()];
    const encoder = device.gpu.createCommandEncoder({ label: 'tune' });
    const pass = encoder.beginComputePass({ label: 'tune', timestampWrites: timer?.writes() });
    for (let i = 0; i < repeats; i++) plan.encode(pass);
    pass.end();
    timer?.resolve(encoder);
    device.gpu.queue.submit([encoder.finish()]);
    if (timer) return (await timer.readMs()).map((ms) => ms / repeats);
    await device.idle();
    const times = [performance.now() - wallBefore, ...(hasCpuTime ? [cpuTimeMs()! - cpuBefore!] : [])];
    return times.map((ms) => ms / repeats);
  };
  const clocks = timer ? ['gpu'] : ['wall', ...(hasCpuTime ? ['cpu'] : [])];
  return { clocks, sample, leastMs: isSoftware ? 10 : 8, release: () => timer?.release() };
}
