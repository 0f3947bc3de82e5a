/** The trial scheduler's host side: a scale m, moved by events, and the log of them. Running the trials is the training loop's part. */
import { AttrError } from '../gpu/errors.ts';
import { isDueAt } from './cadence.ts';
import { shuffledTrials } from './controls.ts';
import type { ControlName } from './controls.ts';
import { envelopeAt } from './envelopes.ts';
import type { Pairs, TrialEvidence } from './evidence.ts';
import { checkKind, checkLr, checkOptions } from './schedule.ts';
import { scoreDefaults } from './scores.ts';
import type { Schedule, ScheduleState } from './schedule.ts';
import { checkFloat32, holdUlps, resolveTrialOptions } from './trialOptions.ts';
import type { ResolvedTrialOptions, TrialOptions } from './trialOptions.ts';
import { meanOfPoints, trialUpdate } from './update.ts';

/** One scheduling event. Learning rates are the scale m; update `step` itself runs at lrAfter · envelope(step),
 * or lrAfter · base(step). */
export interface TrialEvent {
  /** the update it came before, from 0 */
  step: number;
  lrBefore: number;
  lrAfter: number;
  /** what the trials asked for: lrBefore · multiplier, before the bounds and the ceiling */
  multiplier: number;
  /** one a trial, as are losses and weights */
  factors: number[];
  losses: number[];
  /** score weights, Σ = 1; all 0 where every trial diverged */
  weights: number[];
  /** loss at the current weights on the trials' batch, where the loop gave it */
  baseLoss: number | null;
  /** a bound changed lrAfter, or the most that the search had found */
  clamped: boolean;
  /** trials with a NaN or infinite loss */
  nonFinite: number;
  /** the losses were equal within rounding, lr was kept for that */
  held: boolean;
  /** every trial diverged; lr was cut by the smallest factor */
  allNonFinite: boolean;
  /** what else was tried, where `factors` is a grid */
  optimizer?: TriedOptimizer;
  /** of score 'pairedNoise': each trial against the best one, t = difference / standard error */
  pairs?: Pairs;
  /** of score 'armijo': g·u, the decrease of the loss along the direction for an infinitely small rate, by that rate */
  slope?: number;
  /** in a control run, which; with 'blindDrift' no trial was run, and the losses are 0 */
  control?: ControlName;
  /** of 'shuffledLosses': factor i was scored by losses[order[i]] */
  order?: number[];
  /** where the rule was computed: on the GPU, within the step; or here, from losses read back (a score of one's own) */
  path: 'gpu' | 'host';
}

/** The optimizer's numbers that trials are made with. Null: the optimizer's own, which nobody has changed. */
export interface OptimizerPoint {
  readonly momentum: number | null;
  readonly weightDecay: number | null;
}

/** Momenta and weight decays of an event: one a trial, null where that was not tried; and those of the steps before and after it. */
export interface TriedOptimizer {
  momenta: number[] | null;
  weightDecays: number[] | null;
  before: OptimizerPoint;
  after: OptimizerPoint;
}

/**
 * Sets a scale m from trials at m · f_i; update t is made at m · envelope(t / T). With a `base` trials are at base(t) · m · f_i, and updates at
 * base(t) · m.
 * The loop: if isDue(step), run trials at trialRates(baseAt(step)), apply(step, losses); then step at lrAt(step, totalSteps).
 */
export class TrialScheduler implements Schedule {
  /** all options, factors resolved to numbers; batch, scoreBatch and direction tell the loop what to run */
  readonly options: Readonly<ResolvedTrialOptions>;
  #m: number;
  #optimizer: OptimizerPoint = { momentum: null, weightDecay: null };
  #events: TrialEvent[] = [];

  /** @throws AttrError for the first option that is wrong */
  constructor(options: TrialOptions) {
    this.options = resolveTrialOptions(options);
    this.#m = options.lr;
  }

  /** The scale m; where trials are run by a `Trainer`, as of the last event that it has told of. */
  get lr(): number {
    return this.#m;
  }

  /** What events have made of the optimizer's numbers, where `factors` is a grid. */
  get optimizer(): OptimizerPoint {
    return this.#optimizer;
  }

