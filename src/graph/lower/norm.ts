/** Lowering of batch normalisation, whole or in its halves. */
import {
  batchNormApply,
  batchNormBackwardApply,
  batchNormBackwardFinish,
  batchNormBackwardPartials,
  batchNormFinish,
  batchNormFinishPerturbed,
  batchNormFromRunning,
  batchNormFromRunningPerturbed,
  batchNormPartials,
} from '../../kernels/batchNorm.ts';
import { batchNormBackwardMergeApply, batchNormMergeApply, mostMergedChunks } from '../../kernels/batchNormMerged.ts';
import { grid1d, type Launch } from '../../kernels/contract.ts';
import { blockVec4s, rowCount, rowVec4s, type Node, type Tensor } from '../tensor.ts';
import { emit, Scratch, trialStride, type IsWanted, type LowerContext, type LowerRule, type Ref } from './context.ts';
import { chunksOf, perturbation } from './conv.ts';
import type { Chunks } from './convProblem.ts';

/** Rows one thread reduces, and how many such chunks there are: at most 512, at least 16 rows each. */
export function chunking(rows: number): Chunks {
  const rowsPerChunk = Math.max(16, Math.ceil(rows / 512 / 4) * 4);
  return { rowsPerChunk, chunks: Math.ceil(rows / rowsPerChunk) };
}

/**
 * Chunks so few that each workgroup merges those of its channels itself, which saves a launch; null where that would leave the adapter idle
 * while the partial sums are taken.
 */
function mergedChunking(rows: number, { wantedWorkgroups }: LowerContext): (Chunks & { rowsPerGroup: number }) | null {
  const rowsPerChunk = Math.max(16, Math.ceil(rows / mostMergedChunks / 4) * 4);
  if (rowsPerChunk > 64 && wantedWorkgroups > 64) return null;
  const rowsPerGroup = Math.max(64, Math.ceil(rows / (2 * wantedWorkgroups) / 16) * 16);
  return { rowsPerChunk, chunks: Math.ceil(rows / rowsPerChunk), rowsPerGroup };
}

type Norm = Node<'batchNorm'> | Node<'normAffine'>;

const partialSizes = (x: Tensor, { rowsPerChunk, chunks }: Chunks) => ({
  rows: rowCount(x.shape),
  c4: rowVec4s(x.shape),
  rows_per_chunk: rowsPerChunk,
  chunks,
  x_stride: trialStride(x, blockVec4s(x.shape)),
});

/** Partial moments, and how they are cut: those that a convolution has written, or a launch that takes them of x. */
function momentsOf(node: Norm, context: LowerContext): { launches: Launch<Ref>[]; partials: Ref; chunks: Chunks; stride: number } {
  const [x] = node.inputs;
  const c4 = rowVec4s(x.shape);
  if (node.op === 'normAffine' && (node as Node<'normAffine'>).attrs.moments) {
    const moments = node.inputs[node.inputs.length - 1];
    const chunks = chunksOf(moments.node, context);
    return { launches: [], partials: moments, chunks, stride: trialStride(moments, chunks.chunks * 2 * c4) };
  }
  const rows = rowCount(x.shape);
  const chunks = chunking(rows);
  const stride = chunks.chunks * 2 * c4;
  const partials = new Scratch(x.trials * stride * 16);
  const launch = emit(batchNormPartials(null), {
    bindings: { x, partials },
    uniforms: { ...partialSizes(x, chunks), partials_stride: stride, weight_stride: 0, bias_stride: 0 },
    grid: grid1d(chunks.chunks * c4, 64, x.trials),
  });
  return { launches: [launch], partials, chunks, stride: x.trials > 1 ? stride : 0 };
}

/** The affine map, by statistics of the batch. */
function trainingAffine(node: Norm, affine: Ref, context: LowerContext, isWanted: IsWanted): Launch<Ref>[] {
  const [x, weight, bias] = node.inputs;
  const [, mean, invStd, variance] = node.outputs;
  const c4 = rowVec4s(x.shape);
  const trials = mean.trials;
  const { launches, partials, chunks, stride } = momentsOf(node, context);
  const sizes = {
    rows: rowCount(x.shape),
    c4,
    rows_per_chunk: chunks.rowsPerChunk,
    chunks: chunks.chunks,
    partials_stride: stride,
    eps: node.attrs.eps,
  };
  const fused = fusedPerturbation(node, isWanted);
  const finish = fused
    ? emit(batchNormFinishPerturbed(fused.scaled), { bindings: { partials, ...fused.bindings, affine }, uniforms: sizes, grid: [c4, 1, trials] })
    : emit(batchNormFinish, {
        bindings: { partials, weight, bias, mean, inv_std: invStd, variance, affine },
        uniforms: { ...sizes, weight_stride: trialStride(weight, c4), bias_stride: trialStride(bias, c4) },
        grid: [c4, 1, trials],
      });
  return [...launches, finish];
}

