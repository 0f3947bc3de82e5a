/** GPU time of compute passes by timestamp queries, read back after the host has taken its own time. */
import type { Device } from './device.ts';

const stampBytes = 8;

/** Passes that one `PassTimes` can hold: WebGPU allows 4096 queries a set. */
export const mostTimedPasses = 2048;

export class PassTimes {
  readonly #stamps: GPUQuerySet;
  readonly #resolved: GPUBuffer;
  readonly #staging: GPUBuffer;

  private constructor(
    readonly device: Device,
    readonly passes: number,
  ) {
    const sizeBytes = 2 * passes * stampBytes;
    this.#stamps = device.gpu.createQuerySet({ label: 'timestamps', type: 'timestamp', count: 2 * passes });
    this.#resolved = device.createBuffer('timestamps', sizeBytes, GPUBufferUsage.QUERY_RESOLVE | GPUBufferUsage.COPY_SRC);
    this.#staging = device.createBuffer('timestamps read', sizeBytes, GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST);
  }

  /**
   * Null where the adapter has no timestamp queries.
   * @param passes of one submit, 1 … 2048, @default 1
   */
  static create(device: Device, passes = 1): PassTimes | null {
    return device.gpu.features.has('timestamp-query') ? new PassTimes(device, passes) : null;
  }

  /** For the descriptor of pass `index`. */
  writes(index = 0): GPUComputePassTimestampWrites {
    return { querySet: this.#stamps, beginningOfPassWriteIndex: 2 * index, endOfPassWriteIndex: 2 * index + 1 };
  }

  /** Ends the commands of the passes that `writes` was asked for. */
  resolve(encoder: GPUCommandEncoder): void {
    encoder.resolveQuerySet(this.#stamps, 0, 2 * this.passes, this.#resolved, 0);
    encoder.copyBufferToBuffer(this.#resolved, 0, this.#staging, 0, this.#staging.size);
  }

  /** Of the passes submitted last. */
  async readMs(): Promise<number[]> {
    const stamps = new BigUint64Array(await this.device.readStaging(this.#staging, 2 * this.passes * stampBytes));
    return Array.from({ length: this.passes }, (_, i) => Number(stamps[2 * i + 1] - stamps[2 * i]) / 1e6);
  }

  release(): void {
    this.#stamps.destroy();
    this.device.destroyBuffer(this.#resolved);
    this.device.destroyBuffer(this.#staging);
  }
}
