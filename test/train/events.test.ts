/** What an event leaves alone, and what its losses are. */
import { describe, expect, test } from 'vitest';
import { crossEntropy, tensor } from '../../src/graph/functional.ts';
import { evaluate, readStorage } from '../../src/graph/run.ts';
import type { Storage } from '../../src/graph/tensor.ts';
import { trainingContext, type Module } from '../../src/nn/module.ts';
import type { SgdOptions } from '../../src/optim/sgd.ts';
import { pairedDifferences } from '../../src/sched/evidence.ts';
import type { Schedule } from '../../src/sched/schedule.ts';
import { type TrialOptions } from '../../src/sched/trialOptions.ts';
import { TrialScheduler, type TrialEvent } from '../../src/sched/trialScheduler.ts';
import type { LoggedStep } from '../../src/train/stepLog.ts';
import type { Trainer } from '../../src/train/trainer.ts';
import type { TrainerOptions } from '../../src/train/trainerOptions.ts';
import { minMax } from '../support/minMax.ts';
import { assembleBatch } from '../support/reference.ts';
import { expectClose } from '../support/close.ts';
import { useDevice } from '../support/device.ts';
import { ConvNet, randomDataset, ratesAt, withTrainer } from './nets.ts';

const device = useDevice();

const momentum: SgdOptions = { momentum: 0.9, weightDecay: 5e-4 };
const nesterov: SgdOptions = { ...momentum, nesterov: true };
const sevenFactors = [8, 4, 2, 1, 0.5, 0.25, 0.125];

/** Everything that training keeps from step to step. */
const kept = ({ plans: { store, sgd } }: Trainer): Storage[] => [
  ...store.parameterArena.segments, ...store.statisticArena.segments, ...(sgd.buffer?.segments ?? []),
];

async function words(storages: readonly Storage[]): Promise<Uint32Array[]> {
  const read: Uint32Array[] = [];
  for (const { buffer, offset, size } of storages) read.push(new Uint32Array(await device().read(buffer, offset, size)));
  return read;
}

/** Tells when the event's trials have been submitted, before anything else is: overriding the rule brings it to the host. */
class WatchedScheduler extends TrialScheduler {
  onTrials: () => void = () => {};

  override apply(...args: Parameters<TrialScheduler['apply']>): TrialEvent {
    this.onTrials();
    return super.apply(...args);
  }
}

interface Row {
  readonly name: string;
  readonly trials?: Partial<TrialOptions>;
  readonly optimizer?: SgdOptions;
  readonly more?: Partial<TrainerOptions>;
  /** Of the running statistics. */
  readonly momenta?: readonly [number, number];
}

const rows: Row[] = [
  ...(['gradient', 'optimizer'] as const).flatMap((direction): Row[] => [
    { name: `along the ${direction}, plain SGD`, trials: { direction }, optimizer: {} },
    { name: `along the ${direction}, momentum`, trials: { direction } },
    { name: `along the ${direction}, nesterov, held-out images`, trials: { direction, batch: 'heldOut' }, optimizer: nesterov },
    { name: `along the ${direction}, weight decay, both batches`, trials: { direction, batch: 'both' }, optimizer: { weightDecay: 0.1 } },
    { name: `along the ${direction}, a smaller score batch`, trials: { direction, scoreBatch: 3 } },
    { name: `along the ${direction}, a larger score batch`, trials: { direction, scoreBatch: 13, batch: 'heldOut' } },
  ]),
  ...sevenFactors.map((_, i): Row => ({
    name: `${i + 1} trials, one image each`, trials: { factors: sevenFactors.slice(0, i + 1), scoreBatch: 1 },
  })),
  { name: 'crops and flips', trials: { batch: 'both' }, more: { augment: 'crop-flip' } },
  { name: 'paired noise, both batches', trials: { score: 'pairedNoise', batch: 'both', scoreBatch: 5 }, more: { augment: 'crop-flip' } },
  ...[{}, momentum, nesterov, { weightDecay: 0.1 }].map((optimizer): Row => ({
    name: `Armijo gate, ${JSON.stringify(optimizer)}`, optimizer, trials: { score: 'armijo', c: 0.4, factors: [1.5, 1, 0.7] },
  })),
  { name: 'Armijo gate, along what momentum accumulates', optimizer: { momentum: 0.75 }, trials: { score: 'armijo', c: 0.4, factors: [1.5, 1, 0.7], direction: 'accumulated' } },
  { name: 'along what momentum accumulates, nesterov', optimizer: { momentum: 0.75, nesterov: true }, trials: { direction: 'accumulated' } },
  { name: 'a search by the gate', trials: { score: 'armijo', direction: 'accumulated', search: { events: 2, every: 2 }, bounds: [1e-8, 1] } },
  { name: 'shuffled losses', trials: { control: 'shuffledLosses' }, more: { seed: 12 } },
  { name: 'running statistics with unlike momenta', momenta: [0.3, 0.05] },
];

