/** What the rows of the op table do not reach: trials of whole graphs. */
import { describe, expect, test } from 'vitest';
import { grad } from '../../src/autograd/grad.ts';
import { AttrError, DtypeError, ShapeError } from '../../src/gpu/errors.ts';
import { add, batchNorm, batchNormInference, conv2d, linear, mean, mul, relu, scale, sum, tensor } from '../../src/graph/functional.ts';
import { Variable, type Tensor } from '../../src/graph/tensor.ts';
import { trials } from '../../src/trials/trials.ts';
import { useDevice } from '../support/device.ts';
import { randomInts, randomNd } from '../support/random.ts';
import type { Nd } from '../support/nd.ts';
import { constant, parameter } from '../support/tensors.ts';
import { runGuarded } from './runner.ts';

const device = useDevice();
const random = (name: string, shape: number[], seed: number): Variable => parameter(randomNd(shape, seed), name);

/** Whole multiples of 2⁻⁶: times a coefficient of few bits, exact in float32. */
const exactNd = (shape: number[], seed: number): Nd => {
  const zero = randomNd(shape, 0);
  return { shape, data: Float64Array.from(randomInts(zero.data.length, 128, seed), (value) => (value - 64) / 64) };
};

/** Trials of `build` over perturbed parameters against a graph a trial with the perturbed values, bit for bit. */
async function expectTrials(parameters: Variable[], build: (parameters: Tensor[]) => Tensor[], coefficients: number[][]): Promise<void> {
  const K = coefficients[0].length;
  const directions = parameters.map((p, i) => Array.from({ length: K }, (_, k) => exactNd([...p.shape], 10 * i + k)));
  const fused = trials(build(parameters), {
    count: coefficients.length,
    directions: new Map(parameters.map((p, i) => [p, directions[i].map(constant)])),
    coefficients: tensor(coefficients.flat()),
  });
  const separate = coefficients.map((c) => build(parameters.map((p, i) => {
    const values = c.reduce((w, ck, k) => w.map((v, j) => v - ck * directions[i][k].data[j]), p.data);
    return new Variable('parameter', p.name, p.shape, values);
  })));
  const values = await runGuarded(device(), [...fused, ...separate.flat()]);
  fused.forEach((tensor, o) => {
    const expected = separate.flatMap((_, t) => [...values[fused.length + t * fused.length + o]]);
    expect(tensor.trials).toBe(coefficients.length);
    expect([...values[o]]).toEqual(expected);
  });
}

const three = [[0], [0.5], [-0.25]];

test('a convolution whose weight is computed from a parameter', () =>
  expectTrials([random('w', [3, 3, 5, 6], 1)], ([w]) => [conv2d(constant(randomNd([2, 4, 5, 5], 2)), scale(w, 2), { padding: 1 })], three));

test('one parameter in two places, formed while loading in one and in memory in the other', () =>
  expectTrials([random('w', [6, 6], 1)], ([w]) => [add(linear(constant(randomNd([6, 6], 2)), w), w)], three));

test.each([1, 2, 3, 4])('%i directions', (K) =>
  expectTrials([random('w', [3, 3, 5, 6], 1), random('b', [6], 2)], ([w, bias]) => [conv2d(constant(randomNd([2, 4, 5, 5], 2)), w, { bias })],
    [0, 1, 2].map((t) => Array.from({ length: K }, (_, k) => ((t * K + k) % 5) / 8))));

test('a single trial', () => expectTrials([random('w', [3, 4], 1)], ([w]) => [relu(linear(constant(randomNd([6, 3], 2)), w))], [[0.5]]));

describe('batch normalisation', () => {
  const x = constant(randomNd([2, 3, 3, 4], 5));
  const [w, weight, bias] = [random('w', [1, 1, 4, 5], 6), random('weight', [5], 7), random('bias', [5], 8)];

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

  test('with running statistics', () =>
    expectTrials([w, weight, bias], ([w, weight, bias]) => {
      const [mean, variance] = [constant(randomNd([5], 9)), constant(randomNd([5], 10, { positive: true, offset: 1 }))];
      return [batchNormInference(conv2d(x, w), weight, bias, mean, variance)];
    }, three));
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
