/**
 * Norms in the loads and stores of the convolutions beside them: each fusion alone and all together against none, for outputs, gradients and
 * trials, by every way to compute a convolution.
 */
import { describe, expect, test } from 'vitest';
import { grad } from '../../src/autograd/grad.ts';
import { add, batchNorm, batchNormInference, conv2d, linear, flatten, mul, relu, sum, tensor } from '../../src/graph/functional.ts';
import { fuse, fusions, type Fusion } from '../../src/graph/fuse/index.ts';
import type { LowerContext } from '../../src/graph/lower/context.ts';
import { Memory } from '../../src/graph/memory.ts';
import { draft, lowerContextOf } from '../../src/graph/plan.ts';
import type { Tensor, Variable } from '../../src/graph/tensor.ts';
import { stackModels, trials } from '../../src/trials/trials.ts';
import { expectClose } from '../support/close.ts';
import { useDevice } from '../support/device.ts';
import { randomNd } from '../support/random.ts';
import { constant, parameter, sideBySide } from '../support/tensors.ts';
import { runGuarded } from './runner.ts';

const device = useDevice();

type Weights = (name: string, shape: number[]) => Variable;

interface Net {
  readonly name: string;
  readonly x: number[];
  readonly build: (x: Tensor, w: Weights) => Tensor;
  /**
   * A norm's input is one for all models: its gradient is summed apart from the convolution's then, and rounds otherwise. @default false
   */
  readonly isNormShared?: boolean;
  /** Launches by a part of their kernel's name, forward and backward, with all fusions. */
  readonly kernels: Record<string, number>;
}

const norm = (x: Tensor, w: Weights, name: string): Tensor => {
  const channels = [x.shape[x.shape.length - 1]];
  return batchNorm(x, w(`${name}.weight`, channels), w(`${name}.bias`, channels)).y;
};
const conv = (x: Tensor, w: Weights, name: string, out: number, size = 3, stride = 1): Tensor =>
  conv2d(x, w(name, [size, size, x.shape[3], out]), { stride, padding: (size - 1) / 2 });

/** A residual block as ResNet has it: the first of a stage where the stride is 2. */
function block(x: Tensor, w: Weights, name: string, out: number, stride: number): Tensor {
  const first = relu(norm(conv(x, w, `${name}.conv1`, out, 3, stride), w, `${name}.bn1`));
  const second = norm(conv(first, w, `${name}.conv2`, out), w, `${name}.bn2`);
  const shortcut = stride === 1 ? x : norm(conv(x, w, `${name}.down`, out, 1, stride), w, `${name}.bn3`);
  return relu(add(second, shortcut));
}

