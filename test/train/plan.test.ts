/** What a step asks of WebGPU, and what a trainer holds. */
import { beforeAll, describe, expect, test } from 'vitest';
import { proceduralDataset } from '../../src/data/procedural.ts';
import { AttrError } from '../../src/gpu/errors.ts';
import { add, flatten, linear, sub } from '../../src/graph/functional.ts';
import { sizeBytes, Variable, type Tensor } from '../../src/graph/tensor.ts';
import { Module } from '../../src/nn/module.ts';
import { resnet18 } from '../../src/nn/resnet.ts';
import { ConstantSchedule } from '../../src/sched/schedule.ts';
import { asPublished } from '../../src/sched/trialOptions.ts';
import { robust, TrialScheduler } from '../../src/sched/index.ts';
import { Trainer } from '../../src/train/trainer.ts';
import type { TrainerOptions } from '../../src/train/trainerOptions.ts';
import { useDevice, testDevice } from '../support/device.ts';
import { minMax } from '../support/minMax.ts';
import { countCalls, creations, totalBytes, withLiveBuffers } from './gpuCalls.ts';
import { ConvNet, randomDataset, withTrainer } from './nets.ts';

useDevice();
// The device, and the classes that gpuCalls watches.
beforeAll(async () => void (await testDevice()));

const constant = (lr = 0.05) => new ConstantSchedule({ lr });
const options = (more: Partial<TrainerOptions> = {}): TrainerOptions => ({
  model: new ConvNet(), dataset: randomDataset(), schedule: constant(), batchSize: 4, epochs: 10, optimizer: { momentum: 0.9 }, ...more,
});

const zeros = (name: string) => new Variable('parameter', name, [3 * 8 * 8, 5], new Float32Array(3 * 8 * 8 * 5));

/** Softmax regression whose weight is a − b + c: a and c have one gradient, which goes to two places, and b's is made of it. */
class SplitNet extends Module {
  readonly a = zeros('a');
  readonly b = zeros('b');
  readonly c = zeros('c');

  override forward(x: Tensor): Tensor {
    return linear(flatten(x), add(sub(this.a, this.b), this.c));
  }
}

test('gradients that are made of one another are stored apart, though WebGPU forbids one buffer in two roles', async () => {
  const model = new SplitNet();
  await withTrainer(options({ model, optimizer: {} }), async (trainer) => {
    await trainer.trainStep();
    await trainer.plans.store.pull();
    expect(await trainer.losses()).toHaveLength(1);
    expect(model.a.data.some((value) => Math.abs(value) > 1e-4)).toBe(true);
    expect(model.c.data).toEqual(model.a.data);
    expect(model.b.data).toEqual(model.a.data.map((value) => -value));
  });
});

