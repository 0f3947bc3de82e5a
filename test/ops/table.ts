/**
 * One row record an op: a forward op without rows does not compile. To add an op, add its rows here; `ops.test.ts`, `opsHalf.test.ts` and
 * `opsSideBySide.test.ts` do the rest.
 *
 * Tolerances. Element-by-element ops are rounded once or twice: `rounded`. A float32 sum of n products of standard normal numbers has a
 * standard error of 0.42·n·2⁻²⁴ (each partial sum, of size √k, is rounded once); `sumOf(n)` allows seven times that, far below the size of any one term.
 */
import { AttrError, DtypeError, ShapeError } from '../../src/gpu/errors.ts';
import * as f from '../../src/graph/functional.ts';
import type { LowerContext } from '../../src/graph/lower/context.ts';
import { defaultLowerContext } from '../../src/graph/lower/convChoice.ts';
import { op, type ForwardOp } from '../../src/graph/ops.ts';
import type { Tensor } from '../../src/graph/tensor.ts';
import { tileName } from '../../src/kernels/igemm.ts';
import { emulatedTiles } from '../support/emulatedMatrices.ts';
import type { Tolerance } from '../support/close.ts';
import { roundHalves } from '../support/half.ts';
import { randomDistinct, randomInts, randomNd, type RandomOptions } from '../support/random.ts';
import * as ref from '../support/reference.ts';
import type { Nd } from '../support/nd.ts';
import type { ErrorCase, OpCase, ValueCase } from './check.ts';

type Shape = readonly number[];

/** Why a row has no f16 twin. */
const beyond = 'its numbers are beyond f16';

const rounded: Tolerance = { atol: 0, rtol: 2 ** -22 };
export const sumOf = (n: number, scale = 1): Tolerance => ({ atol: 3 * Math.max(n, 4) * 2 ** -24 * scale, rtol: 1e-6 });

export const zeros = (shape: Shape): Tensor => f.tensor(new Float32Array(ref.sizeOf(shape)), shape);
const refused = (name: string, throws: ErrorCase['throws'], build: () => unknown): ErrorCase => ({ name, throws, build });
const show = (shapes: readonly Shape[]): string => shapes.map((shape) => `[${shape.join(', ')}]`).join(' ');

/** Shapes of everything that works element by element: scalar, single, odd, primes, a row longer than a workgroup, many rows. */
const anyShapes: Shape[] = [[], [1], [5], [3, 7], [1, 1, 1, 13], [2, 3, 5, 11], [1, 300], [67, 3]];

export interface ConvRow {
  /** N, H, W, Cin */
  x: Shape;
  /** kH, kW, Cout */
  k: Shape;
  stride?: number;
  padding?: number;
  scale?: number;
  lowering?: LowerContext;
  trialTolerance?: Tolerance;
  why?: string;
  onlyF32?: string;
}

export function conv({ x, k, stride = 1, padding = 0, scale = 1, lowering, trialTolerance, why = '', onlyF32 }: ConvRow): ValueCase {
  const [N, H, W, Cin] = x;
  const [kH, kW, Cout] = k;
  const attrs = { stride, padding };
  const shapes = [[N, H, W, Cin], [kH, kW, Cin, Cout]];
  const places = N * Math.ceil((H + 2 * padding) / stride) * Math.ceil((W + 2 * padding) / stride);
  return {
    name: `${why} ${show(shapes)} stride ${stride} padding ${padding}`,
    inputs: () => shapes.map((shape, i) => randomNd(shape, 11 + i, { scale })),
    build: ([x, weight]) => f.conv2d(x, weight, attrs),
    reference: ([x, weight]) => ref.conv2d(x, weight, null, attrs),
    vjp: ([x, weight], dy) => {
      const { dx, dWeight } = ref.conv2dVjp(x, weight, attrs, dy);
      return [dx, dWeight];
    },
    tolerance: sumOf(kH * kW * Cin, scale * scale),
    gradTolerance: sumOf(Math.max(kH * kW * Cout, places), scale),
    lowering,
    trialTolerance,
    isProduct: true,
    onlyF32,
  };
}