const nets: Net[] = [
  {
    name: 'conv, norm, relu, conv',
    x: [3, 7, 6, 3],
    build: (x, w) => conv(relu(norm(conv(x, w, 'a', 5), w, 'n')), w, 'b', 6),
    kernels: { _moments: 1, _normalizedRelu: 2, _sums_affine: 1, batchNormApply: 0, batchNormPartials: 0, batchNormBackwardPartials: 0 },
  },
  {
    name: 'conv, norm, conv without an activation, stride 2 after a row of odd length',
    x: [2, 9, 7, 4],
    build: (x, w) => conv(norm(conv(x, w, 'a', 6), w, 'n'), w, 'b', 5, 3, 2),
    kernels: { _moments: 1, _normalized: 2, _sums_none: 1, batchNormApply: 0 },
  },
  {
    name: 'a norm that is read twice and by others too',
    x: [2, 5, 5, 4],
    build: (x, w) => {
      const y = relu(norm(conv(x, w, 'a', 4), w, 'n'));
      return add(add(conv(y, w, 'b', 4), conv(y, w, 'c', 4, 1)), y);
    },
    kernels: { _moments: 1, _normalized: 0, batchNormApply: 1 },
  },
  {
    name: 'a norm of what is no convolution, read by two of them',
    isNormShared: true,
    x: [2, 5, 4, 6],
    build: (x, w) => {
      const y = relu(norm(mul(x, x), w, 'n'));
      return add(conv(y, w, 'b', 3), conv(y, w, 'c', 3, 1));
    },
    kernels: { _moments: 0, _normalizedRelu: 4, batchNormPartials: 1, _sums_affine: 1, _addend: 1 },
  },
  {
    name: 'two blocks, the second with a stride and a shortcut',
    x: [2, 8, 8, 4],
    build: (x, w) => block(block(x, w, 'one', 4, 1), w, 'two', 8, 2),
    // Sums: of both first norms, and of the first block's output, to which the shortcut's gradient is added.
    kernels: { _moments: 5, _normalizedRelu: 4, _sums_affine: 2, _sums_output: 1, _addend: 1 },
  },
  {
    name: 'matrix products',
    x: [37, 1, 1, 11],
    build: (x, w) => linear(relu(norm(linear(flatten(x), w('a', [11, 9])), w, 'n')), w('b', [9, 5])),
    kernels: { _moments: 1, _normalizedRelu: 2, _sums_affine: 1 },
  },
  {
    name: 'in inference',
    x: [2, 6, 5, 3],
    build: (x, w) => {
      const statistics = [w('mean', [5]), mul(w('std', [5]), w('std', [5]))] as const;
      return conv(relu(batchNormInference(conv(x, w, 'a', 5), w('weight', [5]), w('bias', [5]), ...statistics)), w, 'b', 4);
    },
    kernels: { _moments: 0, _normalizedRelu: 2, _sums_affine: 1, batchNormApply: 0 },
  },
  {
    name: 'channels so many that panels go on with sums, in rows that do not fill a block',
    x: [2, 3, 3, 74],
    build: (x, w) => norm(conv(x, w, 'a', 70), w, 'n'),
    kernels: { _moments: 1, _normalized: 0, _sums: 0, batchNormPartials: 0 },
  },
  {
    name: 'many rows, so that sums have many chunks',
    x: [5, 23, 19, 4],
    build: (x, w) => conv(relu(norm(conv(x, w, 'a', 4), w, 'n')), w, 'b', 4, 1),
    kernels: { _moments: 1, _normalizedRelu: 2, _sums_affine: 1 },
  },
];

/** Ways to compute convolutions: this adapter's own; tiles; both with K cut in parts; with K whole, so that panels go on with sums. */
const ways: Record<string, () => LowerContext> = {
  own: () => lowerContextOf(device()),
  'own, split': () => ({ ...lowerContextOf(device()), choose: (_, [first]) => ({ ...first, splits: 3 }) }),
  'own, whole': () => ({ ...lowerContextOf(device()), choose: (_, [first]) => ({ ...first, splits: 1 }) }),
  tiles: () => ({ ...lowerContextOf(device()), lanes: undefined }),
  'tiles, split': () => ({ ...lowerContextOf(device()), lanes: undefined, choose: (_, [first]) => ({ ...first, splits: 3 }) }),
};

function make({ x, build }: Net) {
  const weights = new Map<string, Variable>();
  const w: Weights = (name, shape) => {
    if (!weights.has(name)) weights.set(name, parameter(randomNd(shape, 7 + weights.size), name));
    return weights.get(name)!;
  };
  const input = parameter(randomNd(x, 1), 'x');
  const y = build(input, w);
  const loss = sum(mul(y, constant(randomNd([...y.shape], 99))));
  const all = [input, ...weights.values()];
  return { y, loss, all, gradients: [y, ...grad(loss, all)], parameters: [...weights.values()] };
}

const modelCount = 3;

/** Values of each model, the first's being the variable's own. */
const valuesOf = (v: Variable, i: number) =>
  Array.from({ length: modelCount }, (_, t) => ({
    shape: [...v.shape],
    data: randomNd([...v.shape], 400 + 3 * i + t).data.map((value, k) => Math.fround(v.data[k] + (t * value) / 8)),
  }));

