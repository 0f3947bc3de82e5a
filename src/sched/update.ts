/** The learning-rate update of one scheduling event: pure, float64. */
import { AttrError } from '../gpu/errors.ts';
import { armijoGate, pairedDifferences } from './evidence.ts';
import type { Pairs, TrialEvidence } from './evidence.ts';
import { meanLogFactor } from './factors.ts';
import { checkScoring, scoreDefaults, trialWeights, ULP } from './scores.ts';
import type { Scoring } from './scores.ts';

export interface TrialUpdateInput extends Scoring, Omit<TrialEvidence, 'seed'> {
  /** learning rate before the event, > 0 */
  lr: number;
  /** f_i > 0, one a trial */
  factors: readonly number[];
  /** L(θ − f_i · lr · d), one a trial, in the order of `factors`; NaN and ±Infinity mark diverged trials */
  losses: readonly number[];
  /** loss at the current weights; needed by the scores 'relGain' and 'armijo' @default null */
  baseLoss?: number | null;
  /** subtract mean ln f, so that equal scores leave lr as it is whatever the factors */
  anchor: boolean;
  /** [lowest, highest] lr, or null for none */
  bounds: readonly [number, number] | null;
  /** an upper bound beside `bounds`, > 0 @default Infinity */
  ceiling?: number;
  /** keep lr where all losses are finite and their range is at most so many float32 ulps of the largest |L|; null never holds */
  holdBelow: number | null;
  /** factor i is scored by the loss of trial order[i]: a permutation of 0 … N−1; null for each by its own @default null */
  order?: readonly number[] | null;
}

export interface TrialUpdate {
  lrAfter: number;
  /** what the trials asked for, before the bounds and the ceiling: lr · multiplier */
  multiplier: number;
  /** score weights, Σ = 1; all 0 where no loss is finite */
  weights: number[];
  /** true where a bound or the ceiling changed lr */
  clamped: boolean;
  /** trials whose loss is NaN or ±Infinity */
  nonFinite: number;
  /** true where the losses were equal within rounding and lr was kept for that */
  held: boolean;
  /** true where every trial diverged; the multiplier is then the smallest factor */
  allNonFinite: boolean;
  /** what score 'pairedNoise' looked at, one a trial */
  pairs?: Pairs;
  /** what score 'armijo' looked at: g·u */
  slope?: number;
}

/**
 * Weighted geometric mean of the factors.   ln lr' = ln lr + Σ_i w_i ln f_i − [anchor] (1/N) Σ_i ln f_i,   w = score(normalize(L)) / Σ
 * The mean of the anchor runs over all N trials, so that a diverged large factor still lowers lr.
 * No finite loss: lr' = lr · min f.  holdBelow: range(L) ≤ holdBelow · 2^-23 · max|L| ⇒ lr' = lr exactly; with a diverged trial nothing is
 * held, as that trial has told something.
 * @throws AttrError for lr not > 0, losses and factors of different length, bad scoring, and what a score needs and does not get: the base
 * loss (relGain, armijo), the slope (armijo), the samples' losses (pairedNoise)
 * @source Kim & Yu, Automated learning rate scheduling with in-training information, Algorithm 1; anchor, hold, bounds and the treatment
 * of diverged trials are ours
 */
export function trialUpdate(input: TrialUpdateInput): TrialUpdate {
  const { lr, factors, losses, baseLoss = null, anchor, bounds, ceiling = Infinity, holdBelow, score, c, order } = input;
  checkInput(input);
  const reordered = <T>(xs: readonly T[]): readonly T[] => (order ? order.map((i) => xs[i]) : xs);
  const pairs = score === 'pairedNoise' ? pairedDifferences(input.samples, losses) : undefined;
  const seen = pairs && { differences: reordered(pairs.differences), standardErrors: reordered(pairs.standardErrors) };
  const gate = score === 'armijo' ? armijoGate(factors, lr, c ?? scoreDefaults.c, input) : undefined;
  const weights = trialWeights(reordered(losses), input, baseLoss, factors, { pairs: seen, gate });
  const nonFinite = losses.filter((l) => !Number.isFinite(l)).length;
  const allNonFinite = nonFinite === losses.length;
  const held = holdBelow !== null && nonFinite === 0 && isFlat(losses, holdBelow);
  const multiplier = held ? 1 : allNonFinite ? Math.min(...factors) : weightedGeometricMean(factors, weights, anchor);
  const asked = lr * multiplier;
  const [low, high] = bounds ?? [0, Infinity];
  const lrAfter = Math.min(Math.max(asked, low), high, ceiling);
  const looked = { ...(pairs && { pairs }), ...(gate && { slope: input.slope! }) };
  return { lrAfter, multiplier, weights, clamped: lrAfter !== asked, nonFinite, held, allNonFinite, ...looked };
}

/**
 * The score-weighted mean of values tried, in a coordinate where it makes sense: ln 1/(1 − μ) of momenta (the number of steps that a
 * momentum remembers), ln λ of weight decays. A value of 1 − μ or λ is thus a weighted geometric mean.
 */
export const meanOfPoints = {
  momentum: (momenta: readonly number[], weights: readonly number[]): number =>
    -Math.expm1(momenta.reduce((sum, mu, i) => sum + weights[i] * Math.log1p(-mu), 0)),
  weightDecay: (decays: readonly number[], weights: readonly number[]): number =>
    Math.exp(decays.reduce((sum, lambda, i) => sum + weights[i] * Math.log(lambda), 0)),
} as const;

function weightedGeometricMean(factors: readonly number[], weights: readonly number[], anchor: boolean): number {
  const log = factors.reduce((sum, f, i) => sum + weights[i] * Math.log(f), 0);
  return Math.exp(anchor ? log - meanLogFactor(factors) : log);
}

function isFlat(losses: readonly number[], ulps: number): boolean {
  const largest = Math.max(...losses.map(Math.abs));
  return Math.max(...losses) - Math.min(...losses) <= ulps * ULP * largest;
}

function checkInput(input: TrialUpdateInput): void {
  const op = 'trialUpdate';
  const { lr, factors, losses } = input;
  if (!(Number.isFinite(lr) && lr > 0)) {
    throw new AttrError({ op, arg: 'lr', rule: 'must be finite and > 0', got: lr, fix: 'set bounds if trials drive it out of range' });
  }
  const { ceiling = Infinity } = input;
  if (!(ceiling > 0)) throw new AttrError({ op, arg: 'ceiling', rule: 'must be > 0', got: ceiling, fix: 'leave it out for none' });
  if (losses.length !== factors.length || losses.length === 0) {
    throw new AttrError({
      op, arg: 'losses', rule: `must hold one loss a factor (${factors.length})`, got: losses.length,
      fix: 'pass them in the order of factors',
    });
  }
  const { order } = input;
  if (order && (order.length !== factors.length || factors.some((_, i) => !order.includes(i)))) {
    const rule = `must be a permutation of 0 … ${factors.length - 1}`;
    throw new AttrError({ op, arg: 'order', rule, got: JSON.stringify(order), fix: 'shuffledTrials makes one' });
  }
  checkScoring(op, input);
}
