/** Each fusion leaves every value as it is, bit for bit (`sharedInput`: within rounding), and does take place where it should. */
import { describe, expect, test } from 'vitest';
import { grad } from '../../src/autograd/grad.ts';
import type { Device } from '../../src/gpu/device.ts';
import { add, batchNorm, batchNormInference, conv2d, mul, relu, sum, tensor } from '../../src/graph/functional.ts';
import { fuse, fusions, type Fusion } from '../../src/graph/fuse/index.ts';
import { Memory } from '../../src/graph/memory.ts';
import { externalTensor, op } from '../../src/graph/ops.ts';
import { draft } from '../../src/graph/plan.ts';
import type { Tensor, Variable } from '../../src/graph/tensor.ts';
import { topologicalOrder } from '../../src/graph/traverse.ts';
import { trials } from '../../src/trials/trials.ts';
import { expectClose } from '../support/close.ts';
import { useDevice } from '../support/device.ts';
import { randomNd } from '../support/random.ts';
import { constant, parameter } from '../support/tensors.ts';
import { runGuarded } from './runner.ts';

const device = useDevice();
const shape = [2, 3, 5, 6];
const random = (name: string, shape: number[], seed: number): Variable => parameter(randomNd(shape, seed), name);

interface Parameters { x: Variable; r: Variable; weight: Variable; bias: Variable; weight2: Variable; bias2: Variable }

interface FusionCase {
  name: string;
  build: (p: Parameters) => Tensor[];
  /** Launches that are left when all fusions are on. */
  forward: { relu: number; add: number };
  reluBackward: number;
}

const norm = ({ x, weight, bias }: Parameters) => batchNorm(x, weight, bias);
const norm2 = ({ r, weight2, bias2 }: Parameters) => batchNorm(r, weight2, bias2);

const cases: FusionCase[] = [
  { name: 'relu(bn)', build: (p) => [relu(norm(p).y)], forward: { relu: 0, add: 0 }, reluBackward: 0 },
  { name: 'relu(bn + r)', build: (p) => [relu(add(norm(p).y, p.r))], forward: { relu: 0, add: 0 }, reluBackward: 0 },
  { name: 'relu(r + bn)', build: (p) => [relu(add(p.r, norm(p).y))], forward: { relu: 0, add: 0 }, reluBackward: 0 },
  { name: 'relu(bn + bn2), the downsample block', build: (p) => [relu(add(norm(p).y, norm2(p).y))], forward: { relu: 0, add: 0 }, reluBackward: 0 },
  {
    name: 'relu in inference',
    build: (p) => [relu(batchNormInference(p.x, p.weight, p.bias, p.bias2, mul(p.weight2, p.weight2)))],
    forward: { relu: 0, add: 0 },
    reluBackward: 0,
  },
  {
    name: 'relu(bn), used elsewhere as well',
    build: (p) => {
      const y = relu(norm(p).y);
      return [mul(y, p.r), add(y, p.r)];
    },
    forward: { relu: 0, add: 1 },
    reluBackward: 0,
  },
  {
    name: 'two blocks, the first one\'s output being the second one\'s residual',
    build: (p) => {
      const y = relu(norm(p).y);
      return [relu(add(batchNorm(mul(y, p.r), p.weight2, p.bias2).y, y))];
    },
    forward: { relu: 0, add: 0 },
    reluBackward: 0,
  },
  {
    name: 'bn, used elsewhere as well: stays',
    build: (p) => {
      const { y } = norm(p);
      return [mul(relu(y), y)];
    },
    forward: { relu: 1, add: 0 },
    reluBackward: 1,
  },
  {
    name: 'bn that is an output itself: stays',
    build: (p) => {
      const { y } = norm(p);
      return [relu(y), y];
    },
    forward: { relu: 1, add: 0 },
    reluBackward: 1,
  },
  {
    name: 'bn + r, used elsewhere as well: stays',
    build: (p) => {
      const both = add(norm(p).y, p.r);
      return [mul(relu(both), both)];
    },
    forward: { relu: 1, add: 1 },
    reluBackward: 1,
  },
  {
    name: 'relu(bn + bn), one tensor twice',
    build: (p) => {
      const { y } = norm(p);
      return [relu(add(y, y))];
    },
    forward: { relu: 1, add: 1 },
    reluBackward: 1,
  },
  {
    name: 'two relus of one bn: stay',
    build: (p) => {
      const { y } = norm(p);
      return [mul(relu(y), p.r), relu(y)];
    },
    forward: { relu: 2, add: 0 },
    reluBackward: 2,
  },
];

const make = (): Parameters => ({
  x: random('x', shape, 1), r: random('r', shape, 2), weight: random('weight', [6], 3), bias: random('bias', [6], 4),
  weight2: random('weight2', [6], 5), bias2: random('bias2', [6], 6),
});

/** All outputs weighted at random: a scalar that no two of them reach alike. */
const lossOf = (outputs: Tensor[]): Tensor => outputs.map((y, i) => sum(mul(y, constant(randomNd([...y.shape], 20 + i))))).reduce((a, b) => add(a, b));

function trialsOf(outputs: Tensor[], perturbed: Variable[]): Tensor[] {
  const directions = new Map(perturbed.map((v, i) => [v, [constant(randomNd([...v.shape], 30 + i))]]));
  return trials(outputs, { count: 3, directions, coefficients: tensor([0, 0.3, -0.2]) });
}

