/** Loss landscapes: slices of one and two dimensions. */
import { AttrError } from '../gpu/errors.ts';
import type { Direction } from '../trials/alongOptions.ts';
import { lossesAlong } from '../trials/lossesAlong.ts';
import { checkProbe } from './grids.ts';
import type { ProbeOptions } from './line.ts';

export interface SliceOptions extends ProbeOptions {
  readonly direction: Direction;
  /** α, where the losses are taken; `linearGrid(-1, 1, 41)` makes some. */
  readonly at: readonly number[];
}

export interface Slice {
  readonly at: readonly number[];
  /** L(θ + α·d), one an α */
  readonly losses: readonly number[];
}

export interface PlaneOptions extends ProbeOptions {
  readonly directions: readonly [Direction, Direction];
  /** α, coefficients of the first direction */
  readonly x: readonly number[];
  /** β, coefficients of the second direction */
  readonly y: readonly number[];
}

export interface Plane {
  readonly x: readonly number[];
  readonly y: readonly number[];
  /** [y][x]: L(θ + α·d₁ + β·d₂) */
  readonly losses: readonly (readonly number[])[];
}

function checkGrid(op: string, arg: string, grid: readonly number[]): void {
  if (grid.length === 0 || !grid.every(Number.isFinite))
    throw new AttrError({
      op,
      arg,
      rule: 'must be finite numbers, at least one',
      got: grid,
      fix: 'linearGrid(-1, 1, 21) makes such a list',
    });
}

/**
 * A slice of the loss landscape of one dimension: L(θ + α·d), all α in one fused evaluation.
 * @throws AttrError for a grid without numbers, and what `lossesAlong` throws
 * @source Li et al., *Visualizing the Loss Landscape of Neural Nets*, NeurIPS 2018, §3; `randomDirections` gives their d. Difference: batch
 *   norms use the batch's own statistics unless `batchNorm: 'running'` asks for the authors' evaluation mode
 */
export async function slice({ direction, at, ...options }: SliceOptions): Promise<Slice> {
  checkProbe('slice', options);
  checkGrid('slice', 'at', at);
  const losses = await lossesAlong({ ...options, directions: [direction], coefficients: at.map((c) => [c]) });
  return { at: [...at], losses: Array.from(losses) };
}

/**
 * A slice of two dimensions: L(θ + α·d₁ + β·d₂) over the grid x × y, both directions formed in one fused load.
 * @throws AttrError for a grid without numbers, and what `lossesAlong` throws
 * @source as `slice`; eq. 1 there
 */
export async function plane({ directions, x, y, ...options }: PlaneOptions): Promise<Plane> {
  checkProbe('plane', options);
  checkGrid('plane', 'x', x);
  checkGrid('plane', 'y', y);
  const coefficients = y.flatMap((beta) => x.map((alpha) => [alpha, beta]));
  const losses = Array.from(await lossesAlong({ ...options, directions, coefficients }));
  return { x: [...x], y: [...y], losses: y.map((_, row) => losses.slice(row * x.length, (row + 1) * x.length)) };
}
