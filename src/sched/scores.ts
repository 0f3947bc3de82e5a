/**
 * From trial losses to weights: normalise, then score. Both are total tables, so a name without a rule does not compile.
 * Everything here sees finite losses only; `trialWeights` gives non-finite trials weight 0.
 */
import { AttrError } from '../gpu/errors.ts';
import type { Gate, Pairs } from './evidence.ts';

export type NormalizeName = 'minMax' | 'zScore' | 'mean' | 'sum' | 'l2' | 'none';
export type ScoreName = 'exp' | 'relGain' | 'rank' | 'pairedNoise' | 'armijo';

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

/** What a score may need beside x. */
export interface ScoreContext {
  /** temperature > 0: small values trust the best trial more */
  tau: number;
  /** loss at the current weights (a trial at c = 0) on the trials' batch; relGain and armijo need it */
  baseLoss: number | null;
}

/** What the scores by name may need: of the finite trials alone, as x is. */
export interface NamedScoreContext extends ScoreContext {
  /** pairedNoise alone: κ > 0, standard errors below which a trial counts much like the best one @default 1 */
  kappa?: number;
  /** pairedNoise alone: each trial against the best one */
  pairs?: Pairs;
  /** armijo alone: the decrease that is asked of each trial */
  gate?: Gate;
}

const missing = (op: string, arg: string, rule: string, got: unknown, fix: string): never => {
  throw new AttrError({ op, arg, rule, got, fix });
};

function checkBase(op: string, baseLoss: number | null): asserts baseLoss is number {
  if (baseLoss !== null && Number.isFinite(baseLoss)) return;
  const fix = "pass the training step's loss on the trials' batch, or score by 'exp'";
  missing(op, 'baseLoss', 'must be the finite loss at the current weights', baseLoss, fix);
}

