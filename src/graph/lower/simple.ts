/** Lowering of everything that is one or two launches: element by element, reductions, pooling, loss, batches. */
import { assembleBatch } from '../../kernels/assembleBatch.ts';
import { grid1d, type Launch } from '../../kernels/contract.ts';
import { crossEntropyBackward, crossEntropyForward } from '../../kernels/crossEntropy.ts';
import * as elementwise from '../../kernels/elementwise.ts';
import * as pool from '../../kernels/pool.ts';
import { sgdDirection } from '../../kernels/sgd.ts';
import { columnSumPartials, sumAll, sumChunk, sumPartials } from '../../kernels/reduce.ts';
import type { WindowAttrs } from '../ops.ts';
import { blockVec4s, ceil4, lastDim, rowCount, rowVec4s, sizeBytes, type Node, type Shape, type Tensor } from '../tensor.ts';
import { emit, Scratch, trialStride, type LowerRule, type Ref } from './context.ts';
import { directionSizes } from './conv.ts';
import { chunking } from './norm.ts';

type Launches = Launch<Ref>[];

export const lowerRelu: LowerRule<'relu'> = ({ inputs: [x], outputs: [y] }) => {
  const n = blockVec4s(y.shape);
  return [emit(elementwise.reluForward, { bindings: { x, y }, uniforms: { n }, grid: grid1d(n, 64, y.trials) })];
};

export const lowerReluBackward: LowerRule<'reluBackward'> = ({ inputs: [dy, y], outputs: [dx] }) => {
  const n = blockVec4s(dx.shape) * dx.trials;
  return [emit(elementwise.reluBackward, { bindings: { dy, y, dx }, uniforms: { n }, grid: grid1d(n, 64) })];
};

const binary =
  (kernel: typeof elementwise.addForward) =>
  ({ inputs: [a, b], outputs: [y] }: Node<'add' | 'sub' | 'mul'>): Launches => {
    const n = blockVec4s(y.shape);
    const uniforms = { n, a_stride: trialStride(a, n), b_stride: trialStride(b, n) };
    return [emit(kernel, { bindings: { a, b, y }, uniforms, grid: grid1d(n, 64, y.trials) })];
  };
export const lowerAdd = binary(elementwise.addForward);
export const lowerSub = binary(elementwise.subForward);
export const lowerMul = binary(elementwise.mulForward);

export const lowerScale: LowerRule<'scale'> = ({ inputs: [x], outputs: [y], attrs: { factor } }) => {
  const n = blockVec4s(y.shape);
  return [emit(elementwise.scaleForward, { bindings: { x, y }, uniforms: { n, factor }, grid: grid1d(n, 64, y.trials) })];
};

export const lowerAddBias: LowerRule<'addBias'> = ({ inputs: [x, bias], outputs: [y] }) => {
  const n = blockVec4s(y.shape);
  const c4 = rowVec4s(y.shape);
  const uniforms = { n, c4, x_stride: trialStride(x, n), bias_stride: trialStride(bias, c4) };
  return [emit(elementwise.addBiasForward, { bindings: { x, bias, y }, uniforms, grid: grid1d(n, 64, y.trials) })];
};

export const lowerReshape: LowerRule<'reshape'> = ({ inputs: [x], outputs: [y] }) => {
  const n = blockVec4s(y.shape);
  const uniforms = {
    n,
    c_in: lastDim(x.shape),
    stride_in: ceil4(lastDim(x.shape)),
    c: lastDim(y.shape),
    c4: rowVec4s(y.shape),
    x_block: blockVec4s(x.shape) * 4,
  };
  return [emit(elementwise.reshapeKernel, { bindings: { x, y }, uniforms, grid: grid1d(n, 64, y.trials) })];
};

export const lowerCast: LowerRule<'cast'> = ({ inputs: [x], outputs: [y] }) => {
  const n = blockVec4s(y.shape) * y.trials;
  return [emit(elementwise.castKernel, { bindings: { x, y }, uniforms: { n }, grid: grid1d(n, 64) })];
};

export const lowerCopy: LowerRule<'copy'> = ({ inputs: [x], outputs: [y] }) => {
  const n = blockVec4s(y.shape) * y.trials;
  // Elements of f16 may be no whole number of the 16 bytes that are copied at once.
  const kernel = x.dtype === 'f16' ? elementwise.castKernel : elementwise.copyKernel;
  return [emit(kernel, { bindings: { x, y }, uniforms: { n }, grid: grid1d(n, 64) })];
};

