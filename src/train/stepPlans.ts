/**
 * The plans of one trainer, placed together so that they share their slots:
 *   gradient    batch → loss → gradients (of layers' weights the direction, where nobody wants the gradient), batch statistics, divergence flags
 *   slope       gradient · direction, for trials that are scored by it
 *   direction   gradients → the optimizer's direction (empty for plain SGD)
 *   event       N trial losses along the direction (or the raw gradient), weights untouched
 *   update      weights, running statistics, step log
 *   evaluation  one batch of the test set, added to the totals
 * A step is gradient + direction + update in one compute pass; an event goes before the update, or before the direction when it looks
 * along the gradient.
 */
import { grad } from '../autograd/grad.ts';
import type { Control, Word } from '../graph/control.ts';
import { dotLaunches } from '../graph/dot.ts';
import { add, crossEntropy, mean, scale } from '../graph/functional.ts';
import { fuse } from '../graph/fuse/index.ts';
import { emit, type LowerContext, type Ref } from '../graph/lower/context.ts';
import { Arena, type Memory, type MemoryReport } from '../graph/memory.ts';
import type { Placement } from '../graph/placement.ts';
import {
  allocateSlots,
  buildPlan,
  compileKernels,
  draft,
  lowerContextOf,
  Plan,
  placeDrafts,
  Uniforms,
  type Draft,
  type OnCompile,
  type Output,
} from '../graph/plan.ts';
import { sizeBytes, type Storage, type Tensor } from '../graph/tensor.ts';
import type { Tuner } from '../graph/tune/tuner.ts';
import { VariableStore } from '../graph/variables.ts';
import { grid1d, type Launch } from '../kernels/contract.ts';
import { checkFinite, flagNonFiniteDirection, flagNonFiniteLoss, flagNonFiniteStatistics, updateRunning } from '../kernels/sgd.ts';
import { trainingContext, type Module, type StatisticUpdate } from '../nn/module.ts';
import { directionSlope } from '../kernels/trialEvidence.ts';
import { resolveSgdOptions, Sgd, type SgdOptions } from '../optim/sgd.ts';
import type { AdaptiveSchedule, TrialScheduler } from '../sched/index.ts';
import { AdaptiveRule, type RunOfRule } from './adaptiveRule.ts';
import { LossScaler, type LossScaling } from './lossScaler.ts';
import { draftEvaluation, evaluationGraph, type EvaluationGraph } from './evaluationPlan.ts';
import type { Batch } from './feed.ts';
import { draftEvent, passLosses, type EventDraft, type EventGraph } from './eventPlan.ts';
import { RateAhead } from './rateAhead.ts';
import { StatisticsGatherer, type SecondPoint } from './secondPoint.ts';
import { logCapacity, StepLog } from './stepLog.ts';
import { TrialRule, type EventTrials } from './trialRule.ts';

export type { Batch };

export interface TrialPlanOptions {
  /** Trials an event. */
  readonly count: number;
  readonly direction: 'gradient' | 'optimizer';
  /** What trials are scored on; of several, on the mean of their losses. */
  readonly batch: Batch | readonly Batch[];
  /** Trials are whole steps of the optimizer, with momenta and weight decays of their own. @default false */
  readonly isGrid?: boolean;
  /** What trials are scored by beside their losses: those of single samples; the slope along the direction. @default null */
  readonly evidence?: 'samples' | 'slope' | null;
  /** Of the run, by which a control shuffles losses. @default 0 */
  readonly seed?: number;
  /** Whose rule ends the event on the GPU. @default none: the event ends with the losses */
  readonly rule?: TrialScheduler;
  /** Bytes that the slots may grow by so that trials run in fewer passes. @default 0 */
  readonly memoryBudget?: number;
}