export const linear = (N: number, K: number, M: number): ValueCase => ({
  name: `linear ${show([[N, K], [K, M]])}`,
  inputs: () => [randomNd([N, K], 21), randomNd([K, M], 22)],
  build: ([x, weight]) => f.linear(x, weight),
  reference: ([x, weight]) => ref.linear(x, weight, ref.zeros([M])),
  vjp: ([x, weight], dy) => {
    const { dx, dWeight } = ref.linearVjp(x, weight, dy);
    return [dx, dWeight];
  },
  tolerance: sumOf(K),
  gradTolerance: sumOf(Math.max(M, N)),
  isProduct: true,
});

/** Every tile, once as it comes and once with K split wherever it can be. */
const gpu = defaultLowerContext({ workgroupBytes: 32768, maxInvocations: 256, isSoftware: false });
const tiled = gpu.tiles.flatMap((tile): ValueCase[] => {
  const at = (wantedWorkgroups: number): LowerContext => ({ wantedWorkgroups, tiles: [tile] });
  const name = `tile ${tile.m}×${tile.n}×${tile.k}`;
  return [
    conv({ x: [2, 13, 9, 12], k: [3, 3, 70], padding: 1, lowering: at(1), why: name }),
    conv({ x: [2, 13, 9, 12], k: [3, 3, 70], stride: 2, padding: 1, lowering: at(1), why: name }),
    conv({ x: [2, 16, 19, 31], k: [3, 3, 36], padding: 1, lowering: at(4096), trialTolerance: sumOf(279), why: `${name}, split` }),
    conv({ x: [3, 21, 17, 30], k: [3, 3, 66], stride: 2, padding: 1, lowering: at(4096), trialTolerance: sumOf(270), why: `${name}, split` }),
  ];
});

/** The tiles that only measuring chooses: more than one in rows, columns and K, none of them full. */
const tried = gpu.otherTiles!.map((tile): ValueCase => {
  const lowering = { wantedWorkgroups: 4096, tiles: [tile] };
  const why = `tile ${tileName(tile)}, split`;
  return conv({ x: [3, 21, 17, 30], k: [3, 3, 132], stride: 2, padding: 1, lowering, trialTolerance: sumOf(270), why });
});

/** Tiles of matrix units, which f16 alone takes: K as it comes, and split. */
const matrices = emulatedTiles.map((tile, i) => {
  const lowering = { wantedWorkgroups: i === 0 ? 1 : 4096, tiles: [gpu.tiles[0]], matrixTiles: [tile] };
  const why = `tile ${tileName(tile)}`;
  return conv({ x: [2, 13, 9, 30], k: [3, 3, 70], stride: 1 + i, padding: 1, lowering, trialTolerance: sumOf(270), why });
});

export interface NormRow {
  shape: Shape;
  training?: boolean;
  eps?: number;
  relu?: boolean;
  residual?: boolean;
  x?: RandomOptions;
  tolerance?: Tolerance;
  gradTolerance?: Tolerance;
  lowering?: LowerContext;
  why?: string;
  onlyF32?: string;
}

/** x, weight, bias, then the running statistics in inference, then the residual. */
export function norm({ shape, training = true, eps = 1e-5, relu = false, residual = false, x: random, why = '', ...rest }: NormRow): ValueCase {
  const channels = [shape[shape.length - 1]];
  const split = (inputs: Nd[]) => {
    const [x, weight, bias, ...more] = inputs;
    return { x, weight, bias, statistics: training ? [] : more.slice(0, 2), z: residual ? more[more.length - 1] : null };
  };
  const reference = (inputs: Nd[]): Nd => {
    const { x, weight, bias, statistics: [mean, variance], z } = split(inputs);
    const y = training ? ref.batchNormTrain(x, weight, bias, eps).y : ref.batchNormEval(x, weight, bias, mean, variance, eps);
    const total = z ? ref.add(y, z) : y;
    return relu ? ref.relu(total) : total;
  };
  return {
    name: `${training ? 'training' : 'inference'} ${show([shape])} eps ${eps}${relu ? ', relu' : ''}${residual ? ', residual' : ''} ${why}`,
    inputs: () => [
      randomNd(shape, 31, random),
      randomNd(channels, 32, { scale: 0.5, offset: 1 }),
      randomNd(channels, 33),
      ...(training ? [] : [randomNd(channels, 34), randomNd(channels, 35, { positive: true, offset: 20 })]),
      ...(residual ? [randomNd(shape, 36)] : []),
    ],
    build: (inputs) => op('batchNorm', inputs, { training, eps, relu, residual })[0],
    reference,
    vjp: (inputs, dy) => {
      const { x, weight, statistics: [mean, variance] } = split(inputs);
      const dz = relu ? ref.reluVjp(reference(inputs), dy).dx : dy;
      const { dx, dWeight, dBias } = training ? ref.batchNormTrainVjp(x, weight, eps, dz) : ref.batchNormEvalVjp(x, weight, mean, variance, eps, dz);
      return [dx, dWeight, dBias, ...(training ? [] : [null, null]), ...(residual ? [dz] : [])];
    },
    tolerance: { atol: 4e-6, rtol: 2e-6 },
    gradTolerance: sumOf(Math.min(64, ref.sizeOf(shape) / channels[0])),
    activations: residual ? [0, training ? 3 : 5] : [0],
    ...rest,
  };
}

