/** Momentum and weight decay in the stores of weight gradients: the bits of a pass of their own, by every way to compute a convolution. */
import { describe, expect, test } from 'vitest';
import { grad } from '../../src/autograd/grad.ts';
import { cast, conv2d, linear, mul, sum, tensor } from '../../src/graph/functional.ts';
import { fuse, fusions } from '../../src/graph/fuse/index.ts';
import type { LowerContext } from '../../src/graph/lower/context.ts';
import { Memory } from '../../src/graph/memory.ts';
import { op } from '../../src/graph/ops.ts';
import { draft, lowerContextOf } from '../../src/graph/plan.ts';
import type { Tensor } from '../../src/graph/tensor.ts';
import { expectClose } from '../support/close.ts';
import { useDevice } from '../support/device.ts';
import { randomNd } from '../support/random.ts';
import { constant, parameter, sideBySide } from '../support/tensors.ts';
import { runGuarded } from './runner.ts';

const device = useDevice();

interface Layer { x: number[]; weight: number[]; stride?: number; padding?: number; half?: boolean }

const layers: Layer[] = [
  { x: [3, 7, 6, 5], weight: [3, 3, 5, 6], padding: 1 },
  { x: [2, 9, 7, 4], weight: [3, 3, 4, 17], stride: 2, padding: 1 },
  { x: [1, 1, 1, 3], weight: [1, 1, 3, 1] },
  { x: [37, 11], weight: [11, 9] },
  { x: [3, 7, 6, 5], weight: [3, 3, 5, 6], padding: 1, half: true },
];

const split = (lowering: LowerContext): LowerContext => ({ ...lowering, choose: (_, [first]) => ({ ...first, splits: 3 }) });
const ways: Record<string, () => LowerContext> = {
  own: () => lowerContextOf(device()),
  'own, split': () => split(lowerContextOf(device())),
  tiles: () => ({ ...lowerContextOf(device()), lanes: undefined }),
  'tiles, split': () => split({ ...lowerContextOf(device()), lanes: undefined }),
};

const step = { momentum: 0.9, weightDecay: 0.05, firstWord: 2 };

function make({ x: shape, weight: weightShape, stride = 1, padding = 0, half = false }: Layer) {
  const x = half ? cast(parameter(randomNd(shape, 1), 'x'), 'f16') : parameter(randomNd(shape, 1), 'x');
  const weight = parameter(randomNd(weightShape, 2), 'weight');
  const buffer = randomNd(weightShape, 3);
  const y = shape.length === 2 ? linear(x, weight) : conv2d(x, weight, { stride, padding });
  const loss = sum(mul(half ? cast(y, 'f32') : y, constant(randomNd([...y.shape], 4))));
  const [gradient] = grad(loss, [weight]);
  const direction = (isFirst: boolean): Tensor =>
    op('sgdDirection', [gradient, weight, constant(buffer), tensor(Uint32Array.of(1, 1, Number(isFirst)))], step)[0];
  return { weight, buffer, gradient, direction };
}

function kernelNames(outputs: readonly Tensor[], lowering: LowerContext): string[] {
  const memory = new Memory(device());
  try {
    const drafted = draft(memory, 'names', fuse(outputs).map((one) => ({ tensor: one, storage: null })), [], lowering);
    return drafted.launches.map(({ kernel }) => kernel.name);
  } finally {
    memory.release();
  }
}

describe.each(layers)('x $x, weight $weight, f16 $half', (layer) => {
  test.each(Object.keys(ways))('%s', async (way) => {
    const { weight, buffer, gradient, direction } = make(layer);
    const lowering = ways[way]();
    const names = kernelNames([direction(false)], lowering);
    expect(names.filter((name) => name.includes('_direction')), names.join('\n')).toHaveLength(1);
    expect(names).not.toContain('sgdDirection');
    const apart = { fusions: fusions.filter((name) => name !== 'weightStep'), lowering };
    for (const isFirst of [false, true]) {
      const [g, expected] = await runGuarded(device(), [gradient, direction(isFirst)], apart);
      expect(await runGuarded(device(), [direction(isFirst)], { lowering })).toEqual([expected]);
      const momentum = isFirst ? 0 : step.momentum;
      expectClose(expected, g.map((value, i) => momentum * buffer.data[i] + value + step.weightDecay * weight.data[i]), { atol: 1e-6, rtol: 1e-6 });
    }
  });
});

test.each(Object.keys(ways))('models side by side, %s: the bits of each by itself', async (way) => {
  const { x: shape, weight: weightShape, padding } = layers[0];
  const [x, weights, buffers] = [randomNd(shape, 1), [2, 3].map((seed) => randomNd(weightShape, seed)), [4, 5].map((seed) => randomNd(weightShape, seed))];
  const directionOf = (weight: Tensor, buffer: Tensor): Tensor => {
    const y = conv2d(constant(x), weight, { padding });
    const [gradient] = grad(sum(mul(y, y)), [weight]);
    return op('sgdDirection', [gradient, weight, buffer, tensor(Uint32Array.of(0, 0, 0))], step)[0];
  };
  const lowering = { ...ways[way](), trials: 2 };
  const [together] = await runGuarded(device(), [directionOf(sideBySide(weights), sideBySide(buffers))], { lowering });
  const apart = await Promise.all([0, 1].map((t) => runGuarded(device(), [directionOf(constant(weights[t]), constant(buffers[t]))], { lowering })));
  expect(together).toEqual(Float32Array.from(apart.flatMap(([one]) => [...one])));
  expect(apart[0]).not.toEqual(apart[1]);
});

test('stays apart where somebody wants the gradient', async () => {
  const { gradient, direction } = make(layers[0]);
  expect(kernelNames([gradient, direction(false)], lowerContextOf(device()))).toContain('sgdDirection');
});