const steps = 7;

async function train(options: TrainerOptions): Promise<{ logged: LoggedStep[]; state: Uint32Array[] }> {
  return withTrainer(options, async (trainer) => {
    const logged: LoggedStep[] = [];
    await trainer.run({ onSteps: (some) => logged.push(...some), evaluate: false });
    return { logged, state: await words(kept(trainer)) };
  });
}

test('after a search m comes back to what that found and no further', async () => {
  // So small a rate that the largest factor is always best.
  const scheduler = new TrialScheduler(minMax({ lr: 1e-4, every: { steps: 1 }, search: { events: 2, every: 2 } }));
  await train({ model: new ConvNet(), dataset: randomDataset(), batchSize: 4, epochs: 3, maxSteps: steps, optimizer: {}, schedule: scheduler });
  const [first, found, ...later] = scheduler.events;
  expect([first.step, found.step, ...later.map(({ step }) => step)]).toEqual([0, 2, 4, 5, 6]);
  expect([first.clamped, found.clamped]).toEqual([false, false]);
  expect(found.lrAfter).toBeGreaterThan(2.5e-4);
  for (const event of later) expect(event).toMatchObject({ lrAfter: found.lrAfter, clamped: true, path: 'gpu' });
});

describe.each(rows)('an event: $name', ({ trials, optimizer = momentum, more, momenta }) => {
  const options = (schedule: Schedule): TrainerOptions => ({
    model: new ConvNet(momenta), dataset: randomDataset(), batchSize: 4, epochs: 3, maxSteps: steps, optimizer, schedule, ...more,
  });
  const chosen = minMax({ lr: 0.05, every: { steps: 2 }, ...trials });

  test('changes no bit of the run but its learning rates', async () => {
    const own = new TrialScheduler(chosen);
    const withEvents = await train(options(own));
    expect(own.events.every(({ path }) => path === 'gpu')).toBe(true);
    expect(own.events).toHaveLength(4);
    expect(own.events.every(({ nonFinite }) => nonFinite === 0)).toBe(true);
    const without = await train(options(ratesAt((step) => withEvents.logged[step].lr)));
    expect(without.logged).toEqual(withEvents.logged);
    expect(without.state).toEqual(withEvents.state);
    expect(withEvents.logged.every(({ loss }) => Number.isFinite(loss))).toBe(true);
  });

  test('comes out as with the rule in float64 on the host', async () => {
    const [gpu, host] = [new TrialScheduler(chosen), new WatchedScheduler(chosen)];
    const [onGpu, onHost] = [await train(options(gpu)), await train(options(host))];
    expect(host.events.every(({ path }) => path === 'host')).toBe(true);
    // The same weights to the bit up to the first event's rate.
    expect(gpu.events[0].losses).toEqual(host.events[0].losses);
    expectClose([gpu.events[0].lrAfter], [host.events[0].lrAfter], { atol: 0, rtol: 1e-6 });
    expectClose(onGpu.logged.map(({ lr }) => lr), onHost.logged.map(({ lr }) => lr), { atol: 0, rtol: 1e-4 });
    expectClose(onGpu.logged.map(({ loss }) => loss), onHost.logged.map(({ loss }) => loss), { atol: 0, rtol: 1e-4 });
  });

  test('leaves weights and running statistics as they were before it, bit for bit', async () => {
    const own = new WatchedScheduler(chosen);
    await withTrainer(options(own), async (trainer) => {
      const { parameterArena, statisticArena } = trainer.plans.store;
      // Momentum is the event's direction, made before it.
      const buffer = own.options.direction !== 'optimizer' ? trainer.plans.sgd.buffer : null;
      const watched = [...parameterArena.segments, ...statisticArena.segments, ...(buffer?.segments ?? [])];
      const copies = watched.map(({ size }) => device().createBuffer('copy', size, GPUBufferUsage.COPY_DST | GPUBufferUsage.COPY_SRC));
      try {
        for (let i = 0; i < 4; i++) await trainer.trainStep();
        const before = await words(watched);
        let isSeen = false;
        own.onTrials = () => {
          isSeen = true;
          const encoder = device().gpu.createCommandEncoder();
          watched.forEach(({ buffer, offset, size }, k) => encoder.copyBufferToBuffer(buffer, offset, copies[k], 0, size));
          device().gpu.queue.submit([encoder.finish()]);
        };
        await trainer.trainStep();
        expect(isSeen).toBe(true);
        expect(await words(copies.map((buffer, k) => ({ buffer, offset: 0, size: watched[k].size })))).toEqual(before);
        expect(await words(watched)).not.toEqual(before);
      } finally {
        for (const buffer of copies) device().destroyBuffer(buffer);
      }
    });
  });
});