/** Any shape, one input. */
function unary(
  name: string, shape: Shape, build: (x: Tensor) => Tensor, reference: (x: Nd) => Nd, vjp: (x: Nd, dy: Nd) => Nd, more: Partial<ValueCase> = {},
): ValueCase {
  return {
    name: `${name} ${show([shape])}`,
    inputs: () => [randomNd(shape, 41)],
    build: ([x]) => build(x),
    reference: ([x]) => reference(x),
    vjp: ([x], dy) => [vjp(x, dy)],
    tolerance: rounded,
    ...more,
  };
}

/** To f16 and back. Adapters round to nearest or cut, and may lose what is below 2^-14. */
const throughHalf = (shape: Shape, scale: number): ValueCase =>
  unary(`to f16, values of size ${scale},`, shape, (x) => f.cast(f.cast(x, 'f16'), 'f32'), roundHalves, (_, dy) => roundHalves(dy), {
    inputs: () => [randomNd(shape, 91, { scale })],
    tolerance: { atol: 2 ** -24, rtol: 2 ** -10 },
    onlyF32: 'it has f16 in between',
  });

/** Any shape, two inputs of it; large values beside small ones. */
const binary = (build: (a: Tensor, b: Tensor) => Tensor, reference: (a: Nd, b: Nd) => Nd, vjp: (a: Nd, b: Nd, dy: Nd) => Nd[]): ValueCase[] =>
  [...anyShapes.map((shape) => ({ shape, scale: 1 })), { shape: [5, 6] as Shape, scale: 1e15 }].map(({ shape, scale }) => ({
    name: `${show([shape])} of size ${scale}`,
    inputs: () => [randomNd(shape, 51, { scale }), randomNd(shape, 52, { scale })],
    build: ([a, b]) => build(a, b),
    reference: ([a, b]) => reference(a, b),
    vjp: ([a, b], dy) => vjp(a, b, dy),
    tolerance: rounded,
    activations: [0, 1],
    ...(scale > 1 ? { onlyF32: beyond } : {}),
  }));

const mismatched = (name: 'add' | 'sub' | 'mul'): ErrorCase[] => [
  refused('shapes are not broadcast', { cls: ShapeError, op: name, arg: 'second operand' }, () => f[name](zeros([2, 3]), zeros([1, 3]))),
  refused('a u32 operand', { cls: DtypeError, op: name, arg: 'second operand' }, () => f[name](zeros([2]), f.tensor(new Uint32Array(2)))),
];

export const pool = (shape: Shape, kernelSize: number, stride: number, padding: number, distinct: boolean): ValueCase => ({
  name: `${show([shape])} kernel ${kernelSize} stride ${stride} padding ${padding}, ${distinct ? 'no ties' : 'ties'}`,
  // Ties: three values only, all negative, so that a zero from the padding would win.
  inputs: () => [distinct ? randomDistinct(shape, 61) : ref.nd(shape, randomInts(ref.sizeOf(shape), 3, 62).map((value) => value - 5))],
  build: ([x]) => f.maxPool2d(x, { kernelSize, stride, padding }),
  reference: ([x]) => ref.maxPool2d(x, { kernelSize, stride, padding }),
  vjp: ([x], dy) => [ref.maxPool2dVjp(x, { kernelSize, stride, padding }, dy).dx],
  tolerance: { atol: 1e-6, rtol: 1e-6 },
  // Of one value, 0, trials are as good as 0 in f16.
  ...(distinct && ref.sizeOf(shape) === 1 ? { onlyF32: beyond } : {}),
});