export const lowerSgdDirection: LowerRule<'sgdDirection'> = ({ inputs: [gradient, weight, buffer, control], outputs: [direction], attrs }) => {
  const n = blockVec4s(direction.shape) * direction.trials;
  const uniforms = { n, ...directionSizes(attrs) };
  return [emit(sgdDirection, { bindings: { gradient, weight, buffer, control, direction }, uniforms, grid: grid1d(n, 64) })];
};

export const lowerBroadcast: LowerRule<'broadcast'> = ({ inputs: [x], outputs: [y], attrs: { factor } }) => {
  const n = blockVec4s(y.shape);
  const uniforms = { n, c: lastDim(y.shape), c4: rowVec4s(y.shape), factor };
  return [emit(elementwise.broadcastScalar, { bindings: { x, y }, uniforms, grid: grid1d(n, 64, y.trials) })];
};

export const lowerPerturbed: LowerRule<'perturbed'> = ({ inputs, outputs: [y], attrs: { trials, scaled } }) => {
  const n = blockVec4s(y.shape);
  const directions = inputs.slice(1, -1);
  const bindings: Record<string, Ref> = { base: inputs[0], coefficients: inputs[inputs.length - 1], y };
  directions.forEach((direction, k) => (bindings[`d${k}`] = direction));
  return [emit(elementwise.perturb(directions.length, scaled), { bindings, uniforms: { n }, grid: grid1d(n, 64, trials) })];
};

export const lowerSum: LowerRule<'sum'> = ({ inputs: [x], outputs: [y], attrs: { factor } }) => {
  const pass = (from: Ref, to: Ref, n: number, chunks: number, last: boolean) =>
    emit(sumAll, {
      bindings: { x: from, y: to },
      uniforms: { n, chunks, last: Number(last), factor },
      grid: [Math.min(chunks, 65535), Math.ceil(chunks / 65535), x.trials],
    });
  const passes: Launches = [];
  let from: Ref = x;
  let n = blockVec4s(x.shape);
  while (n > sumChunk) {
    const chunks = Math.ceil(n / sumChunk);
    const partials = new Scratch(chunks * x.trials * 16);
    passes.push(pass(from, partials, n, chunks, false));
    [from, n] = [partials, chunks];
  }
  return [...passes, pass(from, y, n, 1, true)];
};

export const lowerColumnSum: LowerRule<'columnSum'> = ({ inputs: [x], outputs: [y] }) => {
  const rows = rowCount(x.shape);
  const c4 = rowVec4s(x.shape);
  const { rowsPerChunk, chunks } = chunking(rows);
  const partials = chunks === 1 ? y : new Scratch(x.trials * chunks * c4 * 16);
  const first = emit(columnSumPartials, {
    bindings: { x, partials },
    uniforms: { rows, c4, rows_per_chunk: rowsPerChunk, chunks },
    grid: grid1d(chunks * c4, 64, x.trials),
  });
  if (chunks === 1) return [first];
  return [first, emit(sumPartials, { bindings: { partials, y }, uniforms: { n: c4, splits: chunks }, grid: grid1d(c4, 64, x.trials) })];
};

function windowSizes(x: Shape, y: Shape, n: number, { kernelSize, stride, padding }: WindowAttrs) {
  return {
    n,
    h: x[1],
    w: x[2],
    c4: rowVec4s(x),
    h_out: y[1],
    w_out: y[2],
    kernel_size: kernelSize,
    stride,
    padding,
    x_block: blockVec4s(x),
  };
}

export const lowerMaxPool2d: LowerRule<'maxPool2d'> = ({ inputs: [x], outputs: [y, position], attrs }) => {
  const n = blockVec4s(y.shape);
  return [
    emit(pool.maxPool2dForward, {
      bindings: { x, y, position },
      uniforms: windowSizes(x.shape, y.shape, n, attrs),
      grid: grid1d(n, 64, y.trials),
    }),
  ];
};