describe('a grid of the optimizer\'s own momentum and weight decay', () => {
  const optimizers = [momentum, nesterov, { momentum: 0.9, dampening: 0.5 }];

  test.each(optimizers)('%j: trials are those along the optimizer\'s direction', async (optimizer) => {
    const losses = async (factors: TrialOptions['factors']) => {
      const schedule = new TrialScheduler(minMax({ lr: 0.05, every: { steps: 2 }, factors }));
      await train({ model: new ConvNet(), dataset: randomDataset(), batchSize: 4, epochs: 3, maxSteps: steps, optimizer, schedule });
      return schedule.events.map((event) => event.losses);
    };
    const along = await losses(sevenFactors);
    const { weightDecay = 0 } = optimizer as SgdOptions;
    const grid = await losses({ lr: sevenFactors, momentum: [0.9], ...(weightDecay > 0 && { weightDecay: [weightDecay] }) });
    expect(grid).toHaveLength(4);
    grid.forEach((event, i) => expectClose(event, along[i], { atol: 0, rtol: 1e-4 }));
  });
});

describe('trial losses are those of N copies of the weights', () => {
  /** Of each batch that is scored, where it begins in the order and how many images it has. */
  type Images = (cursor: number) => [start: number, count: number][];
  const cases: { name: string; trials?: Partial<TrialOptions>; optimizer?: SgdOptions; reach?: number; images: Images }[] = [
    { name: 'the batch itself', images: (cursor) => [[cursor, 4]] },
    { name: 'part of it', trials: { scoreBatch: 3 }, images: (cursor) => [[cursor, 3]] },
    { name: 'the images after it', trials: { batch: 'heldOut' }, images: (cursor) => [[cursor + 4, 4]] },
    { name: 'both', trials: { batch: 'both' }, images: (cursor) => [[cursor, 4], [cursor + 4, 4]] },
    { name: 'momentum, along the gradient', trials: { direction: 'gradient' }, images: (cursor) => [[cursor, 4]] },
    { name: 'plain SGD', optimizer: {}, images: (cursor) => [[cursor, 4]] },
    {
      name: 'what momentum accumulates', trials: { direction: 'accumulated' }, optimizer: { momentum: 0.8, dampening: 0.5 }, reach: 2.5,
      images: (cursor) => [[cursor, 4]],
    },
    { name: 'what no momentum accumulates', trials: { direction: 'accumulated' }, optimizer: {}, images: (cursor) => [[cursor, 4]] },
    { name: 'paired noise', trials: { score: 'pairedNoise' }, images: (cursor) => [[cursor, 4]] },
    {
      name: 'paired noise of both, five each', trials: { score: 'pairedNoise', batch: 'both', scoreBatch: 5 },
      images: (cursor) => [[cursor, 5], [cursor + 4, 5]],
    },
    { name: 'nesterov', optimizer: nesterov, images: (cursor) => [[cursor, 4]] },
  ];

  /** Loss in training mode of a copy of `model` at w − c·d on some images. */
  async function lossesOfCopy(trainer: Trainer, values: ReadonlyMap<string, Float32Array>, indices: number[]): Promise<number[]> {
    const { train: { images, labels, channels: C, height: H, width: W }, mean: means, std } = trainer.options.dataset;
    const copy: Module = new ConvNet();
    for (const [name, variable] of copy.namedVariables()) variable.data = values.get(name) ?? variable.data;
    const x = tensor(Float32Array.from(assembleBatch(images, { C, H, W }, indices, means, std).data), [indices.length, H, W, C]);
    const logits = copy.forward(x, trainingContext());
    const [losses] = await evaluate([crossEntropy(logits, tensor(Uint32Array.from(indices, (index) => labels[index])))]);
    return [...losses];
  }

  const average = (xs: readonly number[]): number => xs.reduce((sum, x) => sum + x, 0) / xs.length;

  test.each(cases)('$name', async ({ trials, optimizer = momentum, reach = 1, images }) => {
    const schedule = new TrialScheduler(minMax({ lr: 0.05, every: { steps: 3 }, ...trials }));
    await withTrainer({ model: new ConvNet(), dataset: randomDataset(), batchSize: 4, epochs: 3, optimizer, schedule }, async (trainer) => {
      const { store, sgd } = trainer.plans;
      for (let i = 0; i < 3; i++) await trainer.trainStep();
      const before = await Promise.all(store.parameters.map((variable) => store.read(variable)));
      await trainer.trainStep();
      const event = (await trainer.events()).at(-1)!;
      const arena = schedule.options.direction !== 'optimizer' ? sgd.gradients : sgd.directions;
      const directions = await Promise.all(store.parameters.map((variable, i) => readStorage(device(), variable, arena.at(i))));
      const order = trainer.sampler.epochOrder(0);
      expect(event.losses).toHaveLength(7);
      const expected: number[] = [];
      const samples: number[][] = [];
      for (const factor of event.factors) {
        const c = Math.fround(factor * event.lrBefore * reach);
        const values = new Map(store.parameters.map((variable, i) => [variable.name, before[i].map((w, k) => w - c * directions[i][k])]));
        const parts: number[][] = [];
        for (const [start, count] of images(3 * 4)) {
          parts.push(await lossesOfCopy(trainer, values, [...order.subarray(start, start + count)]));
        }
        expected.push(average(parts.map(average)));
        samples.push(parts.flat());
      }
      expect(event.pairs !== undefined).toBe(schedule.options.score === 'pairedNoise');
      if (event.pairs) {
        // They come from several passes, each with a window of its own size.
        expect(new Set(trainer.plans.trials!.passes).size).toBe(2);
        const { differences, standardErrors } = pairedDifferences(samples, expected);
        expectClose([...event.pairs.differences], [...differences], { atol: 1e-6, rtol: 1e-4 });
        expectClose([...event.pairs.standardErrors], [...standardErrors], { atol: 1e-6, rtol: 1e-4 });
      }
      expectClose(event.losses, expected, { atol: 0, rtol: 1e-5 });
      expect(new Set(expected).size).toBe(7);
    });
  });
});
