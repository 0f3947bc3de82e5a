/**
 * The operations on tensors, in PyTorch's words. Each adds a node to the traced graph and checks its shapes at once; nothing runs on the GPU
 * until a plan does. Layouts are NHWC for images and [kH][kW][Cin][Cout] for convolution weights.
 */
import { AttrError, ShapeError } from '../gpu/errors.ts';
import { op, type FloatDtype } from './ops.ts';
import { elements, type Node, type Shape, type Tensor } from './tensor.ts';

/**
 * A tensor of given values.
 * @param values a Float32Array or numbers (f32), or a Uint32Array (u32), in row-major order
 * @throws ShapeError when the number of values is not the product of the shape
 */
export function tensor(values: Float32Array | Uint32Array | readonly number[], shape: Shape = [values.length]): Tensor {
  const data = values instanceof Float32Array || values instanceof Uint32Array ? values : Float32Array.from(values);
  for (const size of shape) {
    if (!Number.isInteger(size) || size < 1)
      throw new ShapeError({
        op: 'tensor',
        arg: 'shape',
        rule: 'must hold integers ≥ 1',
        got: `[${shape.join(', ')}]`,
        fix: 'every dimension needs an element',
      });
  }
  if (data.length !== elements(shape)) {
    throw new ShapeError({
      op: 'tensor',
      arg: 'values',
      rule: `must hold ${elements(shape)} values for shape [${shape.join(', ')}]`,
      got: data.length,
      fix: 'pass one value an element',
    });
  }
  return op('constant', [], { data, shape: [...shape] })[0];
}

/**
 * y[n,i,j,o] = bias[o] + Σ_{a,b,c} x[n, i·stride+a−padding, j·stride+b−padding, c] · weight[a,b,c,o]
 * @param x f32 [N, H, W, Cin]
 * @param weight f32 [kH, kW, Cin, Cout]
 * @param options.bias f32 [Cout], @default none
 * @param options.stride ≥ 1, @default 1
 * @param options.padding zeros on every side, ≥ 0, @default 0
 * @returns f32 [N, hOut, wOut, Cout], hOut = ⌊(H + 2·padding − kH) / stride⌋ + 1
 * @throws ShapeError, AttrError
 * @source PyTorch `nn.functional.conv2d`; no dilation, no groups
 */
export function conv2d(x: Tensor, weight: Tensor, options: { bias?: Tensor; stride?: number; padding?: number } = {}): Tensor {
  const { bias, stride = 1, padding = 0 } = options;
  if (x.shape.length !== 4)
    throw new ShapeError({ op: 'conv2d', arg: 'x', rule: 'must have rank 4 [N, H, W, Cin]', got: String(x), fix: 'layouts are NHWC' });
  const [y] = op('conv2d', [x, weight], { stride, padding });
  return bias ? op('addBias', [y, bias], {})[0] : y;
}

/**
 * y = x · weight + bias.
 * @param x f32 [N, K]
 * @param weight f32 [K, M]: PyTorch's transposed
 * @param bias f32 [M], @default none
 * @returns f32 [N, M]
 */
export function linear(x: Tensor, weight: Tensor, bias?: Tensor): Tensor {
  if (x.shape.length !== 2)
    throw new ShapeError({ op: 'linear', arg: 'x', rule: 'must have rank 2 [N, K]', got: String(x), fix: 'reshape it first' });
  const [y] = op('conv2d', [x, weight], { stride: 1, padding: 0 });
  return bias ? op('addBias', [y, bias], {})[0] : y;
}

/** What batch normalisation of a batch found out, for the running statistics. */
export interface BatchStatistics {
  readonly mean: Tensor;
  /** Unbiased, as PyTorch's running variance takes it. */
  readonly variance: Tensor;
}

/**
 * y = (x − mean) / √(var + eps) · weight + bias, over all dimensions but the last; mean and (biased) var of the batch.
 * @param x f32 [..., C] @param weight f32 [C] @param bias f32 [C] @param eps > 0, @default 1e-5
 * @returns y like x, and the batch's statistics
 * @numerics Chan's merged moments, never E[x²] − E[x]²
 * @source Ioffe & Szegedy 2015; PyTorch `nn.BatchNorm2d` in training
 */
export function batchNorm(
  x: Tensor,
  weight: Tensor,
  bias: Tensor,
  options: { eps?: number } = {},
): { y: Tensor; statistics: BatchStatistics } {
  const [y, mean, , variance] = op('batchNorm', [x, weight, bias], {
    training: true,
    eps: options.eps ?? 1e-5,
    relu: false,
    residual: false,
  });
  return { y, statistics: { mean, variance } };
}