describe('a step', () => {
  test('makes nothing, reads nothing back, and is one pass of one submit', async () => {
    await withTrainer(options(), async (trainer) => {
      const steps = trainer.stepsPerEpoch + 2;
      const calls = await countCalls(async () => {
        for (let i = 0; i < steps; i++) await trainer.trainStep();
      });
      expect(creations(calls)).toEqual({});
      expect(calls).toMatchObject({ mapAsync: 0, destroy: 0, copyBufferToBuffer: 0, clearBuffer: 0, dispatchWorkgroupsIndirect: 0 });
      expect(calls).toMatchObject({ submit: steps, beginComputePass: steps });
      expect(calls.dispatchWorkgroups).toBe(steps * trainer.dispatchesPerStep);
    });
  });

  test.each(['same', 'heldOut', 'both'] as const)('with an event is one pass of one submit too and reads nothing (%s)', async (batch) => {
    const schedule = new TrialScheduler(minMax({ every: { steps: 2 }, batch }));
    await withTrainer(options({ schedule }), async (trainer) => {
      const { plans } = trainer;
      const calls = await countCalls(async () => {
        for (let i = 0; i < 6; i++) await trainer.trainStep();
      });
      expect(creations(calls)).toEqual({});
      expect(calls).toMatchObject({ mapAsync: 0, destroy: 0, copyBufferToBuffer: 0, submit: 6, beginComputePass: 6 });
      expect(calls.dispatchWorkgroups).toBe(6 * trainer.dispatchesPerStep + 3 * plans.event!.dispatches);
      // Nobody has heard of them yet.
      expect(schedule.events).toEqual([]);
      const reads = await countCalls(async () => {
        const events = await trainer.events();
        expect(events.map(({ step, path, losses }) => [step, path, losses.length])).toEqual([0, 2, 4].map((step) => [step, 'gpu', 7]));
        expect(schedule.events).toEqual(events);
      });
      expect(reads).toMatchObject({ mapAsync: 2, submit: 1 });
      expect(await trainer.losses()).toHaveLength(6);
    });
  });

  test('with a score of one\'s own makes nothing either; trial losses alone are read back', async () => {
    const score = (losses: readonly number[]) => losses.map((loss) => Math.exp(-loss));
    const schedule = new TrialScheduler(minMax({ every: { steps: 1 }, batch: 'both', score, normalize: 'none' }));
    await withTrainer(options({ schedule }), async (trainer) => {
      await trainer.trainStep();
      await trainer.losses();
      const calls = await countCalls(() => trainer.trainStep());
      expect(creations(calls)).toEqual({});
      expect(calls).toMatchObject({ mapAsync: 1, submit: 2, beginComputePass: 2, destroy: 0 });
      expect(calls.dispatchWorkgroups).toBe(trainer.dispatchesPerStep + trainer.plans.event!.dispatches);
      const events = await trainer.events();
      expect(events.map(({ step, path, losses }) => [step, path, losses.length])).toEqual([[0, 'host', 7], [1, 'host', 7]]);
    });
  });

  test('a run of events reads steps and events together, every logEvery steps', async () => {
    await withTrainer(options({ epochs: 2, schedule: new TrialScheduler(minMax({ every: { steps: 1 } })) }), async (trainer) => {
      const calls = await countCalls(async () => void (await trainer.run({ evaluate: false })));
      expect(calls).toMatchObject({ mapAsync: 4, submit: 10 + 2 });
    });
  });

  test('a run reads the log every logEvery steps and at the end of each epoch, and makes nothing', async () => {
    const read = async (logEvery: number) => {
      let found: Awaited<ReturnType<typeof countCalls>> | null = null;
      await withTrainer(options({ epochs: 2 }), async (trainer) => {
        expect(trainer.totalSteps).toBe(10);
        found = await countCalls(async () => void (await trainer.run({ logEvery, evaluate: false })));
      });
      return found!;
    };
    const often = await read(1);
    const seldom = await read(10);
    for (const calls of [often, seldom]) expect(creations(calls)).toEqual({});
    expect(often.mapAsync).toBe(10);
    expect(seldom.mapAsync).toBe(2);
    expect(seldom.submit).toBe(10 + 2);
  });

  test('an event is one dispatch a layer however many trials it has', async () => {
    // Scored on one image, so that all trials fit training's memory.
    const schedule = (n: number) => new TrialScheduler(asPublished([8, 4, 2, 1, 0.5, 0.25, 0.125].slice(0, n), { scoreBatch: 1 }));
    const dispatches = async (n: number) =>
      withTrainer(options({ schedule: schedule(n) }), async ({ plans }) => {
        expect(plans.trials!.passes).toHaveLength(1);
        return plans.event!.dispatches;
      });
    const one = await dispatches(1);
    expect(await dispatches(2)).toBe(one);
    // The first layer, convolved with the weight and with the direction, and combined, of which the moments are then taken.
    expect(await dispatches(3)).toBe(one + 3);
    expect(await dispatches(7)).toBe(one + 3);
  });
});

test('ResNet18 at width 16 and batch 32: at most 170 dispatches a step, at most 70 MB', async () => {
  const schedule = new TrialScheduler(asPublished());
  const dataset = proceduralDataset({ train: 64, test: 32 });
  await withTrainer({ model: resnet18({ width: 16 }), dataset, schedule, optimizer: { momentum: 0.9 } }, async (trainer) => {
    expect(trainer.dispatchesPerStep).toBeLessThanOrEqual(170);
    expect(trainer.memory.total).toBeLessThanOrEqual(70e6);
  });
});

