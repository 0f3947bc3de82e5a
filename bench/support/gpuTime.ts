/** Plans timed by the host and, where there are timestamps, by the GPU. */
import type { Device } from '../../src/gpu/device.ts';
import type { PassTimes } from '../../src/gpu/timestamps.ts';
import type { Plan } from '../../src/graph/plan.ts';
import { sample, type Sample } from './measure.ts';

/** Plans in one pass and one submit, and the wait for them; GPU time where there is a timer. */
export async function samplePass(
  device: Device,
  plans: readonly Pick<Plan, 'encode'>[],
  timer: PassTimes | null,
  repeats = 1,
): Promise<Sample> {
  const one = await sample(async () => {
    const encoder = device.gpu.createCommandEncoder({ label: 'bench' });
    const pass = encoder.beginComputePass({ label: 'bench', timestampWrites: timer?.writes() });
    for (let i = 0; i < repeats; i++) for (const plan of plans) plan.encode(pass);
    pass.end();
    timer?.resolve(encoder);
    device.gpu.queue.submit([encoder.finish()]);
    await device.idle();
  }, repeats);
  return timer ? { ...one, gpuMs: (await timer.readMs())[0] / repeats } : one;
}
