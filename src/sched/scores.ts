/**
 * From trial losses to weights: normalise, then score. Both are total tables, so a name without a rule does not compile.
 * Everything here sees finite losses only; `trialWeights` gives non-finite trials weight 0.
 */
import { AttrError } from '../gpu/errors.ts';

export type NormalizeName = 'minMax' | 'zScore' | 'mean' | 'sum' | 'l2' | 'none';
export type ScoreName = 'exp' | 'relGain' | 'rank';

/** Spacing of float32 just above 1: one unit in the last place (ulp) of a float32 loss L is at most ULP · |L|. */
export const ULP = 2 ** -23;

const sumOf = (xs: readonly number[]): number => xs.reduce((a, b) => a + b, 0);
/** e^(−x/τ), but for a common factor: the smallest x is subtracted first, so that one weight at least is 1, whatever x and τ. */
const falling = (x: readonly number[], tau: number): number[] => {
  const low = Math.min(...x);
  return x.map((v) => Math.exp(-(v - low) / tau));
};
const divided = (xs: readonly number[], by: number): number[] => xs.map((x) => (by === 0 ? 0 : x / by));

/**
 * Losses (all finite, at least one) → x, smaller is better. Where the divisor is 0 (equal losses, or all 0) every x is 0.
 * mean, sum and l2 divide by a norm of |L|, the published formula for losses ≥ 0 and order-preserving for others.
 */
export const normalizers: Record<NormalizeName, (losses: readonly number[]) => number[]> = {
  /** x = (L − min) / (max − min), in [0, 1] */
  minMax: (losses) => {
    const low = Math.min(...losses);
    return divided(losses.map((l) => l - low), Math.max(...losses) - low);
  },
  /** x = (L − mean) / sd, sd over the N trials (population) */
  zScore: (losses) => {
    const mean = sumOf(losses) / losses.length;
    const centred = losses.map((l) => l - mean);
    return divided(centred, Math.sqrt(sumOf(centred.map((c) => c * c)) / losses.length));
  },
  /** x = L / mean |L| */
  mean: (losses) => divided(losses, sumOf(losses.map(Math.abs)) / losses.length),
  /** x = L / Σ |L| */
  sum: (losses) => divided(losses, sumOf(losses.map(Math.abs))),
  /** x = L / √Σ L² */
  l2: (losses) => divided(losses, Math.hypot(...losses)),
  /** x = L */
  none: (losses) => [...losses],
};

/** What a score needs beside x. */
export interface ScoreContext {
  /** temperature > 0: small values trust the best trial more */
  tau: number;
  /** loss at the current weights (a trial at c = 0) on the trials' batch; relGain alone needs it */
  baseLoss: number | null;
}

/** x (smaller is better) → weights, not yet summing to 1. */
export const scores: Record<ScoreName, (x: readonly number[], context: ScoreContext) => number[]> = {
  /** w = e^(−x/τ) */
  exp: (x, { tau }) => falling(x, tau),
  /** w = e^(−(L − Lmin) / (τ s)), s = max(L0 − Lmin, 4 ulp · |L0|): losses in units of the best trial's gain */
  relGain: (losses, { tau, baseLoss }) => {
    if (baseLoss === null || !Number.isFinite(baseLoss)) {
      throw new AttrError({
        op: 'relGain', arg: 'baseLoss', rule: 'must be the finite loss at the current weights', got: baseLoss,
        fix: "pass the training step's loss on the trials' batch, or score by 'exp'",
      });
    }
    const low = Math.min(...losses);
    const scale = Math.max(baseLoss - low, 4 * ULP * Math.abs(baseLoss), Number.MIN_VALUE);
    return falling(losses.map((l) => (l - low) / scale), tau);
  },
  /** w = e^(−rank/τ), rank from 0 (best), ties share the mean of their ranks */
  rank: (x, { tau }) => {
    const rankOf = (v: number): number => x.filter((o) => o < v).length + (x.filter((o) => o === v).length - 1) / 2;
    return falling(x.map(rankOf), tau);
  },
};

/** What a score of one's own is told beside the losses. */
export interface OwnScoreContext extends ScoreContext {
  /** one a loss */
  factors: readonly number[];
}

/**
 * A score of one's own: losses, one a factor, NaN and ±Infinity where a trial diverged → weights ≥ 0, one a loss, not all 0. They are
 * divided by their sum; what a diverged trial gets does not count.
 */
export type OwnScore = (losses: readonly number[], context: OwnScoreContext) => readonly number[];

/** How losses become weights. */
export interface Scoring {
  normalize: NormalizeName;
  score: ScoreName | OwnScore;
  /** temperature of the score, > 0; 1 is the published e^−x */
  tau: number;
}

/**
 * Throws AttrError for unknown names, τ that is not finite and > 0, and a normalisation that the score would not see:
 * relGain scales losses itself, rank looks at their order alone and a function gets the losses, so these take 'none'.
 */
export function checkScoring(op: string, { normalize, score, tau }: Scoring): void {
  checkName(op, 'normalize', normalize, normalizers);
  if (typeof score !== 'function') checkName(op, 'score', score, scores);
  if (!(Number.isFinite(tau) && tau > 0)) {
    throw new AttrError({ op, arg: 'tau', rule: 'must be finite and > 0', got: tau, fix: 'pass 1 for the plain score' });
  }
  if (score !== 'exp' && normalize !== 'none') {
    const name = typeof score === 'function' ? 'a score of your own' : `score '${score}'`;
    throw new AttrError({ op, arg: 'normalize', rule: `must be 'none' with ${name}`, got: normalize, fix: 'it gets plain losses' });
  }
}

/** Throws AttrError unless `name` is a key of `table`. */
export function checkName(op: string, arg: string, name: string, table: object): void {
  if (Object.hasOwn(table, name)) return;
  const known = Object.keys(table).join(', ');
  throw new AttrError({ op, arg, rule: `must be one of ${known}`, got: name, fix: 'names are case-sensitive' });
}

/**
 * Weights of all trials, Σ = 1, in their order; a trial with a non-finite loss weighs 0; all 0 where no loss is finite.
 * @throws AttrError where a score of one's own returns no weights
 */
export function trialWeights(
  losses: readonly number[],
  scoring: Scoring,
  baseLoss: number | null,
  factors: readonly number[] = [],
): number[] {
  const finite = losses.filter(Number.isFinite);
  const { score, normalize, tau } = scoring;
  if (finite.length === 0) return losses.map(() => 0);
  if (typeof score === 'function') return ownWeights(score(losses, { tau, baseLoss, factors }), losses);
  const raw = scores[score](normalizers[normalize](finite), { tau, baseLoss });
  const total = sumOf(raw);
  let next = 0;
  return losses.map((l) => (Number.isFinite(l) ? raw[next++] / total : 0));
}

function ownWeights(raw: readonly number[], losses: readonly number[]): number[] {
  const isList = Array.isArray(raw) && raw.length === losses.length;
  const kept = isList ? losses.map((l, i) => (Number.isFinite(l) ? raw[i] : 0)) : [];
  const total = sumOf(kept);
  if (isList && kept.every((w) => w >= 0) && total > 0 && Number.isFinite(total)) return divided(kept, total);
  throw new AttrError({
    op: 'TrialScheduler', arg: 'score', rule: `must return ${losses.length} finite weights ≥ 0, some finite trial's > 0`,
    got: JSON.stringify(raw), fix: 'return one weight a loss, in their order',
  });
}