/** The affine map, by running statistics. */
function inferenceAffine(node: Norm, affine: Ref, isWanted: IsWanted): Launch<Ref>[] {
  const [x, weight, bias, runningMean, runningVar] = node.inputs;
  const [, mean, invStd] = node.outputs;
  const c4 = rowVec4s(x.shape);
  const running = { running_mean: runningMean, running_var: runningVar };
  const sizes = { c4, eps: node.attrs.eps, mean_stride: trialStride(runningMean, c4), var_stride: trialStride(runningVar, c4) };
  const grid = grid1d(c4, 64, mean.trials);
  const fused = fusedPerturbation(node, isWanted);
  if (fused) {
    return [
      emit(batchNormFromRunningPerturbed(fused.scaled), {
        bindings: { ...running, ...fused.bindings, affine },
        uniforms: sizes,
        grid,
      }),
    ];
  }
  return [
    emit(batchNormFromRunning, {
      bindings: { weight, bias, ...running, mean, inv_std: invStd, affine },
      uniforms: { ...sizes, weight_stride: trialStride(weight, c4), bias_stride: trialStride(bias, c4) },
      grid,
    }),
  ];
}

interface FusedPerturbation {
  readonly scaled: boolean;
  readonly bindings: Record<'weight' | 'd_weight' | 'bias' | 'd_bias' | 'coefficients', Tensor>;
}

/**
 * What the kernels that prepare the affine map form the perturbed weight and bias of: where both are perturbed along one direction by the
 * same coefficients, and nobody wants the trials' statistics. For more there are no bindings left.
 */
export function fusedPerturbation(node: Norm, isWanted: IsWanted): FusedPerturbation | null {
  const [, weight, bias] = node.inputs;
  const w = perturbation(weight);
  const b = perturbation(bias);
  if (!w || !b || w.directions.length !== 1 || b.directions.length !== 1) return null;
  if (w.coefficients !== b.coefficients || w.scaled !== b.scaled || node.outputs.slice(1).some(isWanted)) return null;
  return {
    scaled: w.scaled,
    bindings: { weight: w.base, d_weight: w.directions[0], bias: b.base, d_bias: b.directions[0], coefficients: w.coefficients },
  };
}

const affineLaunches = (node: Norm, affine: Ref, context: LowerContext, isWanted: IsWanted): Launch<Ref>[] =>
  node.attrs.training ? trainingAffine(node, affine, context, isWanted) : inferenceAffine(node, affine, isWanted);

/** vec4s of a trial's affine map of `c4` channels. */
export const affineVec4s = (c4: number): number => 4 * c4;

/** y = act((x − mean)·scale + bias [+ residual]); the affine map is one for all trials where `affineTrials` is 1. */
function apply(x: Tensor, affine: Ref, affineTrials: number, residual: Tensor | null, y: Tensor, relu: boolean): Launch<Ref> {
  const n = blockVec4s(x.shape);
  const c4 = rowVec4s(x.shape);
  return emit(batchNormApply(residual !== null), {
    bindings: { x, affine, ...(residual ? { residual } : {}), y },
    uniforms: {
      n,
      c4,
      relu: Number(relu),
      x_stride: trialStride(x, n),
      affine_stride: affineTrials > 1 ? affineVec4s(c4) : 0,
      residual_stride: residual ? trialStride(residual, n) : 0,
    },
    grid: grid1d(n, 64, y.trials),
  });
}

/** A norm by itself in two launches. */
function mergedNorm(
  node: Node<'batchNorm'>,
  { rowsPerGroup, ...chunks }: Chunks & { rowsPerGroup: number },
  fused: FusedPerturbation | null,
): Launch<Ref>[] {
  const [x, weight, bias] = node.inputs;
  const [y, mean, invStd, variance] = node.outputs;
  const { relu, residual, eps } = node.attrs;
  const other = residual ? node.inputs[node.inputs.length - 1] : null;
  const sizes = partialSizes(x, chunks);
  const { rows, c4 } = sizes;
  const stride = (2 * chunks.chunks + 2) * c4;
  const { trials } = mean;
  const partials = new Scratch(trials * stride * 16);
  const shared = { ...sizes, partials_stride: stride };
  return [
    emit(batchNormPartials(fused ? { scaled: fused.scaled } : 'plain'), {
      bindings: { x, ...(fused?.bindings ?? { weight, bias }), partials },
      uniforms: { ...shared, weight_stride: fused ? 0 : trialStride(weight, c4), bias_stride: fused ? 0 : trialStride(bias, c4) },
      grid: grid1d(chunks.chunks * c4, 64, trials),
    }),
    emit(batchNormMergeApply(residual), {
      bindings: { x, partials, ...(other ? { residual: other } : {}), mean, inv_std: invStd, variance, y },
      uniforms: {
        ...shared,
        residual_stride: other ? trialStride(other, rows * c4) : 0,
        rows_per_group: rowsPerGroup,
        relu: Number(relu),
        eps,
      },
      grid: [Math.ceil(rows / rowsPerGroup), Math.ceil(c4 / 4), trials],
    }),
  ];
}

