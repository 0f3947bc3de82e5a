/**
 * The plans of one trainer, placed together so that they share their slots:
 *   gradient    batch → loss → gradients, batch statistics, divergence flags
 *   direction   gradients → the optimizer's direction (empty for plain SGD)
 *   event       N trial losses along the direction (or the raw gradient), weights untouched
 *   update      weights, running statistics, step log
 *   evaluation  one batch of the test set, added to the totals
 * A step is gradient + direction + update in one compute pass; an event goes before the update, or before the direction when it looks along the gradient.
 */
import { grad } from '../autograd/grad.ts';
import { AttrError } from '../gpu/errors.ts';
import { Control, controlWords } from '../graph/control.ts';
import { crossEntropy, mean } from '../graph/functional.ts';
import { fuse } from '../graph/fuse.ts';
import { emit, type Ref } from '../graph/lower/context.ts';
import { align, Arena, type Memory, type MemoryReport } from '../graph/memory.ts';
import { peakBytes, type Placement } from '../graph/placement.ts';
import { allocateSlots, buildPlan, draft, placeDrafts, type Draft, type Output, type Plan } from '../graph/plan.ts';
import { ceil4, sizeBytes, type Storage, type Tensor, type Variable } from '../graph/tensor.ts';
import { VariableStore } from '../graph/variables.ts';
import { grid1d, type Launch } from '../kernels/contract.ts';
import { accumulateEvaluation } from '../kernels/crossEntropy.ts';
import { checkFinite, flagNonFiniteDirection, flagNonFiniteLoss, flagNonFiniteStatistics, updateRunning } from '../kernels/sgd.ts';
import { inferenceContext, trainingContext, type Module, type StatisticUpdate } from '../nn/module.ts';
import { Sgd, type SgdOptions } from '../optim/sgd.ts';
import { chunkTrials } from '../trials/passes.ts';
import { trials } from '../trials/trials.ts';
import { externalTensor } from '../graph/ops.ts';
import { StepLog } from './stepLog.ts';

export interface Batch {
  readonly x: Tensor;
  readonly labels: Tensor;
}

export interface TrialPlanOptions {
  /** Trials an event. */
  readonly count: number;
  readonly direction: 'gradient' | 'optimizer';
  /** What trials are scored on. */
  readonly batch: Batch;
}

export interface StepPlanOptions {
  readonly model: Module;
  readonly batch: Batch;
  readonly optimizer?: SgdOptions;
  readonly labelSmoothing?: number;
  readonly trials?: TrialPlanOptions;
  readonly evaluation?: Batch;
  /** Called while pipelines compile. */
  readonly onProgress?: (done: number, total: number) => void;
}

const scalarBytes = 16;

/** Share by which the slots may grow so that an event runs its trials in fewer passes. */
const trialSlotAllowance = 0.125;

export class StepPlans {
  gradient!: Plan;
  direction!: Plan;
  update!: Plan;
  event: Plan | null = null;
  evaluation: Plan | null = null;
  /** Bytes of the slots that are there for the trials only. */
  #trialSlotBytes = 0;
  /** Trial losses, one block of `scalarBytes` a trial, each chunk at its own aligned place. */
  readonly trialChunks: { count: number; coefficients: Storage; losses: Storage }[] = [];

  private constructor(
    readonly memory: Memory,
    readonly control: Control,
    readonly store: VariableStore,
    readonly sgd: Sgd,
    /** The learning rate, f32. */
    readonly rates: Storage,
    /** Divergence bits, u32. */
    readonly flags: Storage,
    readonly loss: Storage,
    readonly log: StepLog,
    /** Evaluation: Σ loss, right answers, images seen. */
    readonly totals: Storage,
  ) {}

  static async create(memory: Memory, control: Control, options: StepPlanOptions): Promise<StepPlans> {
    const { model } = options;
    const store = new VariableStore(memory, model.variables());
    const sgd = new Sgd(memory, store, options.optimizer ?? {});
    const scalar = (label: string) => memory.storage('slots', label, scalarBytes);
    const flags = scalar('flags');
    const loss = scalar('loss');
    const plans = new StepPlans(
      memory,
      control,
      store,
      sgd,
      scalar('rates'),
      flags,
      loss,
      new StepLog(memory, loss, flags),
      scalar('totals'),
    );
    await plans.#build(options);
    return plans;
  }

