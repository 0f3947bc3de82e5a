/** The training loop over a data set: steps, scheduling events, evaluation. */
import { EpochSampler } from '../data/batches.ts';
import type { ImageDataset } from '../data/dataset.ts';
import { AttrError } from '../gpu/errors.ts';
import { defaultDevice, type Device } from '../gpu/device.ts';
import { Control } from '../graph/control.ts';
import { Memory, type MemoryReport } from '../graph/memory.ts';
import type { Plan } from '../graph/plan.ts';
import { inferenceContext, type Module } from '../nn/module.ts';
import type { SgdOptions } from '../optim/sgd.ts';
import { TrialScheduler, type Schedule, type TrialEvent } from '../sched/index.ts';
import { evaluationOrder, ImageFeed } from './feed.ts';
import { logCapacity, type Divergence, type LoggedStep } from './stepLog.ts';
import { StepPlans } from './stepPlans.ts';

export interface TrainerOptions {
  readonly model: Module;
  readonly dataset: ImageDataset;
  /** Sets the learning rate: `new TrialScheduler(robust())`, `new ConstantSchedule({ lr })`, … */
  readonly schedule: Schedule;
  /** @default the shared device */
  readonly device?: Device;
  /** Images a step. @default 32 */
  readonly batchSize?: number;
  /** Passes over the training images; a batch that would be smaller than the others is left out. @default 1 */
  readonly epochs?: number;
  /** Ends the run sooner. @default none */
  readonly maxSteps?: number;
  readonly optimizer?: SgdOptions;
  /** @default 0 */
  readonly labelSmoothing?: number;
  /** 'crop-flip': a random crop of the image with a black border of 4 pixels, and a flip half of the time. @default 'none' */
  readonly augment?: 'none' | 'crop-flip';
  /** A new order every epoch. @default true */
  readonly shuffle?: boolean;
  /** Of order and augmentation, a u32. @default 0 */
  readonly seed?: number;
  /** Called while kernels compile. */
  readonly onCompile?: (done: number, total: number) => void;
}

const optionNames: Record<keyof TrainerOptions, true> = {
  model: true,
  dataset: true,
  schedule: true,
  device: true,
  batchSize: true,
  epochs: true,
  maxSteps: true,
  optimizer: true,
  labelSmoothing: true,
  augment: true,
  shuffle: true,
  seed: true,
  onCompile: true,
};

export interface Evaluation {
  readonly step: number;
  readonly testLoss: number;
  /** 0…1 */
  readonly testAccuracy: number;
}

export interface RunCallbacks {
  /** Losses of the steps since the last call, at most every `logEvery` steps. */
  readonly onSteps?: (steps: readonly LoggedStep[]) => void;
  readonly onEvent?: (event: TrialEvent) => void;
  readonly onEvaluation?: (evaluation: Evaluation) => void;
  /** Steps between reads of the losses. 1 … 256, @default 10 */
  readonly logEvery?: number;
  /** Evaluate after every epoch and at the end. @default true */
  readonly evaluate?: boolean;
  /** Ends the run after the step in progress. */
  readonly signal?: AbortSignal;
}

export interface RunResult {
  readonly steps: number;
  readonly divergence: Divergence | null;
  /** True when the signal ended the run. */
  readonly aborted: boolean;
  /** The last evaluation, if there was one. */
  readonly evaluation: Evaluation | null;
}

/** Steps the host may be ahead of the GPU. */
const stepsAhead = 2;

export class Trainer {
  readonly totalSteps: number;
  readonly stepsPerEpoch: number;
  readonly batchSize: number;
  #step = 0;
  #updates = 0;
  #epoch = -1;
  #divergence: Divergence | null = null;
  readonly #pending: Promise<void>[] = [];
  /** Read from the GPU, not yet asked for. */
  readonly #logged: LoggedStep[] = [];

  private constructor(
    readonly device: Device,
    readonly options: TrainerOptions,
    readonly plans: StepPlans,
    readonly sampler: EpochSampler,
    readonly train: ImageFeed,
    readonly test: ImageFeed,
    private readonly scoreStaging: GPUBuffer | null,
  ) {
    this.batchSize = sampler.batchSize;
    this.stepsPerEpoch = sampler.stepsPerEpoch;
    this.totalSteps = Math.min((options.epochs ?? 1) * this.stepsPerEpoch, options.maxSteps ?? Infinity);
  }

