/** GPU time of a compute pass by timestamp queries, read back after the time of the host has been taken. */
import type { Device } from './device.ts';

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

  release(): void {
    this.#stamps.destroy();
    for (const buffer of [this.#resolved, this.#staging]) this.device.destroyBuffer(buffer);
  }
}
