/** Losses, rates and divergence flags of the last steps, kept on the GPU and read many at a time, together with the events between them. */
import {
  flagNonFiniteDirection,
  flagNonFiniteLoss,
  flagNonFiniteStatistics,
  flagNonFiniteWeight,
  flagSkipped,
  logScaledStep,
  logStep,
  logWords,
} from '../kernels/sgd.ts';
import { controlWords, type Control } from '../graph/control.ts';
import { emit, type Ref } from '../graph/lower/context.ts';
import type { Memory } from '../graph/memory.ts';
import type { Storage } from '../graph/tensor.ts';
import type { Launch } from '../kernels/contract.ts';
import type { TrialEvent } from '../sched/index.ts';
import { shortest } from './float32.ts';
import type { LossScaler } from './lossScaler.ts';
import type { TrialRule } from './trialRule.ts';

export interface LoggedStep {
  readonly step: number;
  readonly loss: number;
  readonly lr: number;
  /** In mixed precision, what the loss was multiplied by for its gradients. */
  readonly lossScale?: number;
  /** In mixed precision, whether gradients overflowed, so that nothing was made of the step and the loss scale went down. */
  readonly skipped?: boolean;
  /** With a rule such as `slsArmijo`, what it saw and made; none of a step that was skipped. */
  readonly rule?: RuleLine;
}

/** What a rule measured in a step, and its numbers after it. */
export interface RuleLine {
  /** Those that it asks for: `gradientSquared` ‖g‖², `slope` g·d, … */
  readonly facts: Readonly<Record<string, number>>;
  readonly words: Readonly<Record<string, number>>;
  /** Of its trials, the last one at the weights; NaN and infinities as they came. */
  readonly losses?: readonly number[];
}

/** A log of a rule beside that of the steps, line by line of the same steps. */
export interface RuleLog {
  take(encoder: GPUCommandEncoder, steps: number): () => Promise<(RuleLine | null)[]>;
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

/** What was logged between two reads, in order, up to the first step that diverged: the rule of later ones does not run. */
export interface LoggedRun {
  readonly steps: LoggedStep[];
  readonly events: TrialEvent[];
  readonly divergence: Divergence | null;
}

/** A step that was submitted; its rate is null where the GPU alone knows it. */
interface NotedStep {
  readonly step: number;
  readonly lr: number | null;
}

export class StepLog {
  readonly #log: Storage;
  readonly #staging: GPUBuffer;
  /** Of the trainer's events, where their rule runs on the GPU. */
  rule: TrialRule | null = null;
  /** Of a rule that sets every step's rate. */
  lines: RuleLog | null = null;
  #waiting: NotedStep[] = [];
  /** The read in progress: there is one staging buffer. */
  #reading: Promise<void> | null = null;

  constructor(
    readonly memory: Memory,
    readonly loss: Storage,
    readonly flags: Storage,
    readonly rates: Storage,
    readonly scaler: LossScaler | null = null,
  ) {
    const sizeBytes = logCapacity * logWords * 4;
    this.#log = memory.storage('slots', 'step log', sizeBytes);
    this.#staging = memory.create('slots', 'step log staging', sizeBytes, GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST);
  }

  /** Writes this step's loss, flags and rate at the control's slot, and moves the loss scale where there is one. Last launch of a step. */
  launch(control: Control): Launch<Ref> {
    const { scaler } = this;
    const bindings = { loss: this.loss, flags: this.flags, rates: this.rates, control: control.storage, log: this.#log };
    const uniforms = { slot_word: controlWords.slot };
    if (!scaler) return emit(logStep, { bindings, uniforms, grid: [1, 1, 1] });
    return emit(logScaledStep, {
      bindings: { ...bindings, scale: scaler.scale, state: scaler.state },
      uniforms: { ...uniforms, growth_interval: scaler.growthInterval },
      grid: [1, 1, 1],
    });
  }

  get isFull(): boolean {
    return this.#waiting.length === logCapacity || this.rule?.isFull === true;
  }

  /** Notes a step that is about to be submitted, and its rate unless the GPU makes it; returns its slot. */
  note(step: number, lr: number | null): number {
    this.#waiting.push({ step, lr });
    return this.#waiting.length - 1;
  }

  /**
   * Everything logged since the last call. What is noted until it returns its promise is in it, and steps noted later do not touch it: the
   * copy is submitted at once, unless another read is in progress.
   */
  async read(): Promise<LoggedRun> {
    while (this.#reading) await this.#reading;
    let release = () => {};
    this.#reading = new Promise((resolve) => (release = resolve));
    try {
      const waiting = this.#waiting;
      this.#waiting = [];
      if (waiting.length === 0) return { steps: [], events: [], divergence: null };
      const { device } = this.memory;
      const encoder = device.gpu.createCommandEncoder({ label: 'step log' });
      const sizeBytes = waiting.length * logWords * 4;
      encoder.copyBufferToBuffer(this.#log.buffer, 0, this.#staging, 0, sizeBytes);
      const readEvents = this.rule?.take(encoder);
      const readLines = this.lines?.take(encoder, waiting.length);
      device.gpu.queue.submit([encoder.finish()]);
      const values = new Float32Array(await device.readStaging(this.#staging, sizeBytes));
      const { steps, divergence } = decode(waiting, values, (await readLines?.()) ?? []);
      return { steps, events: (await readEvents?.()) ?? [], divergence };
    } finally {
      this.#reading = null;
      release();
    }
  }
}

function decode(waiting: readonly NotedStep[], values: Float32Array, lines: readonly (RuleLine | null)[]): Omit<LoggedRun, 'events'> {
  const steps: LoggedStep[] = [];
  for (const [slot, { step, lr: noted }] of waiting.entries()) {
    const [loss, flags, rate, lossScale] = values.subarray(slot * logWords);
    const lr = noted ?? shortest(rate);
    const scaling = lossScale > 0 ? { lossScale, skipped: flags === flagSkipped } : {};
    if (flags !== 0 && !scaling.skipped) {
      const reason = reasons.filter(([bit]) => (flags & bit) !== 0).map(([, text]) => text);
      const at = `loss ${loss}, learning rate ${lr}${lossScale > 0 ? `, loss scale ${lossScale}` : ''}`;
      return { steps, divergence: { step, reason: `${reason.join('; ')} (${at})` } };
    }
    const rule = lines[slot];
    steps.push({ step, loss, lr, ...scaling, ...(rule && { rule }) });
  }
  return { steps, divergence: null };
}