  /**
   * Uploads the data, compiles the kernels and makes every buffer and bind group that the run needs.
   * @throws AttrError for options out of range, DeviceError without an adapter
   */
  static async create(options: TrainerOptions): Promise<Trainer> {
    const { dataset, batchSize = 32, epochs = 1, maxSteps, shuffle = true, seed = 0, augment = 'none', schedule, model } = options;
    const unknown = Object.keys(options).find((name) => !Object.hasOwn(optionNames, name));
    if (unknown !== undefined) {
      const fix = `options are ${Object.keys(optionNames).join(', ')}`;
      throw new AttrError({ op: 'Trainer', arg: unknown, rule: 'must be an option', got: unknown, fix });
    }
    if (typeof shuffle !== 'boolean')
      throw new AttrError({ op: 'Trainer', arg: 'shuffle', rule: 'must be true or false', got: shuffle, fix: 'leave it out for true' });
    for (const [arg, value] of Object.entries({ epochs, maxSteps: maxSteps ?? 1, batchSize })) {
      if (!Number.isInteger(value) || value < 1)
        throw new AttrError({ op: 'Trainer', arg, rule: 'must be an integer ≥ 1', got: value, fix: 'pass 1 or more' });
    }
    if (augment !== 'none' && augment !== 'crop-flip')
      throw new AttrError({ op: 'Trainer', arg: 'augment', rule: "must be 'none' or 'crop-flip'", got: augment, fix: 'pick one' });
    const device = options.device ?? (await defaultDevice());
    const memory = new Memory(device);
    try {
      const control = new Control(memory);
      control.write({ seed });
      const sampler = new EpochSampler({ count: dataset.train.count, batchSize, shuffle, seed });
      const { mean, std } = dataset;
      const scheduler = schedule instanceof TrialScheduler ? schedule : null;
      const scoreBatch = scheduler?.options.scoreBatch ?? batchSize;
      if (scoreBatch > dataset.train.count)
        throw new AttrError({
          op: 'Trainer',
          arg: 'scoreBatch',
          rule: `must be ≤ ${dataset.train.count} (the training images)`,
          got: scoreBatch,
          fix: 'score on fewer images',
        });
      // Held-out images follow the batch in the order, which goes round at its end.
      const train = new ImageFeed(memory, dataset.train, control, { mean, std, capacity: dataset.train.count + batchSize + scoreBatch });
      const test = new ImageFeed(memory, dataset.test, control, {
        mean,
        std,
        capacity: Math.ceil(dataset.test.count / batchSize) * batchSize,
      });
      const isAugmented = augment === 'crop-flip';
      const batch = train.batch(batchSize, 'cursor', 'counter', isAugmented);
      const logits = model.forward(batch.x, inferenceContext());
      const classes = Math.max(dataset.train.classes.length, dataset.test.classes.length);
      if (logits.shape.length !== 2 || logits.shape[1] < classes)
        throw new AttrError({
          op: 'Trainer',
          arg: 'model',
          rule: `must make logits [N, ≥ ${classes}] for ${dataset.name}`,
          got: String(logits),
          fix: 'build it with as many classes as the data set has',
        });
      const plans = await StepPlans.create(memory, control, {
        model,
        batch,
        optimizer: options.optimizer,
        labelSmoothing: options.labelSmoothing,
        evaluation: test.batch(batchSize, 'cursor', 'counter', false),
        trials: scheduler
          ? {
              count: trialCoefficients(scheduler).length,
              direction: scheduler.options.direction,
              batch: train.batch(scoreBatch, 'scoreCursor', 'scoreCounter', isAugmented),
            }
          : undefined,
        onProgress: options.onCompile,
      });
      const staging = plans.event
        ? memory.create(
            'trials',
            'trial staging',
            plans.trialChunks.reduce((sum, { losses }) => sum + losses.size, 0),
            GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST,
          )
        : null;
      test.writeOrder(evaluationOrder(dataset.test.count, batchSize));
      return new Trainer(device, options, plans, sampler, train, test, staging);
    } catch (error) {
      // A model that another trainer holds stays with it.
      for (const variable of model.variables()) if (variable.storage && memory.owns(variable.storage.buffer)) variable.storage = null;
      memory.release();
      throw error;
    }
  }

