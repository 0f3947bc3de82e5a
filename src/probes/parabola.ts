/** A parabola through losses. */
import { AttrError } from '../gpu/errors.ts';

/** φ(c) ≈ value + slope·c + ½·secondDerivative·c² */
export interface Parabola {
  readonly value: number;
  readonly slope: number;
  readonly secondDerivative: number;
  /** −slope / secondDerivative, where the parabola is least; null where it does not open upwards. */
  readonly minimum: number | null;
  /** Root of the mean squared distance of the losses from the parabola. */
  readonly rms: number;
}

const dot = (a: readonly number[], b: readonly number[]): number => a.reduce((total, value, i) => total + value * b[i], 0);

/**
 * Least squares of a parabola, all points weighing the same.   min over (v, s, k) of Σ_i (v + s·c_i + ½k·c_i² − φ_i)²
 * @param coefficients c_i, at least 3 different ones @param losses φ_i, finite, one a coefficient
 * @throws AttrError otherwise
 * @numerics Float64, by polynomials orthogonal over the points (Forsythe 1957): no normal equations, whose condition is that of c⁴.
 * @source Mutschler & Zell, *Parabolic Approximation Line Search for DNNs*, NeurIPS 2020: the minimum −φ'/φ'' of a parabola through
 *   φ(0), φ'(0) and φ(μ). Difference: fitted to any number of losses, which averages their rounding
 * @example fitParabola([-1, 0, 1], [3, 1, 1]) // value 1, slope -1, secondDerivative 2, minimum 0.5, rms 0
 */
export function fitParabola(coefficients: readonly number[], losses: ArrayLike<number>): Parabola {
  const op = 'fitParabola';
  const y = Array.from(losses);
  if (new Set(coefficients).size < 3 || !coefficients.every(Number.isFinite))
    throw new AttrError({
      op,
      arg: 'coefficients',
      rule: 'must hold ≥ 3 different finite numbers',
      got: coefficients,
      fix: 'take more points',
    });
  if (y.length !== coefficients.length || !y.every(Number.isFinite))
    throw new AttrError({
      op,
      arg: 'losses',
      rule: `must be ${coefficients.length} finite numbers, one a coefficient`,
      got: y,
      fix: 'leave out the steps that diverge, or take smaller ones',
    });
  const size = Math.max(...coefficients.map(Math.abs));
  const t = coefficients.map((c) => c / size);
  const ones = t.map(() => 1);
  const center = dot(t, ones) / t.length;
  const p1 = t.map((v) => v - center);
  const squared = t.map((v) => v * v);
  const alpha = dot(squared, p1) / dot(p1, p1);
  const beta = dot(squared, ones) / t.length;
  const p2 = squared.map((v, i) => v - alpha * p1[i] - beta);
  // Equal losses are then a parabola of zeros, not one of roundings, which a small span would blow up.
  const base = y[y.length >> 1];
  const rise = y.map((v) => v - base);
  const a0 = dot(rise, ones) / t.length;
  const a1 = dot(rise, p1) / dot(p1, p1);
  const a2 = dot(rise, p2) / dot(p2, p2);
  const slope = (a1 - a2 * alpha) / size;
  const secondDerivative = (2 * a2) / size ** 2;
  const off = rise.map((v, i) => a0 + a1 * p1[i] + a2 * p2[i] - v);
  return {
    value: base + a0 - a1 * center + a2 * (alpha * center - beta),
    slope,
    secondDerivative,
    minimum: secondDerivative > 0 ? -slope / secondDerivative : null,
    rms: Math.sqrt(dot(off, off) / off.length),
  };
}