/** x (smaller is better) → weights, not yet summing to 1. */
export const scores: Record<ScoreName, (x: readonly number[], context: NamedScoreContext) => number[]> = {
  /** w = e^(−x/τ) */
  exp: (x, { tau }) => falling(x, tau),
  /** w = e^(−(L − Lmin) / (τ s)), s = max(L0 − Lmin, 4 ulp · |L0|): losses in units of the best trial's gain */
  relGain: (losses, { tau, baseLoss }) => {
    checkBase('relGain', baseLoss);
    const low = Math.min(...losses);
    const scale = Math.max(baseLoss - low, 4 * ULP * Math.abs(baseLoss), Number.MIN_VALUE);
    return falling(losses.map((l) => (l - low) / scale), tau);
  },
  /** w = e^(−rank/τ), rank from 0 (best), ties share the mean of their ranks */
  rank: (x, { tau }) => {
    const rankOf = (v: number): number => x.filter((o) => o < v).length + (x.filter((o) => o === v).length - 1) / 2;
    return falling(x.map(rankOf), tau);
  },
  /**
   * w = e^(−½(t/κ)²), t = mean_j d_j / SE, d_j the trial's loss of sample j less the best trial's: trials that the noise of the batch does
   * not tell from the best one weigh as much as it does. Where all samples differ by the same, t is infinite, or 0 where they do not
   * differ.
   */
  pairedNoise: (_losses, { kappa = 1, pairs }) => {
    if (!pairs) return missing('pairedNoise', 'samples', 'must be given', pairs, "pass the losses of the samples, or score by 'exp'");
    return pairs.differences.map((d, i) => (d === 0 ? 1 : Math.exp(-0.5 * (d / pairs.standardErrors[i] / kappa) ** 2)));
  },
  /**
   * w = 1 for the largest f with L_f ≤ L0 − c·f·η·(g·u), else for the smallest f; 0 for the others. With g·u not finite none is accepted.
   * @source Armijo's condition of sufficient decrease, as in Vaswani et al., *Painless Stochastic Gradient*, NeurIPS 2019, eq. 1
   */
  armijo: (losses, { baseLoss, gate }) => {
    checkBase('armijo', baseLoss);
    if (!gate) return missing('armijo', 'slope', 'must be given', gate, "pass g·u, or score by 'exp'");
    const { factors, decreases } = gate;
    const accepted = factors.filter((_, i) => losses[i] - baseLoss <= -decreases[i]);
    const chosen = accepted.length > 0 ? Math.max(...accepted) : Math.min(...factors);
    return factors.map((f) => Number(f === chosen));
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
  /** temperature of the score, > 0; 1 is the published e^−x; pairedNoise and armijo have none and take 1 */
  tau: number;
  /** κ of pairedNoise, > 0; null for 1, and for the other scores @default null */
  kappa?: number | null;
  /** share of the linear decrease that armijo asks for, in (0, 1); null for 0.1, and for the other scores @default null */
  c?: number | null;
}

/** What null stands for. */
export const scoreDefaults = { kappa: 1, c: 0.1 } as const;

/**
 * Throws AttrError for unknown names, numbers out of range, and what the score would not see. relGain scales losses itself, rank looks at
 * their order, pairedNoise at samples, armijo at the decrease, and a function gets the losses: these take normalize 'none'.
 */
export function checkScoring(op: string, { normalize, score, tau, kappa = null, c = null }: Scoring): void {
  checkName(op, 'normalize', normalize, normalizers);
  if (typeof score !== 'function') checkName(op, 'score', score, scores);
  if (!(Number.isFinite(tau) && tau > 0)) {
    throw new AttrError({ op, arg: 'tau', rule: 'must be finite and > 0', got: tau, fix: 'pass 1 for the plain score' });
  }
  if (score !== 'exp' && normalize !== 'none') {
    const name = typeof score === 'function' ? 'a score of your own' : `score '${score}'`;
    throw new AttrError({ op, arg: 'normalize', rule: `must be 'none' with ${name}`, got: normalize, fix: 'it gets plain losses' });
  }
  if (kappa !== null) {
    if (score !== 'pairedNoise') missing(op, 'kappa', "must be null unless the score is 'pairedNoise'", kappa, 'others have tau');
    if (!(Number.isFinite(kappa) && kappa > 0)) missing(op, 'kappa', 'must be finite and > 0', kappa, '1 or 2 is usual');
  }
  if (c !== null) {
    if (score !== 'armijo') missing(op, 'c', "must be null unless the score is 'armijo'", c, 'leave it out');
    if (!(c > 0 && c < 1)) missing(op, 'c', 'must be in (0, 1)', c, '0.1 is usual');
  }
  if ((score === 'pairedNoise' || score === 'armijo') && tau !== 1) {
    const fix = score === 'pairedNoise' ? 'pass kappa' : 'leave it out';
    missing(op, 'tau', `must be 1 with score '${score}', which has no temperature`, tau, fix);
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
 * @param pairs pairedNoise alone, and `gate` armijo alone: of all trials
 * @throws AttrError where a score of one's own returns no weights, and where a score lacks what it looks at
 */
export function trialWeights(
  losses: readonly number[],
  scoring: Scoring,
  baseLoss: number | null,
  factors: readonly number[] = [],
  { pairs, gate }: Pick<NamedScoreContext, 'pairs' | 'gate'> = {},
): number[] {
  const isFinite = losses.map(Number.isFinite);
  const finite = losses.filter(Number.isFinite);
  const { score, normalize, tau, kappa } = scoring;
  if (finite.length === 0) return losses.map(() => 0);
  if (typeof score === 'function') return ownWeights(score(losses, { tau, baseLoss, factors }), losses);
  const only = (xs: readonly number[]): number[] => xs.filter((_, i) => isFinite[i]);
  const raw = scores[score](normalizers[normalize](finite), {
    tau, baseLoss, kappa: kappa ?? scoreDefaults.kappa,
    pairs: pairs && { differences: only(pairs.differences), standardErrors: only(pairs.standardErrors) },
    gate: gate && { factors: only(gate.factors), decreases: only(gate.decreases) },
  });
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
