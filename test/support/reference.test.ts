import { describe, expect, test } from 'vitest';
import { centralDifferenceVjp } from './centralDifference.ts';
import { expectClose, relativeDistance } from './close.ts';
import { randomCotangent, randomDistinct, randomInts, randomNd } from './random.ts';
import type { Nd } from './reference.ts';
import * as ref from './reference.ts';

interface VjpRow {
  name: string;
  inputs: Nd[];
  forward: (...inputs: Nd[]) => Nd;
  /** One gradient for each input, in order. */
  vjp: (inputs: Nd[], dy: Nd) => Nd[];
}

const EPS = 1e-5;

function conv2dRow(xShape: number[], wShape: number[], attrs: ref.Conv2dAttrs): VjpRow {
  return {
    name: `conv2d x [${xShape}] w [${wShape}] stride ${attrs.stride} padding ${attrs.padding}`,
    inputs: [randomNd(xShape, 1), randomNd(wShape, 2), randomNd([wShape[3]], 3)],
    forward: (x, w, bias) => ref.conv2d(x, w, bias, attrs),
    vjp: ([x, w], dy) => {
      const g = ref.conv2dVjp(x, w, attrs, dy);
      return [g.dx, g.dWeight, g.dBias];
    },
  };
}

function crossEntropyRows(labelSmoothing: number): VjpRow[] {
  const logits = randomNd([4, 5], 1, { scale: 3 });
  const labels = randomInts(4, 5, 2);
  const attrs = { labelSmoothing };
  return [{
    name: `crossEntropy losses, labelSmoothing ${labelSmoothing}`,
    inputs: [logits],
    forward: (x) => ref.crossEntropy(x, labels, attrs).losses,
    vjp: ([x], dy) => [ref.crossEntropyVjp(x, labels, attrs, dy).dLogits],
  }, {
    name: `crossEntropy mean, labelSmoothing ${labelSmoothing}`,
    inputs: [logits],
    forward: (x) => ref.crossEntropy(x, labels, attrs).mean,
    vjp: ([x], dy) => [ref.crossEntropyMeanVjp(x, labels, attrs, dy).dLogits],
  }];
}

function maxPool2dRow(shape: number[], attrs: ref.MaxPool2dAttrs): VjpRow {
  return {
    name: `maxPool2d x [${shape}] kernelSize ${attrs.kernelSize} stride ${attrs.stride} padding ${attrs.padding}`,
    inputs: [randomDistinct(shape, 1)],
    forward: (x) => ref.maxPool2d(x, attrs),
    vjp: ([x], dy) => [ref.maxPool2dVjp(x, attrs, dy).dx],
  };
}

const normInputs = [randomNd([2, 3, 2, 3], 1, { scale: 2, offset: 1 }), randomNd([3], 2), randomNd([3], 3)];
const running = { mean: randomNd([3], 4), var: randomNd([3], 5, { positive: true, offset: 0.5 }) };
const pair = [randomNd([3, 5], 1), randomNd([3, 5], 2)];

