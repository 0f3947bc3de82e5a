/** The rate as one more parameter: moved down its own gradient. */
import { AttrError } from '../../gpu/errors.ts';
import { AdaptiveSchedule, type RuleSpec } from './adaptive.ts';
import { checkReal, upTo, withDefaults } from './options.ts';
import { FLOAT32 } from '../trialOptions.ts';

export interface HypergradientOptions {
  /** The rate to start from, > 0. */
  readonly lr: number;
  /** β ≥ 0: the rate of the rate; it has to fit the gradient's size. @default 1e-6 */
  readonly hypergradLr?: number;
  /** Least rate, or null: it may then become negative. @default null */
  readonly minLr?: number | null;
  /** Largest rate, or null for none. @default null */
  readonly maxLr?: number | null;
}

/**
 * Hypergradient descent.   η_t = η_(t−1) + β·(∇L_t + λθ_t)·d_(t−1), within [minLr, maxLr]
 * with d_(t−1) the direction of the step before (0 before the first): the product is −∂L_t/∂η_(t−1). Works with any SGD: with momentum d is
 * its buffer, with Nesterov's what that steps along.
 *
 * Memory: d_(t−1), as large as the parameters, in the category `schedule`; none with momentum that is not Nesterov's, whose buffer it is.
 * @throws AttrError for options out of range
 * @source Baydin, Cornish, Martínez Rubio, Schmidt & Wood, *Online Learning Rate Adaptation with Hypergradient Descent*, ICLR 2018,
 *   algorithms 4 and 5; default as in the authors' gbaydin/hypergradient-descent. Differences: bounds, as nothing there stops the rate
 */
export function hypergradient(options: HypergradientOptions): AdaptiveSchedule {
  const op = 'hypergradient';
  const all = withDefaults<Required<HypergradientOptions>>(op, { lr: NaN, hypergradLr: 1e-6, minLr: null, maxLr: null }, options);
  const { lr: start, hypergradLr, minLr, maxLr } = all;
  checkReal(op, 'lr', start, { above: 0 }, 0.005);
  checkReal(op, 'hypergradLr', hypergradLr, { min: 0 }, 1e-6);
  if (minLr !== null) checkReal(op, 'minLr', minLr, {}, 0);
  if (maxLr !== null) checkReal(op, 'maxLr', maxLr, { above: 0 }, 1);
  const [least, most] = [minLr ?? -FLOAT32.greatest, upTo(maxLr)];
  if (!(least <= start && start <= most)) {
    const rule = `must lie in [minLr, maxLr] = [${minLr}, ${maxLr}]`;
    throw new AttrError({ op, arg: 'lr', rule, got: start, fix: 'widen the bounds' });
  }
  const spec: RuleSpec = {
    kind: op, parameters: { ...all }, facts: ['hypergradient'], words: { lr: start }, lr: start,
    uniforms: () => ({ beta: hypergradLr, least, most }),
    next: (words, { hypergradient: h }) => {
      const lr = Math.min(Math.max(words.lr + hypergradLr * h, least), most);
      return { lr, words: { lr } };
    },
  };
  return new AdaptiveSchedule(spec);
}
