/** Training on f16 activations with a scaled loss: near f32, what overflows is skipped, and half the memory. */
import { describe, expect, test } from 'vitest';
import { proceduralDataset } from '../../src/data/procedural.ts';
import { AttrError, DeviceError } from '../../src/gpu/errors.ts';
import { scale } from '../../src/graph/functional.ts';
import type { Storage, Tensor } from '../../src/graph/tensor.ts';
import { resnet18 } from '../../src/nn/resnet.ts';
import type { SgdOptions } from '../../src/optim/sgd.ts';
import { ConstantSchedule } from '../../src/sched/schedule.ts';
import { type TrialOptions } from '../../src/sched/trialOptions.ts';
import { TrialScheduler } from '../../src/sched/trialScheduler.ts';
import { Trainer } from '../../src/train/trainer.ts';
import type { TrainerOptions } from '../../src/train/trainerOptions.ts';
import { useDevice } from '../support/device.ts';
import { minMax } from '../support/minMax.ts';
import { ConvNet, LinearNet, randomDataset, withTrainer } from './nets.ts';

const device = useDevice();

const options = (more: Partial<TrainerOptions> = {}): TrainerOptions => ({
  model: new ConvNet(), dataset: randomDataset(), batchSize: 4, epochs: 20, optimizer: { momentum: 0.9 },
  schedule: new ConstantSchedule({ lr: 0.05 }), precision: 'mixed', ...more,
});

async function train(made: TrainerOptions, steps: number) {
  return withTrainer(made, async (trainer) => {
    for (let i = 0; i < steps; i++) await trainer.trainStep();
    const [events, log] = [await trainer.events(), await trainer.losses()];
    const { divergence } = trainer;
    return { log, events, divergence };
  }).then((run) => ({ ...run, values: made.model.variables().map(({ data }) => data.slice()) }));
}

/** ‖a − b‖ / ‖b − start‖ */
function distance(a: readonly Float32Array[], b: readonly Float32Array[], start: readonly Float32Array[]): number {
  const norm = (x: readonly Float32Array[], y: readonly Float32Array[]) =>
    Math.sqrt(x.reduce((sum, values, i) => sum + values.reduce((inner, value, j) => inner + (value - y[i][j]) ** 2, 0), 0));
  return norm(a, b) / norm(b, start);
}

/** Its gradient is beyond f16 on the way, its loss is not. */
class OverflowNet extends LinearNet {
  override forward(x: Tensor): Tensor {
    return scale(scale(super.forward(x), 1e-6), 1e6);
  }
}

/** The largest entry of the momentum buffer. */
async function momentumOf({ plans }: Trainer): Promise<number> {
  const read = ({ buffer, offset, size }: Storage) => device().read(buffer, offset, size);
  const bytes = await Promise.all((plans.sgd.buffer?.segments ?? []).map(read));
  return Math.max(0, ...bytes.flatMap((one) => [...new Float32Array(one)].map(Math.abs)));
}

const startOf = ({ model }: TrainerOptions) => model.variables().map(({ data }) => data.slice());

