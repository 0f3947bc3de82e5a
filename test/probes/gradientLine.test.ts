/** Lines of real models: against float64 where there is a closed form, against their own differences where there is none. */
import { beforeAll, describe, expect, it } from 'vitest';
import { mul, reshape, tensor } from '../../src/graph/functional.ts';
import { Variable, type Tensor } from '../../src/graph/tensor.ts';
import { Linear } from '../../src/nn/layers.ts';
import { Module } from '../../src/nn/module.ts';
import { CounterRandom } from '../../src/nn/random.ts';
import {
  armijo,
  curvature,
  fitParabola,
  goldstein,
  gradientLine,
  interpolate,
  linearGrid,
  logGrid,
  plane,
  rateRange,
  slice,
} from '../../src/probes/index.ts';
import { imageBatch } from '../../src/data/imageBatch.ts';
import { expectClose } from '../support/close.ts';
import { useDevice } from '../support/device.ts';
import { randomNd } from '../support/random.ts';
import { constant } from '../support/tensors.ts';
import { ConvNet, randomDataset } from '../train/nets.ts';
import {
  batchOf,
  bias,
  curvatureAlong,
  dot,
  gradientAt,
  joined,
  lossAt,
  moved,
  net,
  partsOf,
  theta,
  weight,
  type Point,
} from './softmax.ts';

useDevice();

const [first, second] = [batchOf([0, 3, 6, 9, 12, 15, 18]), batchOf([1, 2, 4])];
const both = joined([first.host, second.host]);
const direction: Point = { weight: randomNd(weight.shape, 31, { scale: 0.01 }), bias: randomNd(bias.shape, 32, { scale: 0.1 }) };

describe('gradientLine of softmax regression', () => {
  const steps = [0, -0.05, 0.003, 0.02, 0.1];

  it('leads down the gradient, averaged over batches by their samples', async () => {
    const g = gradientAt(theta, both);
    const line = await gradientLine({ model: net, batches: [first.batch, second.batch] });
    expectClose(line.gradient.get(weight)!, g.weight, { atol: 1e-6, rtol: 1e-5 });
    expectClose(line.gradient.get(bias)!, g.bias, { atol: 1e-6, rtol: 1e-5 });
    expectClose([line.loss, line.slope, line.squaredNorm], [lossAt(theta, both), -dot(g, g), dot(g, g)], { atol: 0, rtol: 1e-5 });
    const expected = steps.map((step) => lossAt(moved(theta, [-step, g]), both));
    expectClose(await line.losses(steps), expected, { atol: 0, rtol: 1e-5 });
  });

  it('leads down a direction that is given, and knows its slope', async () => {
    const g = gradientAt(theta, first.host);
    const map = new Map(partsOf(direction).map(([variable, values]) => [variable, constant(values)]));
    const line = await gradientLine({ model: net, batches: first.batch, direction: map });
    expectClose([line.slope, line.squaredNorm], [-dot(g, direction), dot(direction, direction)], { atol: 1e-7, rtol: 1e-5 });
    const expected = steps.map((step) => lossAt(moved(theta, [-step, direction]), first.host));
    expectClose(await line.losses(steps), expected, { atol: 0, rtol: 1e-5 });
  });

  it.each([
    ['a direction of the bias alone', { direction: new Map([[bias, constant(direction.bias)]]) }, direction.bias],
    ['a mask', { only: ({ name }: { name: string }) => name === 'fc.bias' }, null],
  ])('counts only what %s moves', async (_, options, given) => {
    const g = gradientAt(theta, first.host);
    const d = given ?? g.bias;
    const still: Point = { weight: { ...theta.weight, data: theta.weight.data.map(() => 0) }, bias: d };
    const line = await gradientLine({ model: net, batches: first.batch, ...options });
    expect([...line.gradient.keys()]).toEqual([bias]);
    expectClose([line.slope, line.squaredNorm], [-dot(g, still), dot(still, still)], { atol: 1e-7, rtol: 1e-5 });
    expectClose(await line.losses([0.2]), [lossAt(moved(theta, [-0.2, still]), first.host)], { atol: 0, rtol: 1e-5 });
  });

  it('keeps the direction of the time it was made, whatever becomes of what it was computed from', async () => {
    const factor = new Variable('parameter', 'factor', bias.shape, new Float32Array(bias.data.length).fill(1));
    const computed = new Map([[bias, mul(constant(direction.bias), factor)]]);
    const line = await gradientLine({ model: net, batches: first.batch, direction: computed });
    const before = await line.losses(steps);
    factor.data.fill(5);
    expect(await line.losses(steps)).toEqual(before);
  });

  it('refuses before it computes what lossesAlong would refuse', async () => {
    const refused = (options: object, arg: string) =>
      expect(gradientLine({ model: net, batches: first.batch, ...options })).rejects.toThrow(expect.objectContaining({ arg }));
    await refused({ batches: [] }, 'batches');
    await refused({ batchNorm: 'runing' }, 'batchNorm');
    await refused({ batchnorm: 'running' }, 'batchnorm');
    await refused({ direction: new Map([[bias, tensor(Float32Array.of(1))]]) }, 'directions[0] of fc.bias');
  });

  it('and its fellows take no losses a sample', async () => {
    const common = { model: net, batches: first.batch, perSample: true };
    const d = new Map([[bias, constant(direction.bias)]]);
    const refused = expect.objectContaining({ name: 'AttrError', arg: 'perSample' });
    await expect(gradientLine({ ...common })).rejects.toThrow(refused);
    await expect(slice({ ...common, direction: d, at: [0] })).rejects.toThrow(refused);
    await expect(plane({ ...common, directions: [d, d], x: [0], y: [0] })).rejects.toThrow(refused);
    await expect(interpolate({ ...common, to: net, at: [0] })).rejects.toThrow(refused);
  });

  it('refuses directions and masks of nothing', async () => {
    const other = new ConvNet().parameters()[0];
    const refused = (options: object, arg: string) =>
      expect(gradientLine({ model: net, batches: first.batch, ...options })).rejects.toThrow(
        expect.objectContaining({ name: 'AttrError', arg }),
      );
    await refused({ direction: new Map() }, 'direction');
    await refused({ direction: new Map([[other, other]]) }, 'direction');
    await refused({ only: () => false }, 'only');
  });

  it('has the curvature that the Hessian has, along the gradient and along a given direction', async () => {
    const g = gradientAt(theta, both);
    const batches = [first.batch, second.batch];
    const steepest = await curvature(await gradientLine({ model: net, batches }), { lr: 0.1 });
    expectClose([steepest.curvature], [curvatureAlong(theta, g, both) / dot(g, g)], { atol: 0, rtol: 0.01 });
    const map = new Map(partsOf(direction).map(([variable, values]) => [variable, constant(values)]));
    const along = await curvature(await gradientLine({ model: net, batches, direction: map }), { lr: 0.1, span: 0.5 });
    expectClose([along.curvature], [curvatureAlong(theta, direction, both) / dot(direction, direction)], { atol: 0, rtol: 0.01 });
    expect(Math.abs(steepest.curvature / along.curvature - 1)).toBeGreaterThan(0.1);
  });
});

