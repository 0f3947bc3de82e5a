/** The implicit GEMM against the naive kernels, at a size that float64 on the host would be slow at. */
import { expect, test } from 'vitest';
import { grad } from '../../src/autograd/grad.ts';
import { conv2d, mul, sum, tensor } from '../../src/graph/functional.ts';
import { emit } from '../../src/graph/lower/context.ts';
import { blockVec4s, pack, rowVec4s, unpack, type Shape, type Tensor } from '../../src/graph/tensor.ts';
import { grid1d } from '../../src/kernels/contract.ts';
import { conv2dNaiveBackwardInput, conv2dNaiveBackwardWeight, conv2dNaiveForward } from '../../src/kernels/conv2dNaive.ts';
import { expectClose } from '../support/close.ts';
import { useDevice } from '../support/device.ts';
import { runLaunches } from '../support/launch.ts';
import { randomNd } from '../support/random.ts';
import { nd, conv2d as referenceConv2d, conv2dVjp } from '../support/reference.ts';
import { runGuarded } from './runner.ts';
import { sumOf } from './table.ts';

const device = useDevice();
const values = (shape: Shape, seed: number): Float32Array => Float32Array.from(randomNd(shape, seed).data);
const spec = (shape: Shape) => ({ shape, dtype: 'f32', trials: 1 }) as const;

interface Sizes { x: [number, number, number, number]; weight: [number, number, number, number]; stride: number; padding: number }

const outShape = ({ x, weight, stride, padding }: Sizes): Shape => [
  x[0], Math.floor((x[1] + 2 * padding - weight[0]) / stride) + 1, Math.floor((x[2] + 2 * padding - weight[1]) / stride) + 1, weight[3],
];

/** y, dx, dWeight by the naive kernels. */
async function naive(sizes: Sizes, x: Float32Array, weight: Float32Array, dy: Float32Array): Promise<Float32Array[]> {
  const y = outShape(sizes);
  const shapes = [y, sizes.x, sizes.weight];
  const uniforms = (shape: Shape) => ({
    n: blockVec4s(shape), images: sizes.x[0], h: sizes.x[1], w: sizes.x[2], cin: sizes.x[3], cin4: rowVec4s(sizes.x), h_out: y[1], w_out: y[2],
    cout4: rowVec4s(y), k_h: sizes.weight[0], k_w: sizes.weight[1], stride: sizes.stride, padding: sizes.padding,
  });
  const words = await runLaunches(device(), ({ input, output }) => {
    const [xs, ws, dys] = [input(pack(spec(sizes.x), x)), input(pack(spec(sizes.weight), weight)), input(pack(spec(y), dy))];
    const [ys, dxs, dws] = shapes.map((shape) => output(blockVec4s(shape) * 4));
    const grid = (shape: Shape) => grid1d(blockVec4s(shape), 64);
    return [
      emit(conv2dNaiveForward, { bindings: { x: xs, weight: ws, y: ys }, uniforms: uniforms(y), grid: grid(y) }),
      emit(conv2dNaiveBackwardInput, { bindings: { dy: dys, weight: ws, dx: dxs }, uniforms: uniforms(sizes.x), grid: grid(sizes.x) }),
      emit(conv2dNaiveBackwardWeight, { bindings: { x: xs, dy: dys, dw: dws }, uniforms: uniforms(sizes.weight), grid: grid(sizes.weight) }),
    ];
  });
  return words.map((word, i) => unpack(spec(shapes[i]), new Float32Array(word.buffer)));
}

const seeds = (sizes: Sizes) => ({ x: values(sizes.x, 1), weight: values(sizes.weight, 2), dy: values(outShape(sizes), 3) });

test.each<Sizes>([
  { x: [2, 5, 6, 3], weight: [3, 3, 3, 5], stride: 1, padding: 1 },
  { x: [2, 7, 5, 6], weight: [3, 2, 6, 7], stride: 2, padding: 2 },
])('the oracle itself agrees with float64: %j', async (sizes) => {
  const { x, weight, dy } = seeds(sizes);
  const found = await naive(sizes, x, weight, dy);
  const [xs, ws, dys] = [nd(sizes.x, x), nd(sizes.weight, weight), nd(outShape(sizes), dy)];
  const { dx, dWeight } = conv2dVjp(xs, ws, sizes, dys);
  [referenceConv2d(xs, ws, null, sizes), dx, dWeight].forEach((expected, i) => expectClose(nd(expected.shape, found[i]), expected, sumOf(60)));
});

test.each<Sizes>([
  { x: [8, 16, 16, 32], weight: [3, 3, 32, 64], stride: 1, padding: 1 },
  { x: [8, 17, 15, 30], weight: [3, 3, 30, 66], stride: 2, padding: 1 },
])('conv2d agrees with it: %j', async (sizes) => {
  const { x, weight, dy } = seeds(sizes);
  const [xt, wt]: Tensor[] = [tensor(x, sizes.x), tensor(weight, sizes.weight)];
  const y = conv2d(xt, wt, sizes);
  expect(y.shape).toEqual(outShape(sizes));
  const found = await runGuarded(device(), [y, ...grad(sum(mul(y, tensor(dy, y.shape))), [xt, wt])]);
  const expected = await naive(sizes, x, weight, dy);
  const depths = [9 * sizes.x[3], 9 * sizes.weight[3], y.shape[0] * y.shape[1] * y.shape[2]];
  [y.shape, sizes.x, sizes.weight].forEach((shape, i) => expectClose(nd(shape, found[i]), nd(shape, expected[i]), sumOf(2 * depths[i])));
});