function kernelNames(device: Device, tensors: Tensor[], enabled: readonly Fusion[]): string[] {
  const memory = new Memory(device);
  try {
    return draft(memory, 'names', fuse(tensors, enabled).map((tensor) => ({ tensor, storage: null }))).launches.map(({ kernel }) => kernel.name);
  } finally {
    memory.release();
  }
}

const count = (names: string[], name: string): number => names.filter((other) => other === name).length;

describe.each(cases)('$name', ({ build, forward, reluBackward }) => {
  test('gives the same bits with each fusion on and off', async () => {
    const p = make();
    const outputs = build(p);
    const trained = [p.x, p.r, p.weight, p.bias];
    const graphs = [
      [...outputs, ...grad(lossOf(outputs), trained)],
      trialsOf(outputs, trained),
      trialsOf(outputs, [p.weight]),
      trialsOf(outputs, [p.r]),
    ];
    for (const graph of graphs) {
      const expected = await runGuarded(device(), graph, { fusions: [] });
      for (const enabled of [['normRelu'], ['normReluBackward'], fusions] as Fusion[][]) {
        expect(await runGuarded(device(), graph, { fusions: enabled }), enabled.join()).toEqual(expected);
      }
    }
  });

  test('takes place', () => {
    const p = make();
    const outputs = build(p);
    const names = kernelNames(device(), outputs, fusions);
    expect({ relu: count(names, 'reluForward'), add: count(names, 'addForward') }).toEqual(forward);
    const all = kernelNames(device(), [...outputs, ...grad(lossOf(outputs), [p.x, p.r, p.weight])], fusions);
    expect(count(all, 'reluBackward')).toBe(reluBackward);
  });
});

test('a residual with more trials than the batch norm is added apart', async () => {
  const p = make();
  const outputs = trialsOf([relu(add(norm(p).y, p.r))], [p.r]);
  expect(count(kernelNames(device(), outputs, fusions), 'addForward')).toBe(1);
});

test('a residual computed from the same batch norm\'s statistics does not fuse with it', async () => {
  const p = make();
  const { y, statistics } = norm(p);
  const outputs = [relu(add(y, op('addBias', [p.r, statistics.mean], {})[0]))];
  expect(await runGuarded(device(), outputs)).toEqual(await runGuarded(device(), outputs, { fusions: [] }));
});

test('a mask that several need comes out of the fused kernel', async () => {
  const p = make();
  const y = relu(add(norm(p).y, mul(p.r, constant(randomNd(shape, 40)))));
  const names = kernelNames(device(), grad(lossOf([y]), [p.x, p.r]), fusions);
  expect(names).toContain('batchNormBackwardMergeApply_masked_residual');
  expect(names).not.toContain('reluBackward');
});


describe('an input that all trials share', () => {
  const image = constant(randomNd([2, 5, 6, 3], 50));
  const [first, second] = [random('first', [3, 3, 3, 5], 51), random('second', [3, 3, 5, 4], 52)];
  const net = () => conv2d(relu(conv2d(image, first, { padding: 1 })), second, { padding: 1 });
  const along = (count: number, K: number, scaled = false) => {
    const directions = new Map([first, second].map((w, i) => [w, Array.from({ length: K }, (_, k) => constant(randomNd([...w.shape], 60 + 2 * k + i)))]));
    const coefficients = tensor(Float32Array.from({ length: count * (K + Number(scaled)) }, (_, i) => ((i * 7) % 5) / 4 - 0.5));
    return trials([net()], { count, directions, coefficients, scaled });
  };
  const convolutions = (outputs: Tensor[], trials?: number) => {
    const ops = topologicalOrder(fuse(outputs, fusions, trials)).filter(({ op }) => op === 'conv2d');
    return { all: ops.length, perturbed: ops.filter(({ inputs }) => inputs[1].node.op === 'perturbed').length };
  };

  test.each([[3, 1, false], [5, 2, true], [7, 3, false]])('%i trials, %i directions, scaled %s: the same within rounding', async (count, K, scaled) => {
    const outputs = along(count, K, scaled);
    expect(convolutions(outputs)).toEqual({ all: K + 2, perturbed: 1 });
    const [shared] = await runGuarded(device(), outputs);
    const [own] = await runGuarded(device(), outputs, { fusions: [] });
    expectClose(shared, own, { atol: 2e-5, rtol: 2e-5 });
    expect(new Set(shared.map((value) => value)).size).toBeGreaterThan(count * 100);
  });

  test('is not shared where that would be more work', () => expect(convolutions(along(2, 1))).toEqual({ all: 2, perturbed: 2 }));
  test('is shared in a pass of few trials of many', () => expect(convolutions(along(1, 1), 7)).toEqual({ all: 3, perturbed: 1 }));
  test('is not one whose memory has an image for each trial', () => {
    const storage = { buffer: null as unknown as GPUBuffer, offset: 0, size: 0 };
    const images = externalTensor(storage, { shape: image.shape, dtype: 'f32', trials: 5 });
    const [weight, direction] = [first, constant(randomNd([...first.shape], 53))];
    const [perturbed] = op('perturbed', [weight, direction, tensor(new Float32Array(5))], { trials: 5, scaled: false });
    expect(convolutions([conv2d(images, perturbed, { padding: 1 })])).toEqual({ all: 1, perturbed: 1 });
  });
  test('is not shared in a pass of many of few', () => expect(convolutions(along(3, 1), 2)).toEqual({ all: 2, perturbed: 2 }));
});
