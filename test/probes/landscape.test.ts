import { describe, expect, it } from 'vitest';
import { CounterRandom, STREAM } from '../../src/nn/random.ts';
import { filterNormalised, linearGrid, plane, randomDirections, slice } from '../../src/probes/index.ts';
import { evaluate } from '../../src/graph/run.ts';
import { expectClose } from '../support/close.ts';
import { useDevice } from '../support/device.ts';
import { nd } from '../support/nd.ts';
import { randomNd } from '../support/random.ts';
import { constant } from '../support/tensors.ts';
import { ConvNet, randomDataset, withTrainer, ratesAt } from '../train/nets.ts';
import { batchOf, bias, lossAt, moved, net, partsOf, theta, weight, type Point } from './softmax.ts';

useDevice();

const valuesOf = async (direction: ReturnType<typeof randomDirections>[number]) =>
  (await evaluate([...direction.values()])) as Float32Array[];

/** Norms of what makes one output channel: the last index fixed. */
function filterNorms(values: ArrayLike<number>, filters: number): number[] {
  return Array.from({ length: filters }, (_, f) =>
    Math.sqrt(Array.from(values).reduce((sum, v, i) => (i % filters === f ? sum + v * v : sum), 0)),
  );
}

describe('randomDirections', () => {
  const model = new ConvNet();
  const weights = [model.conv1.weight, model.conv2.weight, model.fc.weight];

  it('moves weights alone, each filter as long as the weights’ own', async () => {
    const [direction] = randomDirections(model, { seed: 5 });
    expect([...direction.keys()]).toEqual(weights);
    const values = await valuesOf(direction);
    weights.forEach(({ shape, data }, i) => {
      const filters = shape[shape.length - 1];
      expectClose(filterNorms(values[i], filters), filterNorms(data, filters), { atol: 0, rtol: 1e-6 });
    });
  });

  it('has the proportions of normal numbers within each filter', async () => {
    const random = new CounterRandom(5, STREAM.landscape);
    const noise = weights[0].data.map(() => random.normal());
    const [first] = await valuesOf(randomDirections(model, { seed: 5 })[0]);
    const [have, want] = [filterNorms(first, 4), filterNorms(noise, 4)];
    expectClose(
      first.map((value, i) => value / have[i % 4]),
      noise.map((value, i) => value / want[i % 4]),
      { atol: 1e-7, rtol: 1e-6 },
    );
  });

  it('depends on the seed alone, and a second direction leaves the first as it is', async () => {
    const [alone] = await Promise.all(randomDirections(model, { seed: 5 }).map(valuesOf));
    const [first, second] = await Promise.all(randomDirections(model, { seed: 5, count: 2 }).map(valuesOf));
    const [other] = await Promise.all(randomDirections(model, { seed: 6 }).map(valuesOf));
    expect(first).toEqual(alone);
    const cosine = (a: Float32Array[], b: Float32Array[]) => {
      const dot = (x: Float32Array[], y: Float32Array[]) =>
        x.reduce((sum, v, i) => sum + v.reduce((total, value, j) => total + value * y[i][j], 0), 0);
      return dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b));
    };
    // 436 random numbers: a standard deviation of about 0.05, more where a few long filters weigh most.
    for (const unlike of [second, other]) expect(Math.abs(cosine(first, unlike))).toBeLessThan(0.3);
  });

  it('leaves a filter of zeros, and one whose noise is zero, where it is', () => {
    expect(filterNormalised(Float32Array.of(0, 3, 0, 4), Float32Array.of(1, 6, 2, 8), 2)).toEqual(Float32Array.of(0, 3, 0, 4));
    expect(filterNormalised(Float32Array.of(1, 3), Float32Array.of(0, -2), 2)).toEqual(Float32Array.of(0, -3));
  });

  it('refuses a count or seed that is none, and a model in a trainer, whose weights lie elsewhere', async () => {
    expect(() => randomDirections(model, { count: 0 })).toThrowError(expect.objectContaining({ name: 'AttrError', arg: 'count' }));
    expect(() => randomDirections(model, { seed: -1 })).toThrowError(expect.objectContaining({ name: 'AttrError', arg: 'seed' }));
    const placed = new ConvNet();
    await withTrainer({ model: placed, dataset: randomDataset(), schedule: ratesAt(() => 0.1), batchSize: 4 }, () => {
      expect(() => randomDirections(placed)).toThrowError(expect.objectContaining({ name: 'AttrError', arg: 'conv1.weight' }));
      return Promise.resolve();
    });
  });
});

describe('slice and plane', () => {
  const { batch, host } = batchOf([0, 5, 10, 15, 20]);
  const points: Point[] = [51, 52].map((seed) => ({
    weight: randomNd(weight.shape, seed, { scale: 0.05 }),
    bias: randomNd(bias.shape, seed + 10, { scale: 0.5 }),
  }));
  const [d1, d2] = points.map((point) => new Map(partsOf(point).map(([variable, values]) => [variable, constant(values)])));

  it('slice is L(θ + α·d)', async () => {
    const at = [-2, -0.5, 0, 1.5];
    const found = await slice({ model: net, batches: batch, direction: d1, at });
    expect(found.at).toEqual(at);
    expectClose(
      found.losses,
      at.map((alpha) => lossAt(moved(theta, [alpha, points[0]]), host)),
      { atol: 0, rtol: 1e-5 },
    );
  });

  it('plane is L(θ + α·d₁ + β·d₂), a row a β', async () => {
    const [x, y] = [linearGrid(-1, 1, 5), linearGrid(-2, 0.5, 3)];
    const found = await plane({ model: net, batches: batch, directions: [d1, d2], x, y });
    expect([found.x, found.y]).toEqual([x, y]);
    const expected = y.map((beta) => x.map((alpha) => lossAt(moved(theta, [alpha, points[0]], [beta, points[1]]), host)));
    expectClose(nd([3, 5], found.losses.flat()), nd([3, 5], expected.flat()), { atol: 0, rtol: 1e-5 });
    expect(found.losses.map(({ length }) => length)).toEqual([5, 5, 5]);
  });

  it.each([[[]], [[0, NaN]], [[Infinity]]])('refuse the grid %j', async (grid) => {
    const refused = (arg: string) => expect.objectContaining({ name: 'AttrError', arg });
    await expect(slice({ model: net, batches: batch, direction: d1, at: grid })).rejects.toThrow(refused('at'));
    await expect(plane({ model: net, batches: batch, directions: [d1, d2], x: grid, y: [0] })).rejects.toThrow(refused('x'));
    await expect(plane({ model: net, batches: batch, directions: [d1, d2], x: [0], y: grid })).rejects.toThrow(refused('y'));
  });
});