  get report(): MemoryReport {
    return this.memory.report(this.#trialSlotBytes);
  }

  async #build(options: StepPlanOptions): Promise<void> {
    const { model, batch, labelSmoothing = 0 } = options;
    const { memory, store, sgd } = this;
    const training = trainingContext();
    const lossOf = ({ x, labels }: Batch, context = trainingContext()) =>
      mean(crossEntropy(model.forward(x, context), labels, { labelSmoothing }));
    const loss = lossOf(batch, training);
    const batchStatistics = new Arena(memory, 'statistics', 'batch statistics', store.statistics.map(sizeBytes));
    const gradient = draft(
      memory,
      'gradient',
      this.#gradientOutputs(loss, training.updates, batchStatistics),
      this.#checks(batchStatistics),
    );
    const direction = draft(memory, 'direction', [], sgd.direction(this.control.storage, this.flags));
    const update = draft(
      memory,
      'update',
      [],
      [...sgd.step(this.rates, this.flags), ...this.#runningUpdates(training.updates, batchStatistics), this.log.launch(this.control)],
    );
    const others: Draft[] = [gradient, direction, update];
    if (options.evaluation) others.push(this.#draftEvaluation(model, options.evaluation));
    const bare = placeDrafts(memory.device, others);
    const event = options.trials ? this.#draftEvent(lossOf(options.trials.batch), options.trials, others, bare.totalBytes) : null;
    if (event) this.#trialSlotBytes = event.placement.totalBytes - bare.totalBytes;
    await this.#buildAll(event ? [...others, event.draft] : others, event?.placement ?? bare, options.onProgress);
  }

  #gradientOutputs(loss: Tensor, updates: readonly StatisticUpdate[], batchStatistics: Arena): Output[] {
    const { store, sgd } = this;
    const gradients = grad(loss, store.parameters);
    const statistics: Output[] = updates.flatMap(({ runningMean, runningVar, statistics: { mean: m, variance } }) => [
      { tensor: m, storage: batchStatistics.at(store.statistics.indexOf(runningMean)) },
      { tensor: variance, storage: batchStatistics.at(store.statistics.indexOf(runningVar)) },
    ]);
    const outputs: Output[] = [
      { tensor: loss, storage: this.loss },
      // Last layers first: each weight gradient runs as soon as its dy is there, which is then free.
      ...gradients.map((tensor, i) => ({ tensor, storage: sgd.gradients.at(i) })).reverse(),
      ...statistics,
    ];
    const fused = fuse(outputs.map(({ tensor }) => tensor));
    return outputs.map(({ storage }, i) => ({ tensor: fused[i], storage }));
  }

  /** Looks for Inf and NaN by their bits: in the loss, the batch variances, the gradients. */
  #checks(batchStatistics: Arena): Launch<Ref>[] {
    const check = (x: Storage, bit: number) =>
      emit(checkFinite, { bindings: { x, flags: this.flags }, uniforms: { n: x.size / 16, bit }, grid: grid1d(x.size / 16, 64) });
    return [
      check(this.loss, flagNonFiniteLoss),
      ...(this.store.statistics.length > 0 ? batchStatistics.segments.map((segment) => check(segment, flagNonFiniteStatistics)) : []),
      ...this.sgd.gradients.segments.map((segment) => check(segment, flagNonFiniteDirection)),
    ];
  }

