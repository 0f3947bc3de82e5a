/** Losses and divergence flags of several models' last steps, kept on the GPU and read many steps at a time. */
import { controlWords, type Control } from '../graph/control.ts';
import { emit, type Ref } from '../graph/lower/context.ts';
import type { Memory } from '../graph/memory.ts';
import type { Storage } from '../graph/tensor.ts';
import type { Launch } from '../kernels/contract.ts';
import { logWords } from '../kernels/sgd.ts';
import { logStepStacked } from '../kernels/sgdStacked.ts';

/** Steps that are logged between two reads. */
const capacity = 64;

/** One model in one step. */
export interface StackedStep {
  readonly loss: number;
  /** Divergence bits, in this step or before it. */
  readonly flags: number;
}

export interface StackedGroup {
  /** Number of the group's first model, and how many it has. */
  readonly first: number;
  readonly models: number;
  /** A vec4 a model. */
  readonly loss: Storage;
}

export class StackedLog {
  readonly #log: Storage;
  readonly #staging: GPUBuffer;
  #waiting = 0;

  constructor(
    readonly memory: Memory,
    readonly models: number,
    readonly flags: Storage,
    readonly settings: Storage,
  ) {
    const sizeBytes = capacity * models * logWords * 4;
    this.#log = memory.storage('slots', 'step log', sizeBytes);
    this.#staging = memory.create('slots', 'step log staging', sizeBytes, GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST);
  }

  /** Writes a group's line of the step. */
  launch({ first, models, loss }: StackedGroup, control: Control): Launch<Ref> {
    return emit(logStepStacked, {
      bindings: { loss, flags: this.flags, settings: this.settings, control: control.storage, log: this.#log },
      uniforms: { n: models, first_model: first, models: this.models, slot_word: controlWords.slot },
      grid: [1, 1, 1],
    });
  }

  get isFull(): boolean {
    return this.#waiting === capacity;
  }

  /** Notes a step that is about to be submitted; returns its slot. */
  note(): number {
    return this.#waiting++;
  }

  /** The steps since the last call, of each all models. Waits for the GPU; no step may be submitted meanwhile. */
  async read(): Promise<StackedStep[][]> {
    const steps = this.#waiting;
    this.#waiting = 0;
    if (steps === 0) return [];
    const { device } = this.memory;
    const sizeBytes = steps * this.models * logWords * 4;
    const encoder = device.gpu.createCommandEncoder({ label: 'step log' });
    encoder.copyBufferToBuffer(this.#log.buffer, 0, this.#staging, 0, sizeBytes);
    device.gpu.queue.submit([encoder.finish()]);
    const values = new Float32Array(await device.readStaging(this.#staging, sizeBytes));
    const at = (step: number, model: number): StackedStep => {
      const [loss, flags] = values.subarray((step * this.models + model) * logWords);
      return { loss, flags };
    };
    return Array.from({ length: steps }, (_, step) => Array.from({ length: this.models }, (_, model) => at(step, model)));
  }
}