describe('steps in mixed precision', () => {
  // Operands have 11 bits, 5e-4 each; what is summed over them differs less, what batch norms of 4 images make of it more.
  test.each([{ lossScaling: {} }, { lossScaling: { initScale: 1 } }, { lossScaling: { initScale: 4, growthInterval: 1 } }])(
    'are near those in f32, scale $lossScaling',
    async ({ lossScaling }) => {
      const start = startOf(options());
      const [single, mixed] = [await train(options({ precision: 'f32' }), 3), await train(options({ lossScaling }), 3)];
      expect(distance(mixed.values, single.values, start)).toBeLessThan(0.02);
      expect(distance(mixed.values, single.values, start)).toBeGreaterThan(0);
      mixed.log.forEach(({ loss }, i) => expect(Math.abs(loss - single.log[i].loss)).toBeLessThan(5e-3));
      expect(single.log[0]).not.toHaveProperty('lossScale');
    },
  );

  test('take the memory of activations to about half', async () => {
    const slots = async (precision: 'f32' | 'mixed') => {
      const made = { model: resnet18({ width: 16 }), dataset: proceduralDataset({ train: 16, test: 16 }), batchSize: 16 };
      return withTrainer(options({ ...made, precision }), async (trainer) => trainer.memory.slots);
    };
    expect((await slots('mixed')) / (await slots('f32'))).toBeLessThanOrEqual(0.65);
  });

  test('need 16-bit floats of the adapter', async () => {
    const features = new Set([...device().gpu.features].filter((name) => name !== 'shader-f16'));
    const without = Object.create(device(), { gpu: { value: Object.create(device().gpu, { features: { value: features } }) } });
    await expect(Trainer.create(options({ device: without }))).rejects.toThrow(/^Trainer: precision must be 'f32' on an adapter without shader-f16/);
    await expect(Trainer.create(options({ device: without }))).rejects.toThrow(DeviceError);
  });

  test.each<[string, Partial<TrainerOptions>]>([
    ['precision', { precision: 'f16' as 'f32' }],
    ['lossScaling', { precision: 'f32', lossScaling: {} }],
    ['lossScaling.initScale', { lossScaling: { initScale: 3 } }],
    ['lossScaling.initScale', { lossScaling: { initScale: 0.5 } }],
    ['lossScaling.growthInterval', { lossScaling: { growthInterval: 0 } }],
  ])('refuse a wrong %s', async (arg, more) => {
    const error = await Trainer.create(options(more)).catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(AttrError);
    expect(error).toMatchObject({ op: 'Trainer', arg });
  });
});

describe('the loss scale', () => {
  test('doubles after so many steps without an overflow', async () => {
    const { log } = await train(options({ lossScaling: { initScale: 4, growthInterval: 3 } }), 8);
    expect(log.map(({ lossScale }) => lossScale)).toEqual([4, 4, 4, 8, 8, 8, 16, 16]);
    expect(log.every(({ skipped }) => skipped === false)).toBe(true);
  });

  test.each<SgdOptions>([
    {}, { weightDecay: 0.01 }, { momentum: 0.9 }, { momentum: 0.9, nesterov: true },
  ])('is halved by an overflow, which leaves all as it was; later steps go on: %o', async (optimizer) => {
    const made = options({ optimizer, lossScaling: { initScale: 2 ** 24 } });
    const start = startOf(made);
    await withTrainer(made, async (trainer) => {
      const values = async () => {
        await trainer.plans.store.pull();
        return startOf(made);
      };
      let scale = 2 ** 24;
      let isSkipped = true;
      for (let step = 0; isSkipped; step++) {
        await trainer.trainStep();
        const [logged] = await trainer.losses();
        expect(logged).toMatchObject({ step, lossScale: scale });
        isSkipped = logged.skipped!;
        if (!isSkipped) break;
        expect(await values()).toEqual(start);
        expect(await momentumOf(trainer)).toBe(0);
        scale /= 2;
      }
      expect(scale).toBeLessThan(2 ** 24);
      expect(await values()).not.toEqual(start);
      for (let i = 0; i < 60; i++) await trainer.trainStep();
      const log = await trainer.losses();
      expect(trainer.divergence).toBeNull();
      expect(log.every(({ lossScale }) => lossScale! >= scale / 4)).toBe(true);
      const meanOf = (some: typeof log) => some.reduce((sum, { loss }) => sum + loss, 0) / some.length;
      expect(meanOf(log.slice(-10))).toBeLessThan(meanOf(log.slice(0, 10)) - (optimizer.momentum ? 0.2 : 0.05));
    });
  });

  test('starts a count anew at an overflow', async () => {
    const { log } = await train(options({ lossScaling: { initScale: 2 ** 24, growthInterval: 2 } }), 30);
    const first = log.findIndex(({ skipped }) => !skipped);
    // Two steps, then one step too far, again and again.
    log.slice(first).forEach(({ lossScale, skipped }, i, all) => {
      const next = all[i + 1];
      if (next && skipped) expect(next.lossScale).toBe(lossScale! / 2);
      if (next && next.lossScale! > lossScale!) expect([all[i - 1]?.skipped, skipped, all[i - 1]?.lossScale]).toEqual([false, false, lossScale]);
    });
    expect(log.slice(first).some(({ skipped }) => skipped)).toBe(true);
  });

  test('skips a first step, and the one after it is the first of the optimizer', async () => {
    const fixed = { dataset: randomDataset({ train: 4 }), shuffle: false, optimizer: { momentum: 0.9, dampening: 0.9 } };
    const of = (initScale: number) => options({ ...fixed, model: new LinearNet(), lossScaling: { initScale } });
    const run = (initScale: number, steps: number) => train(of(initScale), steps);
    const [later, sooner] = [await run(2 ** 19, 8), await run(2, 8)];
    const skips = later.log.filter(({ skipped }) => skipped).length;
    expect(skips).toBeGreaterThan(0);
    expect(skips).toBeLessThan(8);
    const { values } = await run(2, 8 - skips);
    expect(distance(later.values, values, startOf(of(1)))).toBeLessThan(0.01);
    expect(sooner.log.some(({ skipped }) => skipped)).toBe(false);
  });

  test('of 1 is the least: gradients that overflow there have diverged', async () => {
    const { log, divergence, values } = await train(options({ model: new OverflowNet(), lossScaling: { initScale: 4 } }), 6);
    expect(log.map(({ lossScale, skipped }) => [lossScale, skipped])).toEqual([[4, true], [2, true]]);
    expect(divergence).toMatchObject({ step: 2 });
    expect(divergence!.reason).toMatch(/^a gradient is not finite \(loss .*, loss scale 1\)/);
    expect(values).toEqual(startOf({ ...options(), model: new OverflowNet() }));
  });
});

