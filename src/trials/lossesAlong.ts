/** N losses along a direction, in one pass and without a copy of the weights. */
import { AttrError } from '../gpu/errors.ts';
import { tensor } from '../graph/functional.ts';
import { evaluate, type EvaluateOptions } from '../graph/run.ts';
import type { Tensor, Variable } from '../graph/tensor.ts';
import { trials } from './trials.ts';

export interface LossesAlongOptions extends EvaluateOptions {
  /** The loss, a scalar of a forward graph. */
  readonly loss: Tensor;
  /** For each parameter to move, its direction (or K of them). The others stay. */
  readonly directions: ReadonlyMap<Variable, Tensor | readonly Tensor[]>;
  /** c_i, one a trial; with K directions, K of them a trial. */
  readonly coefficients: readonly number[] | readonly (readonly number[])[];
  /** Trials in one pass; more are cut into several. @default all */
  readonly maxTrialsPerPass?: number;
}

/** Sizes of the passes that `count` trials are cut into: as even as can be. */
export function chunkTrials(count: number, most: number): number[] {
  const passes = Math.ceil(count / most);
  return Array.from({ length: passes }, (_, i) => Math.floor((count * (i + 1)) / passes) - Math.floor((count * i) / passes));
}

/**
 * φ(c_i) = L(θ + Σ_k c_ik·D_k) for all i: every layer is one dispatch for all trials of a pass; weights, running statistics and optimizer
 * state stay as they are, bit for bit.
 * @returns f32 [N], the losses in the order of the coefficients
 * @throws AttrError for no coefficients or uneven ones, ShapeError for directions of another shape
 * @example const phi = await lossesAlong({ loss, directions: new Map([[w, dw]]), coefficients: [0, 0.1, 0.2] });
 */
export async function lossesAlong(options: LossesAlongOptions): Promise<Float32Array> {
  const { loss, coefficients, maxTrialsPerPass } = options;
  const directions = new Map(
    [...options.directions].map(([variable, d]) => [variable, Array.isArray(d) ? (d as readonly Tensor[]) : [d as Tensor]]),
  );
  const rows = coefficients.map((c) => (typeof c === 'number' ? [c] : [...c]));
  const k = directions.values().next().value?.length ?? 0;
  if (rows.length === 0 || k === 0 || rows.some((row) => row.length !== k) || [...directions.values()].some((d) => d.length !== k)) {
    throw new AttrError({
      op: 'lossesAlong',
      arg: 'coefficients',
      rule: 'must hold one number a direction for each trial, at least one trial and one direction',
      got: `${rows.length} trials × [${[...new Set(rows.map((row) => row.length))].join(', ')}], ${k} directions`,
      fix: 'pass as many numbers a trial as there are directions',
    });
  }
  const most = maxTrialsPerPass ?? rows.length;
  if (!Number.isInteger(most) || most < 1)
    throw new AttrError({ op: 'lossesAlong', arg: 'maxTrialsPerPass', rule: 'must be an integer ≥ 1', got: most, fix: 'leave it out' });
  const losses = new Float32Array(rows.length);
  let start = 0;
  for (const count of chunkTrials(rows.length, most)) {
    const [chunk] = trials([loss], { count, directions, coefficients: tensor(rows.slice(start, start + count).flat()) });
    const [values] = await evaluate([chunk], options);
    // A loss that no perturbed parameter reaches is the same in every trial.
    for (let i = 0; i < count; i++) losses[start + i] = values[chunk.trials > 1 ? i : 0];
    start += count;
  }
  return losses;
}
