/** N losses along directions, fused: the primitive of line searches, landscape slices and curvature along a step. */
import { defaultDevice } from '../gpu/device.ts';
import { fusions } from '../graph/fuse/index.ts';
import { Memory } from '../graph/memory.ts';
import { lowerContextOf } from '../graph/plan.ts';
import { resolveAlong, type LossesAlongOptions } from './alongOptions.ts';
import { AlongPlans } from './alongPlans.ts';

/**
 * L(a_i·θ + Σ_k c_ik·D_k) for i = 1 … N on the same batches. Every layer is one dispatch for all trials of a pass, and no weight is
 * copied. Trials are cut into as many passes as the adapter's limits and `memoryBudget` ask for, with the same losses bit for bit. Weights,
 * running statistics and optimizer state stay as they are, and every buffer is freed.
 * @returns N losses, each the mean over all samples: with one batch the float32 that the GPU gives, with several their average by the numbers
 *   of samples; with `perSample` for each trial the losses f32 of all samples, in the order of the batches
 * @numerics Bit for bit those of a copy of the model without the fusion `sharedInput`, where sums are split alike; with it within rounding.
 *   Where a trial overflows, or weights or directions hold NaN, a loss may be NaN, infinite or finite without a meaning: batch norms divide by
 *   an infinite deviation, and ReLU turns NaN into 0
 * @throws AttrError, ShapeError, DtypeError for options that do not fit; DeviceError where one trial alone is too large for the adapter
 * @example const phi = await lossesAlong({ model, batches: { x, labels }, directions: [gradient], coefficients: [0, -0.1, -0.2] });
 */
export function lossesAlong(options: LossesAlongOptions & { readonly perSample: true }): Promise<Float32Array[]>;
export function lossesAlong(options: LossesAlongOptions & { readonly perSample?: false }): Promise<number[]>;
export function lossesAlong(options: LossesAlongOptions): Promise<number[] | Float32Array[]>;
export async function lossesAlong(options: LossesAlongOptions): Promise<number[] | Float32Array[]> {
  const along = resolveAlong(options);
  const device = options.device ?? (await defaultDevice());
  const memory = new Memory(device);
  try {
    const how = { fusions: options.fusions ?? fusions, lowering: options.lowering ?? lowerContextOf(device), onCompile: options.onCompile };
    const plans = await AlongPlans.create(memory, along, how);
    const byBatch: Float32Array[][] = [];
    for (const batch of along.batches) byBatch.push(await plans.losses(batch));
    return along.perSample ? along.rows.map((_, i) => join(byBatch.map((rows) => rows[i]))) : average(byBatch, along.batches);
  } finally {
    memory.release();
  }
}

function join(parts: readonly Float32Array[]): Float32Array {
  const all = new Float32Array(parts.reduce((length, part) => length + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

/** Means of batches as the mean over their samples. */
function average(means: readonly Float32Array[][], batches: readonly { x: { shape: readonly number[] } }[]): number[] {
  if (means.length === 1) return means[0].map(([loss]) => loss);
  const samples = batches.map(({ x }) => x.shape[0]);
  const total = samples.reduce((sum, n) => sum + n, 0);
  return means[0].map((_, i) => means.reduce((sum, rows, b) => sum + rows[i][0] * samples[b], 0) / total);
}
