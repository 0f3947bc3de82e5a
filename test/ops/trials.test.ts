/** What the rows of the op table do not reach: trials of whole graphs. */
import { describe, expect, test } from 'vitest';
import { grad } from '../../src/autograd/grad.ts';
import { AttrError, DtypeError, ShapeError } from '../../src/gpu/errors.ts';
import { add, batchNorm, batchNormInference, conv2d, linear, mean, mul, relu, scale, sum, tensor } from '../../src/graph/functional.ts';
import type { LowerContext } from '../../src/graph/lower/context.ts';
import { Variable, type Tensor } from '../../src/graph/tensor.ts';
import { trials } from '../../src/trials/trials.ts';
import { useDevice } from '../support/device.ts';
import { randomInts, randomNd } from '../support/random.ts';
import type { Nd } from '../support/nd.ts';
import { constant, parameter } from '../support/tensors.ts';
import { likeCopies } from '../support/likeCopies.ts';
import { runGuarded } from './runner.ts';

const device = useDevice();
const random = (name: string, shape: number[], seed: number): Variable => parameter(randomNd(shape, seed), name);

/** Whole multiples of 2⁻⁶: times a coefficient of few bits, exact in float32. */
const exactNd = (shape: number[], seed: number): Nd => {
  const zero = randomNd(shape, 0);
  return { shape, data: Float64Array.from(randomInts(zero.data.length, 128, seed), (value) => (value - 64) / 64) };
};

/** Scales a as trials take them: a − 1 before each trial's own coefficients. */
const withScales = (coefficients: number[][], scales: number[]): Tensor => tensor(coefficients.flatMap((c, t) => [scales[t] - 1, ...c]));

/** Trials of `build` over perturbed parameters against a graph a trial with the perturbed values, bit for bit. */
async function expectTrials(
  parameters: Variable[], build: (parameters: Tensor[]) => Tensor[], coefficients: number[][], scales?: number[],
): Promise<void> {
  const K = coefficients[0].length;
  const directions = parameters.map((p, i) => Array.from({ length: K }, (_, k) => exactNd([...p.shape], 10 * i + k)));
  const fused = trials(build(parameters), {
    count: coefficients.length,
    directions: new Map(parameters.map((p, i) => [p, directions[i].map(constant)])),
    coefficients: scales ? withScales(coefficients, scales) : tensor(coefficients.flat()),
    scaled: scales !== undefined,
  });
  const separate = coefficients.map((c, t) => build(parameters.map((p, i) => {
    const scaled = p.data.map((v) => v * (scales?.[t] ?? 1));
    const values = c.reduce((w, ck, k) => w.map((v, j) => v + ck * directions[i][k].data[j]), scaled);
    return new Variable('parameter', p.name, p.shape, values);
  })));
  const values = await runGuarded(device(), [...fused, ...separate.flat()], { fusions: likeCopies });
  fused.forEach((tensor, o) => {
    const expected = separate.flatMap((_, t) => [...values[fused.length + t * fused.length + o]]);
    expect(tensor.trials).toBe(coefficients.length);
    expect([...values[o]]).toEqual(expected);
  });
}

const three = [[0], [0.5], [-0.25]];
const bitsOf = (values: Float32Array): number[] => [...new Uint32Array(values.slice().buffer)];

test('a convolution whose weight is computed from a parameter', () =>
  expectTrials([random('w', [3, 3, 5, 6], 1)], ([w]) => [conv2d(constant(randomNd([2, 4, 5, 5], 2)), scale(w, 2), { padding: 1 })], three));

test('one parameter in two places, formed while loading in one and in memory in the other', () =>
  expectTrials([random('w', [6, 6], 1)], ([w]) => [add(linear(constant(randomNd([6, 6], 2)), w), w)], three));

describe.each([['at full length', undefined], ['scaled', [1, 0.5, 3]]])('%s', (_, scales) => {
  test.each([1, 2, 3, 4])('%i directions', (K) =>
    expectTrials([random('w', [3, 3, 5, 6], 1), random('b', [6], 2)], ([w, bias]) => [conv2d(constant(randomNd([2, 4, 5, 5], 2)), w, { bias })],
      [0, 1, 2].map((t) => Array.from({ length: K }, (_, k) => ((t * K + k) % 5) / 8)), scales));
});