  /** Steps made so far. */
  get step(): number {
    return this.#step;
  }

  get divergence(): Divergence | null {
    return this.#divergence;
  }

  /** True when the next step begins with a scheduling event. */
  get isEventDue(): boolean {
    return this.plans.event !== null && this.options.schedule.isDue(this.#step, this.stepsPerEpoch);
  }

  /** GPU bytes by category: the sum of all live buffers of this trainer. */
  get memory(): MemoryReport {
    return this.plans.report;
  }

  /** Dispatches of a step without an event, all in one compute pass and one submit. */
  get dispatchesPerStep(): number {
    return this.plans.gradient.dispatches + this.plans.direction.dispatches + this.plans.update.dispatches;
  }

  /**
   * One step: a scheduling event first when one is due, then the update at the schedule's learning rate.
   * @returns the event, if there was one
   */
  async trainStep(): Promise<TrialEvent | null> {
    const { plans, options, device } = this;
    device.check();
    const step = this.#step;
    this.#beginEpoch(Math.floor(step / this.stepsPerEpoch));
    if (plans.log.isFull) await this.#readLog();
    const cursor = (step % this.stepsPerEpoch) * this.batchSize;
    const isDue = this.isEventDue;
    plans.control.write({ cursor, counter: step * this.batchSize, first: Number(this.#updates === 0) });
    let event: TrialEvent | null = null;
    if (isDue) event = await this.#runEvent(step, cursor);
    const lr = options.schedule.lrAt(step, this.totalSteps);
    plans.control.write({ slot: plans.log.note(step, lr) });
    device.gpu.queue.writeBuffer(plans.rates.buffer, plans.rates.offset, Float32Array.of(lr));
    const direction = (options.schedule as TrialScheduler).options?.direction;
    if (!isDue) this.#submit([plans.gradient, plans.direction, plans.update]);
    else this.#submit(direction === 'gradient' ? [plans.direction, plans.update] : [plans.update]);
    this.#step++;
    this.#updates++;
    if (this.#pending.length >= stepsAhead) await this.#pending.shift();
    this.#pending.push(device.wait(device.gpu.queue.onSubmittedWorkDone()).then(() => undefined));
    return event;
  }

  /** Gradient of the batch, then the trials' losses; the scheduler moves the learning rate by them. */
  async #runEvent(step: number, cursor: number): Promise<TrialEvent> {
    const { plans } = this;
    const scheduler = this.options.schedule as TrialScheduler;
    const { direction, batch } = scheduler.options;
    const first = direction === 'gradient' ? [plans.gradient] : [plans.gradient, plans.direction];
    const all = trialCoefficients(scheduler);
    let start = 0;
    for (const { count, coefficients } of plans.trialChunks) {
      this.device.gpu.queue.writeBuffer(coefficients.buffer, coefficients.offset, Float32Array.from(all.slice(start, start + count)));
      start += count;
    }
    const offsets = batch === 'same' ? [0] : batch === 'heldOut' ? [this.batchSize] : [0, this.batchSize];
    const losses = new Float64Array(all.length);
    for (const [i, offset] of offsets.entries()) {
      plans.control.write({ scoreCursor: cursor + offset, scoreCounter: step * this.batchSize + offset });
      const values = await this.#trialLosses(i === 0 ? [...first, plans.event!] : [plans.event!]);
      values.forEach((loss, k) => (losses[k] += loss / offsets.length));
    }
    const count = scheduler.options.factors.length;
    return scheduler.apply(step, [...losses.subarray(0, count)], losses[count] ?? null);
  }

  async #trialLosses(run: readonly Plan[]): Promise<number[]> {
    const { plans, device } = this;
    const staging = this.scoreStaging!;
    this.#submit(run, (encoder) => {
      let at = 0;
      for (const { losses } of plans.trialChunks) {
        encoder.copyBufferToBuffer(losses.buffer, losses.offset, staging, at, losses.size);
        at += losses.size;
      }
    });
    const values = new Float32Array(await device.readStaging(staging));
    const count = plans.trialChunks.reduce((sum, chunk) => sum + chunk.count, 0);
    return Array.from({ length: count }, (_, trial) => values[trial * 4]);
  }

  #submit(run: readonly Plan[], after?: (encoder: GPUCommandEncoder) => void): void {
    const encoder = this.device.gpu.createCommandEncoder({ label: 'step' });
    const pass = encoder.beginComputePass({ label: 'step' });
    for (const plan of run) plan.encode(pass);
    pass.end();
    after?.(encoder);
    this.device.gpu.queue.submit([encoder.finish()]);
  }