export interface StepPlanOptions {
  readonly model: Module;
  readonly batch: Batch;
  readonly optimizer?: SgdOptions;
  readonly labelSmoothing?: number;
  /** Scales the loss for gradients in f16, as those of a batch in f16 are. @default none */
  readonly lossScaling?: LossScaling;
  readonly trials?: TrialPlanOptions;
  /** Whose rule sets every step's rate on the GPU; where it makes trials, `trials` says what they are scored on. @default none */
  readonly adaptive?: { readonly schedule: AdaptiveSchedule; readonly run: RunOfRule };
  readonly evaluation?: Batch;
  /** Plans of the caller's own, to be run between steps in the same slots: the event is cut as if they were not there. @default none */
  readonly extra?: (plans: StepPlans) => readonly Draft[];
  /** Called while kernels compile. */
  readonly onCompile?: OnCompile;
  /** Makes the choices about convolutions by measurement. @default by estimate */
  readonly tuner?: Tuner;
  /** Called while it measures. */
  readonly onTune?: (done: number, total: number) => void;
}

/** What the plans compute, before it is lowered. */
interface Graphs {
  readonly gradient: readonly Output[];
  readonly evaluation: EvaluationGraph | null;
  readonly event: EventGraph | null;
}

const scalarBytes = 16;

export class StepPlans {
  gradient!: Plan;
  direction!: Plan;
  update!: Plan;
  event: Plan | null = null;
  /** Null where no trial is scored by the slope. Runs after the gradient, before the direction takes its place. */
  slope: Plan | null = null;
  /** In mixed precision: takes the rate that `ahead` has given. First of a step. */
  rateAhead: Plan | null = null;
  evaluation: Plan | null = null;
  /** Of the options' drafts, in their order. */
  extra: readonly Plan[] = [];
  /** Bytes of the slots that are there for the trials only. */
  #trialSlotBytes = 0;
  /** Null without an event. */
  trials: EventTrials | null = null;
  /** Null where the event ends with the losses. */
  rule: TrialRule | null = null;
  /** Sets every step's rate; null where the host or trials do. */
  adaptive: AdaptiveRule | null = null;
  /** Before and after evaluations, where they are at another point than training. */
  secondPoint: SecondPoint | null = null;

  private constructor(
    readonly memory: Memory,
    readonly control: Control,
    readonly store: VariableStore,
    readonly sgd: Sgd,
    /** f32: the learning rate; the scale m that it is made of where the rule runs on the GPU; momentum and weight decay of a grid; the highest m of a search. */
    readonly rates: Storage,
    /** Divergence bits, u32. */
    readonly flags: Storage,
    readonly loss: Storage,
    readonly log: StepLog,
    /** Evaluation: Σ loss, right answers, images seen. */
    readonly totals: Storage,
    readonly scaler: LossScaler | null,
    /** In mixed precision, where updates may be skipped. */
    readonly ahead: RateAhead | null,
  ) {}

