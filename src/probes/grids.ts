/** Grids of coefficients, and the checks that the probes share. */
import { AttrError } from '../gpu/errors.ts';

function checkPoints(op: string, points: number): void {
  if (!Number.isInteger(points) || points < 2)
    throw new AttrError({
      op,
      arg: 'points',
      rule: 'must be an integer ≥ 2',
      got: points,
      fix: 'pass as many losses as the curve shall have',
    });
}

/** Without the noise of binary fractions, which nobody wants to read: 0.15, not 0.15000000000000002. */
const tidy = (value: number): number => Number(value.toPrecision(12));

/**
 * `points` numbers at equal distances, both ends included and exact, the others to 12 digits: from + i·(to − from)/(points − 1).
 * @throws AttrError unless from < to are finite and points an integer ≥ 2
 * @example linearGrid(-1, 1, 5) // [-1, -0.5, 0, 0.5, 1]
 */
export function linearGrid(from: number, to: number, points: number): number[] {
  checkPoints('linearGrid', points);
  if (!(from < to && Number.isFinite(to - from)))
    throw new AttrError({ op: 'linearGrid', arg: 'from', rule: `must be < to (${to}), both finite`, got: from, fix: 'swap the ends' });
  const last = points - 1;
  return Array.from({ length: points }, (_, i) => (i === 0 ? from : i === last ? to : tidy(from + (i * (to - from)) / last)));
}

/**
 * `points` numbers of equal ratios, both ends included and exact, the others to 12 digits: from·(to/from)^(i/(points − 1)).
 * @throws AttrError unless 0 < from < to are finite and points an integer ≥ 2
 * @example logGrid(0.01, 1, 3) // [0.01, 0.1, 1]
 */
export function logGrid(from: number, to: number, points: number): number[] {
  checkPoints('logGrid', points);
  if (!(from > 0 && from < to && Number.isFinite(to)))
    throw new AttrError({ op: 'logGrid', arg: 'from', rule: `must be > 0 and < to (${to})`, got: from, fix: 'swap the ends' });
  const last = points - 1;
  const [low, high] = [Math.log(from), Math.log(to)];
  return Array.from({ length: points }, (_, i) => (i === 0 ? from : i === last ? to : tidy(Math.exp(low + (i * (high - low)) / last))));
}

/** @throws AttrError unless the steps are numbers > 0, at least `least` of them, each there once */
export function checkSteps(op: string, arg: string, steps: readonly number[], least: number): void {
  const isGood = steps.length >= least && steps.every((step) => step > 0 && Number.isFinite(step)) && new Set(steps).size === steps.length;
  if (!isGood)
    throw new AttrError({
      op,
      arg,
      rule: `must be ≥ ${least} finite numbers > 0, each there once`,
      got: steps,
      fix: 'logGrid(1e-4, 1, 20) makes such a list',
    });
}

/** A range test and a line search go down a slope. @throws AttrError where the line has none */
export function checkDescent(op: string, slope: number): void {
  if (!(slope < 0 && Number.isFinite(slope)))
    throw new AttrError({
      op,
      arg: 'line.slope',
      rule: 'must be < 0: −⟨∇L, d⟩ of a direction of descent',
      got: slope,
      fix: 'the gradient vanishes, or the direction leads uphill',
    });
}

/** Probes take means, also where options that are passed on bring `perSample` along. @throws AttrError */
export function checkProbe(op: string, options: object): void {
  if ('perSample' in options)
    throw new AttrError({
      op,
      arg: 'perSample',
      rule: 'must be left out',
      got: options.perSample,
      fix: 'lossesAlong gives losses a sample',
    });
}