  /** All events so far (that a `Trainer` has told of), oldest first. */
  get events(): readonly TrialEvent[] {
    return this.#events;
  }

  isDue(step: number, stepsPerEpoch?: number): boolean {
    const { every, search } = this.options;
    return isDueAt(search && this.isSearching(step) ? { steps: search.every } : every, step, stepsPerEpoch);
  }

  /** base · m · f_i, in the order of the factors: trial i's losses are L(θ − trialRates[i] · d). */
  trialRates(base = 1): number[] {
    return this.options.factors.map((f) => base * this.#m * f);
  }

  /** What `base` gives update `step`; 1 without one. */
  baseAt(step: number, totalSteps?: number, stepsPerEpoch?: number): number {
    return this.options.base?.lrAt(step, totalSteps, stepsPerEpoch) ?? 1;
  }

  /** Whether m may rise as far as the bounds before update `step`: within the search, and always without one. */
  isSearching(step: number): boolean {
    const { search } = this.options;
    return search === null || step < search.events * search.every;
  }

  /** What no event before update `step` raises m above: once the search is over, the highest m that it left behind; Infinity before. */
  ceilingAt(step: number): number {
    return this.isSearching(step) ? Infinity : this.highestFound || Infinity;
  }

  /** The highest m that an event of the search left behind, or any event without a search; 0 before the first. */
  get highestFound(): number {
    return this.#events.reduce((most, { step, lrAfter }) => (this.isSearching(step) ? Math.max(most, lrAfter) : most), 0);
  }

  /**
   * Moves m by the trials' losses and logs the event. With every loss non-finite m is cut by the smallest factor; the loop decides whether
   * the run goes on.
   * @param losses one a factor, in their order; NaN and ±Infinity mark diverged trials
   * @param baseLoss loss at the current weights on the trials' batch; the scores 'relGain' and 'armijo' need it
   * @param evidence what the scores 'pairedNoise' and 'armijo' and the control 'shuffledLosses' need beside
   * @throws AttrError for what of it is missing, and for a step that is not after the last event's
   */
  apply(step: number, losses: readonly number[], baseLoss: number | null = null, evidence: TrialEvidence = {}): TrialEvent {
    const { factors, normalize, score, tau, kappa, c, anchor, bounds, hold, control } = this.options;
    this.#checkStep('TrialScheduler.apply', step);
    const lrBefore = this.#m;
    const holdBelow = hold ? holdUlps : null;
    const order = control === 'shuffledLosses' ? shuffledTrials(evidence.seed ?? 0, step, factors.length) : null;
    const { samples, slope, baseRate } = evidence;
    const rule = { normalize, score, tau, kappa, c, anchor, bounds, holdBelow, ceiling: this.ceilingAt(step) };
    const update = trialUpdate({ lr: lrBefore, factors, losses, baseLoss, samples, slope, baseRate, order, ...rule });
    const controlled = { ...(control && { control }), ...(order && { order }) };
    const given = { factors: [...factors], losses: [...losses], baseLoss };
    const event: TrialEvent = { step, lrBefore, ...update, ...given, path: 'host', ...controlled };
    const { momenta, weightDecays } = this.options;
    if (momenta || weightDecays) {
      const before = this.#optimizer;
      const moves = !update.held && !update.allNonFinite;
      const momentum = momenta && moves ? meanOfPoints.momentum(momenta, update.weights) : before.momentum;
      const weightDecay = weightDecays && moves ? meanOfPoints.weightDecay(weightDecays, update.weights) : before.weightDecay;
      event.optimizer = { momenta, weightDecays, before, after: { momentum, weightDecay } };
    }
    this.#take(event);
    return event;
  }

  /**
   * The event of control 'blindDrift': the rule on equal losses, without any trial.
   * @throws AttrError under another control, or none
   */
  drift(step: number): TrialEvent {
    const { control, factors } = this.options;
    if (control !== 'blindDrift') {
      const fix = 'run trials, and apply their losses';
      throw new AttrError({ op: 'TrialScheduler.drift', arg: 'control', rule: "must be 'blindDrift'", got: control, fix });
    }
    return this.apply(step, factors.map(() => 0), 0, { samples: factors.map(() => [0, 0]) });
  }

  #take(event: TrialEvent): void {
    this.#m = event.lrAfter;
    this.#optimizer = event.optimizer?.after ?? this.#optimizer;
    this.#events.push(event);
  }