  static async create(memory: Memory, control: Control, options: StepPlanOptions): Promise<StepPlans> {
    const { model } = options;
    const store = new VariableStore(memory, model.variables());
    const { trials, optimizer = {}, lossScaling, adaptive } = options;
    // Scaled gradients have to be divided before weight decay is added; rules and slopes are of them before that.
    const isLookedAt = trials?.isGrid === true || trials?.direction === 'gradient' || trials?.evidence === 'slope';
    const wantsGradient = lossScaling !== undefined || isLookedAt || adaptive !== undefined;
    const sgd = new Sgd(memory, store, optimizer, wantsGradient);
    const scalar = (label: string) => memory.storage('slots', label, scalarBytes);
    const flags = scalar('flags');
    const loss = scalar('loss');
    const rates = memory.storage('slots', 'rates', 2 * scalarBytes);
    const scaler = lossScaling ? new LossScaler(memory, lossScaling) : null;
    const log = new StepLog(memory, loss, flags, rates, scaler);
    // What a read holds, and what is logged while it goes on.
    const ahead = scaler && !adaptive ? new RateAhead(memory, scaler, control, rates, 2 * logCapacity) : null;
    const plans = new StepPlans(memory, control, store, sgd, rates, flags, loss, log, scalar('totals'), scaler, ahead);
    if (adaptive) {
      const parts = { memory, control, store, sgd, rates, flags, loss, first: scaler?.first ?? control.at('first') };
      plans.adaptive = new AdaptiveRule(parts, adaptive.schedule, adaptive.run);
      log.lines = plans.adaptive;
    }
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
    const lossesOf = ({ x, labels }: Batch, context = trainingContext()) =>
      crossEntropy(model.forward(x, context), labels, { labelSmoothing });
    const loss = mean(lossesOf(batch, training));
    const batchStatistics = new Arena(memory, 'statistics', 'batch statistics', store.statistics.map(sizeBytes));
    const graphs: Graphs = {
      gradient: this.#gradientOutputs(loss, training.updates, batchStatistics),
      evaluation: options.evaluation ? evaluationGraph(model, options.evaluation) : null,
      event: options.trials ? this.#eventGraph(options.trials, lossesOf) : null,
    };
    const lowering = await this.#lowering(graphs, options);
    const gradient = draft(memory, 'gradient', graphs.gradient, this.#checks(batchStatistics), lowering);
    const tried = options.trials?.isGrid ? this.rates : null;
    const first = this.scaler?.first ?? this.control.at('first');
    const direction = draft(memory, 'direction', [], [...(this.adaptive?.before() ?? []), ...sgd.direction(first, this.flags, tried)]);
    const placed = [gradient, direction];
    const { control, totals } = this;
    if (graphs.evaluation) placed.push(draftEvaluation(graphs.evaluation, { memory, control, totals, lowering }));
    const gathered = this.adaptive?.gatheredBatches ?? 0;
    const gatherer = gathered > 0 ? new StatisticsGatherer(memory, store, batch, model, gathered, batchStatistics, lowering) : null;
    if (gatherer) placed.push(gatherer.draft);
    const bare = placeDrafts(memory.device, placed);
    const slope = options.trials?.evidence === 'slope' ? this.#draftSlope(options.trials, first) : null;
    const event = graphs.event ? this.#draftEvent(graphs.event, options.trials!, lowering, placed, bare.totalBytes, slope?.slope) : null;
    const placement = event?.placement ?? bare;
    this.#trialSlotBytes = placement.totalBytes - bare.totalBytes;
    const { trials, adaptive } = this;
    const step = () => sgd.step(this.rates, this.flags);
    const update = draft(
      memory,
      'update',
      [],
      [
        ...(adaptive ? [...(trials ? [] : adaptive.after(null)), adaptive.rate(trials), ...adaptive.step(step)] : step()),
        ...this.#runningUpdates(training.updates, batchStatistics),
        ...(adaptive?.average() ?? []),
        this.log.launch(this.control),
      ],
    );
    const alone = (label: string, ...launches: readonly (Launch<Ref> | undefined)[]) => {
      const there = launches.flatMap((launch) => launch ?? []);
      return there.length > 0 ? [draft(memory, label, [], there)] : [];
    };
    const second = adaptive?.evaluation();
    const rule = [
      ...alone('coefficients', ...(trials ? (adaptive?.after(trials) ?? []) : [])),
      ...alone('enter evaluation', ...(second?.enter ?? [])),
      ...alone('leave evaluation', ...(second?.leave ?? [])),
      ...(slope ? [slope.draft] : []),
      ...alone('coefficients', this.rule?.coefficientsLaunch(first, this.control)),
      ...alone('next pass', ...(event?.keep ?? []), event?.next),
      ...alone('rule', ...(this.rule?.launches(this.control, this.flags) ?? [])),
      ...alone('rate', this.rule?.rateLaunch(this.control)),
      ...alone('rate ahead', this.ahead?.launch()),
    ];
    const own = [...placed, ...(event?.passes ?? []), ...rule, update];
    const extra = options.extra?.(this) ?? [];
    const together = extra.length > 0 ? placeDrafts(memory.device, [...own, ...extra]) : placement;
    const built = await this.#buildAll([...own, ...extra], together, event, options.onCompile);
    const planOf = (name: string) => built.find(({ label }) => label === name);
    const [enter, leave, plan] = ['enter evaluation', 'leave evaluation', 'gather statistics'].map(planOf);
    if (enter && leave) this.secondPoint = { enter, leave, gather: gatherer && plan ? { plan, gatherer } : null };
    this.extra = built.slice(own.length);
  }

  #gradientOutputs(loss: Tensor, updates: readonly StatisticUpdate[], batchStatistics: Arena): Output[] {
    const { store, sgd } = this;
    const gradients = grad(this.scaler?.scaled(loss) ?? loss, store.parameters);
    const statistics: Output[] = updates.flatMap(({ runningMean, runningVar, statistics: { mean: m, variance } }) => [
      { tensor: m, storage: batchStatistics.at(store.statistics.indexOf(runningMean)) },
      { tensor: variance, storage: batchStatistics.at(store.statistics.indexOf(runningVar)) },
    ]);
    const outputs: Output[] = [
      { tensor: loss, storage: this.loss },
      // Last layers first: each weight gradient runs as soon as its dy is there, which is then free.
      ...gradients.map((tensor, i) => ({ tensor: sgd.formedDirection(i, tensor, this.control.at('first')), storage: sgd.gradients.at(i) })).reverse(),
      ...statistics,
    ];
    const fused = fuse(outputs.map(({ tensor }) => tensor));
    return outputs.map(({ storage }, i) => ({ tensor: fused[i], storage }));
  }

