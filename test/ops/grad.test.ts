import { describe, expect, test } from 'vitest';
import { grad } from '../../src/autograd/grad.ts';
import { AttrError, ShapeError } from '../../src/gpu/errors.ts';
import { add, batchNorm, conv2d, flatten, linear, maxPool2d, mul, relu, scale, sub, sum, tensor } from '../../src/graph/functional.ts';
import type { Tensor } from '../../src/graph/tensor.ts';
import { trials } from '../../src/trials/trials.ts';
import { centralDifferenceVjp } from '../support/centralDifference.ts';
import { expectClose } from '../support/close.ts';
import { useDevice } from '../support/device.ts';
import { randomCotangent, randomNd } from '../support/random.ts';
import * as ref from '../support/reference.ts';
import { constant, parameter, sideBySide } from '../support/tensors.ts';
import { runGuarded } from './runner.ts';

const device = useDevice();

/** Gradients of Σ y·dy, dy random, against central differences of the same composition in float64. */
async function expectGradients(
  inputs: ref.Nd[], build: (...inputs: Tensor[]) => Tensor, reference: (...inputs: ref.Nd[]) => ref.Nd, tolerance = { atol: 1e-5, rtol: 1e-5 },
) {
  const tensors = inputs.map((input) => parameter(input));
  const y = build(...tensors);
  const dy = randomCotangent(y.shape, 7);
  const values = await runGuarded(device(), grad(sum(mul(y, constant(dy))), tensors));
  const expected = centralDifferenceVjp(reference, inputs, dy);
  values.forEach((value, i) => expectClose(ref.nd(inputs[i].shape, value), expected[i], tolerance));
}

describe('a tensor used several times gets the sum over its uses', () => {
  const a = randomNd([3, 5], 1, { awayFromZero: 0.01 });
  const b = randomNd([3, 5], 2);

  test('both operands of one op', async () => {
    await expectGradients([a], (x) => mul(x, x), (x) => ref.mul(x, x));
    await expectGradients([a], (x) => sub(add(x, x), scale(x, 3)), (x) => ref.scale(x, -1));
  });

  test('several ops, a chain of them, and a residual', async () => {
    await expectGradients([a, b], (x, z) => add(mul(x, z), mul(relu(x), x)), (x, z) => ref.add(ref.mul(x, z), ref.mul(ref.relu(x), x)));
  });

  test('one weight in two convolutions', async () => {
    const attrs = { stride: 1, padding: 1 };
    await expectGradients(
      [randomNd([1, 4, 3, 3], 3), randomNd([3, 3, 3, 3], 4, { scale: 0.3 })],
      (x, w) => conv2d(conv2d(x, w, attrs), w, attrs),
      (x, w) => ref.conv2d(ref.conv2d(x, w, null, attrs), w, null, attrs),
    );
  });
});

test('a net with every kind of layer, end to end', async () => {
  const conv = { stride: 2, padding: 1 };
  const pool = { kernelSize: 2, stride: 1, padding: 1 };
  await expectGradients(
    [
      randomNd([2, 6, 5, 3], 5), randomNd([3, 3, 3, 5], 6), randomNd([5], 7, { offset: 1, scale: 0.3 }), randomNd([5], 8),
      randomNd([80, 4], 9),
    ],
    (x, w, weight, bias, fc) => linear(flatten(maxPool2d(relu(batchNorm(conv2d(x, w, conv), weight, bias).y), pool)), fc),
    (x, w, weight, bias, fc) => {
      const pooled = ref.maxPool2d(ref.relu(ref.batchNormTrain(ref.conv2d(x, w, null, conv), weight, bias, 1e-5).y), pool);
      return ref.linear(ref.nd([2, pooled.data.length / 2], pooled.data), fc, ref.zeros([4]));
    },
    { atol: 2e-4, rtol: 1e-4 },
  );
});

test('what the loss does not depend on has zeros for its gradient', async () => {
  const [used, unused] = [parameter(randomNd([3], 1)), parameter(randomNd([2, 5], 2))];
  const [first, second] = await runGuarded(device(), grad(sum(scale(used, 2)), [unused, used]));
  expect([...first]).toEqual(new Array(10).fill(0));
  expect([...second]).toEqual([2, 2, 2]);
});

test('intermediate tensors, and the loss itself, have gradients too', async () => {
  const x = parameter(randomNd([4], 1));
  const hidden = scale(x, 3);
  const loss = sum(mul(hidden, hidden));
  const [dLoss, dHidden, value] = await runGuarded(device(), [...grad(loss, [loss, hidden]), hidden]);
  expect([...dLoss]).toEqual([1]);
  expect([...dHidden]).toEqual([...value.map((v) => 2 * v)]);
});

test('the losses of models side by side have gradients a model, also where these are one for all; zeros where a loss does not depend on it', async () => {
  const [a, b] = [randomNd([3], 1), randomNd([3], 2)];
  const w = sideBySide([a, b]);
  const unused = sideBySide([randomNd([2], 3), randomNd([2], 4)]);
  const x = constant(randomNd([3], 5));
  // The gradient of the first term is one for all models.
  const loss = add(sum(mul(w, x)), sum(mul(w, w)));
  expect(loss.trials).toBe(2);
  const [dw, zeros, dLoss] = await runGuarded(device(), grad(loss, [w, unused, loss]));
  const expected = [a, b].flatMap(({ data }) => [...data].map((value, i) => randomNd([3], 5).data[i] + 2 * value));
  expectClose(dw, Float32Array.from(expected), { atol: 1e-6, rtol: 1e-6 });
  expect([...zeros]).toEqual([0, 0, 0, 0]);
  expect([...dLoss]).toEqual([1, 1]);
});

describe('refuses', () => {
  const x = parameter(randomNd([4, 3], 1));
  const norm = batchNorm(x, constant(randomNd([3], 2)), constant(randomNd([3], 3)));

  test.each<[string, new (...args: never[]) => Error, string, () => unknown]>([
    ['a loss that is no scalar', ShapeError, 'loss', () => grad(x, [x])],
    ['the losses of trials', ShapeError, 'loss', () => {
      const directions = new Map([[x, [constant(randomNd([4, 3], 4))]]]);
      const [losses] = trials([sum(x)], { count: 2, directions, coefficients: tensor([1, 2]) });
      return grad(losses, [x]);
    }],
    ['one loss, with respect to what is of several models', ShapeError, 'loss', () => grad(sum(x), [sideBySide([randomNd([3], 5), randomNd([3], 6)])])],
    ['a second derivative', AttrError, 'loss', () => grad(sum(grad(sum(relu(x)), [x])[0]), [x])],
    ['a loss of batch statistics', AttrError, 'loss', () => grad(sum(norm.statistics.mean), [x])],
    ['a loss of batch statistics beside y', AttrError, 'loss', () => grad(add(sum(norm.y), sum(norm.statistics.variance)), [x])],
  ])('%s', (_, cls, arg, build) => {
    expect(build).toThrow(cls);
    expect(build).toThrow(expect.objectContaining({ op: 'grad', arg }));
  });
});
