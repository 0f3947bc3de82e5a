/** The learning-rate range curve. */
import { AttrError } from '../gpu/errors.ts';
import { checkDescent, checkSteps } from './grids.ts';
import type { Line } from './line.ts';

export interface RateRangeOptions {
  /** Learning rates to try, > 0, at least 2; `logGrid(1e-5, 10, 25)` makes some. They are sorted. */
  readonly rates: readonly number[];
  /** A loss above this multiple of φ(0), where that is > 0, counts as exploded, > 1. @default 4 */
  readonly explosion?: number;
}

export interface RateRange {
  /** Rising. */
  readonly rates: readonly number[];
  /** φ(η), one a rate; NaN, infinite or without a meaning where the step overflows (`lossesAlong`). */
  readonly losses: readonly number[];
  /** φ(0), of the same evaluation. */
  readonly baseLoss: number;
  /** The rate of least loss, and that loss; null where no rate lowers the loss. */
  readonly least: { readonly rate: number; readonly loss: number } | null;
  /** The largest rate of the grid to which, from the least loss up, every loss is below φ(0); null where no rate lowers the loss. */
  readonly breakEven: number | null;
  /** The smallest rate of the grid whose loss is not finite or, for φ(0) > 0, above explosion · φ(0); null where none is. */
  readonly explodes: number | null;
}

/**
 * φ(η) = L(θ − η·d) over a grid of learning rates from one θ, in one fused evaluation: where one step lowers the loss most, and where it
 * explodes.
 *
 * A step is judged by itself: training for many steps bears a smaller rate than the least loss here suggests, and `breakEven` is its limit.
 * @throws AttrError for rates or explosion out of range, and where the line does not descend
 * @source Smith, *Cyclical Learning Rates for Training Neural Networks*, WACV 2017, §3.3, the range test. Differences: it raises the rate
 *   over a run, so that each loss is that of another θ; here θ stays, nothing is to be restored and no smoothing is needed
 */
export async function rateRange(line: Line, { rates, explosion = 4 }: RateRangeOptions): Promise<RateRange> {
  const op = 'rateRange';
  checkSteps(op, 'rates', rates, 2);
  if (!(explosion > 1 && Number.isFinite(explosion)))
    throw new AttrError({ op, arg: 'explosion', rule: 'must be > 1', got: explosion, fix: '4 is usual' });
  checkDescent(op, line.slope);
  const rising = [...rates].sort((a, b) => a - b);
  const [baseLoss, ...losses] = Array.from(await line.losses([0, ...rising]));
  const isBelow = losses.map((loss) => Number.isFinite(loss) && loss < baseLoss);
  const best = losses.reduce((at, loss, i) => (isBelow[i] && (at < 0 || loss < losses[at]) ? i : at), -1);
  // From the least loss up: below it, steps may be too small for a float32 loss to show their decrease.
  const rest = isBelow.slice(best).indexOf(false);
  const ceiling = baseLoss > 0 ? explosion * baseLoss : Infinity;
  const exploded = losses.findIndex((loss) => !Number.isFinite(loss) || loss > ceiling);
  return {
    rates: rising,
    losses,
    baseLoss,
    least: best < 0 ? null : { rate: rising[best], loss: losses[best] },
    breakEven: best < 0 ? null : rising[rest < 0 ? rising.length - 1 : best + rest - 1],
    explodes: exploded < 0 ? null : rising[exploded],
  };
}
