/** What scores may look at beside the trials' losses: losses of single samples, and the slope along the direction. Float64. */
import { AttrError } from '../gpu/errors.ts';

/** What the loop tells a scheduler beside the losses, where its score or its control asks for it. */
export interface TrialEvidence {
  /** 'pairedNoise': the losses of the samples, one list a trial, the samples in the same order in each */
  readonly samples?: readonly ArrayLike<number>[] | null;
  /** 'armijo': g·u, g the gradient of the training batch and u the direction, so that −g·u is dφ/dη at the weights */
  readonly slope?: number | null;
  /** 'armijo': what the schedule below gave, trial i being made at baseRate · m · f_i @default 1 */
  readonly baseRate?: number;
  /** 'shuffledLosses': the run's seed, a u32 @default 0 */
  readonly seed?: number;
}

/** Each trial against the best one, sample by sample; NaN for trials that diverged. */
export interface Pairs {
  /** mean_j (l_ij − l_best,j), j over the samples; 0 for the best trial itself */
  readonly differences: readonly number[];
  /** standard error of that mean: √(Σ_j (d_ij − mean)² / (n (n − 1))) */
  readonly standardErrors: readonly number[];
}

const refuse = (arg: string, rule: string, got: unknown, fix: string): never => {
  throw new AttrError({ op: 'pairedDifferences', arg, rule, got, fix });
};

/**
 * The best trial is the one of the least mean loss, the first of several. Differences are taken sample by sample before anything is added:
 * what all trials have in common, hard and easy samples, cancels, and so do the digits that two means would have lost.
 * @param losses means, one a trial; NaN and ±Infinity mark diverged trials
 * @throws AttrError unless every trial has as many samples, at least 2
 */
export function pairedDifferences(samples: TrialEvidence['samples'], losses: readonly number[]): Pairs {
  if (!samples || samples.length !== losses.length) {
    const fix = 'pass the losses of the samples, one list a trial';
    return refuse('samples', `must hold one list a trial (${losses.length})`, samples ? samples.length : samples, fix);
  }
  const n = samples[0].length;
  const uneven = samples.find(({ length }) => length !== n || length < 2);
  const rule = 'must hold the losses of the same samples for each trial, at least 2';
  if (uneven) return refuse('samples', rule, uneven.length, 'score on more');
  const finite = [...losses.keys()].filter((i) => Number.isFinite(losses[i]));
  const best = finite.reduce((least, i) => (losses[i] < losses[least] ? i : least), finite[0]);
  const against = (i: number): { difference: number; standardError: number } => {
    if (!Number.isFinite(losses[i])) return { difference: NaN, standardError: NaN };
    const d = Array.from({ length: n }, (_, j) => samples[i][j] - samples[best][j]);
    const mean = d.reduce((a, b) => a + b, 0) / n;
    return { difference: mean, standardError: Math.sqrt(d.reduce((sum, x) => sum + (x - mean) ** 2, 0) / (n - 1) / n) };
  };
  const all = losses.map((_, i) => against(i));
  return { differences: all.map((one) => one.difference), standardErrors: all.map((one) => one.standardError) };
}

/** What the Armijo gate asks of each trial. */
export interface Gate {
  readonly factors: readonly number[];
  /** c · η_i · g·u, one a trial: by how much its loss has to be below that at the weights */
  readonly decreases: readonly number[];
}

/** @throws AttrError for a slope or a rate that is missing */
export function armijoGate(factors: readonly number[], lr: number, c: number, { slope, baseRate = 1 }: TrialEvidence): Gate {
  if (typeof slope !== 'number') {
    const fix = "pass the dot product of gradient and direction, or score by 'exp'";
    throw new AttrError({ op: 'armijo', arg: 'slope', rule: 'must be a number', got: slope, fix });
  }
  if (!(Number.isFinite(baseRate) && baseRate >= 0))
    throw new AttrError({ op: 'armijo', arg: 'baseRate', rule: 'must be finite and ≥ 0', got: baseRate, fix: '1 without a base' });
  return { factors, decreases: factors.map((f) => (Number.isFinite(slope) ? c * f * baseRate * lr * slope : NaN)) };
}