  /** Looks for Inf and NaN by their bits: in the loss, the batch variances, the gradients, which lose the loss's scale on the way. */
  #checks(batchStatistics: Arena): Launch<Ref>[] {
    const check = (x: Storage, bit: number) =>
      emit(checkFinite, { bindings: { x, flags: this.flags }, uniforms: { n: x.size / 16, bit }, grid: grid1d(x.size / 16, 64) });
    return [
      check(this.loss, flagNonFiniteLoss),
      ...(this.store.statistics.length > 0 ? batchStatistics.segments.map((segment) => check(segment, flagNonFiniteStatistics)) : []),
      ...this.sgd.gradients.segments.map(
        (segment) => this.scaler?.unscaleLaunch(segment, this.flags, flagNonFiniteDirection) ?? check(segment, flagNonFiniteDirection),
      ),
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

  /** How convolutions are computed: by estimate, or as a tuner has measured on the graphs. */
  async #lowering({ gradient, evaluation, event }: Graphs, { tuner, onTune }: StepPlanOptions): Promise<LowerContext> {
    if (!tuner) return lowerContextOf(this.memory.device);
    const once = [...gradient.map(({ tensor }) => tensor), ...(evaluation ? [evaluation.logits] : [])];
    const graphs = [{ outputs: () => once }];
    // No coefficient is read: memory that is there stands for them.
    const passes = event && { trials: event.count, outputs: (count: number) => passLosses(event, count, this.rates) };
    await tuner.tune(passes ? [...graphs, passes] : graphs, onTune);
    return tuner.lowering;
  }

