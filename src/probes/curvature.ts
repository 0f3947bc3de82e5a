/** Curvature along the step, beside what the learning rate bears. */
import { AttrError } from '../gpu/errors.ts';
import { linearGrid } from './grids.ts';
import type { Line } from './line.ts';
import { fitParabola, type Parabola } from './parabola.ts';

export interface CurvatureOptions {
  /** Learning rate that the curvature is held against, > 0. */
  readonly lr: number;
  /**
   * Losses are taken at steps in −span … span, > 0. @default 0.02·|φ(0) / φ'(0)|: where the slope alone changes the loss by 2 %, which is
   * far above the rounding of a float32 loss and still near θ
   */
  readonly span?: number;
  /** Losses, odd and ≥ 5, so that 0 is one of them. @default 9 */
  readonly points?: number;
}

export interface Curvature {
  /** Rising, symmetrical about 0. */
  readonly steps: readonly number[];
  readonly losses: readonly number[];
  /**
   * Its `slope` can be held against `slope`: where they are far apart the span is too wide, or too small for float32. As the grid is
   * symmetrical, a cubic part of φ tilts the fitted slope and leaves the second derivative.
   */
  readonly fit: Parabola;
  /** φ'(0) = −⟨∇L, d⟩, by the gradient */
  readonly slope: number;
  /** dᵀHd / dᵀd = φ''(0) / ‖d‖²: a directional curvature, never above the sharpness λ_max(H) */
  readonly curvature: number;
  readonly lr: number;
  /** 2 / lr, the sharpness at which gradient descent on a quadratic stops descending. */
  readonly limit: number;
  /** curvature / limit: at 1, a step along the gradient ends as high as it began; above, higher. */
  readonly ratio: number;
  /** −2φ'(0)/φ''(0), the step at which the parabola is back at φ(0); for d = ∇L it is 2/curvature. Null without upward curvature. */
  readonly breakEven: number | null;
}

/**
 * φ''(0) by a least-squares parabola over a symmetrical grid, as curvature dᵀHd/dᵀd beside 2/η: a monitor of the edge of stability.
 *
 * It is the curvature **along d alone**, of this batch's loss: a Rayleigh quotient, so a lower bound of the sharpness λ_max(H) that the
 * papers plot, and near it only as far as d turns towards the leading eigenvector. One fused evaluation, no Hessian-vector product.
 * @throws AttrError for options out of range, a direction of length 0, or losses in the span that are not finite
 * @source Cohen et al., *Gradient Descent on Neural Networks Typically Occurs at the Edge of Stability*, ICLR 2021, §2 (2/η);
 *   Roulet et al., *Stepping on the Edge: Curvature Aware Learning Rate Tuners*, NeurIPS 2024: η = σ·(−φ'(0)) / |φ''(0)|, of which `breakEven`
 *   is the case σ = 2
 */
export async function curvature(line: Line, { lr, span, points = 9 }: CurvatureOptions): Promise<Curvature> {
  const op = 'curvature';
  if (!(lr > 0 && Number.isFinite(lr))) throw new AttrError({ op, arg: 'lr', rule: 'must be > 0', got: lr, fix: 'pass the rate in use' });
  if (!Number.isInteger(points) || points < 5 || points % 2 === 0)
    throw new AttrError({ op, arg: 'points', rule: 'must be an odd integer ≥ 5', got: points, fix: 'leave it out for 9' });
  if (!(line.squaredNorm > 0 && Number.isFinite(line.squaredNorm)))
    throw new AttrError({
      op,
      arg: 'line.squaredNorm',
      rule: 'must be > 0',
      got: line.squaredNorm,
      fix: 'give a direction that leads somewhere',
    });
  const reach = span ?? 0.02 * Math.abs(line.loss / line.slope);
  if (!(reach > 0 && Number.isFinite(reach)))
    throw new AttrError({ op, arg: 'span', rule: 'must be > 0', got: reach, fix: 'pass one: without a slope there is no default' });
  const steps = linearGrid(-reach, reach, points);
  const losses = Array.from(await line.losses(steps));
  const fit = fitParabola(steps, losses);
  const along = fit.secondDerivative / line.squaredNorm;
  return {
    steps,
    losses,
    fit,
    slope: line.slope,
    curvature: along,
    lr,
    limit: 2 / lr,
    ratio: (along * lr) / 2,
    breakEven: fit.secondDerivative > 0 ? (-2 * line.slope) / fit.secondDerivative : null,
  };
}