const rows: VjpRow[] = [
  conv2dRow([2, 4, 5, 3], [3, 3, 3, 2], { stride: 1, padding: 1 }),
  conv2dRow([2, 5, 6, 2], [3, 3, 2, 3], { stride: 2, padding: 1 }),
  conv2dRow([1, 6, 5, 2], [2, 3, 2, 2], { stride: 2, padding: 0 }),
  conv2dRow([2, 5, 4, 3], [1, 1, 3, 2], { stride: 2, padding: 0 }),
  conv2dRow([1, 6, 7, 1], [7, 7, 1, 2], { stride: 2, padding: 3 }),
  conv2dRow([1, 1, 1, 1], [3, 3, 1, 1], { stride: 1, padding: 2 }),
  conv2dRow([1, 5, 5, 1], [3, 3, 1, 1], { stride: 3, padding: 2 }),
  {
    name: 'linear',
    inputs: [randomNd([3, 5], 1), randomNd([5, 4], 2), randomNd([4], 3)],
    forward: ref.linear,
    vjp: ([x, w], dy) => {
      const g = ref.linearVjp(x, w, dy);
      return [g.dx, g.dWeight, g.dBias];
    },
  },
  {
    name: 'batchNormTrain',
    inputs: normInputs,
    forward: (x, weight, bias) => ref.batchNormTrain(x, weight, bias, EPS).y,
    vjp: ([x, weight], dy) => {
      const g = ref.batchNormTrainVjp(x, weight, EPS, dy);
      return [g.dx, g.dWeight, g.dBias];
    },
  },
  {
    name: 'batchNormTrain with an eps that matters',
    inputs: normInputs,
    forward: (x, weight, bias) => ref.batchNormTrain(x, weight, bias, 0.7).y,
    vjp: ([x, weight], dy) => {
      const g = ref.batchNormTrainVjp(x, weight, 0.7, dy);
      return [g.dx, g.dWeight, g.dBias];
    },
  },
  {
    name: 'batchNormEval',
    inputs: normInputs,
    forward: (x, weight, bias) => ref.batchNormEval(x, weight, bias, running.mean, running.var, EPS),
    vjp: ([x, weight], dy) => {
      const g = ref.batchNormEvalVjp(x, weight, running.mean, running.var, EPS, dy);
      return [g.dx, g.dWeight, g.dBias];
    },
  },
  {
    name: 'relu',
    inputs: [randomNd([4, 5], 1, { awayFromZero: 0.01 })],
    forward: ref.relu,
    vjp: ([x], dy) => [ref.reluVjp(ref.relu(x), dy).dx],
  },
  { name: 'add', inputs: pair, forward: ref.add, vjp: ([a, b], dy) => Object.values(ref.addVjp(a, b, dy)) },
  { name: 'mul', inputs: pair, forward: ref.mul, vjp: ([a, b], dy) => Object.values(ref.mulVjp(a, b, dy)) },
  { name: 'scale', inputs: [pair[0]], forward: (x) => ref.scale(x, -1.7), vjp: ([x], dy) => [ref.scaleVjp(x, -1.7, dy).dx] },
  { name: 'sum', inputs: [pair[0]], forward: ref.sum, vjp: ([x], dy) => [ref.sumVjp(x, dy).dx] },
  { name: 'mean', inputs: [pair[0]], forward: ref.mean, vjp: ([x], dy) => [ref.meanVjp(x, dy).dx] },
  maxPool2dRow([2, 5, 6, 3], { kernelSize: 3, stride: 2, padding: 1 }),
  maxPool2dRow([1, 7, 4, 2], { kernelSize: 2, stride: 2, padding: 0 }),
  maxPool2dRow([1, 4, 4, 1], { kernelSize: 3, stride: 1, padding: 1 }),
  {
    name: 'globalAvgPool',
    inputs: [randomNd([2, 3, 5, 4], 1)],
    forward: ref.globalAvgPool,
    vjp: ([x], dy) => [ref.globalAvgPoolVjp(x, dy).dx],
  },
  ...crossEntropyRows(0),
  ...crossEntropyRows(0.1),
];

describe('every vector-Jacobian product is that of its forward', () => {
  test.each(rows)('$name', ({ inputs, forward, vjp }) => {
    const copies = inputs.map((x) => ref.nd(x.shape, x.data));
    const dy = randomCotangent(forward(...inputs).shape, 9);
    const numeric = centralDifferenceVjp(forward, inputs, dy);
    const gradients = vjp(inputs, dy);
    expect(gradients.length).toBe(inputs.length);
    gradients.forEach((gradient, k) => {
      // Rounding in the differences: about 1e-16·|f|/ε with ε = 1e-5.
      expectClose(gradient, numeric[k], { atol: 1e-8, rtol: 1e-7 });
      expect(relativeDistance(ref.scale(gradient, 1.001), numeric[k])).toBeGreaterThan(5e-4);
    });
    expect(inputs).toEqual(copies);
  });
});

