/** GPU time of a compute pass by timestamp queries, read back after the time of the host has been taken. */
import type { Device } from '../../src/gpu/device.ts';
import type { Plan } from '../../src/graph/plan.ts';
import { sample, type Sample } from './measure.ts';

const stampBytes = 8;

export class PassTimer {
  readonly #stamps: GPUQuerySet;
  readonly #resolved: GPUBuffer;
  readonly #staging: GPUBuffer;

  private constructor(readonly device: Device) {
    const size = 2 * stampBytes;
    this.#stamps = device.gpu.createQuerySet({ type: 'timestamp', count: 2 });
    this.#resolved = device.createBuffer('timestamps', size, GPUBufferUsage.QUERY_RESOLVE | GPUBufferUsage.COPY_SRC);
    this.#staging = device.createBuffer('timestamps read', size, GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST);
  }

  /** Null where the adapter has no timestamp queries. */
  static create(device: Device): PassTimer | null {
    return device.gpu.features.has('timestamp-query') ? new PassTimer(device) : null;
  }

  get writes(): GPUComputePassTimestampWrites {
    return { querySet: this.#stamps, beginningOfPassWriteIndex: 0, endOfPassWriteIndex: 1 };
  }

  resolve(encoder: GPUCommandEncoder): void {
    encoder.resolveQuerySet(this.#stamps, 0, 2, this.#resolved, 0);
    encoder.copyBufferToBuffer(this.#resolved, 0, this.#staging, 0, this.#staging.size);
  }

  /** Of the last pass. */
  async readMs(): Promise<number> {
    const [begin, end] = new BigUint64Array(await this.device.readStaging(this.#staging));
    return Number(end - begin) / 1e6;
  }
}

/** Plans in one pass and one submit, and the wait for them; GPU time where there is a timer. */
export async function samplePass(
  device: Device,
  plans: readonly Pick<Plan, 'encode'>[],
  timer: PassTimer | null,
  repeats = 1,
): Promise<Sample> {
  const one = await sample(async () => {
    const encoder = device.gpu.createCommandEncoder({ label: 'bench' });
    const pass = encoder.beginComputePass({ label: 'bench', timestampWrites: timer?.writes });
    for (let i = 0; i < repeats; i++) for (const plan of plans) plan.encode(pass);
    pass.end();
    timer?.resolve(encoder);
    device.gpu.queue.submit([encoder.finish()]);
    await device.idle();
  }, repeats);
  return timer ? { ...one, gpuMs: (await timer.readMs()) / repeats } : one;
}