/** Batch normalisation with given statistics: PyTorch's evaluation mode. runningMean, runningVar f32 [C]. */
export function batchNormInference(
  x: Tensor,
  weight: Tensor,
  bias: Tensor,
  runningMean: Tensor,
  runningVar: Tensor,
  options: { eps?: number } = {},
): Tensor {
  return op('batchNorm', [x, weight, bias, runningMean, runningVar], {
    training: false,
    eps: options.eps ?? 1e-5,
    relu: false,
    residual: false,
  })[0];
}

/** y = max(x, 0), any shape. */
export const relu = (x: Tensor): Tensor => op('relu', [x], {})[0];
/** a + b, same shapes: nothing is broadcast. */
export const add = (a: Tensor, b: Tensor): Tensor => op('add', [a, b], {})[0];
/** a − b, same shapes. */
export const sub = (a: Tensor, b: Tensor): Tensor => op('sub', [a, b], {})[0];
/** a · b element by element, same shapes. */
export const mul = (a: Tensor, b: Tensor): Tensor => op('mul', [a, b], {})[0];
/** x · factor. */
export function scale(x: Tensor, factor: number): Tensor {
  if (!Number.isFinite(factor))
    throw new AttrError({ op: 'scale', arg: 'factor', rule: 'must be finite', got: factor, fix: 'pass a number' });
  return op('scale', [x], { factor })[0];
}
/** The same elements in the same order under another shape. */
export const reshape = (x: Tensor, shape: Shape): Tensor => op('reshape', [x], { shape: [...shape] })[0];
/** [N, …] → [N, product of the rest]. */
export const flatten = (x: Tensor): Tensor => reshape(x, [x.shape[0], elements(x.shape.slice(1))]);

/**
 * Maximum over windows. Padding never wins; among equals the first in row-major order gets the gradient, as in PyTorch.
 * @param x f32 [N, H, W, C] @param options.stride @default kernelSize @param options.padding ≤ kernelSize / 2, @default 0
 * @returns f32 [N, hOut, wOut, C]
 */
export function maxPool2d(x: Tensor, options: { kernelSize: number; stride?: number; padding?: number }): Tensor {
  const { kernelSize, stride = kernelSize, padding = 0 } = options;
  return op('maxPool2d', [x], { kernelSize, stride, padding })[0];
}

/** Mean over each image: f32 [N, H, W, C] → [N, C]. */
export const globalAvgPool2d = (x: Tensor): Tensor => op('globalAvgPool2d', [x], {})[0];

/**
 * Softmax cross-entropy, one loss a sample.
 * @param logits f32 [N, C] @param labels u32 [N], class indices @param options.labelSmoothing in 0…1, @default 0
 * @returns f32 [N]; `mean` of it is PyTorch's default reduction
 * @throws ShapeError, DtypeError, AttrError; also for a label that names no class, where the labels' values are known
 */
export function crossEntropy(logits: Tensor, labels: Tensor, options: { labelSmoothing?: number } = {}): Tensor {
  const [losses] = op('crossEntropy', [logits, labels], { labelSmoothing: options.labelSmoothing ?? 0 });
  const [, classes] = logits.shape;
  const wrong = labels.node.op === 'constant' ? (labels.node as Node<'constant'>).attrs.data.find((label) => label >= classes) : undefined;
  if (wrong !== undefined) {
    const fix = 'classes count from 0';
    throw new AttrError({ op: 'crossEntropy', arg: 'labels', rule: `must be < ${classes} (logits ${logits})`, got: wrong, fix });
  }
  return losses;
}

/**
 * x as another element type. Activations follow their x, so that a network computes on f16 once its input is cast: half the memory, products of
 * operands rounded to f16, sums in f32. Parameters stay f32. Needs `shader-f16` of the adapter.
 * @param x f32 or f16, any shape
 * @returns x's values, rounded to f16 if so asked: 11 bits, at most 65504 (±Inf beyond), least 6e-8
 * @throws DtypeError, AttrError
 */
export const cast = (x: Tensor, dtype: FloatDtype): Tensor => op('cast', [x], { dtype })[0];

/** Sum of all elements: a scalar (one a trial), f32. */
export const sum = (x: Tensor): Tensor => op('sum', [x], { factor: 1 })[0];
/** Mean of all elements: a scalar (one a trial), f32. */
export const mean = (x: Tensor): Tensor => op('sum', [x], { factor: 1 / elements(x.shape) })[0];
