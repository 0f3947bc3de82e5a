/** The training loop over a data set: steps, scheduling events, evaluation. */
import { EpochSampler } from '../data/batches.ts';
import type { ImageDataset } from '../data/dataset.ts';
import { AttrError, DeviceError } from '../gpu/errors.ts';
import { defaultDevice, type Device } from '../gpu/device.ts';
import { Control, floatBits } from '../graph/control.ts';
import { Memory, type MemoryReport } from '../graph/memory.ts';
import type { FloatDtype } from '../graph/ops.ts';
import type { Plan } from '../graph/plan.ts';
import { Tuner } from '../graph/tune/tuner.ts';
import { inferenceContext, type Module } from '../nn/module.ts';
import { resolveSgdOptions } from '../optim/sgd.ts';
import { AdaptiveSchedule, ReduceLROnPlateau, TrialScheduler, type Schedule, type TrialEvent } from '../sched/index.ts';
import { evaluationOrder, ImageFeed } from './feed.ts';
import { HostRule } from './hostRule.ts';
import type { Divergence, LoggedStep } from './stepLog.ts';
import { enterSecondPoint } from './secondPoint.ts';
import { StepPlans, type Batch, type TrialPlanOptions } from './stepPlans.ts';
import {
  checkRun,
  checkTrainerOptions,
  type Evaluation,
  type RunCallbacks,
  type RunResult,
  type TrainerOptions,
} from './trainerOptions.ts';
import { coefficientForm, rulePath, trialFactors } from './trialRule.ts';

/** Steps the host may be ahead of the GPU. */
const stepsAhead = 2;

/** What a network computes on follows from its input. */
const activations = ({ precision }: TrainerOptions): FloatDtype => (precision === 'mixed' ? 'f16' : 'f32');

/** @throws DeviceError where the adapter has no 16-bit floats */
function checkMixed({ gpu, adapter }: Device): void {
  if (gpu.features.has('shader-f16')) return;
  const rule = "must be 'f32' on an adapter without shader-f16";
  const got = `'mixed' on ${adapter.description || adapter.vendor}`;
  throw new DeviceError({ op: 'Trainer', arg: 'precision', rule, got, fix: 'leave it out' });
}

/** What trials are scored on, and the rule that moves the rate by them. */
function trialPlan(
  options: TrainerOptions,
  train: ImageFeed,
): TrialPlanOptions | undefined {
  const { schedule, batchSize = 32, augment, optimizer, memoryBudget } = options;
  if (schedule instanceof AdaptiveSchedule && schedule.isDue()) {
    const batch = train.batch(batchSize, 'cursor', 'counter', augment === 'crop-flip', activations(options));
    return { count: schedule.spec.trials!, direction: 'optimizer', batch, memoryBudget };
  }
  if (!(schedule instanceof TrialScheduler)) return undefined;
  const { batch: which, scoreBatch, direction } = schedule.options;
  const images = scoreBatch ?? batchSize;
  const made = [augment === 'crop-flip', activations(options)] as const;
  const same = () => train.batch(images, 'cursor', 'counter', ...made);
  const heldOut = () => train.batch(images, 'scoreCursor', 'scoreCounter', ...made);
  const batch: Record<typeof which, () => Batch[]> = { same: () => [same()], heldOut: () => [heldOut()], both: () => [same(), heldOut()] };
  const rule = rulePath(schedule) === 'gpu' ? schedule : undefined;
  const isGrid = coefficientForm(schedule, resolveSgdOptions(optimizer)) > 0;
  return { count: trialFactors(schedule).length, direction, batch: batch[which](), rule, isGrid, memoryBudget };
}

/** @throws AttrError unless the model has a logit for every class */
function checkModel(model: Module, { x }: Batch, dataset: ImageDataset): void {
  const logits = model.forward(x, inferenceContext());
  const classes = Math.max(dataset.train.classes.length, dataset.test.classes.length);
  if (logits.shape.length === 2 && logits.shape[1] >= classes) return;
  throw new AttrError({
    op: 'Trainer',
    arg: 'model',
    rule: `must make logits [N, ≥ ${classes}] for ${dataset.name}`,
    got: String(logits),
    fix: 'build it with as many classes as the data set has',
  });
}