describe('events in mixed precision', () => {
  const trial = (more: Partial<TrialOptions> = {}) => new TrialScheduler(minMax({ lr: 0.02, every: { steps: 1 }, envelope: 'none', ...more }));
  const onHost: Partial<TrialOptions> = { normalize: 'none', score: (losses) => losses.map((loss) => Math.exp(-loss)) };

  test.each<[string, Partial<TrialOptions>]>([
    ['along the direction', {}], ['along the gradient', { direction: 'gradient' }],
    ['of a grid', { factors: { lr: [2, 0.5], momentum: [0.95, 0.7] } }],
  ])('%s have about the losses of those in f32', async (_, more) => {
    const of = (precision: 'f32' | 'mixed') => train(options({ precision, schedule: trial(more) }), 3);
    const [single, mixed] = [await of('f32'), await of('mixed')];
    expect(mixed.events.map(({ step }) => step)).toEqual([0, 1, 2]);
    mixed.events.forEach(({ losses }, i) =>
      losses.forEach((loss, j) => expect(Math.abs(loss - single.events[i].losses[j])).toBeLessThan(0.01 * (1 + single.events[i].losses[j]))));
  });

  test.each<[string, Partial<TrialOptions>]>([
    ['on the GPU', {}], ['on the host', onHost],
  ])('of a skipped step are none, with the rule %s', async (_, more) => {
    const schedule = trial(more);
    const { log, events } = await train(options({ schedule, optimizer: {}, lossScaling: { initScale: 2 ** 24 } }), 16);
    const skipped = log.filter((one) => one.skipped).map(({ step }) => step);
    expect(skipped).toContain(0);
    expect(skipped.length).toBeLessThan(16);
    expect(events.map(({ step }) => step)).toEqual(log.filter((one) => !one.skipped).map(({ step }) => step));
    expect(events[0].lrBefore).toBe(0.02);
    expect(log[0].lr).toBe(0.02);
    expect(schedule.lr).toBe(events.at(-1)!.lrAfter);
  });
});