test('a single trial', () => expectTrials([random('w', [3, 4], 1)], ([w]) => [relu(linear(constant(randomNd([6, 3], 2)), w))], [[0.5]]));

describe('batch normalisation', () => {
  const x = constant(randomNd([2, 3, 3, 4], 5));
  const [w, weight, bias] = [random('w', [1, 1, 4, 5], 6), random('weight', [5], 7), random('bias', [5], 8)];

  test.each([[undefined], [[1, 0.5, 3]]])('forms its weight and bias, scaled by %j', (scales) =>
    expectTrials([w, weight, bias], ([w, weight, bias]) => [batchNorm(conv2d(x, w), weight, bias).y], three, scales));

  test('keeps the statistics of each trial, also where they are asked for', () =>
    expectTrials([w, weight, bias], ([w, weight, bias]) => {
      const { y, statistics } = batchNorm(conv2d(x, w), weight, bias);
      return [relu(y), statistics.mean, statistics.variance];
    }, three));

  test('perturbs its weight alone, or its bias alone', async () => {
    await expectTrials([weight], ([weight]) => [batchNorm(conv2d(x, w), weight, bias).y], three);
    await expectTrials([bias], ([bias]) => [batchNorm(conv2d(x, w), weight, bias).y], three);
  });

  test('along two directions', () =>
    expectTrials([w, weight, bias], ([w, weight, bias]) => [batchNorm(conv2d(x, w), weight, bias).y], [[0, 0.5], [0.25, -0.5], [1, 0]]));

  test.each<[string, number[][], number[]?]>([
    ['one direction', three], ['two directions', [[0, 0.5], [0.25, -0.5], [1, 0]]], ['one direction, scaled', three, [1, 0.5, 3]],
  ])('with running statistics, %s', (_, coefficients, scales) =>
    expectTrials([w, weight, bias], ([w, weight, bias]) => {
      const [mean, variance] = [constant(randomNd([5], 9)), constant(randomNd([5], 10, { positive: true, offset: 1 }))];
      return [batchNormInference(conv2d(x, w), weight, bias, mean, variance)];
    }, coefficients, scales));
});

const someTiles: LowerContext = { wantedWorkgroups: 8, tiles: [{ m: 64, n: 16, k: 8 }] };

describe.each([['by default', undefined], ['of tiles', someTiles]])('the values that kernels form, %s,', (_, lowering) => {
  const size = 24;
  const [w, weight, bias] = [random('w', [size, size], 1), random('weight', [size], 2), random('bias', [size], 3)];
  const parameters = [w, weight, bias];
  const directions = parameters.map((p, i) => Float32Array.from(randomNd([...p.shape], 4 + i).data));
  const identity = tensor(Float32Array.from({ length: size * size }, (_, i) => Number(i % (size + 1) === 0)), [size, size]);
  const flat = (value: number): Tensor => tensor(new Float32Array(size).fill(value));
  /** Statistics that leave x as it is: 1 + eps is 1 in float32. */
  const normed = (x: number, [own, shift]: Tensor[]): Tensor =>
    batchNormInference(tensor(new Float32Array(size).fill(x), [1, size]), own, shift, flat(0), flat(1), { eps: 2 ** -30 });
  /** Each parameter as its kernels see it: in a matrix product, in a norm (bias, and weight where the bias is 0), in memory. */
  const seen = (): Tensor[] => [linear(identity, w), normed(0, [weight, bias]), normed(1, [weight, scale(bias, 0)]), scale(w, 1)];
  const of = [0, 2, 1, 0];
  const formed = (coefficients: Tensor, scaled = false): Promise<Float32Array[]> => {
    const all = new Map(parameters.map((p, i) => [p, [tensor(directions[i], p.shape)]]));
    return runGuarded(device(), trials(seen(), { count: 1, directions: all, coefficients, scaled }), { lowering });
  };
  const c = Math.fround(0.123456789);

  test('are W − c·D bit for bit where the coefficient is −c', async () => {
    const values = await formed(tensor([-c]));
    of.forEach((p, k) => {
      const [own, d] = [parameters[p].data, directions[p]];
      const rounded = own.map((v, i) => v - Math.fround(c * d[i]));
      // A compiler may make one operation of both: then the product is not rounded.
      const contracted = own.map((v, i) => v - c * d[i]);
      expect([rounded, contracted].map((expected) => bitsOf(expected))).toContainEqual(bitsOf(values[k]));
      expect(bitsOf(values[k])).not.toEqual(bitsOf(own));
    });
  });

  test('are the unscaled ones bit for bit where a = 1, and W where c = 0', async () => {
    expect((await formed(withScales([[-c]], [1]), true)).map(bitsOf)).toEqual((await formed(tensor([-c]))).map(bitsOf));
    const still = of.map((p) => bitsOf(parameters[p].data));
    expect((await formed(tensor([0]))).map(bitsOf)).toEqual(still);
    expect((await formed(withScales([[0]], [1]), true)).map(bitsOf)).toEqual(still);
  });
});

