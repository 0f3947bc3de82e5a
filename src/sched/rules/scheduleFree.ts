/** Averaging in the place of a schedule. */
import { checkDuration, stepsOf } from '../durations.ts';
import type { Duration } from '../durations.ts';
import { AdaptiveSchedule, type RuleRun, type RuleSpec } from './adaptive.ts';
import { checkReal, withDefaults } from './options.ts';

export interface ScheduleFreeOptions {
  /** > 0; for SGD 10 to 50 times that of a schedule, the authors say. @default 1 */
  readonly lr?: number;
  /** In (0, 1): how near the average gradients are taken; the place of momentum. @default 0.9 */
  readonly beta?: number;
  /** Length of a linear rise of the rate. @default steps(0) */
  readonly warmupSteps?: Duration;
  /** Power of the step in the average's weights, ≥ 0. @default 0 */
  readonly r?: number;
  /** Power of the rate in them, ≥ 0, so that steps of the warm-up count less. @default 2 */
  readonly weightLrPower?: number;
  /**
   * Batches of an epoch, from its first on, at most, that running statistics of batch norms are gathered from at x before an evaluation: a
   * forward pass each; 0: an evaluation has the statistics that training has gathered, at y. @default 50
   */
  readonly statisticBatches?: number;
}

/**
 * Schedule-Free SGD.   η_t = lr·min(1, (t + 1)/warmupSteps);   c_t = w_t / Σ_(i ≤ t) w_i, w_t = (t + 1)^r·η_t^weightLrPower;
 * z ← z − η_t·(∇L(y) + λy);   x ← (1 − c_t)·x + c_t·z;   y ← (1 − β)·z + β·x
 *
 * Training's weights are y: losses and gradients are taken there. Evaluation and the weights that `close()` leaves in the model are x.
 * Running statistics of batch norms are gathered anew at x for each evaluation, as the authors advise: the mean over training batches, in
 * their order, each weighing the same. Needs an optimizer without momentum: β is in its place.
 *
 * Memory: z, as large as the parameters, and the statistics once more, in the category `schedule`; x is made of y and z, in the gradients'
 * memory, when it is asked for.
 * @throws AttrError for options out of range
 * @source Defazio, Yang, Mehta, Mishchenko, Khaled & Cutkosky, *The Road Less Scheduled*, NeurIPS 2024; defaults and the warm-up's
 *   weights as in the authors' facebookresearch/schedule_free, `SGDScheduleFree` (their `momentum` is β)
 */
export function scheduleFree(options: ScheduleFreeOptions = {}): AdaptiveSchedule {
  const op = 'scheduleFree';
  const defaults: Required<ScheduleFreeOptions> =
    { lr: 1, beta: 0.9, warmupSteps: { steps: 0 }, r: 0, weightLrPower: 2, statisticBatches: 50 };
  const all = withDefaults(op, defaults, options);
  const { lr: most, beta, warmupSteps, r, weightLrPower, statisticBatches } = all;
  checkReal(op, 'lr', most, { above: 0 }, 1);
  checkReal(op, 'beta', beta, { above: 0, max: 1 - 2 ** -20 }, 0.9);
  checkDuration(op, 'warmupSteps', warmupSteps);
  checkReal(op, 'r', r, { min: 0, max: 16 }, 0);
  checkReal(op, 'weightLrPower', weightLrPower, { min: 0, max: 16 }, 2);
  checkReal(op, 'statisticBatches', statisticBatches, { min: 0, isInteger: true }, 50);
  const warmupOf = (run: RuleRun) => stepsOf(op, 'warmupSteps', warmupSteps, run);
  const spec: RuleSpec = {
    kind: op, parameters: { ...all }, facts: [], words: { steps: 0, total: 0, share: 0 }, lr: most, isPlain: true,
    second: { kind: 'free', beta, statisticBatches },
    uniforms: (run) => ({ lr: most, warmup: warmupOf(run), r, power: weightLrPower }),
    // Weights in units of lr^weightLrPower: their sum is exact once the rate stays.
    next: (words, _, run) => {
      const warmup = warmupOf(run);
      const rise = words.steps < warmup ? (words.steps + 1) / warmup : 1;
      const weight = (words.steps + 1) ** r * rise ** weightLrPower;
      const total = words.total + weight;
      return { lr: most * rise, words: { steps: words.steps + 1, total, share: weight / total } };
    },
  };
  return new AdaptiveSchedule(spec);
}