/** Outputs and gradients of models side by side, of a batch that is theirs in common, and of each model by itself. */
function modelsOf(net: Net) {
  const { y, loss, parameters } = make(net);
  const values = parameters.map(valuesOf);
  const outputs = (own: Map<Variable, Tensor>): Tensor[] => {
    const [stackedY, stackedLoss] = stackModels([y, loss], own);
    return [stackedY, ...grad(stackedLoss, parameters.map((v) => own.get(v)!))];
  };
  const together = outputs(new Map(parameters.map((v, i) => [v, sideBySide(values[i])])));
  const apart = Array.from({ length: modelCount }, (_, t) => outputs(new Map(parameters.map((v, i) => [v, constant(values[i][t])]))));
  return { together, apart };
}

function trialsOf(y: Tensor, parameters: readonly Variable[], K: number): Tensor[] {
  const directions = new Map(parameters.map((v, i) => [v, Array.from({ length: K }, (_, k) => constant(randomNd([...v.shape], 200 + 3 * i + k)))]));
  return trials([y], { count: 3, directions, coefficients: tensor(Float32Array.from({ length: 3 * K }, (_, i) => (i % 4) * 0.05)) });
}

function kernelNames(outputs: readonly Tensor[]): string[] {
  const memory = new Memory(device());
  try {
    return draft(memory, 'names', fuse(outputs).map((one) => ({ tensor: one, storage: null }))).launches.map(({ kernel }) => kernel.name);
  } finally {
    memory.release();
  }
}

/** They take statistics or sums over other chunks. */
const rounding: readonly Fusion[] = ['normOnLoad', 'convMoments', 'gradientSums'];

describe.each(nets)('$name', (net) => {
  test('takes place', () => {
    const names = kernelNames(make(net).gradients);
    const found = Object.fromEntries(Object.keys(net.kernels).map((part) => [part, names.filter((name) => name.includes(part)).length]));
    expect(found, names.join('\n')).toEqual(net.kernels);
  });

  test.each(Object.keys(ways))('outputs and gradients are the same within rounding, %s', async (way) => {
    const { gradients } = make(net);
    const lowering = ways[way]();
    const expected = await runGuarded(device(), gradients, { fusions: [], lowering });
    const exact = fusions.filter((name) => !rounding.includes(name));
    expect(await runGuarded(device(), gradients, { fusions: exact, lowering })).toEqual(expected);
    for (const enabled of [[...exact, 'normOnLoad'], [...exact, 'convMoments'], fusions] as Fusion[][]) {
      const values = await runGuarded(device(), gradients, { fusions: enabled, lowering });
      values.forEach((value, i) => {
        // Moments in another order move an output by roundings of the largest; a gradient behind a norm cancels most of what it is made of.
        const scale = Math.max(...expected[i].map(Math.abs));
        expectClose(value, expected[i], { atol: 2e-5 * scale + 1e-4, rtol: 1e-5 });
      });
    }
  });

  test.each(Object.keys(ways))('models side by side have the bits of each by itself, %s', async (way) => {
    const { together, apart } = modelsOf(net);
    const lowering = { ...ways[way](), trials: modelCount };
    const values = await runGuarded(device(), together, { lowering });
    const expected: Float32Array[][] = [];
    for (const one of apart) expected.push(await runGuarded(device(), one, { lowering }));
    values.forEach((value, i) => {
      const one = Float32Array.from(expected.flatMap((own) => [...own[i]]));
      if (!net.isNormShared) expect(value).toEqual(one);
      else expectClose(value, one, { atol: 2e-5 * Math.max(...one.map(Math.abs)), rtol: 1e-5 });
    });
    expect(expected[0][0]).not.toEqual(expected[1][0]);
  });

  test.each([[1, 'own'], [2, 'own'], [3, 'own'], [1, 'tiles'], [2, 'tiles, split']])('trials along %d directions are the same within rounding, %s', async (K, way) => {
    const { y, parameters } = make(net);
    const together = trialsOf(y, parameters, K);
    const lowering = ways[way]();
    const [values] = await runGuarded(device(), together, { fusions: fusions.filter((name) => name !== 'sharedInput'), lowering });
    const [apart] = await runGuarded(device(), together, { fusions: [], lowering });
    const scale = Math.max(...apart.map(Math.abs));
    expectClose(values, apart, { atol: 2e-5 * scale, rtol: 2e-5 });
  });
});