export const lowerMaxPool2dBackward: LowerRule<'maxPool2dBackward'> = ({ inputs: [dy, position], outputs: [dx], attrs }) => {
  // The trials' images are images like others.
  const n = blockVec4s(dx.shape) * dx.trials;
  return [
    emit(pool.maxPool2dBackward, {
      bindings: { dy, position, dx },
      uniforms: windowSizes(dx.shape, dy.shape, n, attrs),
      grid: grid1d(n, 64),
    }),
  ];
};

export const lowerGlobalAvgPool2d: LowerRule<'globalAvgPool2d'> = ({ inputs: [x], outputs: [y] }) => {
  const n = blockVec4s(y.shape);
  const uniforms = { n, c4: rowVec4s(y.shape), plane: x.shape[1] * x.shape[2] };
  return [emit(pool.globalAvgPool2dForward, { bindings: { x, y }, uniforms, grid: grid1d(n, 64, y.trials) })];
};

export const lowerGlobalAvgPool2dBackward: LowerRule<'globalAvgPool2dBackward'> = ({ inputs: [dy], outputs: [dx] }) => {
  const n = blockVec4s(dx.shape) * dx.trials;
  const uniforms = { n, c4: rowVec4s(dx.shape), plane: dx.shape[1] * dx.shape[2] };
  return [emit(pool.globalAvgPool2dBackward, { bindings: { dy, dx }, uniforms, grid: grid1d(n, 64) })];
};

const logitSizes = (logits: Tensor) => ({ rows: logits.shape[0], classes: logits.shape[1], stride: ceil4(logits.shape[1]) });

export const lowerCrossEntropy: LowerRule<'crossEntropy'> = ({ inputs: [logits, labels], outputs: [losses], attrs }) => {
  const padded = ceil4(logits.shape[0]);
  const uniforms = { ...logitSizes(logits), padded, logits_block: blockVec4s(logits.shape) * 4, smoothing: attrs.labelSmoothing };
  return [emit(crossEntropyForward, { bindings: { logits, labels, losses }, uniforms, grid: grid1d(padded, 64, losses.trials) })];
};

export const lowerCrossEntropyBackward: LowerRule<'crossEntropyBackward'> = ({
  inputs: [d_losses, logits, labels],
  outputs: [d_logits],
  attrs,
}) => {
  const uniforms = { ...logitSizes(logits), padded: ceil4(logits.shape[0]), smoothing: attrs.labelSmoothing };
  const grid = grid1d(blockVec4s(logits.shape), 64, logits.trials);
  return [emit(crossEntropyBackward, { bindings: { d_losses, logits, labels, d_logits }, uniforms, grid })];
};

/** Stream of `hash32` that crops and flips draw from: `STREAM.augment`. */
const augmentStream = 2;

export const lowerAssembleBatch: LowerRule<'assembleBatch'> = ({ inputs, outputs: [x, labels], attrs }) => {
  const segments = inputs.slice(0, -3);
  const [all_labels, indices, control] = inputs.slice(-3);
  const n = blockVec4s(x.shape);
  // Of the images those of the batch, whatever the binding holds.
  const bytes = attrs.batch * (attrs.height * attrs.width * attrs.channels + 12) + sizeBytes(x);
  const at = (values: readonly number[], i: number, otherwise: number) => values[i] ?? otherwise;
  return segments.map((images, segment) =>
    emit(assembleBatch, {
      bindings: { images, all_labels, indices, control, x, labels },
      uniforms: {
        n,
        h: attrs.height,
        w: attrs.width,
        channels: attrs.channels,
        augment: Number(attrs.augment),
        stream: augmentStream,
        first_image: segment * attrs.imagesPerSegment,
        segment_images: Math.min(attrs.imagesPerSegment, attrs.count - segment * attrs.imagesPerSegment),
        cursor_word: attrs.cursorWord,
        counter_word: attrs.counterWord,
        seed_word: attrs.seedWord,
        mean0: at(attrs.mean, 0, 0),
        mean1: at(attrs.mean, 1, 0),
        mean2: at(attrs.mean, 2, 0),
        mean3: at(attrs.mean, 3, 0),
        std0: at(attrs.std, 0, 1),
        std1: at(attrs.std, 1, 1),
        std2: at(attrs.std, 2, 1),
        std3: at(attrs.std, 3, 1),
      },
      grid: grid1d(n, 64),
      bytes,
    }),
  );
};