/** Schedules that a trainer moves. */
type MovedSchedule = TrialScheduler | AdaptiveSchedule;
const isMoved = (schedule: Schedule): schedule is MovedSchedule => schedule instanceof TrialScheduler || schedule instanceof AdaptiveSchedule;

/** Those whose trainers are open: the events of two runs would mix. */
const lent = new WeakSet<MovedSchedule>();

/** Takes a schedule for one trainer. @throws AttrError where another has it, or where a scheduler has had events, as steps begin at 0 */
function lend(scheduler: MovedSchedule): void {
  const refuse = (rule: string, got: string): never => {
    throw new AttrError({ op: 'Trainer', arg: 'schedule', rule, got, fix: `make one with lr ${scheduler.lr}` });
  };
  if (lent.has(scheduler)) refuse('must be of one trainer alone', 'that of another that is not closed');
  if (scheduler instanceof TrialScheduler && scheduler.events.length > 0) refuse('must have had no events', `${scheduler.events.length} events`);
  lent.add(scheduler);
}

function runLength({ epochs = 1, maxSteps = Infinity }: TrainerOptions, { stepsPerEpoch }: EpochSampler) {
  return { stepsPerEpoch, totalSteps: Math.min(epochs * stepsPerEpoch, maxSteps) };
}

export class Trainer {
  readonly totalSteps: number;
  readonly stepsPerEpoch: number;
  readonly batchSize: number;
  #step = 0;
  /** Steps that were logged and made, but those whose gradients overflowed. */
  #made = 0;
  /** Those whose gradients did. */
  #skipped = 0;
  #epoch = -1;
  #divergence: Divergence | null = null;
  /** What a rule of one's own threw: the momentum has taken the gradient by then, so that the step cannot be made again. */
  #failure: { readonly cause: unknown } | null = null;
  readonly #pending: Promise<void>[] = [];
  /** A read of the log that nobody waits for, and what it throws. */
  #lateRead: Promise<void> = Promise.resolve();
  /** Of the epoch after this one, made while the GPU is busy with this one's last step. */
  #nextOrder: { readonly epoch: number; readonly order: Uint32Array } | null = null;
  /** Read from the GPU, not yet asked for. */
  #logged: LoggedStep[] = [];
  #events: TrialEvent[] = [];

  private constructor(
    readonly device: Device,
    readonly options: TrainerOptions,
    readonly plans: StepPlans,
    readonly sampler: EpochSampler,
    readonly train: ImageFeed,
    readonly test: ImageFeed,
    private readonly hostRule: HostRule | null,
  ) {
    this.batchSize = sampler.batchSize;
    this.stepsPerEpoch = sampler.stepsPerEpoch;
    this.totalSteps = runLength(options, sampler).totalSteps;
  }

