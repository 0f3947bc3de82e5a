/**
 * The ALR technique: a breadth-first beam search over learning rates, a whole epoch a branch (Takase, Oyama, Kurihara, *Effective neural
 * network training with adaptive learning rate based on training loss*, Neural Networks 2018). This is its arithmetic: rates out, training
 * losses in, the branches that are kept out. `AlrTrainer` trains the branches.
 *
 *   branch (m, n) trains beam m's weights for an epoch at η_m·r_n; the M branches of the least mean training loss are the next beams
 *
 * The paper leaves open what ties and branches that diverge do; here
 *   a tie      goes to the factor nearest 1 in ratio, then to the smaller rate, then to the earlier beam: an epoch that tells nothing
 *              leaves η alone
 *   diverged   a loss that is not finite counts as +∞ and is never kept: there are fewer beams then, until branches fill them again
 *   all of them  the beams stay what they were when the epoch began, and their rates are multiplied by the least factor
 *   twins      the beams begin with the same weights, where branches of one rate are one branch
 */
import { AttrError } from '../gpu/errors.ts';
import { resolveFactors, type Factors } from './factors.ts';
import { checkKind, checkLr, checkNames, checkOptions, type ScheduleState } from './schedule.ts';

export interface AlrOptions {
  /** Learning rate to start from, > 0; or one for each of the beams, which start from the same weights. */
  readonly lr: number | readonly number[];
  /** Most beams, M ≥ 1. @default 1, or as many as there are rates */
  readonly beam?: number;
  /** Factors r_n of a beam's rate, one a branch. @default 'factor3' = 2, 1, ½ */
  readonly factors?: Factors;
}

/** A branch of an epoch. */
export interface AlrBranch {
  /** Number of the beam whose weights it began with. */
  readonly beam: number;
  readonly factor: number;
  readonly lr: number;
}

/** What came of it. */
export interface AlrCandidate extends AlrBranch {
  /** Mean training loss of the epoch's steps; Infinity where one of them was not finite. */
  readonly loss: number;
}

export interface AlrEvent {
  /** Epochs before this one. */
  readonly epoch: number;
  readonly candidates: readonly AlrCandidate[];
  /** Indices of the candidates that are the next beams, the best first; none where all diverged. */
  readonly kept: readonly number[];
  /** Learning rates of the next beams. */
  readonly rates: readonly number[];
  /** Every branch diverged: the weights are those that the epoch began with. */
  readonly allNonFinite: boolean;
}

/** An event in JSON, where Infinity is null. */
export type AlrEventJson = Omit<AlrEvent, 'candidates'> & {
  readonly candidates: readonly (AlrBranch & { readonly loss: number | null })[];
};

export const alrEventToJson = (event: AlrEvent): AlrEventJson => ({
  ...event,
  candidates: event.candidates.map((one) => ({ ...one, loss: Number.isFinite(one.loss) ? one.loss : null })),
});

export interface AlrState extends ScheduleState {
  readonly kind: 'alr';
  /** The best beam's rate. */
  readonly lr: number;
  readonly rates: readonly number[];
  readonly epoch: number;
  /** Whether all beams have the same weights, as before the first branch is kept. */
  readonly isRoot: boolean;
  readonly beam: number;
  readonly factors: readonly number[];
}

const refuse = (arg: string, rule: string, got: unknown, fix: string): never => {
  throw new AttrError({ op: 'AlrTree', arg, rule, got, fix });
};

export class AlrTree {
  /** M. */
  readonly beam: number;
  readonly factors: readonly number[];
  #rates: readonly number[];
  #epoch = 0;
  #isRoot = true;

