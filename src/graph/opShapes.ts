/** What the shape rules of `ops.ts` share: checks of an op's inputs, and shapes that several ops have. */
import { AttrError, DtypeError, ShapeError } from '../gpu/errors.ts';
import type { Shape, Tensor, TensorSpec } from './tensor.ts';

export const f32 = (shape: Shape, trials: number): TensorSpec => ({ shape, dtype: 'f32', trials });
export const u32 = (shape: Shape, trials: number): TensorSpec => ({ shape, dtype: 'u32', trials });
/** Of x's element type. */
export const like = (x: Tensor, shape: Shape, trials = x.trials): TensorSpec => ({ shape, dtype: x.dtype, trials });

export function windowOut(op: string, size: number, kernel: number, stride: number, padding: number): number {
  const out = Math.floor((size + 2 * padding - kernel) / stride) + 1;
  if (out < 1) {
    throw new ShapeError({
      op,
      arg: 'kernel',
      rule: `must fit the padded image (${size} + 2·${padding})`,
      got: kernel,
      fix: 'use a larger image, more padding or a smaller kernel',
    });
  }
  return out;
}

export function requireRank(op: string, arg: string, tensor: Tensor, rank: number, layout: string): void {
  if (tensor.shape.length !== rank) {
    throw new ShapeError({
      op,
      arg,
      rule: `must have rank ${rank} ${layout}`,
      got: String(tensor),
      fix: 'layouts are NHWC and [kH][kW][Cin][Cout]',
    });
  }
}

export function requireShape(op: string, arg: string, tensor: Tensor, shape: Shape): void {
  if (tensor.shape.length !== shape.length || tensor.shape.some((size, i) => size !== shape[i])) {
    throw new ShapeError({ op, arg, rule: `must be [${shape.join(', ')}]`, got: String(tensor), fix: 'shapes are not broadcast' });
  }
}

export function requireInteger(op: string, arg: string, value: number, least: number): void {
  if (!Number.isInteger(value) || value < least) {
    throw new AttrError({ op, arg, rule: `must be an integer ≥ ${least}`, got: value, fix: `pass ${least} or more` });
  }
}

/** Activations, of one element type. Kernels would take a u32 tensor's bits for floats. */
export function requireFloats(op: string, tensors: Record<string, Tensor>): void {
  const [first] = Object.values(tensors);
  for (const [arg, tensor] of Object.entries(tensors)) {
    const got = String(tensor);
    if (tensor.dtype === 'u32') throw new DtypeError({ op, arg, rule: 'must be f32 or f16', got, fix: 'make it from a Float32Array' });
    if (tensor.dtype !== first.dtype) throw new DtypeError({ op, arg, rule: `must be ${first.dtype}, as ${first}`, got, fix: 'cast() one' });
  }
}

/** Parameters and statistics. */
export function requireF32(op: string, tensors: Record<string, Tensor>): void {
  for (const [arg, tensor] of Object.entries(tensors)) {
    if (tensor.dtype !== 'f32')
      throw new DtypeError({ op, arg, rule: 'must be f32', got: String(tensor), fix: 'make it from a Float32Array; only activations are f16' });
  }
}

/** Trial counts must agree; 1 stands for "shared by all". */
export function trialsOf(op: string, inputs: readonly Tensor[]): number {
  const counts = [...new Set(inputs.map((input) => input.trials).filter((count) => count > 1))];
  if (counts.length > 1) {
    throw new ShapeError({
      op,
      arg: 'inputs',
      rule: 'must agree in their number of trials',
      got: inputs.map(String).join(', '),
      fix: 'transform them with one trials() call',
    });
  }
  return counts[0] ?? 1;
}

/** Of gradients: each trial has its own of each of these. */
export function ownTrials(op: string, [first, ...others]: readonly Tensor[]): number {
  const wrong = others.find(({ trials }) => trials !== first.trials);
  if (!wrong) return first.trials;
  const got = `${wrong} beside ${first}`;
  const fix = 'differentiate the losses of all trials at once';
  throw new ShapeError({ op, arg: 'inputs', rule: 'must have one number of trials', got, fix });
}

/** Fewest rows of a tensor that one pair of partial sums is of, whatever the adapter: of the tiles of any convolution. */
export const leastChunkRows = 32;

/** Room for two sums of each channel over chunks of rows. */
export const chunkSums = (rows: number, channels: number, trials: number, classes = 1): TensorSpec =>
  f32([2 * classes * Math.ceil(rows / leastChunkRows), channels], trials);

/** Kernels find the tap of a k index by one float multiplication, which is exact up to here. */
const longestSum = 2 ** 20;

/** @throws ShapeError where the sums of forward or input gradient run over more terms than the kernels can count */
export function requireCountable(op: string, taps: number, cin: number, cout: number, weight: Tensor): void {
  const terms = taps * Math.max(cin, cout);
  if (terms <= longestSum) return;
  throw new ShapeError({
    op,
    arg: 'weight',
    rule: `must have at most ${longestSum} taps × channels`,
    got: `${terms} (weight ${weight})`,
    fix: 'cut the layer into several',
  });
}

/** y [N, hOut, wOut, Cout] of a convolution, or [N, M] of a matrix product. */
export function convShape(x: Tensor, weight: Tensor, stride: number, padding: number): Shape {
  if (x.shape.length === 2) {
    requireRank('linear', 'weight', weight, 2, '[K, M]');
    if (weight.shape[0] !== x.shape[1]) {
      throw new ShapeError({
        op: 'linear',
        arg: 'weight.shape[0]',
        rule: `must equal x.shape[1] = ${x.shape[1]}`,
        got: `${weight.shape[0]} (x ${x}, weight ${weight})`,
        fix: 'weights of linear are [inFeatures, outFeatures]',
      });
    }
    requireCountable('linear', 1, weight.shape[0], weight.shape[1], weight);
    return [x.shape[0], weight.shape[1]];
  }
  requireRank('conv2d', 'x', x, 4, '[N, H, W, Cin]');
  requireRank('conv2d', 'weight', weight, 4, '[kH, kW, Cin, Cout]');
  if (weight.shape[2] !== x.shape[3]) {
    throw new ShapeError({
      op: 'conv2d',
      arg: 'weight.shape[2]',
      rule: `must equal x.shape[3] = ${x.shape[3]}`,
      got: `${weight.shape[2]} (x ${x}, weight ${weight})`,
      fix: 'layouts are NHWC, [kH][kW][Cin][Cout]',
    });
  }
  requireInteger('conv2d', 'stride', stride, 1);
  requireInteger('conv2d', 'padding', padding, 0);
  requireCountable('conv2d', weight.shape[0] * weight.shape[1], weight.shape[2], weight.shape[3], weight);
  return [
    x.shape[0],
    windowOut('conv2d', x.shape[1], weight.shape[0], stride, padding),
    windowOut('conv2d', x.shape[2], weight.shape[1], stride, padding),
    weight.shape[3],
  ];
}

export const sameShape =
  (op: string) =>
  ([a, b]: readonly Tensor[]): TensorSpec[] => {
    requireFloats(op, { 'first operand': a, 'second operand': b });
    requireShape(op, 'second operand', b, a.shape);
    return [like(a, a.shape, trialsOf(op, [a, b]))];
  };

export function perChannel(op: string, inputs: readonly Tensor[], channels: number, names: readonly string[]): void {
  names.forEach((name, i) => requireShape(op, name, inputs[i], [channels]));
}
