/**
 * The op table, part one: every op's attributes and shape rule. Lowering stands in `lower/`, gradients in `autograd/`, trials in `trials/`;
 * each of those tables is total over the same names, so a missing rule does not compile.
 */
import { AttrError, DtypeError, ShapeError } from '../gpu/errors.ts';
import {
  chunkSums, convShape, f32, like, ownTrials, perChannel, requireF32, requireFloats, requireInteger, requireRank, requireShape, sameShape, trialsOf, u32,
  windowOut,
} from './opShapes.ts';
import { makeNode, type Dtype, type Shape, type Storage, type Tensor, type TensorSpec, type Variable } from './tensor.ts';

export interface WindowAttrs {
  readonly kernelSize: number;
  readonly stride: number;
  readonly padding: number;
}

/** Element types of activations. A result has its x's; statistics, losses and gradients of parameters are f32. */
export type FloatDtype = Exclude<Dtype, 'u32'>;

/** Ops that nothing is computed for: their memory is there already, or is uploaded once. */
export interface LeafAttrs {
  variable: { readonly variable: Variable };
  /** The values of a tensor of `shape`; with `trials` those of each trial, one behind the other. */
  constant: { readonly data: Float32Array | Uint32Array; readonly shape: Shape; readonly trials?: number };
  /** Memory that somebody else fills: batch indices, coefficients, optimizer state. */
  external: { readonly storage: Storage; readonly spec: TensorSpec };
}

/** Ops that user functions make: each has a gradient rule and a trial rule. */
export interface ForwardAttrs {
  /**
   * x [N, H, W, Cin], weight [kH, kW, Cin, Cout]; or a matrix product of x [N, K] and weight [K, M], which is its 1 × 1 case.
   * With `moments` a second output: mean and Σ(y − mean)² of y over chunks of rows, for a batch norm.
   */
  conv2d: { readonly stride: number; readonly padding: number; readonly moments?: boolean };
  /** x [..., C] + bias [C]. */
  addBias: Record<never, never>;
  /**
   * Inputs x, weight, bias; then running mean and variance when not `training`; then the residual when `residual`.
   * Outputs y, mean, invStd and the unbiased variance, the last three [C].  y = act((x − mean)·invStd·weight + bias + residual)
   */
  batchNorm: { readonly training: boolean; readonly eps: number; readonly relu: boolean; readonly residual: boolean };
  relu: Record<never, never>;
  add: Record<never, never>;
  sub: Record<never, never>;
  mul: Record<never, never>;
  scale: { readonly factor: number };
  reshape: { readonly shape: Shape };
  /** Outputs y and the window position (u32) of each maximum. */
  maxPool2d: WindowAttrs;
  globalAvgPool2d: Record<never, never>;
  /** logits [N, C], labels u32 [N] → losses [N]. */
  crossEntropy: { readonly labelSmoothing: number };
  /** Σ of all elements, times `factor`: a scalar. */
  sum: { readonly factor: number };
  /** x as f16 or f32. */
  cast: { readonly dtype: FloatDtype };
}

