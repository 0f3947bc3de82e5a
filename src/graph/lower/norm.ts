/** Lowering of batch normalisation. */
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
import { grid1d, type Launch } from '../../kernels/contract.ts';
import { blockVec4s, rowCount, rowVec4s, type Node, type Tensor } from '../tensor.ts';
import { emit, Scratch, trialStride, type IsWanted, type LowerRule, type Ref } from './context.ts';
import { perturbation } from './conv.ts';

/** Rows one thread reduces, and how many such chunks there are: at most 512, at least 16 rows each. */
export function chunking(rows: number): { rowsPerChunk: number; chunks: number } {
  const rowsPerChunk = Math.max(16, Math.ceil(rows / 512 / 4) * 4);
  return { rowsPerChunk, chunks: Math.ceil(rows / rowsPerChunk) };
}

/** mean | scale | bias, by statistics of the batch. */
function trainingAffine(node: Node<'batchNorm'>, affine: Scratch, isWanted: IsWanted): Launch<Ref>[] {
  const [x, weight, bias] = node.inputs;
  const [, mean, invStd, variance] = node.outputs;
  const rows = rowCount(x.shape);
  const c4 = rowVec4s(x.shape);
  const { rowsPerChunk, chunks } = chunking(rows);
  const trials = mean.trials;
  const partials = new Scratch(trials * chunks * 2 * c4 * 16);
  const sizes = { rows, c4, rows_per_chunk: rowsPerChunk, chunks };
  const first = emit(batchNormPartials, {
    bindings: { x, partials },
    uniforms: { ...sizes, x_stride: trialStride(x, blockVec4s(x.shape)) },
    grid: grid1d(chunks * c4, 64, trials),
  });
  const fused = fusedPerturbation(node, isWanted);
  if (fused) {
    return [
      first,
      emit(batchNormFinishPerturbed(fused.scaled), {
        bindings: { partials, ...fused.bindings, affine },
        uniforms: { ...sizes, eps: node.attrs.eps },
        grid: [c4, 1, trials],
      }),
    ];
  }
  return [
    first,
    emit(batchNormFinish, {
      bindings: { partials, weight, bias, mean, inv_std: invStd, variance, affine },
      uniforms: { ...sizes, eps: node.attrs.eps, weight_stride: trialStride(weight, c4), bias_stride: trialStride(bias, c4) },
      grid: [c4, 1, trials],
    }),
  ];
}

/** mean | scale | bias, by running statistics. */
function inferenceAffine(node: Node<'batchNorm'>, affine: Scratch, isWanted: IsWanted): Launch<Ref> {
  const [x, weight, bias, runningMean, runningVar] = node.inputs;
  const [, mean, invStd] = node.outputs;
  const c4 = rowVec4s(x.shape);
  const running = { running_mean: runningMean, running_var: runningVar };
  const sizes = { c4, eps: node.attrs.eps, mean_stride: trialStride(runningMean, c4), var_stride: trialStride(runningVar, c4) };
  const grid = grid1d(c4, 64, mean.trials);
  const fused = fusedPerturbation(node, isWanted);
  if (fused) {
    return emit(batchNormFromRunningPerturbed(fused.scaled), {
      bindings: { ...running, ...fused.bindings, affine },
      uniforms: sizes,
      grid,
    });
  }
  return emit(batchNormFromRunning, {
    bindings: { weight, bias, ...running, mean, inv_std: invStd, affine },
    uniforms: { ...sizes, weight_stride: trialStride(weight, c4), bias_stride: trialStride(bias, c4) },
    grid,
  });
}

interface FusedPerturbation {
  readonly scaled: boolean;
  readonly bindings: Record<'weight' | 'd_weight' | 'bias' | 'd_bias' | 'coefficients', Tensor>;
}

/**
 * What the kernels that prepare the affine map form the perturbed weight and bias of: where both are perturbed along one direction by the
 * same coefficients, and nobody wants the trials' statistics. For more there are no bindings left.
 */
export function fusedPerturbation(node: Node<'batchNorm'>, isWanted: IsWanted): FusedPerturbation | null {
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

export const lowerBatchNorm: LowerRule<'batchNorm'> = (node, _, isWanted) => {
  const [x] = node.inputs;
  const [y, mean] = node.outputs;
  const { training, relu, residual } = node.attrs;
  const c4 = rowVec4s(x.shape);
  const affine = new Scratch(mean.trials * 3 * c4 * 16);
  const prepare = training ? trainingAffine(node, affine, isWanted) : [inferenceAffine(node, affine, isWanted)];
  const n = blockVec4s(x.shape);
  const other: Tensor | null = residual ? node.inputs[node.inputs.length - 1] : null;
  const apply = emit(batchNormApply(residual), {
    bindings: { x, affine, ...(other ? { residual: other } : {}), y },
    uniforms: {
      n,
      c4,
      relu: Number(relu),
      x_stride: trialStride(x, n),
      affine_stride: mean.trials > 1 ? 3 * c4 : 0,
      residual_stride: other ? trialStride(other, n) : 0,
    },
    grid: grid1d(n, 64, y.trials),
  });
  return [...prepare, apply];
};

export const lowerBatchNormBackward: LowerRule<'batchNormBackward'> = (node) => {
  const [dy, x, mean, invStd, weight] = node.inputs;
  const [dx, dWeight, dBias, dz] = node.outputs;
  const { training, relu, residual } = node.attrs;
  const y = relu ? node.inputs[5] : dy;
  const rows = rowCount(x.shape);
  const c4 = rowVec4s(x.shape);
  const n = blockVec4s(x.shape);
  const { rowsPerChunk, chunks } = chunking(rows);
  const partials = new Scratch(chunks * 2 * c4 * 16);
  const factors = new Scratch(5 * c4 * 16);
  return [
    emit(batchNormBackwardPartials, {
      bindings: { dy, x, y, mean, inv_std: invStd, partials },
      uniforms: { rows, c4, rows_per_chunk: rowsPerChunk, chunks, relu: Number(relu) },
      grid: grid1d(chunks * c4, 64),
    }),
    emit(batchNormBackwardFinish, {
      bindings: { partials, mean, inv_std: invStd, weight, d_weight: dWeight, d_bias: dBias, factors },
      uniforms: { c4, chunks, inv_rows: training ? 1 / rows : 0 },
      grid: [c4, 1, 1],
    }),
    emit(batchNormBackwardApply(residual), {
      bindings: { dy, x, y, factors, dx, ...(residual ? { dz } : {}) },
      uniforms: { n, c4, relu: Number(relu) },
      grid: grid1d(n, 64),
    }),
  ];
};