  /** One launch for all running statistics when they share a momentum, else one each. */
  #runningUpdates(updates: readonly StatisticUpdate[], batchStatistics: Arena): Launch<Ref>[] {
    const { store } = this;
    const one = (running: Storage, batch: Storage, momentum: number) =>
      emit(updateRunning, {
        bindings: { batch, flags: this.flags, running },
        uniforms: { n: running.size / 16, momentum },
        grid: grid1d(running.size / 16, 64),
      });
    const touched = new Set(updates.flatMap(({ runningMean, runningVar }) => [runningMean, runningVar]));
    const momenta = new Set(updates.map(({ momentum }) => momentum));
    if (touched.size === store.statistics.length && momenta.size === 1) {
      return store.statisticArena.segments.map((running, i) => one(running, batchStatistics.segments[i], [...momenta][0]));
    }
    return updates.flatMap(({ runningMean, runningVar, momentum }) =>
      [runningMean, runningVar].map((variable) => {
        const i = store.statistics.indexOf(variable);
        return one(store.statisticArena.at(i), batchStatistics.at(i), momentum);
      }),
    );
  }

  #draftEvaluation(model: Module, { x, labels }: Batch): Draft {
    const [logits] = fuse([model.forward(x, inferenceContext())]);
    const losses = crossEntropy(logits, labels);
    const [, classes] = logits.shape;
    return draft(
      this.memory,
      'evaluation',
      [logits, losses].map((tensor) => ({ tensor, storage: null })),
      [
        emit(accumulateEvaluation, {
          bindings: { logits, labels, losses, control: this.control.storage, totals: this.totals },
          uniforms: { classes, stride: ceil4(classes), rows_word: controlWords.rows },
          grid: [1, 1, 1],
        }),
      ],
    );
  }

  /** As many trials a pass as fit the memory that the other plans need anyway (or nearly), and the adapter's bindings. */
  #draftEvent(
    loss: Tensor,
    options: TrialPlanOptions,
    others: readonly Draft[],
    bareBytes: number,
  ): { draft: Draft; placement: Placement } {
    const { memory } = this;
    if (!Number.isInteger(options.count) || options.count < 1) {
      throw new AttrError({
        op: 'trials',
        arg: 'count',
        rule: 'must be an integer ≥ 1',
        got: options.count,
        fix: 'pass at least one factor',
      });
    }
    const arena = options.direction === 'gradient' ? this.sgd.gradients : this.sgd.directions;
    const directions = new Map<Variable, Tensor[]>(
      this.store.parameters.map((variable, i) => [variable, [externalTensor(arena.at(i), variable)]]),
    );
    const chunkBytes = align(options.count * 16);
    const coefficients = memory.storage('trials', 'trial coefficients', options.count * chunkBytes);
    const losses = memory.storage('trials', 'trial losses', options.count * chunkBytes);
    const budget = bareBytes * (1 + trialSlotAllowance);
    const bindingLimit = memory.device.limits.maxStorageBufferBindingSize;
    for (let passes = 1; ; passes++) {
      const chunks = chunkTrials(options.count, Math.ceil(options.count / passes)).map((count, i) => ({
        count,
        coefficients: { buffer: coefficients.buffer, offset: i * chunkBytes, size: Math.max(16, count * 4) },
        losses: { buffer: losses.buffer, offset: i * chunkBytes, size: count * scalarBytes },
      }));
      const graphs = chunks.map(
        (chunk) =>
          trials([loss], {
            count: chunk.count,
            directions,
            coefficients: externalTensor(chunk.coefficients, { shape: [chunk.count], dtype: 'f32', trials: 1 }),
          })[0],
      );
      const fused = fuse(graphs);
      const one = draft(
        memory,
        'event',
        fused.map((tensor, i) => ({ tensor, storage: chunks[i].losses })),
      );
      const isLast = passes === options.count;
      const fits = peakBytes(one.items) <= budget && one.items.every((item) => item.sizeBytes <= bindingLimit);
      if (!fits && !isLast) continue;
      const placement = placeDrafts(memory.device, [...others, one]);
      if (isLast || placement.totalBytes <= budget) {
        this.trialChunks.push(...chunks);
        return { draft: one, placement };
      }
    }
  }

  async #buildAll(drafts: readonly Draft[], placement: Placement, onProgress?: (done: number, total: number) => void): Promise<void> {
    const { memory } = this;
    const slots = allocateSlots(memory, placement);
    const progress = new Map<Draft, [number, number]>();
    const build = (one: Draft, index: number) =>
      buildPlan(memory, one, {
        slots,
        places: placement.places[index],
        category: one.label === 'event' ? 'trials' : 'slots',
        onProgress: (done, total) => {
          progress.set(one, [done, total]);
          const sums = [...progress.values()].reduce(([a, b], [d, t]) => [a + d, b + t], [0, 0]);
          onProgress?.(sums[0], sums[1]);
        },
      });
    const built = await Promise.all(drafts.map(build));
    const of = (label: string) => built.find((plan) => plan.label === label) ?? null;
    [this.gradient, this.direction, this.update] = built;
    this.evaluation = of('evaluation');
    this.event = of('event');
  }
}