/** Logits of the given size: log-sum-exp and the difference are each rounded to an ulp of the largest logit, about 4 · size. */
const loss = (N: number, C: number, size: number, labelSmoothing: number): ValueCase => {
  const labels = randomInts(N, C, 72);
  const atol = 1e-6 + 3 * size * 2 ** -22;
  return {
    name: `${show([[N, C]])} logits × ${size}, labelSmoothing ${labelSmoothing}`,
    inputs: () => [randomNd([N, C], 71, { scale: size })],
    build: ([logits]) => f.crossEntropy(logits, f.tensor(Uint32Array.from(labels)), { labelSmoothing }),
    reference: ([logits]) => ref.crossEntropy(logits, labels, { labelSmoothing }).losses,
    vjp: ([logits], dy) => [ref.crossEntropyVjp(logits, labels, { labelSmoothing }, dy).dLogits],
    tolerance: { atol, rtol: 2e-6 },
    isConstant: C === 1,
    hasF32Result: true,
  };
};

const labelsOf = (n: number): Tensor => f.tensor(new Uint32Array(n));

export const table = {
  conv2d: [
    conv({ x: [1, 1, 1, 1], k: [1, 1, 1] }),
    conv({ x: [2, 5, 7, 3], k: [3, 3, 5], padding: 1 }),
    conv({ x: [1, 9, 7, 5], k: [3, 3, 7], stride: 2, padding: 1 }),
    conv({ x: [2, 11, 13, 3], k: [7, 7, 4], stride: 2, padding: 3, trialTolerance: sumOf(147), why: 'the ImageNet stem' }),
    conv({ x: [3, 6, 5, 11], k: [1, 1, 13], stride: 2, why: 'classes of dx without taps' }),
    conv({ x: [1, 8, 10, 4], k: [3, 3, 4], stride: 3 }),
    conv({ x: [1, 7, 4, 2], k: [3, 1, 3], stride: 3, padding: 2 }),
    conv({ x: [2, 4, 3, 7], k: [3, 3, 3], padding: 3, why: 'padding ≥ kernel' }),
    conv({ x: [1, 2, 2, 6], k: [1, 1, 5], stride: 2, padding: 1, why: 'padding ≥ kernel' }),
    conv({ x: [1, 3, 3, 2], k: [3, 3, 2], stride: 2, padding: 2 }),
    conv({ x: [2, 6, 5, 3], k: [1, 3, 5], why: 'no square kernel' }),
    conv({ x: [2, 6, 5, 3], k: [3, 2, 5], stride: 2, padding: 1, why: 'no square kernel' }),
    conv({ x: [1, 13, 11, 8], k: [7, 7, 17], trialTolerance: sumOf(392) }),
    conv({ x: [1, 5, 5, 13], k: [3, 3, 11], padding: 1, scale: 1e4, why: 'large magnitudes,', onlyF32: beyond }),
    conv({ x: [2, 7, 5, 74], k: [3, 3, 70], padding: 1, trialTolerance: sumOf(666), why: 'more channels than a panel holds,' }),
    conv({ x: [1, 7, 9, 74], k: [3, 3, 150], stride: 2, padding: 1, trialTolerance: sumOf(666), why: 'more channels than a panel holds,' }),
    conv({ x: [1, 11, 7, 28], k: [7, 7, 15], padding: 1, trialTolerance: sumOf(1372), why: 'lines that no even split cuts,' }),
    conv({ x: [1, 80, 77, 4], k: [3, 3, 4], padding: 1, why: 'several tiles of rows a panel,' }),
    conv({ x: [1, 160, 155, 4], k: [3, 3, 4], stride: 2, padding: 1, why: 'several tiles of rows a panel,' }),
    conv({ x: [1, 2, 167, 3], k: [1, 163, 2], trialTolerance: sumOf(489), why: 'a line that no panel holds,' }),
    ...tiled,
    ...tried,
    ...matrices,
    linear(1, 1, 1), linear(5, 7, 3), linear(33, 130, 10), linear(130, 17, 67),
    refused('channels that differ', { cls: ShapeError, op: 'conv2d', arg: 'weight.shape[2]' }, () =>
      f.conv2d(zeros([1, 4, 4, 4]), zeros([3, 3, 3, 8]))),
    refused('a kernel larger than the image', { cls: ShapeError, op: 'conv2d', arg: 'kernel' }, () =>
      f.conv2d(zeros([1, 2, 2, 4]), zeros([3, 3, 4, 8]))),
    refused('x without batch', { cls: ShapeError, op: 'conv2d', arg: 'x' }, () => f.conv2d(zeros([4, 4, 4]), zeros([3, 3, 4, 8]))),
    refused('stride 0', { cls: AttrError, op: 'conv2d', arg: 'stride' }, () =>
      f.conv2d(zeros([1, 4, 4, 4]), zeros([3, 3, 4, 8]), { stride: 0 })),
    refused('padding −1', { cls: AttrError, op: 'conv2d', arg: 'padding' }, () =>
      f.conv2d(zeros([1, 4, 4, 4]), zeros([3, 3, 4, 8]), { padding: -1 })),
    refused('linear: sizes that differ', { cls: ShapeError, op: 'linear', arg: 'weight.shape[0]' }, () =>
      f.linear(zeros([2, 5]), zeros([4, 3]))),
    refused('linear: a sum longer than the kernels count', { cls: ShapeError, op: 'linear', arg: 'weight' }, () =>
      f.linear(zeros([1, 2 ** 20 + 1]), zeros([2 ** 20 + 1, 1]))),
    refused('a u32 image', { cls: DtypeError, op: 'conv2d', arg: 'x' }, () =>
      f.conv2d(f.tensor(new Uint32Array(4), [1, 2, 2, 1]), zeros([1, 1, 1, 1]))),
  ],
  addBias: [
    ...([[1, 1], [3, 7], [2, 3, 3, 5], [67, 13]] as Shape[]).map((shape): ValueCase => ({
      name: show([shape]),
      inputs: () => [randomNd(shape, 81), randomNd(shape.slice(-1), 82)],
      build: ([x, bias]) => op('addBias', [x, bias], {})[0],
      reference: ([x, bias]) => ref.map(x, (value, i) => value + bias.data[i % bias.data.length]),
      vjp: ([, bias], dy) => [dy, ref.map(bias, (_, c) => dy.data.reduce((total, g, i) => total + (i % bias.data.length === c ? g : 0), 0))],
      tolerance: rounded,
      gradTolerance: sumOf(ref.sizeOf(shape.slice(0, -1))),
    })),
    refused('a bias of another length', { cls: ShapeError, op: 'addBias', arg: 'bias' }, () =>
      f.linear(zeros([2, 3]), zeros([3, 4]), zeros([3]))),
  ],
  batchNorm: [
    ...([[2, 1, 1, 1], [7, 5], [2, 3, 5, 7], [1, 9, 9, 13], [17, 3], [2, 40, 30, 5], [3, 64, 64, 2]] as Shape[]).map((shape) => norm({ shape })),
    // So many rows that an adapter of many cores takes a launch more rather than larger chunks.
    norm({ shape: [3, 53, 59, 5], relu: true, residual: true, lowering: { wantedWorkgroups: 264, tiles: [] }, why: 'merged apart' }),
    norm({ shape: [2, 5, 5, 6], eps: 0.5 }),
    // x − mean is exact in float32 here, mean itself is right to 2⁻¹⁵; E[x²] − E[x]² would be wrong by 10 %.
    norm({ shape: [4, 8, 8, 3], x: { offset: 1000 }, tolerance: { atol: 1e-4, rtol: 1e-5 }, gradTolerance: { atol: 5e-3, rtol: 1e-4 }, why: 'mean ≫ std' }),
    norm({ shape: [4, 5, 5, 3], x: { scale: 1e6 }, why: 'large magnitudes', onlyF32: beyond }),
    norm({ shape: [2, 4, 5, 6], relu: true }),
    norm({ shape: [2, 4, 5, 6], residual: true }),
    norm({ shape: [2, 4, 5, 6], relu: true, residual: true }),
    norm({ shape: [2, 4, 5, 3], training: false }),
    norm({ shape: [1, 1, 1, 5], training: false }),
    norm({ shape: [9, 6], training: false, relu: true, residual: true }),
    refused('one value a channel', { cls: ShapeError, op: 'batchNorm', arg: 'x' }, () =>
      f.batchNorm(zeros([1, 1, 1, 4]), zeros([4]), zeros([4]))),
    refused('a weight of another length', { cls: ShapeError, op: 'batchNorm', arg: 'weight' }, () =>
      f.batchNorm(zeros([2, 4]), zeros([3]), zeros([4]))),
    refused('statistics of another length', { cls: ShapeError, op: 'batchNorm', arg: 'runningVar' }, () =>
      f.batchNormInference(zeros([2, 4]), zeros([4]), zeros([4]), zeros([4]), zeros([1]))),
    refused('eps 0', { cls: AttrError, op: 'batchNorm', arg: 'eps' }, () => f.batchNorm(zeros([2, 4]), zeros([4]), zeros([4]), { eps: 0 })),
  ],
  relu: [
    ...anyShapes.map((shape) => unary('', shape, f.relu, ref.relu, (x, dy) => ref.reluVjp(x, dy).dx)),
    // The gradient at 0 is 0, as PyTorch's.
    unary('zeros among them', [6, 5], f.relu, ref.relu, (x, dy) => ref.reluVjp(x, dy).dx, {
      inputs: () => [ref.nd([6, 5], randomInts(30, 3, 42).map((value) => value - 1))],
    }),
    unary('large', [6, 5], f.relu, ref.relu, (x, dy) => ref.reluVjp(x, dy).dx, { inputs: () => [randomNd([6, 5], 43, { scale: 1e30 })], onlyF32: beyond }),
    refused('u32', { cls: DtypeError, op: 'relu', arg: 'x' }, () => f.relu(labelsOf(3))),
  ],
  add: [...binary(f.add, ref.add, (a, b, dy) => Object.values(ref.addVjp(a, b, dy))), ...mismatched('add')],
  sub: [...binary(f.sub, (a, b) => ref.map(a, (value, i) => value - b.data[i]), (_a, _b, dy) => [dy, ref.scale(dy, -1)]), ...mismatched('sub')],
  mul: [...binary(f.mul, ref.mul, (a, b, dy) => Object.values(ref.mulVjp(a, b, dy))), ...mismatched('mul')],
  scale: [
    ...anyShapes.map((shape) => unary('', shape, (x) => f.scale(x, -0.75), (x) => ref.scale(x, -0.75), (x, dy) => ref.scaleVjp(x, -0.75, dy).dx)),
    refused('factor NaN', { cls: AttrError, op: 'scale', arg: 'factor' }, () => f.scale(zeros([2]), NaN)),
  ],
  reshape: [
    ...([
      [[2, 3, 5], [5, 6]], [[4, 8], [32]], [[32], [4, 8]], [[6], [2, 3]], [[], [1, 1]], [[1, 1], []], [[2, 2, 2, 3], [2, 12]], [[67, 3], [3, 67]],
    ] as Shape[][]).map(([from, to]) =>
      unary(`to ${show([to])} from`, from, (x) => f.reshape(x, to), (x) => ref.nd(to, x.data), (x, dy) => ref.nd(x.shape, dy.data)),
    ),
    refused('another number of elements', { cls: ShapeError, op: 'reshape', arg: 'shape' }, () => f.reshape(zeros([2, 3]), [5])),
    refused('negative sizes', { cls: ShapeError, op: 'reshape', arg: 'shape' }, () => f.reshape(zeros([2, 3]), [-2, -3])),
  ],
  maxPool2d: [
    ...([
      [[2, 8, 6, 4], 3, 2, 1], [[1, 7, 9, 5], 3, 2, 1], [[2, 5, 5, 3], 2, 2, 0], [[1, 1, 1, 1], 1, 1, 0], [[1, 9, 8, 7], 2, 3, 1],
      [[1, 6, 7, 13], 3, 1, 1], [[2, 7, 7, 2], 5, 2, 2],
    ] as [Shape, number, number, number][]).flatMap((sizes) => [pool(...sizes, true), pool(...sizes, false)]),
    refused('more padding than half a kernel', { cls: AttrError, op: 'maxPool2d', arg: 'padding' }, () =>
      f.maxPool2d(zeros([1, 4, 4, 1]), { kernelSize: 3, padding: 2 })),
    refused('a kernel larger than the image', { cls: ShapeError, op: 'maxPool2d', arg: 'kernel' }, () =>
      f.maxPool2d(zeros([1, 2, 2, 1]), { kernelSize: 3 })),
    refused('stride 1.5', { cls: AttrError, op: 'maxPool2d', arg: 'stride' }, () =>
      f.maxPool2d(zeros([1, 4, 4, 1]), { kernelSize: 2, stride: 1.5 })),
  ],
  globalAvgPool2d: [
    ...([[1, 1, 1, 1], [2, 7, 5, 3], [3, 4, 4, 13], [1, 14, 9, 8], [40, 2, 1, 11]] as Shape[]).map((shape) =>
      unary('', shape, f.globalAvgPool2d, ref.globalAvgPool, (x, dy) => ref.globalAvgPoolVjp(x, dy).dx, { tolerance: sumOf(4) }),
    ),
    refused('x without batch', { cls: ShapeError, op: 'globalAvgPool2d', arg: 'x' }, () => f.globalAvgPool2d(zeros([4, 4, 4]))),
  ],
  crossEntropy: [
    loss(3, 1, 1, 0), loss(1, 10, 1, 0), loss(5, 7, 1, 0.1), loss(7, 13, 30, 0), loss(7, 13, 30, 0.1),
    loss(4, 10, 400, 0), loss(4, 10, 400, 0.2), loss(66, 3, 1, 1), loss(3, 1000, 5, 0.1),
    refused('f32 labels', { cls: DtypeError, op: 'crossEntropy', arg: 'labels' }, () => f.crossEntropy(zeros([2, 3]), zeros([2]))),
    refused('labels of another batch', { cls: ShapeError, op: 'crossEntropy', arg: 'labels' }, () =>
      f.crossEntropy(zeros([2, 3]), labelsOf(3))),
    refused('a label that is no class', { cls: AttrError, op: 'crossEntropy', arg: 'labels' }, () =>
      f.crossEntropy(zeros([2, 3]), f.tensor(Uint32Array.of(2, 3)))),
    refused('labelSmoothing 1.5', { cls: AttrError, op: 'crossEntropy', arg: 'labelSmoothing' }, () =>
      f.crossEntropy(zeros([2, 3]), labelsOf(2), { labelSmoothing: 1.5 })),
  ],
  sum: [
    ...([[], [1], [5, 7], [3, 1, 1, 5], [70, 70, 5]] as Shape[]).map((shape) =>
      unary('sum', shape, f.sum, ref.sum, (x, dy) => ref.sumVjp(x, dy).dx, { tolerance: sumOf(Math.sqrt(ref.sizeOf(shape))), hasF32Result: true })),
    ...([[5, 7], [70, 70, 5]] as Shape[]).map((shape) =>
      unary('mean', shape, f.mean, ref.mean, (x, dy) => ref.meanVjp(x, dy).dx, { tolerance: { atol: 1e-7, rtol: 1e-6 }, hasF32Result: true })),
  ],
  cast: [
    ...anyShapes.map((shape) => throughHalf(shape, 1)),
    ...[2 ** -12, 2 ** -6, 2 ** 6, 2 ** 12].map((scale) => throughHalf([7, 9], scale)),
    refused('u32', { cls: DtypeError, op: 'cast', arg: 'x' }, () => f.cast(labelsOf(3), 'f16')),
    refused('to u32', { cls: AttrError, op: 'cast', arg: 'dtype' }, () => f.cast(zeros([2]), 'u32' as 'f16')),
  ],
} satisfies Record<ForwardOp, OpCase[]>;
