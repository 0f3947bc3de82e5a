/** Adapters with small bindings: data and parameters in several buffers, trials in several passes; and the same numbers. */
import { expect, test } from 'vitest';
import type { Device } from '../../src/gpu/device.ts';
import { asPublished, type TrialOptions } from '../../src/sched/trialOptions.ts';
import { TrialScheduler } from '../../src/sched/trialScheduler.ts';
import type { TrainerOptions } from '../../src/train/trainerOptions.ts';
import { useDevice } from '../support/device.ts';
import { LesserDevice } from '../support/lesserDevice.ts';
import { totalBytes, withLiveBuffers } from './gpuCalls.ts';
import { ConvNet, randomDataset, withTrainer } from './nets.ts';

const device = useDevice();

/** A run of seven steps with three events, crops and evaluations: everything that comes of it, and how the memory was cut. */
async function outcome(on: Device, size: number, trials: Partial<TrialOptions> = {}) {
  const model = new ConvNet();
  const schedule = new TrialScheduler(asPublished([8, 4, 2, 1, 0.5, 0.25, 0.125], { lr: 0.05, every: { steps: 3 }, ...trials }));
  const options: TrainerOptions = {
    model, dataset: randomDataset({ size }), batchSize: 4, epochs: 2, maxSteps: 7, augment: 'crop-flip', optimizer: { momentum: 0.9 }, schedule,
    device: on,
  };
  return withLiveBuffers((live) => withTrainer(options, async (trainer) => {
    expect(trainer.memory.total).toBe(totalBytes(live));
    const steps: number[] = [];
    const { evaluation } = await trainer.run({ onSteps: (some) => steps.push(...some.map(({ loss }) => loss)) });
    await trainer.plans.store.pull();
    const buffers = (label: RegExp) => [...live].filter((buffer) => label.test(buffer.label)).length;
    return {
      numbers: {
        steps, evaluation, losses: schedule.events.map(({ losses }) => losses),
        weights: model.variables().map(({ data }) => data),
      },
      cut: {
        images: buffers(/^random training images/), parameters: buffers(/^parameters/), momentum: buffers(/^momentum/),
        statistics: buffers(/^running statistics/),
      },
      passes: trainer.plans.trials!.passes,
    };
  }));
}

test('where a binding holds little, images and parameters lie in several buffers, and training is the same bit for bit', async () => {
  // Images of 147 bytes, no whole number of words.
  const whole = await outcome(device(), 7);
  expect(whole.cut).toEqual({ images: 1, parameters: 1, momentum: 1, statistics: 1 });
  // Twelve images and ten. Parameters in steps of 256, weights first: 512 + 1280 + 256, 5 · 256.
  const split = await outcome(new LesserDevice(device(), { maxStorageBufferBindingSize: 2048 }), 7);
  expect(split.cut).toEqual({ images: 2, parameters: 2, momentum: 2, statistics: 1 });
  // Four images each. A parameter larger than the limit has a buffer of its own.
  const shredded = await outcome(new LesserDevice(device(), { maxStorageBufferBindingSize: 800 }), 7);
  expect(shredded.cut).toEqual({ images: 6, parameters: 4, momentum: 4, statistics: 2 });
  for (const { numbers } of [split, shredded]) expect(numbers).toEqual(whole.numbers);
});

test('where a binding holds little, trials run in several passes, with the same losses', async () => {
  // One image a trial fits training's memory in one pass.
  const together = await outcome(device(), 8, { scoreBatch: 1 });
  expect(together.passes).toEqual([7]);
  // An image's first activation takes 1,024 bytes.
  const passes = { 7168: [7], 7167: [3, 4], 3072: [2, 2, 3], 2048: [1, 2, 2, 2], 1024: [1, 1, 1, 1, 1, 1, 1], 1000: [1, 1, 1, 1, 1, 1, 1] };
  for (const [limit, expected] of Object.entries(passes)) {
    const apart = await outcome(new LesserDevice(device(), { maxStorageBufferBindingSize: Number(limit) }), 8, { scoreBatch: 1 });
    expect(apart.passes).toEqual(expected);
    expect(apart.numbers).toEqual(together.numbers);
  }
});