test('what no perturbed parameter reaches stays shared, and is not computed again', () => {
  const [p, q] = [random('p', [3], 1), random('q', [3], 2)];
  const still = scale(q, 2);
  const directions = new Map([[p, [constant(randomNd([3], 3))]]]);
  const outputs = trials([mul(p, still), still], { count: 3, directions, coefficients: tensor([1, 2, 3]) });
  expect(outputs[1]).toBe(still);
  expect(outputs.map(({ trials }) => trials)).toEqual([3, 1]);
});

describe('refuses', () => {
  const [p, q] = [random('p', [2, 3], 1), random('q', [3], 2)];
  const d = constant(randomNd([2, 3], 3));
  const e = constant(randomNd([3], 4));
  const one = new Map([[p, [d]]]);

  test.each<[string, new (...args: never[]) => Error, string, () => unknown]>([
    ['no trials', AttrError, 'count', () => trials([sum(p)], { count: 0, directions: one, coefficients: tensor([1]) })],
    ['half a trial', AttrError, 'count', () => trials([sum(p)], { count: 1.5, directions: one, coefficients: tensor([1]) })],
    ['a direction of another shape', ShapeError, 'direction of p', () =>
      trials([sum(p)], { count: 1, directions: new Map([[p, [e]]]), coefficients: tensor([1]) })],
    ['a direction of integers', DtypeError, 'direction of p', () =>
      trials([sum(p)], { count: 1, directions: new Map([[p, [tensor(new Uint32Array(6), [2, 3])]]]), coefficients: tensor([1]) })],
    ['a direction that differs from trial to trial', DtypeError, 'direction of p', () => {
      const [moved] = trials([scale(p, 1)], { count: 2, directions: one, coefficients: tensor([1, 2]) });
      return trials([sum(p)], { count: 2, directions: new Map([[p, [moved]]]), coefficients: tensor([1, 2]) });
    }],
    ['too few coefficients', ShapeError, 'coefficients', () =>
      trials([sum(p)], { count: 3, directions: one, coefficients: tensor([1, 2]) })],
    ['coefficients without their scales', ShapeError, 'coefficients', () =>
      trials([sum(p)], { count: 2, directions: one, coefficients: tensor([1, 2]), scaled: true })],
    ['coefficients in two dimensions', ShapeError, 'coefficients', () =>
      trials([sum(p)], { count: 2, directions: new Map([[p, [d, d]]]), coefficients: tensor([1, 2, 3, 4], [2, 2]) })],
    ['no direction', AttrError, 'directions of p', () =>
      trials([sum(p)], { count: 1, directions: new Map([[p, []]]), coefficients: tensor([1]) })],
    ['more directions for one parameter than for another', AttrError, 'directions of q', () =>
      trials([sum(p)], { count: 1, directions: new Map([[p, [d]], [q, [e, e]]]), coefficients: tensor([1]) })],
    ['a graph of gradients', AttrError, 'outputs', () =>
      trials(grad(mean(relu(p)), [p]), { count: 1, directions: one, coefficients: tensor([1]) })],
  ])('%s', (_, cls, arg, build) => {
    expect(build).toThrow(cls);
    expect(build).toThrow(expect.objectContaining({ op: 'trials', arg }));
  });
});
