import { describe, expect, it } from 'vitest';
import { imageBatch } from '../../src/data/imageBatch.ts';
import { interpolate } from '../../src/probes/index.ts';
import { tensor } from '../../src/graph/functional.ts';
import { lossesAlong } from '../../src/trials/lossesAlong.ts';
import { expectClose } from '../support/close.ts';
import { useDevice } from '../support/device.ts';
import { randomNd } from '../support/random.ts';
import { ConvNet, LinearNet, randomDataset } from '../train/nets.ts';

useDevice();

const dataset = randomDataset();
const batches = imageBatch(dataset.train, dataset, [0, 1, 2, 3, 4, 5]);

/** A net whose norms and running statistics are nobody's defaults. */
function netOf(seed: number): ConvNet {
  const model = new ConvNet([0.1, 0.1], seed);
  model
    .variables()
    .filter(({ shape }) => shape.length === 1)
    .forEach((variable, i) => {
      const noise = randomNd(variable.shape, seed * 100 + i, { scale: 0.3 }).data;
      variable.data = variable.data.map((value, j) => value + Math.abs(noise[j]));
    });
  return model;
}

/** The net between two: every value averaged in float64, rounded once. */
function between(a: ConvNet, b: ConvNet, alpha: number): ConvNet {
  const model = new ConvNet();
  model.variables().forEach((variable, i) => {
    const [from, to] = [a.variables()[i].data, b.variables()[i].data];
    variable.data = from.map((value, j) => (1 - alpha) * value + alpha * to[j]);
  });
  return model;
}

/** Losses of a net by itself, as many as in the passes it is compared with. */
async function lossesOf(model: ConvNet, batchNorm: 'batch' | 'running', count: number): Promise<number[]> {
  const still = new Map(model.parameters().map((variable) => [variable, tensor(new Float32Array(variable.data.length), variable.shape)]));
  return Array.from(await lossesAlong({ model, batches, batchNorm, directions: [still], coefficients: Array<number>(count).fill(0) }));
}

describe.each(['batch', 'running'] as const)('interpolate, by %s statistics', (batchNorm) => {
  const [from, to] = [netOf(3), netOf(4)];

  it('ends at both checkpoints bit for bit, and between them has the losses of their averages', async () => {
    const at = [0, 0.25, 0.7, 1];
    const found = await interpolate({ model: from, to, batches, batchNorm, at });
    expect(found.at).toEqual(at);
    expect(found.losses[0]).toBe((await lossesOf(from, batchNorm, 4))[0]);
    expect(found.losses[3]).toBe((await lossesOf(to, batchNorm, 4))[3]);
    expect(found.losses[0]).not.toBe(found.losses[3]);
    const expected: number[] = [];
    for (const alpha of at) expected.push((await lossesOf(between(from, to, alpha), batchNorm, 1))[0]);
    expectClose(found.losses, expected, { atol: 0, rtol: 1e-5 });
  });

  it('leaves both models as they are', async () => {
    const before = [from, to].map((model) => model.variables().map(({ data }) => data.slice()));
    await interpolate({ model: from, to, batches, batchNorm, at: [0.5] });
    expect([from, to].map((model) => model.variables().map(({ data }) => data))).toEqual(before);
  });
});

describe('interpolate', () => {
  const [model, to] = [netOf(3), netOf(4)];

  it('goes on beyond the ends, but not with running variances', async () => {
    const found = await interpolate({ model, to, batches, at: [-0.25, 1.25] });
    expectClose(
      found.losses,
      [(await lossesOf(between(model, to, -0.25), 'batch', 1))[0], (await lossesOf(between(model, to, 1.25), 'batch', 1))[0]],
      { atol: 0, rtol: 1e-5 },
    );
    for (const alpha of [-0.25, 1.25])
      await expect(interpolate({ model, to, batches, batchNorm: 'running', at: [alpha] })).rejects.toThrow(/at must be numbers in 0 … 1/);
  });

  it.each([[[]], [[NaN]], [[0, Infinity]]])('refuses at %j', async (at) => {
    await expect(interpolate({ model, to, batches, at })).rejects.toThrow(expect.objectContaining({ name: 'AttrError', arg: 'at' }));
  });

  it('refuses another network', async () => {
    for (const other of [new LinearNet(), new ConvNet([0.1, 0.1], 3, 6)])
      await expect(interpolate({ model, to: other, batches, at: [0.5] })).rejects.toThrow(expect.objectContaining({ name: 'ShapeError' }));
  });
});
