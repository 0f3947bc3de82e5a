/** GPU memory with an owner and a ledger: every buffer is counted under one category, and all of them are freed together. */
import type { Device } from '../gpu/device.ts';
import type { Storage } from './tensor.ts';

export const memoryCategories = ['parameters', 'gradients', 'optimizer', 'statistics', 'slots', 'data', 'trials', 'schedule'] as const;
export type MemoryCategory = (typeof memoryCategories)[number];
/** Bytes by category, and their sum. */
export type MemoryReport = Record<MemoryCategory | 'total', number>;

export class Memory {
  readonly #buffers = new Map<GPUBuffer, { category: MemoryCategory; size: number }>();
  /** Constants uploaded so far, by their values and the width of their rows. */
  readonly #constants = new Map<Float32Array | Uint32Array, Map<number, Storage>>();

  constructor(readonly device: Device) {}

  /** A storage buffer that can be written from the host and copied. */
  create(category: MemoryCategory, label: string, sizeBytes: number, usage = 0): GPUBuffer {
    const all = usage || GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_DST | GPUBufferUsage.COPY_SRC;
    const buffer = this.device.createBuffer(label, sizeBytes, all);
    this.#buffers.set(buffer, { category, size: buffer.size });
    return buffer;
  }

  storage(category: MemoryCategory, label: string, sizeBytes: number): Storage {
    const buffer = this.create(category, label, sizeBytes);
    return { buffer, offset: 0, size: buffer.size };
  }

  /** Where a constant lies, which all drafts that read the same values share; `upload` puts it there at first. */
  constant(data: Float32Array | Uint32Array, width: number, upload: () => Storage): Storage {
    const byWidth = this.#constants.get(data) ?? new Map<number, Storage>();
    const storage = byWidth.get(width) ?? upload();
    this.#constants.set(data, byWidth.set(width, storage));
    return storage;
  }

  /** Is the buffer one of this memory's? */
  owns(buffer: GPUBuffer): boolean {
    return this.#buffers.has(buffer);
  }

  /** Counts `bytes` of the slots as brought about by the trials. */
  report(trialSlotBytes = 0): MemoryReport {
    const report = Object.fromEntries([...memoryCategories, 'total'].map((name) => [name, 0])) as MemoryReport;
    for (const { category, size } of this.#buffers.values()) {
      report[category] += size;
      report.total += size;
    }
    report.slots -= trialSlotBytes;
    report.trials += trialSlotBytes;
    return report;
  }

  release(): void {
    for (const buffer of this.#buffers.keys()) this.device.destroyBuffer(buffer);
    this.#buffers.clear();
    this.#constants.clear();
  }
}

/** Offsets at which every adapter lets a binding begin. */
export const bindingAlignment = 256;
export const align = (size: number): number => Math.ceil(size / bindingAlignment) * bindingAlignment;

/** Many tensors in few buffers: as many as fit one binding go into one buffer, so that one launch can run over all of them, or over some in a row. */
export class Arena {
  readonly segments: Storage[] = [];
  readonly #places: Storage[] = [];

  constructor(memory: Memory, category: MemoryCategory, label: string, sizes: readonly number[], order: readonly number[] = [...sizes.keys()]) {
    const most = Math.min(memory.device.limits.maxStorageBufferBindingSize, memory.device.limits.maxBufferSize);
    const cut: number[][] = [[]];
    let used = 0;
    for (const index of order) {
      const size = sizes[index];
      if (used > 0 && used + align(size) > most) {
        cut.push([]);
        used = 0;
      }
      cut[cut.length - 1].push(index);
      used += align(size);
    }
    for (const [segment, indices] of cut.entries()) {
      const size = indices.reduce((sum, index) => sum + align(sizes[index]), 0);
      const storage = memory.storage(category, `${label} ${segment}`, size);
      this.segments.push(storage);
      let offset = 0;
      for (const index of indices) {
        this.#places[index] = { buffer: storage.buffer, offset, size: sizes[index] };
        offset += align(sizes[index]);
      }
    }
  }

  /** Where item `index` lies. */
  at(index: number): Storage {
    return this.#places[index];
  }

  /** The memory of some items, with the gaps between them, in as few pieces as there can be. */
  runs(indices: readonly number[]): Storage[] {
    const places = indices.map((index) => this.at(index)).sort((a, b) => a.offset - b.offset);
    return this.segments.flatMap(({ buffer }) =>
      places
        .filter((place) => place.buffer === buffer)
        .reduce<Storage[]>((runs, { offset, size }) => {
          const last = runs[runs.length - 1];
          if (last && align(last.offset + last.size) === offset)
            return [...runs.slice(0, -1), { ...last, size: offset + size - last.offset }];
          return [...runs, { buffer, offset, size }];
        }, []),
    );
  }
}
