/** Rates by losses along the step's direction: searches without a loop, as all their points are tried in one fused pass. */
import { checkWord } from '../pure.ts';
import { AdaptiveSchedule, type RuleSpec, type RuleWords } from './adaptive.ts';
import { checkReal, refuseIdle, upTo, withDefaults } from './options.ts';

export interface SlsArmijoOptions {
  /** Where the search begins at the first step, > 0. @default 1 */
  readonly initLr?: number;
  /** The share of the slope that counts, in (0, 1). @default 0.1 */
  readonly c?: number;
  /** Each trial over the one before, in (0, 1). @default 0.9 */
  readonly beta?: number;
  /** N ≥ 1: trials a step. @default 10 */
  readonly trials?: number;
  /**
   * Where the next step's search begins: 'grow' at γ^(1/B) times the rate that was found, B the batches of an epoch; 'keep' at it; 'init'
   * at initLr. @default 'grow'
   */
  readonly reset?: 'grow' | 'keep' | 'init';
  /** γ ≥ 1 of 'grow', and of that alone. @default 2 */
  readonly gamma?: number;
  /** Largest rate, > 0. @default 10 */
  readonly maxLr?: number;
  /** Rate of a step none of whose trials was accepted, > 0. @default 1e-6 */
  readonly fallbackLr?: number;
}

/**
 * Armijo's line search on the batch.   η = the largest of s, s·β, …, s·β^(N−1) with φ(η) ≤ φ(0) − c·η·g·d;
 * s = min(γ^(1/B)·η_before, maxLr), with φ(η) = L(θ − η·d) on the step's own batch, d the optimizer's direction (of plain SGD g).
 *
 * All N are tried at once, and φ(0) with them. Where none is accepted the step is made at fallbackLr, and the next step's search goes on
 * where this one ended, at s·β^N: so N is what a step can afford, not how far the search can reach. Where d does not descend (g·d ≤ 0,
 * which momentum may bring) the step is made at fallbackLr too, and s stays. A loss that is not finite is not accepted.
 * @throws AttrError for options out of range
 * @source Vaswani, Mishkin, Laradji, Schmidt, Gidel & Lacoste-Julien, *Painless Stochastic Gradient*, NeurIPS 2019, algorithms 1 and 2;
 *   defaults as in the authors' IssamLaradji/sls. Differences: N trials a step instead of up to 100, and the search goes on at the next
 *   step
 */
export function slsArmijo(options: SlsArmijoOptions = {}): AdaptiveSchedule {
  const op = 'slsArmijo';
  const defaults: Required<SlsArmijoOptions> =
    { initLr: 1, c: 0.1, beta: 0.9, trials: 10, reset: 'grow', gamma: 2, maxLr: 10, fallbackLr: 1e-6 };
  const all = withDefaults(op, defaults, options);
  const { initLr, c, beta, trials, reset, gamma, maxLr, fallbackLr } = all;
  checkReal(op, 'maxLr', maxLr, { above: 0 }, 10);
  checkReal(op, 'initLr', initLr, { above: 0, max: maxLr }, 1);
  checkReal(op, 'c', c, { above: 0, max: 1 - 2 ** -20 }, 0.1);
  checkReal(op, 'beta', beta, { above: 0, max: 1 - 2 ** -20 }, 0.9);
  checkReal(op, 'trials', trials, { min: 1, max: 256, isInteger: true }, 10);
  checkWord(op, 'reset', reset, ['grow', 'keep', 'init']);
  refuseIdle(op, options, 'gamma', reset !== 'grow', "must go with reset 'grow'");
  checkReal(op, 'gamma', gamma, { min: 1 }, 2);
  checkReal(op, 'fallbackLr', fallbackLr, { above: 0, max: maxLr }, 1e-6);
  const growthOf = (stepsPerEpoch: number) => (reset === 'grow' ? gamma ** (1 / stepsPerEpoch) : 1);
  const startOf = ({ lr }: RuleWords, stepsPerEpoch: number) => (reset === 'init' ? initLr : Math.min(lr * growthOf(stepsPerEpoch), maxLr));
  const spec: RuleSpec = {
    kind: op, parameters: { ...all }, facts: ['slope'], words: { lr: initLr, accepted: 0 }, lr: initLr, trials: trials + 1,
    uniforms: ({ stepsPerEpoch }) => ({
      c, beta, n: trials, growth: growthOf(stepsPerEpoch), most: maxLr, fallback: fallbackLr, fixed_start: reset === 'init' ? initLr : 0,
    }),
    trialRates: (words, _, { stepsPerEpoch }) => {
      const start = startOf(words, stepsPerEpoch);
      return [...Array.from({ length: trials }, (__, i) => start * beta ** i), 0];
    },
    next: (words, { slope }, { stepsPerEpoch }, losses) => {
      const start = startOf(words, stepsPerEpoch);
      const none = (lr: number) => ({ lr: fallbackLr, words: { lr, accepted: -1 } });
      if (!(slope > 0)) return none(words.lr);
      const base = losses[trials];
      const wanted = (i: number) => -c * start * beta ** i * slope;
      const accepted = losses.slice(0, trials).findIndex((loss, i) => Number.isFinite(loss) && loss - base <= wanted(i));
      if (accepted < 0) return none(Math.max(start * beta ** trials, fallbackLr));
      const lr = start * beta ** accepted;
      return { lr, words: { lr, accepted } };
    },
  };
  return new AdaptiveSchedule(spec);
}

