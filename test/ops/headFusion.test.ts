/** The end of a classifier in one kernel, against its parts: losses, all gradients, trials. */
import { describe, expect, test } from 'vitest';
import { grad } from '../../src/autograd/grad.ts';
import { crossEntropy, globalAvgPool2d, linear, mean, mul, sum, tensor } from '../../src/graph/functional.ts';
import { fuse, fusions } from '../../src/graph/fuse/index.ts';
import { Memory } from '../../src/graph/memory.ts';
import { draft } from '../../src/graph/plan.ts';
import type { Tensor } from '../../src/graph/tensor.ts';
import { trials } from '../../src/trials/trials.ts';
import { expectClose } from '../support/close.ts';
import { useDevice } from '../support/device.ts';
import { randomNd } from '../support/random.ts';
import { constant, parameter, sideBySide } from '../support/tensors.ts';
import { runGuarded } from './runner.ts';

const device = useDevice();

interface Size { n: number; side: [number, number]; c: number; classes: number; labelSmoothing?: number }

function make({ n, side, c, classes, labelSmoothing = 0 }: Size) {
  const x = parameter(randomNd([n, ...side, c], 1), 'x');
  const weight = parameter(randomNd([c, classes], 2), 'weight');
  const bias = parameter(randomNd([classes], 3), 'bias');
  const labels = tensor(Uint32Array.from({ length: n }, (_, i) => (i * 7) % classes));
  const logits = linear(globalAvgPool2d(x), weight, bias);
  const losses = crossEntropy(logits, labels, { labelSmoothing });
  return { x, weight, bias, logits, losses, all: [x, weight, bias] };
}

function kernelNames(outputs: readonly Tensor[]): string[] {
  const memory = new Memory(device());
  try {
    return draft(memory, 'names', fuse(outputs).map((one) => ({ tensor: one, storage: null }))).launches.map(({ kernel }) => kernel.name);
  } finally {
    memory.release();
  }
}

async function same(outputs: readonly Tensor[]): Promise<void> {
  const expected = await runGuarded(device(), outputs, { fusions: fusions.filter((name) => name !== 'classifierHead') });
  const values = await runGuarded(device(), outputs);
  values.forEach((value, i) => expectClose(value, expected[i], { atol: 2e-6, rtol: 1e-5 }));
  expect(expected[0].some((value) => Math.abs(value) > 1e-2)).toBe(true);
}

const sizes: Size[] = [
  { n: 3, side: [5, 4], c: 7, classes: 10 }, { n: 1, side: [1, 1], c: 1, classes: 2, labelSmoothing: 0.1 },
  { n: 5, side: [2, 3], c: 67, classes: 71, labelSmoothing: 0.25 }, { n: 8, side: [4, 4], c: 300, classes: 5 },
];

describe.each(sizes)('$n images $side, $c channels, $classes classes', (size) => {
  test('losses and gradients by the mean and by weights of one\'s own', async () => {
    const { losses, all } = make(size);
    const weighted = sum(mul(losses, constant(randomNd([size.n], 9))));
    for (const loss of [mean(losses), weighted]) {
      const outputs = [losses, loss, ...grad(loss, all)];
      const names = kernelNames(outputs);
      expect(names.filter((name) => name.startsWith('classifierHead'))).toEqual(['classifierHead_gradient']);
      expect(names.filter((name) => /crossEntropy|addBias|globalAvgPool2dForward/.test(name))).toEqual([]);
      await same(outputs);
    }
  });

  test.each([[1, false], [1, true], [2, false], [2, true], [3, false]])('trials along %d directions, scaled %s', async (K, scaled) => {
    const { losses, all } = make(size);
    const directions = new Map(all.map((v, i) => [v, Array.from({ length: K }, (_, k) => constant(randomNd([...v.shape], 30 + 3 * i + k)))]));
    const words = K + Number(scaled);
    const coefficients = tensor(Float32Array.from({ length: 3 * words }, (_, i) => (i % 5) * 0.1 - 0.2));
    const outputs = trials([losses], { count: 3, directions, coefficients, scaled });
    // Along more directions there are no bindings left: the bias, then the weight too, is written out for each trial.
    const names = kernelNames(outputs);
    expect(names.filter((name) => name.startsWith('classifierHead'))).toHaveLength(1);
    expect(names.filter((name) => name.startsWith('perturb_'))).toHaveLength(K);
    await same(outputs);
  });
});

test('models side by side, of one batch and of batches of their own: the bits of each by itself', async () => {
  const size = sizes[0];
  const { n, side, c, classes } = size;
  const labels = tensor(Uint32Array.from({ length: n }, (_, i) => (i * 7) % classes));
  const shapes = [[n, ...side, c], [c, classes], [classes]];
  const values = shapes.map((shape, i) => [0, 1, 2].map((t) => randomNd(shape, 50 + 3 * i + t)));
  const outputsOf = ([x, weight, bias]: Tensor[], own: Tensor[]): Tensor[] => {
    const losses = crossEntropy(linear(globalAvgPool2d(x), weight, bias), labels);
    return [losses, ...grad(mean(losses), own)];
  };
  for (const isShared of [true, false]) {
    const together = values.map((of, i) => (i === 0 && isShared ? constant(of[0]) : sideBySide(of)));
    const apart = [0, 1, 2].map((t) => values.map((of, i) => constant(of[i === 0 && isShared ? 0 : t])));
    const own = (all: Tensor[]) => all.slice(Number(isShared));
    const outputs = outputsOf(together, own(together));
    expect(kernelNames(outputs).filter((name) => name.startsWith('classifierHead'))).toEqual(['classifierHead_gradient']);
    const got = await runGuarded(device(), outputs);
    const expected: Float32Array[][] = [];
    for (const one of apart) expected.push(await runGuarded(device(), outputsOf(one, own(one))));
    got.forEach((value, i) => expect(value).toEqual(Float32Array.from(expected.flatMap((of) => [...of[i]]))));
  }
});

test('stays apart where two losses weigh one another', async () => {
  const [one, other] = [make(sizes[0]), make(sizes[0])];
  const outputs = grad(mean(mul(one.losses, other.losses)), [one.weight, other.weight]);
  expect(kernelNames(outputs).some((name) => name.startsWith('classifierHead'))).toBe(false);
  await same(outputs);
});

test('stays apart where somebody wants the logits, or the means', () => {
  const { logits, losses } = make(sizes[0]);
  for (const outputs of [[losses, logits], [losses, logits.node.inputs[0].node.inputs[0]]])
    expect(kernelNames(outputs).some((name) => name.startsWith('classifierHead'))).toBe(false);
});