export const lowerBatchNorm: LowerRule<'batchNorm'> = (node, context, isWanted) => {
  const [x] = node.inputs;
  const merged = node.attrs.training ? mergedChunking(rowCount(x.shape), context) : null;
  if (merged) return mergedNorm(node, merged, fusedPerturbation(node, isWanted));
  const [y, { trials }] = node.outputs;
  const { relu, residual } = node.attrs;
  const affine = new Scratch(trials * affineVec4s(rowVec4s(x.shape)) * 16);
  const other: Tensor | null = residual ? node.inputs[node.inputs.length - 1] : null;
  return [...affineLaunches(node, affine, context, isWanted), apply(x, affine, trials, other, y, relu)];
};

export const lowerNormAffine: LowerRule<'normAffine'> = (node, context, isWanted) =>
  affineLaunches(node, node.outputs[0], context, isWanted);

export const lowerNormalize: LowerRule<'normalize'> = (node) => {
  const [x, affine, residual = null] = node.inputs;
  return [apply(x, affine, affine.trials, residual, node.outputs[0], node.attrs.relu)];
};

export const lowerBatchNormBackward: LowerRule<'batchNormBackward'> = (node, context) => {
  const [dy, x, mean, invStd, weight] = node.inputs;
  const [dx, dWeight, dBias, dz] = node.outputs;
  const { training, mask, residual, sums } = node.attrs;
  const masking = mask === 'none' ? {} : { [mask === 'output' ? 'y' : 'affine']: node.inputs[5] };
  const rows = rowCount(x.shape);
  const c4 = rowVec4s(x.shape);
  const n = blockVec4s(x.shape);
  const { trials } = dx;
  const strides = { x_stride: trialStride(x, n), weight_stride: trialStride(weight, c4) };
  const inv_rows = training ? 1 / rows : 0;
  const last = node.inputs[node.inputs.length - 1];
  const merged = sums ? null : mergedChunking(rows, context);
  if (merged) {
    const { rowsPerChunk, chunks, rowsPerGroup } = merged;
    const stride = (2 * chunks + 3) * c4;
    const partials = new Scratch(trials * stride * 16);
    return [
      emit(batchNormBackwardPartials(mask, true), {
        bindings: { dy, x, ...masking, mean, inv_std: invStd, weight, partials },
        uniforms: { rows, c4, rows_per_chunk: rowsPerChunk, chunks, partials_stride: stride, ...strides },
        grid: grid1d(chunks * c4, 64, trials),
      }),
      emit(batchNormBackwardMergeApply(mask, residual), {
        bindings: { dy, x, ...masking, partials, d_weight: dWeight, d_bias: dBias, dx, ...(residual ? { dz } : {}) },
        uniforms: { rows, c4, chunks, partials_stride: stride, x_stride: strides.x_stride, rows_per_group: rowsPerGroup, inv_rows },
        grid: [Math.ceil(rows / rowsPerGroup), Math.ceil(c4 / 4), trials],
      }),
    ];
  }
  const { rowsPerChunk, chunks } = sums ? chunksOf(last.node, context) : chunking(rows);
  const stride = chunks * 2 * c4;
  const partials: Ref = sums ? last : new Scratch(trials * stride * 16);
  const factors = new Scratch(trials * 5 * c4 * 16);
  const first = emit(batchNormBackwardPartials(mask, false), {
    bindings: { dy, x, ...masking, mean, inv_std: invStd, partials },
    uniforms: { rows, c4, rows_per_chunk: rowsPerChunk, chunks, partials_stride: stride, ...strides },
    grid: grid1d(chunks * c4, 64, trials),
  });
  return [
    ...(sums ? [] : [first]),
    emit(batchNormBackwardFinish, {
      bindings: { partials, mean, inv_std: invStd, weight, d_weight: dWeight, d_bias: dBias, factors },
      uniforms: { c4, chunks, partials_stride: stride, weight_stride: strides.weight_stride, inv_rows },
      grid: [c4, 1, trials],
    }),
    emit(batchNormBackwardApply(mask, residual), {
      bindings: { dy, x, ...masking, factors, dx, ...(residual ? { dz } : {}) },
      uniforms: { n, c4, x_stride: strides.x_stride },
      grid: grid1d(n, 64, trials),
    }),
  ];
};
