/**
 * Schedules whose rate each step's own numbers decide: its loss, norms and products of its gradient, losses of trials. The rules are pure
 * functions in float64, one a file beside this one; `Trainer` runs their twins on the GPU (src/kernels/rateRules.ts), in the submit of the
 * step, and tells the schedule later what came of them.
 */
import { AttrError } from '../../gpu/errors.ts';
import { checkKind } from '../schedule.ts';
import type { Schedule, ScheduleState } from '../schedule.ts';

export type RuleName = 'slsArmijo' | 'pal' | 'cdat' | 'hypergradient' | 'sps' | 'aliG' | 'dog' | 'scheduleFree';

/**
 * What a rule may ask for of a step. g is the gradient of the batch's mean loss L at the weights θ, d the direction that the optimizer
 * makes of it (of plain SGD g itself, with weight decay λ g + λθ, with momentum its buffer), φ(c) = L(θ − c·d) on the same batch.
 */
export interface StepFacts {
  /** L(θ), of the training pass. */
  readonly loss: number;
  /** ‖g‖² */
  readonly gradientSquared: number;
  /** g·d = −φ'(0) */
  readonly slope: number;
  /** ‖d‖² */
  readonly directionSquared: number;
  /** (g + λθ)·d', d' the direction of the step before, 0 at the first: −∂L/∂η of the rate η of that step. */
  readonly hypergradient: number;
  /** ‖θ − θ_0‖², θ_0 the weights that training began with. */
  readonly distanceSquared: number;
}

export type FactName = keyof StepFacts;
/** In the order in which they are logged; the loss is in the step's line anyway. */
export const factNames = ['gradientSquared', 'slope', 'directionSquared', 'hypergradient', 'distanceSquared'] as const satisfies FactName[];

/** What a rule knows of the run. */
export interface RuleRun {
  readonly stepsPerEpoch: number;
  readonly totalSteps: number;
  /** ‖θ_0‖ */
  readonly startNorm: number;
  /** Has the model running statistics, as batch norms have? */
  readonly hasStatistics: boolean;
}

/** A rule's memory between steps: few numbers with names. */
export type RuleWords = Readonly<Record<string, number>>;

export interface RuleStep {
  readonly lr: number;
  readonly words: RuleWords;
}

/** A rule in float64, and what the loop must measure for it. */
export interface RuleSpec {
  readonly kind: RuleName;
  /** What a state must have in common with the schedule that takes it over. */
  readonly parameters: Readonly<Record<string, unknown>>;
  readonly facts: readonly FactName[];
  /** Before the first step. */
  readonly words: RuleWords;
  /** The rate that it begins with; 0 where nothing is known before the first step. */
  readonly lr: number;
  /** Trials that every step makes; the last one is at 0. @default 0 */
  readonly trials?: number;
  /** Whether the optimizer must have no momentum. @default false */
  readonly isPlain?: boolean;
  /**
   * Where training and evaluation have two points, what the second one is, by w, the rule's word `share`:
   *   average   θ̄ ← (1 − w)·θ̄ + w·θ after every step, of the running statistics too; evaluated is θ̄
   *   free      the weights are y; z ← z − η·d;  x ← (1 − w)·x + w·z;  y ← (1 − β)·z + β·x, d at y; evaluated is x, with running
   *             statistics of so many training batches at x, or where that is 0 with those of training
   * @default one point
   */
  readonly second?: { readonly kind: 'average' } | { readonly kind: 'free'; readonly beta: number; readonly statisticBatches: number };
  /** Values of the GPU's uniforms, by the names that the twin has. */
  uniforms(run: RuleRun): Record<string, number>;
  /** Where trials are made, in rates: trial i is L(θ − rate_i·d). */
  trialRates?(words: RuleWords, facts: StepFacts, run: RuleRun): number[];
  /** The step's rate. @param losses of the trials, in the order of their rates */
  next(words: RuleWords, facts: StepFacts, run: RuleRun, losses: readonly number[]): RuleStep;
}

/**
 * A schedule made of a rule. A `Trainer` whose schedule it is runs the rule on the GPU; the schedule holds what it has heard of. A schedule
 * serves one trainer at a time.
 */
export class AdaptiveSchedule implements Schedule {
  #lr: number;
  #words: RuleWords;
  #hasSteps = false;

  constructor(readonly spec: RuleSpec) {
    this.#lr = spec.lr;
    this.#words = spec.words;
  }

  /** Rate of the last step that was told of; before the first what the rule begins with. */
  get lr(): number {
    return this.#lr;
  }

  /** The rule's memory as of that step. */
  get words(): RuleWords {
    return this.#words;
  }

  /** Whether it was told of steps, since a state was loaded if one was. */
  get hasSteps(): boolean {
    return this.#hasSteps;
  }

  /** The rate of the last step that was told of: that of a step to come is not known. */
  lrAt(): number {
    return this.#lr;
  }

  /** Whether a step begins with trials. */
  isDue(): boolean {
    return (this.spec.trials ?? 0) > 0;
  }

  /** Takes over a step that was made. */
  record({ lr, words }: RuleStep): void {
    this.#lr = lr;
    this.#words = words;
    this.#hasSteps = true;
  }

  state(): ScheduleState {
    return { kind: this.spec.kind, lr: this.#lr, parameters: { ...this.spec.parameters }, words: { ...this.#words } };
  }

  /** @throws AttrError for a state of another rule or of other parameters, or a malformed one; the schedule is then unchanged */
  load(state: ScheduleState): void {
    const { kind, parameters, words: own } = this.spec;
    checkKind(kind, state, kind);
    const refuse = (arg: string, rule: string, fix: string): never => {
      throw new AttrError({ op: kind, arg: `state.${arg}`, rule, got: JSON.stringify(state[arg]), fix });
    };
    if (JSON.stringify(state.parameters) !== JSON.stringify(parameters))
      refuse('parameters', `must be this schedule's ${JSON.stringify(parameters)}`, 'make it with the same options');
    if (!Number.isFinite(state.lr)) refuse('lr', 'must be finite', 'pass what state() gave');
    const words = (state.words ?? {}) as Record<string, unknown>;
    const names = Object.keys(own);
    const isSame = Object.keys(words).join() === names.join() && names.every((name) => Number.isFinite(words[name]));
    if (!isSame) refuse('words', `must hold finite numbers ${names.join(', ')}`, 'pass what state() gave');
    this.#lr = state.lr;
    this.#hasSteps = false;
    this.#words = { ...words } as RuleWords;
  }
}