  /**
   * Uploads the data, compiles the kernels and makes every buffer and bind group that the run needs.
   * @throws AttrError for options out of range and a scheduler that has had events or is another trainer's, DeviceError without an adapter
   */
  static async create(options: TrainerOptions): Promise<Trainer> {
    checkTrainerOptions(options);
    const { dataset, batchSize = 32, shuffle = true, seed = 0, augment = 'none', schedule, model } = options;
    const device = options.device ?? (await defaultDevice());
    const isMixed = options.precision === 'mixed';
    if (isMixed) checkMixed(device);
    const scheduler = schedule instanceof TrialScheduler ? schedule : null;
    if (isMoved(schedule)) lend(schedule);
    const memory = new Memory(device);
    try {
      const control = new Control(memory);
      control.write({ seed });
      const sampler = new EpochSampler({ count: dataset.train.count, batchSize, shuffle, seed });
      const { mean, std } = dataset;
      // Held-out images follow the batch in the order, which goes round at its end.
      const capacity = dataset.train.count + batchSize + (scheduler?.options.scoreBatch ?? batchSize);
      const train = new ImageFeed(memory, dataset.train, control, { mean, std, capacity });
      const order = evaluationOrder(dataset.test.count, batchSize);
      const test = new ImageFeed(memory, dataset.test, control, { mean, std, capacity: order.length });
      const batch = train.batch(batchSize, 'cursor', 'counter', augment === 'crop-flip', activations(options));
      checkModel(model, batch, dataset);
      const plans = await StepPlans.create(memory, control, {
        model,
        batch,
        optimizer: options.optimizer,
        labelSmoothing: options.labelSmoothing,
        lossScaling: isMixed ? (options.lossScaling ?? {}) : undefined,
        evaluation: test.batch(batchSize, 'cursor', 'counter', false, activations(options)),
        trials: trialPlan(options, train),
        adaptive: schedule instanceof AdaptiveSchedule ? { schedule, run: runLength(options, sampler) } : undefined,
        onCompile: options.onCompile,
        tuner: options.tune ? await Tuner.open(device) : undefined,
        onTune: options.onTune,
      });
      test.writeOrder(order);
      const hostRule = scheduler && !plans.rule ? new HostRule(memory, scheduler, plans) : null;
      return new Trainer(device, options, plans, sampler, train, test, hostRule);
    } catch (error) {
      // A model that another trainer holds stays with it.
      for (const variable of model.variables()) if (variable.storage && memory.owns(variable.storage.buffer)) variable.storage = null;
      memory.release();
      if (isMoved(schedule)) lent.delete(schedule);
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

  /** Updates that the log, as far as it was read, says were made: what a schedule counts. Steps that were skipped or refused are none. */
  get updates(): number {
    return this.#made;
  }

  /** True when the next step begins with a scheduling event. */
  get isEventDue(): boolean {
    return this.plans.event !== null && !this.#divergence && this.options.schedule.isDue(this.#step, this.stepsPerEpoch);
  }

  /** GPU bytes by category: the sum of all live buffers of this trainer. */
  get memory(): MemoryReport {
    return this.plans.report;
  }

  /** Dispatches of a step without an event, all in one compute pass and one submit; those of trials that every step makes are among them. */
  get dispatchesPerStep(): number {
    return this.#order(this.plans.adaptive !== null && this.plans.event !== null).reduce((sum, { dispatches }) => sum + dispatches, 0);
  }

  /**
   * One step: a scheduling event first when one is due, then the update at the schedule's learning rate, all in one submit. Nothing is
   * read back but the log when it is full, and that is not waited for; `losses()` and `events()` tell what came of it. Resolves once the
   * GPU has done the step before the last one, so that it always has work. (With a score or a rule of one's own an event's losses are read
   * back, in a submit of their own; what it throws ends the run: later steps throw it again.)
   */
  async trainStep(): Promise<void> {
    const { plans, options, device, hostRule } = this;
    device.check();
    if (this.#failure) throw this.#failure.cause;
    const step = this.#step;
    this.#beginEpoch(Math.floor(step / this.stepsPerEpoch));
    if (hostRule && this.isEventDue) await this.#readLog();
    else if (plans.log.isFull) await this.#readLater();
    const cursor = (step % this.stepsPerEpoch) * this.batchSize;
    const counter = step * this.batchSize;
    const next = { scoreCursor: cursor + this.batchSize, scoreCounter: counter + this.batchSize };
    plans.control.write({ cursor, counter, ...next, first: Number(step === 0) });
    let run = this.#order(this.isEventDue);
    // Nothing was skipped that has not been heard of, unless rates are given ahead; where the host moves the rate it has just heard.
    const update = step - this.#skipped;
    const { totalSteps, stepsPerEpoch } = this;
    const rateAt = (at: number) =>
      plans.rule ? plans.rule.scheduler.envelopeAt(at, totalSteps, stepsPerEpoch) : options.schedule.lrAt(at, totalSteps, stepsPerEpoch);
    // Asked first, as schedules refuse a step after their last one: what is noted is submitted.
    plans.ahead?.write(this.#made, update - this.#made, this.#skipped, rateAt);
    if (plans.rule) {
      const envelope = floatBits(rateAt(update));
      plans.rule.sync(step);
      plans.control.write({ slot: plans.log.note(step, null), eventSlot: this.isEventDue ? plans.rule.note(step) : 0, envelope });
    } else if (plans.adaptive) {
      plans.adaptive.sync(step);
      plans.control.write({ slot: plans.log.note(step, null) });
    } else {
      if (hostRule && this.isEventDue) {
        const after = run.indexOf(plans.event!) + 1;
        const before = run.slice(0, after);
        const base = hostRule.scheduler.baseAt(update, totalSteps, stepsPerEpoch);
        const event = hostRule.run(step, base, this.#made === 0, (copy) => this.#submit(before, copy));
        const told = await event.catch((cause) => {
          this.#failure = { cause };
          throw cause;
        });
        if (told) this.#events.push(told);
        run = run.slice(after);
      }
      hostRule?.sync();
      const lr = rateAt(update);
      plans.control.write({ slot: plans.log.note(step, plans.ahead ? null : lr) });
      device.gpu.queue.writeBuffer(plans.rates.buffer, plans.rates.offset, Float32Array.of(lr));
    }
    this.#submit(run);
    this.#step++;
    if (this.#step % this.stepsPerEpoch === 0 && this.#step < this.totalSteps) this.#nextOrder = this.#orderOf(this.#epoch + 1);
    if (this.#pending.length >= stepsAhead) await this.#pending.shift();
    this.#pending.push(device.wait(device.gpu.queue.onSubmittedWorkDone()).then(() => undefined));
  }

  /** The plans of a step; trials come once what they look along is there. */
  #order(isEventDue: boolean): Plan[] {
    const { gradient, direction, event, update, rateAhead } = this.plans;
    const ahead = rateAhead ? [rateAhead] : [];
    if (!isEventDue) return [...ahead, gradient, direction, update];
    if (this.plans.adaptive) return [gradient, direction, event!, update];
    const { direction: along, momenta, weightDecays } = (this.options.schedule as TrialScheduler).options;
    // A grid makes its directions of the gradient and the buffer itself.
    const isBefore = along === 'gradient' || momenta !== null || weightDecays !== null;
    return [...ahead, gradient, ...(isBefore ? [event!, direction] : [direction, event!]), update];
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
    const { order } = this.#nextOrder?.epoch === epoch ? this.#nextOrder : this.#orderOf(epoch);
    this.#nextOrder = null;
    this.train.writeOrder(order);
  }

  /** An epoch's order, and its beginning once more: held-out images follow the batch. */
  #orderOf(epoch: number): { epoch: number; order: Uint32Array } {
    const once = this.sampler.epochOrder(epoch);
    const extra = Math.min(this.train.options.capacity - once.length, once.length);
    const order = new Uint32Array(once.length + extra);
    order.set(once);
    order.set(once.subarray(0, extra), once.length);
    return { epoch, order };
  }

  /** The losses logged since the last call; notes a divergence. Waits for the GPU. */
  async losses(): Promise<LoggedStep[]> {
    await this.#settle();
    await this.#readLog();
    return this.#logged.splice(0);
  }

  /** The scheduling events since the last call, that of a step which diverged too. Waits for the GPU. */
  async events(): Promise<TrialEvent[]> {
    await this.#settle();
    await this.#readLog();
    return this.#events.splice(0);
  }

  /** Begins to read the log, once the last such read is done; the next steps need not wait. */
  async #readLater(read: () => Promise<void> = () => this.#readLog()): Promise<void> {
    await this.#settle();
    this.#lateRead = read();
    // Whoever waits for it hears of it.
    this.#lateRead.catch(() => undefined);
  }

  /** Waits for the read that was begun. What it throws it throws once. */
  async #settle(): Promise<void> {
    const late = this.#lateRead;
    this.#lateRead = Promise.resolve();
    await late;
  }

  /** What is read after a divergence was noted came of steps that changed nothing. */
  async #readLog(): Promise<void> {
    const { steps, events, divergence } = await this.plans.log.read();
    if (this.#divergence) return;
    this.#logged.push(...steps);
    const made = steps.filter(({ skipped }) => !skipped).length;
    this.#made += made;
    this.#skipped += steps.length - made;
    this.#events.push(...events);
    for (const event of events) this.plans.rule!.record(event);
    for (const one of steps) this.plans.adaptive?.record(one);
    if (!divergence) return;
    this.#divergence = divergence;
    // The weights are those before the step: so is the schedule.
    if (this.options.schedule instanceof TrialScheduler) this.options.schedule.revert(divergence.step);
  }

  /** Mean loss and accuracy over the test images, in inference mode; where the schedule evaluates at another point than it trains at, there. */
  async evaluate(): Promise<Evaluation> {
    const { plans, device, batchSize } = this;
    const { count } = this.test.set;
    device.gpu.queue.writeBuffer(plans.totals.buffer, plans.totals.offset, new Float32Array(3));
    this.#enterEvaluation();
    for (let cursor = 0; cursor < count; cursor += batchSize) {
      plans.control.write({ cursor, counter: 0, rows: Math.min(batchSize, count - cursor) });
      this.#submit([plans.evaluation!]);
    }
    if (plans.secondPoint) this.#submit([plans.secondPoint.leave]);
    const [loss, right, seen] = new Float32Array(await device.read(plans.totals.buffer, plans.totals.offset, 12));
    return { step: this.#step, testLoss: loss / seen, testAccuracy: right / seen };
  }

  #enterEvaluation(): void {
    const { plans, batchSize } = this;
    if (!plans.secondPoint) return;
    this.#beginEpoch(Math.max(this.#epoch, 0));
    const seek = (index: number) => plans.control.write({ cursor: index * batchSize, counter: index * batchSize });
    enterSecondPoint(plans.secondPoint, (plan) => this.#submit([plan]), seek, this.stepsPerEpoch);
  }

  /** Trains to the end of the run, or until it diverges or the signal says stop. */
  async run(callbacks: RunCallbacks = {}): Promise<RunResult> {
    checkRun(callbacks, this.options.schedule);
    const { onEvaluation, logEvery = 10, evaluate = true, signal } = callbacks;
    let evaluation: Evaluation | null = null;
    while (this.#step < this.totalSteps && !signal?.aborted && !this.#divergence) {
      await this.trainStep();
      // Told while a step runs, else the GPU would be idle meanwhile; at most one, so that a signal and a divergence end the run soon.
      await this.#settle();
      const isEnd = this.#step === this.totalSteps;
      const isEpoch = this.#step % this.stepsPerEpoch === 0;
      if (this.#step % logEvery === 0 || isEnd || isEpoch) await this.#readLater(() => this.#tell(callbacks));
      const isDue = evaluate && (isEnd || isEpoch);
      if (isDue) await this.#settle();
      if (isDue && !this.#divergence) {
        evaluation = await this.evaluate();
        onEvaluation?.(evaluation);
        if (isEpoch) this.#tellSchedule(evaluation);
        // Otherwise the next step tells, and more exactly.
        if (isEnd && !Number.isFinite(evaluation.testLoss)) {
          this.#divergence = { step: this.#step, reason: `the test loss is not finite (${evaluation.testLoss})` };
        }
      }
    }
    await this.#settle();
    await this.#tell(callbacks);
    return { steps: this.#divergence?.step ?? this.#step, divergence: this.#divergence, aborted: signal?.aborted ?? false, evaluation };
  }

  /** An epoch's metric, for a schedule that listens to one. */
  #tellSchedule({ testLoss, testAccuracy }: Evaluation): void {
    const { schedule } = this.options;
    schedule.step?.(schedule instanceof ReduceLROnPlateau && schedule.options.mode === 'max' ? testAccuracy : testLoss);
  }

  /** Tells what was logged, in order: an event before its step, after all before it. */
  async #tell({ onSteps, onEvent }: RunCallbacks): Promise<void> {
    await this.#readLog();
    const steps = this.#logged.splice(0);
    const tellUpTo = (end: number) => {
      const before = steps.findIndex(({ step }) => step >= end);
      const some = steps.splice(0, before === -1 ? steps.length : before);
      if (some.length > 0) onSteps?.(some);
    };
    for (const event of this.#events.splice(0)) {
      tellUpTo(event.step);
      onEvent?.(event);
    }
    tellUpTo(Infinity);
  }

  /** Brings the weights, those that evaluations are of, back to the host model and frees everything on the GPU. */
  async close(): Promise<void> {
    await Promise.allSettled([...this.#pending, this.#lateRead]);
    try {
      this.#enterEvaluation();
      await this.plans.store.pull();
    } finally {
      this.plans.store.release();
      this.plans.memory.release();
      if (isMoved(this.options.schedule)) lent.delete(this.options.schedule);
    }
  }
}
