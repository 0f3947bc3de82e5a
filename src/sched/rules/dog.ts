/** Distance over gradients: the rate from how far the weights have come. */
import { AttrError } from '../../gpu/errors.ts';
import { AdaptiveSchedule, type RuleSpec } from './adaptive.ts';
import { checkReal, refuseIdle, withDefaults } from './options.ts';

export interface DogOptions {
  /**
   * First distance that is taken for granted, over 1 + ‖θ_0‖; > 0. @default 1e-6, or of models with running statistics (batch norms) 1e-4,
   * as the authors advise; null stands for that
   */
  readonly repsRel?: number | null;
  /** ε > 0 beside the sum of squares. @default 1e-8 */
  readonly eps?: number;
  /** γ ≥ 0 of the average, and not without it: the larger, the more the last steps count. @default 8 */
  readonly gamma?: number;
  /** Evaluate at the average of the weights, which the method is meant for. @default true */
  readonly average?: boolean;
}

/**
 * DoG.   η_t = r̄_t / √G_t;   r̄_0 = repsRel·(1 + ‖θ_0‖), r̄_t = max(r̄_(t−1), ‖θ_t − θ_0‖);   G_t = ε + Σ_(i ≤ t) ‖d_i‖², d = g + λθ
 *
 * No rate is set. Evaluation and the weights that `close()` leaves in the model are those of the polynomial-decay average
 * θ̄_t = (1 − w)·θ̄_(t−1) + w·θ_t, w = (1 + γ)/(t + γ), t = 1, 2, … steps made. Running statistics of batch norms are averaged likewise, as
 * the authors' code does. Needs an optimizer without momentum.
 *
 * Memory: θ_0 and the average, as large as the parameters each (and the statistics), in the category `schedule`; θ_0 alone without the
 * average.
 * @throws AttrError for options out of range
 * @source Ivgi, Hinder & Carmon, *DoG is SGD's Best Friend*, ICML 2023, eq. DoG; average: Shamir & Zhang, ICML 2013; defaults as in the
 *   authors' formll/dog. Differences: no `lr` beside the rule, which they advise against
 */
export function dog(options: DogOptions = {}): AdaptiveSchedule {
  const op = 'dog';
  const all = withDefaults<Required<DogOptions>>(op, { repsRel: null, eps: 1e-8, gamma: 8, average: true }, options);
  const { repsRel, eps, gamma, average } = all;
  if (repsRel !== null) checkReal(op, 'repsRel', repsRel, { above: 0 }, 1e-6);
  checkReal(op, 'eps', eps, { above: 0 }, 1e-8);
  refuseIdle(op, options, 'gamma', average === false, 'must go with the average');
  checkReal(op, 'gamma', gamma, { min: 0 }, 8);
  if (typeof average !== 'boolean')
    throw new AttrError({ op, arg: 'average', rule: 'must be true or false', got: average, fix: 'leave it out for true' });
  const reachOf = (startNorm: number, hasStatistics: boolean) => (repsRel ?? (hasStatistics ? 1e-4 : 1e-6)) * (1 + startNorm);
  const spec: RuleSpec = {
    kind: op, parameters: { ...all }, facts: ['directionSquared', 'distanceSquared'],
    words: { steps: 0, reach: 0, squares: 0, share: 0 }, lr: 0, isPlain: true,
    ...(average && { second: { kind: 'average' as const } }),
    uniforms: ({ startNorm, hasStatistics }) => ({ first_reach: reachOf(startNorm, hasStatistics), eps, gamma }),
    next: (words, { directionSquared, distanceSquared }, { startNorm, hasStatistics }) => {
      const isFirst = words.steps === 0;
      const reach = isFirst ? reachOf(startNorm, hasStatistics) : Math.max(words.reach, Math.sqrt(distanceSquared));
      const squares = (isFirst ? eps : words.squares) + directionSquared;
      const steps = words.steps + 1;
      return { lr: reach / Math.sqrt(squares), words: { steps, reach, squares, share: (1 + gamma) / (steps + gamma) } };
    },
  };
  return new AdaptiveSchedule(spec);
}