export interface PalOptions {
  /** μ > 0: how far away the loss is measured. @default 1 */
  readonly measuringStep?: number;
  /** Longest step, > 0, or null for none. @default 3.16 */
  readonly maxStep?: number | null;
  /** α > 0: the step over the way to the parabola's minimum. @default 1/0.6 */
  readonly updateFactor?: number;
}

/**
 * Parabolic approximation.   η = s/‖d‖;   s = min(−α·b/(2a), maxStep) with b = −g·d/‖d‖, a = (φ(μ) − φ(0) − b·μ)/μ²;
 * φ(s) = L(θ − s·d/‖d‖) on the step's own batch, d the optimizer's direction. Where a ≤ 0, s = min(μ, maxStep); where d does not descend
 * (b ≥ 0) or φ(μ) is not finite, there is no step: η = 0.
 *
 * One trial a step, and φ(0) with it. The authors' direction adaptation β = 0.4 is `optimizer: { momentum: 0.4 }`.
 * @throws AttrError for options out of range
 * @source Mutschler & Zell, *Parabolic Approximation Line Search for DNNs*, NeurIPS 2020, algorithm 1; defaults as in the authors'
 *   cogsys-tuebingen/PAL. Differences: where φ(μ) is not finite theirs leaves the weights at μ
 */
export function pal(options: PalOptions = {}): AdaptiveSchedule {
  const op = 'pal';
  const all = withDefaults<Required<PalOptions>>(op, { measuringStep: 1, maxStep: 3.16, updateFactor: 1 / 0.6 }, options);
  const { measuringStep: mu, maxStep, updateFactor } = all;
  checkReal(op, 'measuringStep', mu, { above: 0 }, 1);
  if (maxStep !== null) checkReal(op, 'maxStep', maxStep, { above: 0 }, 3.16);
  checkReal(op, 'updateFactor', updateFactor, { above: 0 }, '1/0.6');
  const spec: RuleSpec = {
    kind: op, parameters: { ...all }, facts: ['slope', 'directionSquared'], words: { step: 0, curvature: 0 }, lr: 0, trials: 2,
    uniforms: () => ({ mu, most: upTo(maxStep), factor: updateFactor }),
    trialRates: (_, { directionSquared }) => [directionSquared > 0 ? mu / Math.sqrt(directionSquared) : 0, 0],
    next: (_, { slope, directionSquared }, __, [probe, base]) => {
      const norm = Math.sqrt(directionSquared);
      const b = slope / norm;
      if (!(slope > 0 && norm > 0) || !Number.isFinite(probe)) return { lr: 0, words: { step: 0, curvature: 0 } };
      const a = (probe - base + b * mu) / mu ** 2;
      const step = Math.min(a > 0 ? (updateFactor * b) / (2 * a) : mu, upTo(maxStep));
      return { lr: step / norm, words: { step, curvature: 2 * a } };
    },
  };
  return new AdaptiveSchedule(spec);
}