  /** g·u from dot products of what is there before the direction is: see `directionSlope`. */
  #draftSlope({ direction }: TrialPlanOptions, first: Word): { slope: Storage; draft: Draft } {
    const { memory, sgd, store } = this;
    const isRaw = direction === 'gradient';
    const { momentum, dampening, weightDecay, nesterov } = isRaw ? resolveSgdOptions() : sgd.options;
    const pairs: [Arena, Arena][] = [[sgd.gradients, sgd.gradients]];
    if (momentum > 0) pairs.push([sgd.gradients, sgd.buffer!]);
    if (weightDecay > 0) pairs.push([sgd.gradients, store.parameterArena]);
    const [dots, slope] = ['dot products', 'slope'].map((label) => memory.storage('trials', label, 16));
    const uniforms = { momentum, dampening, weight_decay: weightDecay, nesterov: Number(nesterov), first_word: first.word };
    const finish = emit(directionSlope, { bindings: { dots, first: first.storage, slope }, uniforms, grid: [1, 1, 1] });
    return { slope, draft: draft(memory, 'slope', [], [...dotLaunches(memory, 'trials', pairs, dots), finish]) };
  }

  #eventGraph(
    { count, direction, batch, isGrid = false, evidence = null }: TrialPlanOptions,
    lossesOf: (batch: Batch) => Tensor,
  ): EventGraph {
    const { store, sgd } = this;
    const ofGrid = sgd.buffer ? [sgd.buffer, sgd.gradients] : [sgd.gradients];
    const arenas = isGrid ? ofGrid : [direction === 'gradient' ? sgd.gradients : sgd.directions];
    const directions = new Map(store.parameters.map((variable, i) => [variable, arenas.map((arena) => arena.at(i))]));
    const coefficientWords = arenas.length + Number(isGrid);
    const samples = [batch].flat().map((one) => lossesOf(one));
    const losses = samples.map((one) => mean(one));
    const loss =
      losses.length === 1
        ? losses[0]
        : scale(
            losses.reduce((sum, one) => add(sum, one)),
            1 / losses.length,
          );
    return { loss, samples: evidence === 'samples' ? samples : [], count, directions, coefficientWords };
  }

  /** The passes of an event, and the rule that ends it. */
  #draftEvent(
    graph: EventGraph,
    { rule, memoryBudget = 0, seed }: TrialPlanOptions,
    lowering: LowerContext,
    others: readonly Draft[],
    bareBytes: number,
    slope: Storage | null = null,
  ): EventDraft {
    const { memory, sgd } = this;
    const event = draftEvent({ ...graph, memory, lowering, others, bareBytes, memoryBudget });
    this.trials = { ...event.trials, slope };
    if (rule) this.rule = new TrialRule(memory, rule, sgd.options, this.rates, this.trials, seed);
    this.log.rule = this.rule;
    return event;
  }

  async #buildAll(
    drafts: readonly Draft[],
    placement: Placement,
    event: EventDraft | null,
    onCompile?: OnCompile,
  ): Promise<Plan[]> {
    const { memory } = this;
    const slots = allocateSlots(memory, placement);
    const ofTrials = drafts.filter(({ label }) =>
      ['slope', 'event', 'coefficients', 'next pass', 'rule', 'rate'].includes(label));
    const launches = ofTrials.flatMap((one) => one.launches);
    const uniforms = ofTrials.length > 0 ? new Uniforms(memory, 'trials', 'event uniforms', launches) : undefined;
    await compileKernels(memory.device, drafts, onCompile);
    const build = (one: Draft, index: number) =>
      buildPlan(memory, one, {
        slots,
        places: placement.places[index] ?? [],
        uniforms: ofTrials.includes(one) ? uniforms : undefined,
      });
    const built = await Promise.all(drafts.map(build));
    const of = (label: string) => built.filter((plan) => plan.label === label);
    [this.gradient, this.direction] = built;
    this.update = Plan.join('update', [...of('rate'), ...of('update')]);
    this.evaluation = of('evaluation')[0] ?? null;
    this.rateAhead = of('rate ahead')[0] ?? null;
    this.slope = of('slope')[0] ?? null;
    if (event) {
      const [next] = of('next pass');
      const passes = event.trials.passes.flatMap((size) => [of('event')[event.sizes.indexOf(size)], next]);
      this.event = Plan.join('event', [...of('coefficients'), next, ...passes, ...of('rule')]);
    }
    return built;
  }
}
