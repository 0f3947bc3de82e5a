/** NaN goes through every op that could lose it on its way to the loss: a trial that is lost must not look better than one that is not. */
import { describe, expect, test } from 'vitest';
import { grad } from '../../src/autograd/grad.ts';
import {
  add, batchNorm, batchNormInference, conv2d, crossEntropy, linear, maxPool2d, mean, relu, sum, tensor,
} from '../../src/graph/functional.ts';
import { fusions, type Fusion } from '../../src/graph/fuse/index.ts';
import { evaluate } from '../../src/graph/run.ts';
import type { Tensor } from '../../src/graph/tensor.ts';
import { trials } from '../../src/trials/trials.ts';
import { useDevice } from '../support/device.ts';
import { randomNd } from '../support/random.ts';
import { constant, parameter } from '../support/tensors.ts';

const device = useDevice();
const flat = (value: number): Tensor => tensor(new Float32Array(4).fill(value));
/** One of each sign: processors make the negative one. */
const nans = new Float32Array(Uint32Array.of(0x7fc00000, 0xffc00000).buffer);
const x = tensor(Float32Array.of(nans[0], -1, Infinity, 2, 3, nans[1], -Infinity, -0), [2, 4]);

describe.each<[string, readonly Fusion[]]>([['apart', []], ['fused', fusions]])('relu, %s', (_, enabled) => {
  const run = async (y: Tensor) => [...(await evaluate([y], { device: device(), fusions: enabled }))[0]].map((value) => value + 0);
  const kept = [NaN, 0, Infinity, 2, 3, NaN, 0, 0];

  test('of a tensor', async () => expect(await run(relu(x))).toEqual(kept));
  test('of a norm with running statistics, alone and with a residual', async () => {
    const y = batchNormInference(x, flat(1), flat(0), flat(0), flat(1), { eps: 2 ** -30 });
    expect(await run(relu(y))).toEqual(kept);
    expect(await run(relu(add(y, tensor(new Float32Array(8), [2, 4]))))).toEqual(kept);
  });
  test('of a norm of the batch: the whole channel is gone', async () => {
    const [first, second] = [[1, 2, 3, 4], [5, 7, nans[1], Infinity]];
    expect(await run(relu(batchNorm(tensor([...first, ...second], [2, 4]), flat(0), flat(1)).y))).toEqual([1, 1, NaN, NaN, 1, 1, NaN, NaN]);
  });
});

test('maxPool2d, wherever in the window', async () => {
  const image = tensor(Float32Array.of(1, 2, 3, 4, nans[1], 6, 7, 8, 9, 10, 11, 12), [1, 4, 3, 1]);
  const [y] = await evaluate([maxPool2d(image, { kernelSize: 2, stride: 1 })], { device: device() });
  expect([...y]).toEqual([NaN, NaN, NaN, NaN, 11, 12]);
});

test('what no window of a convolution meets has no say in the gradient of the weight', async () => {
  // Windows of 3 at stride 4 meet columns 0 1 2, 4 5 6 of 9.
  const values = Float32Array.from({ length: 3 * 9 * 4 }, (_, i) => ([3, 7, 8].includes(Math.floor(i / 4) % 9) ? NaN : 1));
  const image = tensor(values, [1, 3, 9, 4]);
  const weight = parameter(randomNd([3, 3, 4, 4], 1), 'w');
  const [dWeight] = await evaluate(grad(sum(conv2d(image, weight, { stride: 4 })), [weight]), { device: device() });
  expect(new Set(dWeight)).toEqual(new Set([2]));
});

test('trials whose signal leaves float32 have no finite loss, at any distance', async () => {
  const sizes = [16, 32, 32, 32, 32, 32, 32, 10];
  const weights = sizes.slice(1).map((n, i) => parameter(randomNd([sizes[i], n], i), `w${i}`));
  const logits = weights.reduce((x, w, i) => linear(i > 0 ? relu(x) : x, w), constant(randomNd([4, 16], 90)));
  const loss = mean(crossEntropy(logits, tensor(Uint32Array.of(0, 1, 2, 3))));
  const directions = new Map(weights.map((w, i) => [w, [constant(randomNd([...w.shape], 50 + i))]]));
  const far = [1e6, 1e9, 1e12, 1e20, 1e30, 1e38];
  const all = trials([loss], { count: 1 + far.length, directions, coefficients: tensor([0, ...far]) });
  const [losses] = await evaluate(all, { device: device() });
  expect(losses[0]).toBeLessThan(1e6);
  expect([...losses.slice(1)].filter(Number.isFinite)).toEqual([]);
});