/** Ops that only gradient rules, the trial transform, data feeding and fusion make. */
export interface InternalAttrs {
  /**
   * What batchNorm computes before it touches x itself. Inputs as batchNorm's without a residual, then x's moments where `moments` (x is
   * then not read). Outputs affine [4, C] = mean | invStd·weight | bias | invStd, and mean, invStd and the unbiased variance, each [C].
   */
  normAffine: { readonly training: boolean; readonly eps: number; readonly moments: boolean };
  /**
   * x, affine[, residual when `residual`] → act((x − mean)·scale + bias [+ residual]). Where `lazy`, whoever can forms it while it reads x, and
   * it is written only for those who cannot.
   */
  normalize: { readonly relu: boolean; readonly residual: boolean; readonly lazy: boolean };
  /**
   * dy, weight[, addend when `addend`][, x, affine[, y when 'output'] when `sums`] → dx + addend. With `sums` that is dz = (dx + addend)·[mask],
   * and a second output: Σ dz and Σ dz·x̂ over chunks of rows, x̂ the norm of x; for the batch norm whose input x is.
   */
  conv2dBackwardInput: {
    readonly stride: number;
    readonly padding: number;
    readonly xShape: Shape;
    readonly addend?: boolean;
    readonly sums?: MaskBy;
  };
  /** x, dy[, weight, buffer, control when `step`] → dw, or with `step` what `sgdDirection` makes of it. */
  conv2dBackwardWeight: { readonly stride: number; readonly padding: number; readonly weightShape: Shape; readonly step?: SgdStep };
  /**
   * gradient, weight, buffer, control → momentum·buffer + (gradient + weightDecay·weight): the direction of SGD, and the next buffer. Without
   * the buffer where the control's word `firstWord` is 1.
   */
  sgdDirection: SgdStep;
  /** dy [..., C] → Σ over rows [C]. */
  columnSum: Record<never, never>;
  /**
   * dy, x, mean, invStd, weight[, y or affine, by `mask`][, Σ dz and Σ dz·x̂ when `sums`] → dx, dWeight, dBias[, dz when `residual`].
   * dz = dy·[y > 0] is what flows through the activation, and so the residual's gradient.
   */
  batchNormBackward: { readonly training: boolean; readonly mask: MaskBy; readonly residual: boolean; readonly sums: boolean };
  reluBackward: Record<never, never>;
  maxPool2dBackward: WindowAttrs & { readonly xShape: Shape };
  globalAvgPool2dBackward: { readonly xShape: Shape };
  /** dLosses [N], logits, labels → dLogits. */
  crossEntropyBackward: { readonly labelSmoothing: number };
  /**
   * x [N, H, W, C], weight [C, M], bias [M], labels u32 [N][, dLosses [N] when `gradient`] → losses [N] of linear(mean over each image)
   * [, the means [N, C] and dLogits [N, M] when `gradient`].
   */
  classifierHead: { readonly labelSmoothing: number; readonly gradient: boolean };
  /** A scalar, times `factor`, in every element of `shape`. */
  broadcast: { readonly shape: Shape; readonly factor: number; readonly dtype: FloatDtype };
  /**
   * variable, directions…, coefficients [T · K] → variable + Σ_k c[t, k]·direction_k, for T trials; where they are `scaled`, coefficients
   * [T · (1 + K)] hold a − 1 before each trial's own, and the variable is taken a times.
   */
  perturbed: { readonly trials: number; readonly scaled: boolean };
  /** A copy into memory of its own: how one tensor is given to two places. */
  copy: Record<never, never>;
  /** Image segments (u8 in u32 words), labels, indices, control → x [B, H, W, C] of `dtype`, labels u32 [B]. */
  assembleBatch: AssembleAttrs;
}

export interface SgdStep {
  readonly momentum: number;
  readonly weightDecay: number;
  readonly firstWord: number;
}

/** How [y > 0] is known behind a batch norm's activation: there is none, so it always is; from y; or from x by the affine map. */
export type MaskBy = 'none' | 'output' | 'affine';

export interface AssembleAttrs {
  readonly dtype: FloatDtype;
  readonly batch: number;
  readonly height: number;
  readonly width: number;
  readonly channels: number;
  /** Images in each segment but the last. */
  readonly imagesPerSegment: number;
  readonly count: number;
  readonly mean: readonly number[];
  readonly std: readonly number[];
  readonly augment: boolean;
  /** Words of the control buffer: where in the index buffer the batch begins, how many samples were drawn before it, the seed. */
  readonly cursorWord: number;
  readonly counterWord: number;
  readonly seedWord: number;
}

export interface OpAttrs extends LeafAttrs, ForwardAttrs, InternalAttrs {}
export type OpName = keyof OpAttrs;
export type LeafOp = keyof LeafAttrs;
export type ForwardOp = keyof ForwardAttrs;
export type InternalOp = keyof InternalAttrs;

type ShapeRule<O extends OpName> = (inputs: readonly Tensor[], attrs: OpAttrs[O]) => TensorSpec[];