export interface CdatOptions {
  /** σ > 0: 1 takes the parabola's minimum, 2 the edge of stability. @default 2 */
  readonly sigma?: number;
  /** Of the moving averages of slope and curvature, in [0, 1); 0 for none, as fits full batches. @default 0.9 */
  readonly beta?: number;
  /** ε > 0 beside the curvature. @default 1e-8 */
  readonly eps?: number;
  /** h: how far away the loss is measured, > 0: where the slope alone would change the loss by so much of it. @default 0.02 */
  readonly span?: number;
  /** Largest rate, > 0, or null for none. @default null */
  readonly maxLr?: number | null;
}

/**
 * Curvature dynamics aware tuning.   η = σ·n̄/d̄;   n = max(g·d, 0), d = |κ| + ε, n̄ and d̄ their moving averages;
 * κ = (φ(h) − 2φ(0) + φ(−h))/h² for dᵀ∇²L d, φ(η) = L(θ − η·d) on the step's own batch, d the optimizer's direction, h = span·L/|g·d|.
 *
 * Where a loss is not finite or g·d = 0, nothing is measured and η stays; before the first measurement it is 0.
 * @throws AttrError for options out of range
 * @source Roulet, Agarwala, Grill, Swirszcz, Blondel & Pedregosa, *Stepping on the Edge: Curvature Aware Learning Rate Tuners*, NeurIPS
 *   2024: σ = 2, averages for minibatches. Differences: the curvature comes from two trials, not from a Hessian-vector product;
 *   how slow the averages are (beta) is ours
 */
export function cdat(options: CdatOptions = {}): AdaptiveSchedule {
  const op = 'cdat';
  const all = withDefaults<Required<CdatOptions>>(op, { sigma: 2, beta: 0.9, eps: 1e-8, span: 0.02, maxLr: null }, options);
  const { sigma, beta, eps, span, maxLr } = all;
  checkReal(op, 'sigma', sigma, { above: 0 }, 2);
  checkReal(op, 'beta', beta, { min: 0, max: 1 - 2 ** -20 }, 0.9);
  checkReal(op, 'eps', eps, { above: 0 }, 1e-8);
  checkReal(op, 'span', span, { above: 0 }, 0.02);
  if (maxLr !== null) checkReal(op, 'maxLr', maxLr, { above: 0 }, 1);
  const spanOf = (loss: number, slope: number) => (slope === 0 ? 0 : (span * loss) / Math.abs(slope));
  const spec: RuleSpec = {
    // Averages that begin at 0 are too small by one factor, which their quotient does not see.
    kind: op, parameters: { ...all }, facts: ['loss', 'slope'], words: { lr: 0, slope: 0, curvature: 0 }, lr: 0, trials: 3,
    uniforms: () => ({ sigma, beta, eps, span, most: upTo(maxLr) }),
    trialRates: (_, { loss, slope }) => {
      const h = spanOf(loss, slope);
      return [h, -h, 0];
    },
    next: (words, { loss, slope }, _, [ahead, behind, base]) => {
      const h = spanOf(loss, slope);
      if (!(h > 0) || ![ahead, behind].every(Number.isFinite)) return { lr: words.lr, words };
      const curvature = Math.abs((ahead - base + (behind - base)) / h ** 2) + eps;
      const moved = {
        slope: beta * words.slope + (1 - beta) * Math.max(slope, 0),
        curvature: beta * words.curvature + (1 - beta) * curvature,
      };
      const lr = Math.min((sigma * moved.slope) / moved.curvature, upTo(maxLr));
      return { lr, words: { lr, ...moved } };
    },
  };
  return new AdaptiveSchedule(spec);
}