/** (x·w + b)², so that the loss is a parabola along every line: the Hessian of [w, b] is 2·mean of [x, 1]ᵀ[x, 1]. */
class Squares extends Module {
  readonly fc = new Linear(6, 1, { random: new CounterRandom(4, 3) });

  override forward(x: Tensor): Tensor {
    return this.fc.forward(x);
  }
}

it('curvature and line searches on a quadratic loss are those of its Hessian', async () => {
  const x = randomNd([16, 6], 41);
  const model = new Squares();
  const loss = (logits: Tensor) => mul(reshape(logits, [16]), reshape(logits, [16]));
  const options = { model, loss, batches: { x: constant(x), labels: tensor(new Uint32Array(16)) } };
  const line = await gradientLine(options);
  const g = [...line.gradient.values()].flatMap((values) => [...values]);
  let hessian = 0;
  for (let n = 0; n < 16; n++) hessian += (2 / 16) * g.reduce((sum, value, i) => sum + value * (i < 6 ? x.data[n * 6 + i] : 1), 0) ** 2;
  const least = line.squaredNorm / hessian;
  const found = await curvature(line, { lr: 0.1, span: 2 * least });
  expectClose(
    [found.curvature, found.ratio, found.breakEven!, found.fit.minimum!],
    [hessian / line.squaredNorm, (0.05 * hessian) / line.squaredNorm, 2 * least, least],
    { atol: 0, rtol: 1e-5 },
  );
  const { minimum } = fitParabola([0, least / 2, 3 * least], await line.losses([0, least / 2, 3 * least]));
  expect(minimum! / least).toBeCloseTo(1, 4);
  // Armijo takes steps up to 2(1 − c)·η*, Goldstein none below 2c·η*.
  const steps = linearGrid(0.05 * least, 2.05 * least, 41);
  const accepted = (candidates: readonly { step: number; isAccepted: boolean }[]) =>
    candidates.filter(({ isAccepted }) => isAccepted).map(({ step }) => Math.round((step / least) * 100) / 100);
  const byArmijo = accepted((await armijo(line, { steps, c: 0.21 })).candidates);
  expect([byArmijo[0], byArmijo.at(-1)]).toEqual([0.05, 1.55]);
  const byGoldstein = accepted((await goldstein(line, { steps, c: 0.21 })).candidates);
  expect([byGoldstein[0], byGoldstein.at(-1)]).toEqual([0.45, 1.55]);
});

describe.each(['batch', 'running'] as const)('gradientLine of a net with batch norms, by %s statistics', (batchNorm) => {
  const dataset = randomDataset();
  const model = new ConvNet();
  for (const variable of model.variables().filter(({ kind }) => kind === 'statistic'))
    variable.data = variable.data.map((value, i) => value + 0.1 + i / 40);
  const batches = imageBatch(dataset.train, dataset, [0, 1, 2, 3, 4, 5, 6, 7]);
  let line: Awaited<ReturnType<typeof gradientLine>>;
  beforeAll(async () => {
    line = await gradientLine({ model, batches, batchNorm });
  });

  it('slopes as its losses do', async () => {
    const h = 1e-3;
    const [down, at, up] = Array.from(await line.losses([h, 0, -h]));
    expect((down - up) / (2 * h) / line.slope).toBeCloseTo(1, 2);
    expect(at).toBeCloseTo(line.loss, 5);
    expect((await curvature(line, { lr: 0.1 })).fit.slope / line.slope).toBeCloseTo(1, 2);
  });

  it('leaves the model as it is, and has one loss a rate in the order of the rates', async () => {
    const before = model.variables().map(({ data }) => data.slice());
    const range = await rateRange(line, { rates: logGrid(1e-4, 1e4, 9) });
    expect(range.losses).toEqual(Array.from(await line.losses([0, ...range.rates])).slice(1));
    expect(range.least!.rate).toBeGreaterThan(1e-4);
    expect(range.least!.loss).toBeLessThan(range.baseLoss);
    expect(model.variables().map(({ data }) => data)).toEqual(before);
  });
});