export const shapeRules: { [O in OpName]: ShapeRule<O> } = {
  variable: (_, { variable }) => [f32(variable.shape, 1)],
  constant: (_, { data, shape, trials = 1 }) => [data instanceof Uint32Array ? u32(shape, trials) : f32(shape, trials)],
  external: (_, { spec }) => [spec],
  conv2d: ([x, weight], { stride, padding, moments }) => {
    requireFloats('conv2d', { x });
    requireF32('conv2d', { weight });
    const y = like(x, convShape(x, weight, stride, padding), trialsOf('conv2d', [x, weight]));
    const [rows, channels] = [y.shape.slice(0, -1).reduce((n, size) => n * size, 1), y.shape[y.shape.length - 1]];
    return moments ? [y, chunkSums(rows, channels, y.trials)] : [y];
  },
  addBias: ([x, bias]) => {
    requireFloats('addBias', { x });
    requireF32('addBias', { bias });
    requireShape('addBias', 'bias', bias, [x.shape[x.shape.length - 1]]);
    return [like(x, x.shape, trialsOf('addBias', [x, bias]))];
  },
  batchNorm: (inputs, { training, residual, eps }) => {
    const [x, ...rest] = inputs;
    const ofChannels = residual ? rest.slice(0, -1) : rest;
    requireFloats('batchNorm', { x, ...(residual ? { residual: inputs[inputs.length - 1] } : {}) });
    requireF32('batchNorm', Object.fromEntries(ofChannels.map((input, i) => [`input ${i + 1}`, input])));
    const channels = x.shape[x.shape.length - 1];
    perChannel('batchNorm', rest, channels, ['weight', 'bias', ...(training ? [] : ['runningMean', 'runningVar'])]);
    if (residual) requireShape('batchNorm', 'residual', inputs[inputs.length - 1], x.shape);
    if (!(eps > 0)) throw new AttrError({ op: 'batchNorm', arg: 'eps', rule: 'must be > 0', got: eps, fix: 'PyTorch uses 1e-5' });
    const trials = trialsOf('batchNorm', inputs);
    if (training && x.shape.slice(0, -1).reduce((n, size) => n * size, 1) < 2) {
      throw new ShapeError({
        op: 'batchNorm',
        arg: 'x',
        rule: 'must have more than one value a channel in training',
        got: String(x),
        fix: 'use a larger batch, or inference mode',
      });
    }
    const statistic = f32([channels], trials);
    return [like(x, x.shape, trials), statistic, statistic, statistic];
  },
  relu: ([x]) => {
    requireFloats('relu', { x });
    return [like(x, x.shape)];
  },
  add: sameShape('add'),
  sub: sameShape('sub'),
  mul: sameShape('mul'),
  scale: ([x]) => {
    requireFloats('scale', { x });
    return [like(x, x.shape)];
  },
  reshape: ([x], { shape }) => {
    requireFloats('reshape', { x });
    const size = (s: Shape) => s.reduce((n, d) => n * d, 1);
    if (shape.some((d) => !Number.isInteger(d) || d < 1)) {
      throw new ShapeError({
        op: 'reshape',
        arg: 'shape',
        rule: 'must hold integers ≥ 1',
        got: `[${shape.join(', ')}]`,
        fix: 'no size is inferred',
      });
    }
    if (size(shape) !== size(x.shape)) {
      throw new ShapeError({
        op: 'reshape',
        arg: 'shape',
        rule: `must hold ${size(x.shape)} elements`,
        got: `[${shape.join(', ')}] (x ${x})`,
        fix: 'keep the number of elements',
      });
    }
    return [like(x, shape)];
  },
  maxPool2d: ([x], { kernelSize, stride, padding }) => {
    requireFloats('maxPool2d', { x });
    requireRank('maxPool2d', 'x', x, 4, '[N, H, W, C]');
    requireInteger('maxPool2d', 'kernelSize', kernelSize, 1);
    requireInteger('maxPool2d', 'stride', stride, 1);
    requireInteger('maxPool2d', 'padding', padding, 0);
    if (padding > kernelSize / 2)
      throw new AttrError({
        op: 'maxPool2d',
        arg: 'padding',
        rule: `must be ≤ kernelSize / 2 = ${kernelSize / 2}`,
        got: padding,
        fix: 'as in PyTorch',
      });
    const [n, h, w, c] = x.shape;
    const shape = [n, windowOut('maxPool2d', h, kernelSize, stride, padding), windowOut('maxPool2d', w, kernelSize, stride, padding), c];
    return [like(x, shape), u32(shape, x.trials)];
  },
  globalAvgPool2d: ([x]) => {
    requireFloats('globalAvgPool2d', { x });
    requireRank('globalAvgPool2d', 'x', x, 4, '[N, H, W, C]');
    return [like(x, [x.shape[0], x.shape[3]])];
  },
  crossEntropy: ([logits, labels], { labelSmoothing }) => {
    requireFloats('crossEntropy', { logits });
    requireRank('crossEntropy', 'logits', logits, 2, '[N, C]');
    requireShape('crossEntropy', 'labels', labels, [logits.shape[0]]);
    if (labels.dtype !== 'u32')
      throw new DtypeError({
        op: 'crossEntropy',
        arg: 'labels',
        rule: 'must be u32 class indices',
        got: String(labels),
        fix: 'make them from a Uint32Array',
      });
    if (!(labelSmoothing >= 0 && labelSmoothing <= 1))
      throw new AttrError({
        op: 'crossEntropy',
        arg: 'labelSmoothing',
        rule: 'must be in 0…1',
        got: labelSmoothing,
        fix: 'PyTorch uses 0',
      });
    return [f32([logits.shape[0]], trialsOf('crossEntropy', [logits, labels]))];
  },
  sum: ([x]) => {
    requireFloats('sum', { x });
    return [f32([], x.trials)];
  },
  cast: ([x], { dtype }) => {
    requireFloats('cast', { x });
    if (dtype !== 'f32' && dtype !== 'f16')
      throw new AttrError({ op: 'cast', arg: 'dtype', rule: "must be 'f32' or 'f16'", got: dtype, fix: 'pick one' });
    return [{ shape: x.shape, dtype, trials: x.trials }];
  },
  normAffine: ([x, ...rest], _) => {
    const trials = trialsOf('normAffine', [x, ...rest]);
    const channels = x.shape[x.shape.length - 1];
    return [f32([4, channels], trials), f32([channels], trials), f32([channels], trials), f32([channels], trials)];
  },
  normalize: (inputs) => [like(inputs[0], inputs[0].shape, trialsOf('normalize', inputs))],
  conv2dBackwardInput: ([dy, , ...rest], { xShape, stride, sums }) => {
    const dx = like(dy, xShape, ownTrials('conv2dBackwardInput', [dy, ...rest]));
    if (!sums) return [dx];
    // Pixels are cut into chunks by parity class.
    const [n, h, w, c] = xShape.length === 2 ? [xShape[0], 1, 1, xShape[1]] : xShape;
    return [dx, chunkSums(n * Math.ceil(h / stride) * Math.ceil(w / stride), c, dx.trials, stride * stride)];
  },
  conv2dBackwardWeight: ([x, dy, ...step], { weightShape }) => {
    const trials = ownTrials('conv2dBackwardWeight', [dy, ...step.slice(0, 2)]);
    trialsOf('conv2dBackwardWeight', [x, dy]);
    return [f32(weightShape, trials)];
  },
  sgdDirection: ([gradient, weight, buffer]) => [f32(gradient.shape, ownTrials('sgdDirection', [gradient, weight, buffer]))],
  columnSum: ([dy]) => [f32([dy.shape[dy.shape.length - 1]], dy.trials)],
  batchNormBackward: ([dy, x, mean, invStd, weight, ...rest], { residual }) => {
    requireShape('batchNormBackward', 'dy', dy, x.shape);
    trialsOf('batchNormBackward', [dy, x, weight]);
    const trials = ownTrials('batchNormBackward', [dy, mean, invStd, ...rest]);
    const channel = f32([x.shape[x.shape.length - 1]], trials);
    return [like(x, x.shape, trials), channel, channel, ...(residual ? [like(x, x.shape, trials)] : [])];
  },
  reluBackward: ([dy, y]) => [like(dy, dy.shape, ownTrials('reluBackward', [dy, y]))],
  maxPool2dBackward: ([dy, position], { xShape }) => [like(dy, xShape, ownTrials('maxPool2dBackward', [dy, position]))],
  globalAvgPool2dBackward: ([dy], { xShape }) => [like(dy, xShape)],
  crossEntropyBackward: ([dLosses, logits]) => [like(logits, logits.shape, ownTrials('crossEntropyBackward', [dLosses, logits]))],
  classifierHead: ([x, weight, bias], { gradient }) => {
    const [n, , , c] = x.shape;
    const trials = trialsOf('classifierHead', [x, weight, bias]);
    const losses = f32([n], trials);
    return gradient ? [losses, like(x, [n, c], trials), like(x, [n, weight.shape[1]], trials)] : [losses];
  },
  broadcast: ([x], { shape, dtype }) => [{ shape, dtype, trials: x.trials }],
  perturbed: ([variable], { trials }) => [f32(variable.shape, trials)],
  copy: ([x]) => [{ shape: x.shape, dtype: x.dtype, trials: x.trials }],
  assembleBatch: (_, { dtype, batch, height, width, channels }) => [
    { shape: [batch, height, width, channels], dtype, trials: 1 },
    u32([batch], 1),
  ],
};

/** Makes a node after checking its shapes. @throws ShapeError, DtypeError or AttrError, at the caller's line */
export function op<O extends OpName>(name: O, inputs: readonly Tensor[], attrs: OpAttrs[O]): Tensor[] {
  return makeNode(name, inputs, attrs, shapeRules[name](inputs, attrs));
}

/** A tensor that stands for memory somebody else fills. */
export function externalTensor(storage: Storage, { shape, dtype, trials }: TensorSpec): Tensor {
  return op('external', [], { storage, spec: { shape, dtype, trials } })[0];
}

/** The same of u32 words, as many as there are. */
export const externalWords = (storage: Storage): Tensor =>
  externalTensor(storage, { shape: [storage.size / 4], dtype: 'u32', trials: 1 });
