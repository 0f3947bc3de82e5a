/** Rates by Polyak's rule: how far the loss is above its least, over what the gradient can bring. */
import { AdaptiveSchedule, type RuleSpec } from './adaptive.ts';
import { checkReal, refuseIdle, upTo, withDefaults } from './options.ts';

export interface SpsOptions {
  /** c > 0; ½ fits convex losses best. @default 0.5 */
  readonly c?: number;
  /** γ ≥ 1: by how much the bound of the rate may grow an epoch; null: there is no such bound. @default 2 */
  readonly gamma?: number | null;
  /** Where that bound begins, > 0; not without it. @default 1 */
  readonly initLr?: number;
  /** Largest rate, > 0, or null for none. @default null */
  readonly maxLr?: number | null;
  /** Least loss that a batch can have, ≥ 0. @default 0 */
  readonly fStar?: number;
  /** ε > 0 beside the gradient's square. @default 1e-8 */
  readonly eps?: number;
}

/**
 * The stochastic Polyak step, smoothed.   η_t = min((L − f*) / (c·‖g‖² + ε), γ^(1/B)·b_t, maxLr);   b_(t+1) = η_t
 * with L the loss of the batch, g its gradient, B the batches of an epoch, b_0 = initLr. Where L ≤ f*, η is 0 and the bound stays.
 *
 * It is meant for networks that can fit every batch (f* = 0), and for plain SGD: with momentum the rate multiplies the optimizer's
 * direction all the same, with weight decay L and g are those without it.
 * @throws AttrError for options out of range
 * @source Loizou, Vaswani, Laradji & Lacoste-Julien, *Stochastic Polyak Step-size for SGD*, AISTATS 2021; defaults
 *   and ε as in the authors' IssamLaradji/sps. Differences: a rate of 0 does not make the bound 0 for ever
 */
export function sps(options: SpsOptions = {}): AdaptiveSchedule {
  const op = 'sps';
  const all = withDefaults<Required<SpsOptions>>(op, { c: 0.5, gamma: 2, initLr: 1, maxLr: null, fStar: 0, eps: 1e-8 }, options);
  const { c, gamma, initLr, maxLr, fStar, eps } = all;
  checkReal(op, 'c', c, { above: 0 }, 0.5);
  if (gamma !== null) checkReal(op, 'gamma', gamma, { min: 1 }, 2);
  refuseIdle(op, options, 'initLr', gamma === null, 'must go with gamma, a bound that grows from it');
  checkReal(op, 'initLr', initLr, { above: 0 }, 1);
  if (maxLr !== null) checkReal(op, 'maxLr', maxLr, { above: 0 }, 1);
  checkReal(op, 'fStar', fStar, { min: 0 }, 0);
  checkReal(op, 'eps', eps, { above: 0 }, 1e-8);
  /** 0 stands for no bound. */
  const growthOf = (stepsPerEpoch: number) => (gamma === null ? 0 : gamma ** (1 / stepsPerEpoch));
  const spec: RuleSpec = {
    kind: op, parameters: { ...all }, facts: ['loss', 'gradientSquared'], words: { bound: initLr }, lr: initLr,
    uniforms: ({ stepsPerEpoch }) => ({ c, eps, least: fStar, growth: growthOf(stepsPerEpoch), most: upTo(maxLr) }),
    next: ({ bound }, { loss, gradientSquared }, { stepsPerEpoch }) => {
      if (loss <= fStar) return { lr: 0, words: { bound } };
      const growth = growthOf(stepsPerEpoch);
      const polyak = (loss - fStar) / (c * gradientSquared + eps);
      const lr = Math.min(polyak, growth > 0 ? growth * bound : Infinity, upTo(maxLr));
      return { lr, words: { bound: lr } };
    },
  };
  return new AdaptiveSchedule(spec);
}

export interface AliGOptions {
  /** Largest rate, > 0. @default 0.1 */
  readonly maxLr?: number;
  /** δ > 0 beside the gradient's square. @default 1e-5 */
  readonly eps?: number;
}

/**
 * Adaptive learning rates for interpolation with gradients.   η = min(L / (‖g‖² + δ), maxLr)
 * with L the loss of the batch and g its gradient; the least loss is taken to be 0, as of networks that can fit every batch. With weight
 * decay L and g are those without it. The authors step with Nesterov's momentum 0.9: `optimizer: { momentum: 0.9, nesterov: true }` is
 * their `adjusted_momentum`.
 * @throws AttrError for options out of range
 * @source Berrada, Zisserman & Kumar, *Training Neural Networks for and by Interpolation*, ICML 2020; defaults as in the
 *   authors' oval-group/ali-g, whose examples have maxLr 0.1. Differences: no projection onto a ball
 */
export function aliG(options: AliGOptions = {}): AdaptiveSchedule {
  const op = 'aliG';
  const all = withDefaults<Required<AliGOptions>>(op, { maxLr: 0.1, eps: 1e-5 }, options);
  const { maxLr, eps } = all;
  checkReal(op, 'maxLr', maxLr, { above: 0 }, 0.1);
  checkReal(op, 'eps', eps, { above: 0 }, 1e-5);
  const spec: RuleSpec = {
    kind: op, parameters: { ...all }, facts: ['loss', 'gradientSquared'], words: {}, lr: maxLr,
    uniforms: () => ({ eps, most: maxLr }),
    next: (words, { loss, gradientSquared }) => ({ lr: Math.min(loss / (gradientSquared + eps), maxLr), words }),
  };
  return new AdaptiveSchedule(spec);
}