  /** @throws AttrError for rates not > 0, a beam that is no integer ≥ 1 or less than the rates, and bad factors */
  constructor({ lr, beam, factors = 'factor3', ...rest }: AlrOptions) {
    checkNames('AlrTree', rest, ['lr', 'beam', 'factors']);
    const rates = typeof lr === 'number' ? [lr] : [...lr];
    if (rates.length === 0) refuse('lr', 'must be a number or hold at least one', lr, 'pass 0.005');
    for (const rate of rates) checkLr('AlrTree', rate);
    this.beam = beam ?? rates.length;
    if (!Number.isInteger(this.beam) || this.beam < 1) refuse('beam', 'must be an integer ≥ 1', beam, 'pass 1 or 3');
    if (rates.length > this.beam) refuse('lr', `must hold at most ${this.beam} rates, the beams`, rates.length, 'ask for more beams');
    this.factors = resolveFactors(factors);
    this.#rates = rates;
  }

  /** Most branches of an epoch: M·N. */
  get branchesPerEpoch(): number {
    return this.beam * this.factors.length;
  }

  /** Learning rates of the present beams, the best first. */
  get rates(): readonly number[] {
    return this.#rates;
  }

  /** Whether all beams have the same weights, and no step behind them: no branch was kept yet. */
  get isRoot(): boolean {
    return this.#isRoot;
  }

  /** The branches of the next epoch, beam by beam; at most `branchesPerEpoch`. */
  branches(): AlrBranch[] {
    const all = this.#rates.flatMap((rate, beam) => this.factors.map((factor) => ({ beam, factor, lr: rate * factor })));
    return this.#isRoot ? all.filter((one, i) => all.findIndex(({ lr }) => lr === one.lr) === i) : all;
  }

  /**
   * Ends an epoch.
   * @param losses mean training loss of each of `branches()`, anything that is not finite where it diverged
   * @throws AttrError unless there is a loss a branch
   */
  next(losses: readonly number[]): AlrEvent {
    const branches = this.branches();
    if (losses.length !== branches.length)
      refuse('losses', `must be ${branches.length}, one a branch`, losses.length, 'pass them in the order of branches()');
    const candidates = branches.map((one, i) => ({ ...one, loss: Number.isFinite(losses[i]) ? losses[i] : Infinity }));
    const finite = [...candidates.keys()].filter((i) => candidates[i].loss < Infinity);
    const kept = finite.sort((i, j) => compare(candidates[i], candidates[j]) || i - j).slice(0, this.beam);
    const allNonFinite = kept.length === 0;
    const least = Math.min(...this.factors);
    const rates = allNonFinite ? this.#rates.map((rate) => rate * least) : kept.map((i) => candidates[i].lr);
    const event = { epoch: this.#epoch, candidates, kept, rates, allNonFinite };
    this.#rates = rates;
    this.#isRoot &&= allNonFinite;
    this.#epoch++;
    return event;
  }

  /** All that a fresh tree of the same options needs to go on; survives JSON. */
  state(): AlrState {
    const { beam, factors } = this;
    return { kind: 'alr', lr: this.#rates[0], rates: [...this.#rates], epoch: this.#epoch, isRoot: this.#isRoot, beam, factors: [...factors] };
  }

  /** @throws AttrError for the state of something else, or of other beams or factors */
  load(state: ScheduleState): void {
    checkKind('AlrTree', state, 'alr');
    checkOptions('AlrTree', state, { beam: this.beam, factors: this.factors });
    const { rates, epoch, isRoot } = state as AlrState;
    const hasRates = Array.isArray(rates) && rates.length > 0 && rates.length <= this.beam;
    if (!hasRates || !(Number.isInteger(epoch) && epoch >= 0) || typeof isRoot !== 'boolean') {
      const fix = 'load the state of a tree with as many beams';
      refuse('state', `must have 1 … ${this.beam} rates, an epoch and isRoot`, JSON.stringify(state), fix);
    }
    for (const rate of rates) checkLr('AlrTree', rate);
    this.#rates = [...rates];
    this.#epoch = epoch;
    this.#isRoot = isRoot;
  }
}

/** Below 0 where a is better. */
function compare(a: AlrCandidate, b: AlrCandidate): number {
  const apart = ({ factor }: AlrBranch): number => Math.abs(Math.log(factor));
  const byFactor = apart(a) - apart(b);
  return a.loss - b.loss || (Math.abs(byFactor) > 1e-12 ? byFactor : a.lr - b.lr);
}