describe('maxPool2d', () => {
  const attrs = { kernelSize: 2, stride: 2, padding: 0 };

  test('of equal values the first in row-major window order gets the gradient', () => {
    const x = ref.nd([1, 2, 4, 1], [1, 5, 7, 7, 5, 5, 7, 7]);
    const dy = ref.nd([1, 1, 2, 1], [10, 20]);
    expect([...ref.maxPool2d(x, attrs).data]).toEqual([5, 7]);
    expect([...ref.maxPool2dVjp(x, attrs, dy).dx.data]).toEqual([0, 10, 20, 0, 0, 0, 0, 0]);
  });

  test('a place that wins several windows collects their gradients; padding never wins', () => {
    const x = ref.nd([1, 2, 2, 1], [-3, -2, -4, -1]);
    const dy = ref.nd([1, 2, 2, 1], [1, 10, 100, 1000]);
    const padded = { kernelSize: 3, stride: 1, padding: 1 };
    expect([...ref.maxPool2d(x, padded).data]).toEqual([-1, -1, -1, -1]);
    expect([...ref.maxPool2dVjp(x, padded, dy).dx.data]).toEqual([0, 0, 0, 1111]);
  });

  test('a window of −Infinity has its first place as winner, and a NaN wins', () => {
    const x = ref.nd([1, 2, 4, 1], [-Infinity, -Infinity, 9, NaN, -Infinity, -Infinity, 8, 7]);
    const dy = ref.nd([1, 1, 2, 1], [10, 20]);
    expect([...ref.maxPool2d(x, attrs).data]).toEqual([-Infinity, NaN]);
    expect([...ref.maxPool2dVjp(x, attrs, dy).dx.data]).toEqual([10, 0, 0, 20, 0, 0, 0, 0]);
  });
});

test('relu keeps NaN and gives 0 no gradient', () => {
  expect([...ref.relu(ref.nd([3], [NaN, 0, -1])).data]).toEqual([NaN, 0, 0]);
  expect([...ref.reluVjp(ref.nd([3], [0, -0, 1e-300]), ref.nd([3], [1, 1, 1])).dx.data]).toEqual([0, 0, 1]);
});

test('crossEntropy stays finite for logits of any size', () => {
  const { losses } = ref.crossEntropy(ref.nd([2, 2], [1e4, 0, 1e4, 0]), [0, 1]);
  expect([...losses.data]).toEqual([0, 1e4]);
});

test('batch statistics survive a mean that is large beside the spread', () => {
  const { mean, var: variance } = ref.batchStatistics(ref.nd([4, 1], [1e8 - 1, 1e8 + 1, 1e8 - 1, 1e8 + 1]));
  expect([mean.data[0], variance.data[0]]).toEqual([1e8, 1]);
});

describe('wrong inputs throw', () => {
  const x = randomNd([1, 4, 4, 2], 1);
  test.each<[string, () => unknown, string]>([
    ['nd', () => ref.nd([2, 3], [1, 2]), 'got 2 vs 6'],
    ['conv2d channels', () => ref.conv2d(x, randomNd([3, 3, 3, 5], 2), null, { stride: 1, padding: 1 }), 'must have the shape [3,3,2,5]'],
    ['conv2d window', () => ref.conv2d(x, randomNd([7, 7, 2, 1], 2), null, { stride: 1, padding: 1 }), 'got 7 vs 4 + 2·1'],
    ['conv2d dy', () => ref.conv2dVjp(x, randomNd([1, 1, 2, 1], 2), { stride: 2, padding: 0 }, x), 'must have the shape [1,2,2,1]'],
    ['maxPool2d padding', () => ref.maxPool2d(x, { kernelSize: 3, stride: 1, padding: 2 }), 'got 2 vs 3'],
    ['batchNorm weight', () => ref.batchNormTrain(x, randomNd([3], 2), randomNd([2], 3), EPS), 'must have the shape [2], got [3]'],
    ['running statistics', () => ref.updateRunningStatistics(
      { runningMean: x, runningVar: x, mean: x, var: x, M: 1 }), 'M must be >= 2, got 1'],
    ['add', () => ref.add(x, randomNd([1, 4, 4, 1], 2)), 'add: b must have the shape [1,4,4,2]'],
    ['label', () => ref.crossEntropy(randomNd([2, 3], 1), [0, 3]), 'labels[1] must be a class 0 … 2, got 3'],
    ['labels', () => ref.crossEntropy(randomNd([2, 3], 1), [0]), 'must equal 2, got 1'],
    ['labelSmoothing', () => ref.crossEntropy(randomNd([1, 3], 1), [0], { labelSmoothing: 1.5 }), 'got 1.5'],
    ['nesterov', () => ref.sgdStep(x, x, null, { lr: 1, momentum: 0.9, dampening: 0.1, nesterov: true }), 'dampening 0'],
    ['index', () => ref.assembleBatch(
      new Uint8Array(24), { C: 3, H: 2, W: 2 }, [2], [0, 0, 0], [1, 1, 1]), 'must be an image 0 … 1, got 2'],
  ])('%s', (_, wrong, message) => {
    expect(wrong).toThrow(message);
  });
});