  #beginEpoch(epoch: number): void {
    if (epoch === this.#epoch) return;
    this.#epoch = epoch;
    const order = this.sampler.epochOrder(epoch);
    const extra = Math.min(this.train.options.capacity - order.length, order.length);
    const round = new Uint32Array(order.length + extra);
    round.set(order);
    round.set(order.subarray(0, extra), order.length);
    this.train.writeOrder(round);
  }

  /** The losses logged since the last call; notes a divergence. Waits for the GPU. */
  async losses(): Promise<LoggedStep[]> {
    await this.#readLog();
    return this.#logged.splice(0);
  }

  async #readLog(): Promise<void> {
    const { steps, divergence } = await this.plans.log.read();
    if (!this.#divergence) this.#logged.push(...steps);
    this.#divergence ??= divergence;
  }

  /** Mean loss and accuracy over the test images, in inference mode. */
  async evaluate(): Promise<Evaluation> {
    const { plans, device, batchSize } = this;
    const { count } = this.test.set;
    device.gpu.queue.writeBuffer(plans.totals.buffer, plans.totals.offset, new Float32Array(3));
    for (let cursor = 0; cursor < count; cursor += batchSize) {
      plans.control.write({ cursor, counter: 0, rows: Math.min(batchSize, count - cursor) });
      this.#submit([plans.evaluation!]);
    }
    const [loss, right, seen] = new Float32Array(await device.read(plans.totals.buffer, plans.totals.offset, 12));
    return { step: this.#step, testLoss: loss / seen, testAccuracy: right / seen };
  }

  /** Trains to the end of the run, or until it diverges or the signal says stop. */
  async run(callbacks: RunCallbacks = {}): Promise<RunResult> {
    const { onSteps, onEvent, onEvaluation, logEvery = 10, evaluate = true, signal } = callbacks;
    if (!Number.isInteger(logEvery) || logEvery < 1 || logEvery > logCapacity) {
      throw new AttrError({
        op: 'Trainer.run',
        arg: 'logEvery',
        rule: `must be an integer in 1…${logCapacity}`,
        got: logEvery,
        fix: 'use 10',
      });
    }
    let evaluation: Evaluation | null = null;
    const flush = async () => {
      const steps = await this.losses();
      if (steps.length > 0) onSteps?.(steps);
    };
    while (this.#step < this.totalSteps && !signal?.aborted && !this.#divergence) {
      // What was logged before an event is told before it.
      if (this.isEventDue) await flush();
      if (this.#divergence) break;
      const event = await this.trainStep();
      if (event) onEvent?.(event);
      const isEnd = this.#step === this.totalSteps;
      const isEpoch = this.#step % this.stepsPerEpoch === 0;
      if (this.#step % logEvery === 0 || isEnd || isEpoch) await flush();
      if (evaluate && (isEnd || isEpoch) && !this.#divergence) {
        evaluation = await this.evaluate();
        onEvaluation?.(evaluation);
        // Otherwise the next step tells, and more exactly.
        if (isEnd && !Number.isFinite(evaluation.testLoss)) {
          this.#divergence = { step: this.#step, reason: `the test loss is not finite (${evaluation.testLoss})` };
        }
      }
    }
    await flush();
    return { steps: this.#divergence?.step ?? this.#step, divergence: this.#divergence, aborted: signal?.aborted ?? false, evaluation };
  }

  /** Brings the weights back to the host model and frees everything on the GPU. */
  async close(): Promise<void> {
    await Promise.allSettled(this.#pending);
    try {
      await this.plans.store.pull();
    } finally {
      this.plans.store.release();
      this.plans.memory.release();
    }
  }
}

/** What trials are run at: minus the scheduler's rates; and 0, the loss where the weights are, for the score that measures gains from it. */
const trialCoefficients = (scheduler: TrialScheduler): number[] => [
  ...scheduler.trialRates().map((rate) => -rate),
  ...(scheduler.options.score === 'relGain' ? [0] : []),
];