  /**
   * Takes over an event whose rule was computed on the GPU, from its log: m is then its lrAfter.
   * @throws AttrError for a step that is not after the last event's
   */
  record(event: TrialEvent): void {
    this.#checkStep('TrialScheduler.record', event.step);
    this.#take(event);
  }

  /** Takes back the events from `step` on, whose steps were not made: m is what it was before them. */
  revert(step: number): void {
    const kept = this.#events.findIndex((event) => event.step >= step);
    if (kept === -1) return;
    this.#m = this.#events[kept].lrBefore;
    this.#optimizer = this.#events[kept].optimizer?.before ?? this.#optimizer;
    this.#events.length = kept;
  }

  #checkStep(op: string, step: number): void {
    const last = this.#events.at(-1);
    if (Number.isInteger(step) && step >= 0 && (last === undefined || step > last.step)) return;
    const rule = last === undefined ? 'must be an integer ≥ 0' : `must be an integer > ${last.step}`;
    throw new AttrError({ op, arg: 'step', rule, got: step, fix: 'apply each event once, in order' });
  }

  lrAt(step: number, totalSteps?: number, stepsPerEpoch?: number): number {
    return this.#m * this.envelopeAt(step, totalSteps, stepsPerEpoch);
  }

  /** What update `step` is made at, in units of m: the base where there is one. */
  envelopeAt(step: number, totalSteps?: number, stepsPerEpoch?: number): number {
    const { base, envelope } = this.options;
    return base ? this.baseAt(step, totalSteps, stepsPerEpoch) : envelopeAt(envelope, step, totalSteps, stepsPerEpoch);
  }

  state(): ScheduleState {
    const { momenta, weightDecays, base } = this.options;
    const grid = momenta || weightDecays ? { optimizer: { ...this.#optimizer } } : {};
    return { kind: 'trial', lr: this.#m, options: this.#fixed(), ...grid, ...(base && { base: base.state() }), events: this.#events.map(eventToJson) };
  }

  /** Options that the future depends on: all but the first m, and the base, which has a state of its own. */
  #fixed(): Record<string, unknown> {
    const { lr: _first, base: _base, ...fixed } = this.options;
    fixed.c = fixed.score === 'armijo' ? (fixed.c ?? scoreDefaults.c) : null;
    fixed.kappa = fixed.score === 'pairedNoise' ? (fixed.kappa ?? scoreDefaults.kappa) : null;
    const plain = (_: string, value: unknown): unknown => (typeof value === 'function' ? 'a function' : value);
    return JSON.parse(JSON.stringify(fixed, plain)) as Record<string, unknown>;
  }

  /** @throws AttrError for a state of another schedule or of other options, or a malformed one; the scheduler is then unchanged */
  load(state: ScheduleState): void {
    const op = 'TrialScheduler.load';
    checkKind(op, state, 'trial');
    checkLr(op, state.lr);
    checkFloat32(op, 'lr', state.lr, 'pass what state() gave');
    checkOptions(op, (state.options ?? {}) as object, this.#fixed(), 'state.options');
    if (this.options.base) this.options.base.load(state.base as ScheduleState);
    else if (state.base !== undefined) {
      const rule = 'must be absent, as this scheduler has none';
      throw new AttrError({ op, arg: 'state.base', rule, got: JSON.stringify(state.base), fix: 'make the scheduler with it' });
    }
    const refuse = (name: string, rule: string): never => {
      throw new AttrError({ op, arg: `state.${name}`, rule, got: JSON.stringify(state[name]), fix: 'pass what state() gave' });
    };
    const { bounds, momenta, weightDecays } = this.options;
    // m is a float32, and so are the bounds that it was held to.
    const [least, m, most] = [bounds?.[0] ?? 0, state.lr, bounds?.[1] ?? Infinity].map(Math.fround);
    if (m < least || m > most) refuse('lr', `must lie in ${bounds!.join(' … ')}, this scheduler's bounds`);
    const isList = Array.isArray(state.events) && state.events.every(isEventJson);
    if (!isList) refuse('events', 'must be a list of events in order of step');
    const hasGrid = momenta !== null || weightDecays !== null;
    if (hasGrid !== (state.optimizer !== undefined)) refuse('optimizer', `must ${hasGrid ? '' : 'not '}be there ${hasGrid ? 'with' : 'without'} a grid`);
    const optimizer = state.optimizer ?? { momentum: null, weightDecay: null };
    if (!isOptimizerPoint(optimizer)) refuse('optimizer', 'must hold momentum in [0, 1) and weightDecay ≥ 0, or null for each');
    const events = (state.events as TrialEventJson[]).map(eventFromJson);
    this.#m = state.lr;
    this.#optimizer = { ...(optimizer as OptimizerPoint) };
    this.#events = events;
  }
}

/** A number JSON can hold: 'NaN', 'Infinity' and '-Infinity' as text. */
export type JsonNumber = number | 'NaN' | 'Infinity' | '-Infinity';
/** An event as JSON holds it. */
export type TrialEventJson = Omit<TrialEvent, 'losses' | 'baseLoss' | 'pairs' | 'slope'> & {
  losses: JsonNumber[];
  baseLoss: JsonNumber | null;
  pairs?: Record<keyof Pairs, JsonNumber[]>;
  slope?: JsonNumber;
};

const isJsonNumber = (value: unknown): boolean => Number.isFinite(value) || ['NaN', 'Infinity', '-Infinity'].includes(value as string);

/** An event that can be gone on from: `revert` and the order of steps need the numbers, a report the lists. */
function isEventJson(event: Partial<TrialEventJson> | null, i: number, all: readonly Partial<TrialEventJson>[]): boolean {
  if (typeof event !== 'object' || event === null) return false;
  const { step, lrBefore, lrAfter, factors, losses, weights } = event;
  const isNext = Number.isInteger(step) && step! > (i === 0 ? -1 : all[i - 1].step!);
  const hasRates = [lrBefore, lrAfter].every((lr) => Number.isFinite(lr) && lr! > 0);
  const lists = [factors, losses, weights, ...(event.pairs === undefined ? [] : [event.pairs?.differences, event.pairs?.standardErrors])];
  return isNext && hasRates && lists.every((list) => Array.isArray(list) && list.length === factors!.length && list.every(isJsonNumber));
}

function isOptimizerPoint(point: unknown): boolean {
  if (typeof point !== 'object' || point === null) return false;
  const { momentum, weightDecay } = point as OptimizerPoint;
  const isGood = (value: number | null, least: number, below: number) =>
    value === null || (typeof value === 'number' && value >= least && value < below);
  return isGood(momentum, 0, 1) && isGood(weightDecay, 0, Infinity);
}

const toJson = (x: number): JsonNumber => (Number.isFinite(x) ? x : (String(x) as JsonNumber));

/** JSON writes NaN and Infinity as null; here they become text, which eventFromJson turns back. */
export function eventToJson({ pairs, slope, ...event }: TrialEvent): TrialEventJson {
  const { factors, losses, weights, baseLoss } = event;
  return {
    ...event, factors: [...factors], weights: [...weights], losses: losses.map(toJson),
    baseLoss: baseLoss === null ? null : toJson(baseLoss),
    ...(pairs && { pairs: { differences: pairs.differences.map(toJson), standardErrors: pairs.standardErrors.map(toJson) } }),
    ...(slope !== undefined && { slope: toJson(slope) }),
  };
}

export function eventFromJson({ pairs, slope, ...event }: TrialEventJson): TrialEvent {
  const { factors, losses, weights, baseLoss } = event;
  return {
    ...event, factors: [...factors], weights: [...weights], losses: losses.map(Number),
    baseLoss: baseLoss === null ? null : Number(baseLoss),
    ...(pairs && { pairs: { differences: pairs.differences.map(Number), standardErrors: pairs.standardErrors.map(Number) } }),
    ...(slope !== undefined && { slope: Number(slope) }),
  };
}