describe('memory', () => {
  const rows: { name: string; make: () => Partial<TrainerOptions>; factors: number }[] = [
    { name: 'plain SGD', make: () => ({ optimizer: {} }), factors: 0 },
    { name: 'momentum', make: () => ({}), factors: 0 },
    { name: 'trials', make: () => ({ schedule: new TrialScheduler(minMax()) }), factors: 7 },
    { name: 'the preset', make: () => ({ schedule: new TrialScheduler(robust()) }), factors: 8 },
    {
      name: 'trials on other batches, larger than training\'s', factors: 7,
      make: () => ({ schedule: new TrialScheduler(minMax({ batch: 'both', scoreBatch: 9 })) }),
    },
    {
      name: 'ResNet18, imagenet stem', factors: 5,
      make: () => ({
        model: resnet18({ width: 4, stem: 'imagenet' }), dataset: randomDataset({ size: 32, classes: 10 }),
        schedule: new TrialScheduler(asPublished()),
      }),
    },
  ];

  test.each(rows)('$name: the ledger is the sum of the live buffers, before, between and after steps', async ({ make, factors }) => {
    await withLiveBuffers(async (live) => {
      const made = options(make());
      const trainer = await Trainer.create(made);
      const report = { ...trainer.memory };
      expect(report.total).toBe(totalBytes(live));
      const { total, ...categories } = report;
      expect(Object.values(categories).reduce((a, b) => a + b, 0)).toBe(total);
      await trainer.run();
      expect(trainer.memory).toEqual(report);
      expect(totalBytes(live)).toBe(report.total);
      checkCategories(trainer, made, factors);
      await trainer.close();
      expect([...live].map(({ label, size }) => `${label}: ${size}`)).toEqual([]);
      expect(trainer.memory.total).toBe(0);
    });
  });

  const aligned = (variables: readonly Variable[]) =>
    variables.reduce((sum, variable) => sum + Math.ceil(sizeBytes(variable) / 256) * 256, 0);

  function checkCategories({ memory, plans }: Trainer, { model, dataset, optimizer }: TrainerOptions, factors: number): void {
    const parameters = aligned(model.parameters());
    const statistics = aligned(plans.store.statistics);
    expect(memory.parameters).toBe(parameters);
    expect(memory.gradients).toBe(parameters);
    expect(memory.optimizer).toBe(optimizer?.momentum ? parameters : 0);
    // Running ones and the batch's.
    expect(memory.statistics).toBe(2 * statistics);
    const bytes = dataset.train.images.length + dataset.test.images.length;
    expect(memory.data).toBeGreaterThanOrEqual(bytes);
    expect(memory.data).toBeLessThan(bytes + 16 * (dataset.train.count + dataset.test.count) + 1024);
    expect(memory.slots).toBeGreaterThan(0);
    if (factors === 0) expect(memory.trials).toBe(0);
    else expect(memory.trials).toBeGreaterThanOrEqual(2 * factors * 256);
  }

  const bad: { arg: string; make: () => Partial<TrainerOptions> }[] = [
    { arg: 'momentum', make: () => ({ optimizer: { momentum: 1 } }) },
    { arg: 'batchSize', make: () => ({ batchSize: 23 }) },
    { arg: 'batchSize', make: () => ({ batchSize: 0 }) },
    { arg: 'epochs', make: () => ({ epochs: 1.5 }) },
    { arg: 'maxSteps', make: () => ({ maxSteps: 0 }) },
    { arg: 'seed', make: () => ({ seed: -1 }) },
    { arg: 'labelSmoothing', make: () => ({ labelSmoothing: 2 }) },
    { arg: 'augment', make: () => ({ augment: 'crop' as 'none' }) },
    { arg: 'model', make: () => ({ dataset: randomDataset({ classes: 6 }) }) },
    { arg: 'mean of random training', make: () => ({ dataset: { ...randomDataset(), mean: [0.5] } }) },
    { arg: 'std of random training', make: () => ({ dataset: { ...randomDataset(), std: [1, 1, 1, 1] } }) },
    ...[{ labels: new Uint8Array(10).fill(5) }, { labels: new Uint8Array(9) }, { images: new Uint8Array(5) }].map((part) => ({
      arg: `${Object.keys(part)[0]} of random test`,
      make: () => ({ dataset: { ...randomDataset(), test: { ...randomDataset().test, ...part } } }),
    })),
    { arg: 'memoryBudget', make: () => ({ memoryBudget: 1 }) },
    { arg: 'memoryBudget', make: () => ({ memoryBudget: -1, schedule: new TrialScheduler(minMax()) }) },
    { arg: 'scoreBatch', make: () => ({ schedule: new TrialScheduler(minMax({ scoreBatch: 23 })) }) },
  ];

  test.each(bad)('a trainer that cannot be made ($arg) leaves nothing, and the model can be used', async ({ arg, make }) => {
    const model = new ConvNet();
    await withLiveBuffers(async (live) => {
      await expect(Trainer.create(options({ model, ...make() }))).rejects.toMatchObject({ constructor: AttrError, arg });
      expect(live.size).toBe(0);
    });
    await withTrainer(options({ model, maxSteps: 1 }), async (trainer) => {
      expect((await trainer.run()).steps).toBe(1);
    });
  });

  test('a model that a trainer holds is refused to another, which takes nothing from the first', async () => {
    const model = new ConvNet();
    await withTrainer(options({ model }), async (trainer) => {
      await trainer.trainStep();
      await expect(Trainer.create(options({ model }))).rejects.toMatchObject({ constructor: AttrError, op: 'VariableStore' });
      await trainer.trainStep();
      expect(await trainer.losses()).toHaveLength(2);
    });
    expect(model.fc.weight.data.every(Number.isFinite)).toBe(true);
  });
});
