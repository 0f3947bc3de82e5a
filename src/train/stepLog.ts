/** Losses and divergence flags of the last steps, kept on the GPU and read many at a time. */
import { flagNonFiniteDirection, flagNonFiniteLoss, flagNonFiniteStatistics, flagNonFiniteWeight, logStep } from '../kernels/sgd.ts';
import { controlWords, type Control } from '../graph/control.ts';
import { emit, type Ref } from '../graph/lower/context.ts';
import type { Memory } from '../graph/memory.ts';
import type { Storage } from '../graph/tensor.ts';
import type { Launch } from '../kernels/contract.ts';

export interface LoggedStep {
  readonly step: number;
  readonly loss: number;
  readonly lr: number;
}

export interface Divergence {
  /** The update that was not made; the weights are those before it. */
  readonly step: number;
  readonly reason: string;
}

const reasons: readonly [number, string][] = [
  [flagNonFiniteStatistics, 'a batch statistic is not finite'],
  [flagNonFiniteLoss, 'the loss is not finite'],
  [flagNonFiniteDirection, 'a gradient is not finite'],
  [flagNonFiniteWeight, 'the step would make a weight not finite'],
];

export const logCapacity = 256;

export class StepLog {
  readonly #log: Storage;
  readonly #staging: GPUBuffer;
  #waiting: { step: number; lr: number }[] = [];
  #reading: Promise<void> = Promise.resolve();

  constructor(
    readonly memory: Memory,
    readonly loss: Storage,
    readonly flags: Storage,
  ) {
    this.#log = memory.storage('slots', 'step log', logCapacity * 8);
    this.#staging = memory.create('slots', 'step log staging', logCapacity * 8, GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST);
  }

  /** Writes this step's loss and flags at the control's slot. Last launch of a step. */
  launch(control: Control): Launch<Ref> {
    return emit(logStep, {
      bindings: { loss: this.loss, flags: this.flags, control: control.storage, log: this.#log },
      uniforms: { slot_word: controlWords.slot },
      grid: [1, 1, 1],
    });
  }

  get isFull(): boolean {
    return this.#waiting.length === logCapacity;
  }

  /** Notes a step that is about to be submitted; returns its slot. */
  note(step: number, lr: number): number {
    this.#waiting.push({ step, lr });
    return this.#waiting.length - 1;
  }

  /** Everything logged since the last call, in order, up to the first step that diverged. */
  async read(): Promise<{ steps: LoggedStep[]; divergence: Divergence | null }> {
    const before = this.#reading;
    let release = () => {};
    this.#reading = new Promise((resolve) => (release = resolve));
    await before;
    try {
      const waiting = this.#waiting;
      this.#waiting = [];
      if (waiting.length === 0) return { steps: [], divergence: null };
      const { device } = this.memory;
      const encoder = device.gpu.createCommandEncoder({ label: 'step log' });
      encoder.copyBufferToBuffer(this.#log.buffer, 0, this.#staging, 0, waiting.length * 8);
      device.gpu.queue.submit([encoder.finish()]);
      return decode(waiting, new Float32Array(await device.readStaging(this.#staging)));
    } finally {
      release();
    }
  }
}

function decode(
  waiting: readonly { step: number; lr: number }[],
  values: Float32Array,
): { steps: LoggedStep[]; divergence: Divergence | null } {
  const steps: LoggedStep[] = [];
  for (const [slot, { step, lr }] of waiting.entries()) {
    const [loss, flags] = [values[2 * slot], values[2 * slot + 1]];
    if (flags !== 0) {
      const reason = reasons.filter(([bit]) => (flags & bit) !== 0).map(([, text]) => text);
      return { steps, divergence: { step, reason: `${reason.join('; ')} (loss ${loss}, learning rate ${lr})` } };
    }
    steps.push({ step, loss, lr });
  }
  return { steps, divergence: null };
}
