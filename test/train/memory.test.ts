/** What trials add to a trainer's memory: live buffers with them against those without. */
import { describe, expect, test } from 'vitest';
import { proceduralDataset } from '../../src/data/procedural.ts';
import { add, flatten, linear, tensor } from '../../src/graph/functional.ts';
import type { Tensor } from '../../src/graph/tensor.ts';
import { resnet18 } from '../../src/nn/resnet.ts';
import { ConstantSchedule, type Schedule } from '../../src/sched/schedule.ts';
import { robust, TrialScheduler } from '../../src/sched/index.ts';
import type { TrainerOptions } from '../../src/train/trainerOptions.ts';
import { useDevice } from '../support/device.ts';
import { minMax } from '../support/minMax.ts';
import { totalBytes, withLiveBuffers } from './gpuCalls.ts';
import { LinearNet, randomDataset, withTrainer } from './nets.ts';

useDevice();

const dataset = proceduralDataset({ train: 64, test: 32 });
const trials = (n: number) => new TrialScheduler(minMax({ factors: Array.from({ length: n }, (_, i) => 2 ** ((i - n / 2) / 4)) }));

interface Held {
  readonly bytes: number;
  readonly trials: number;
  readonly passes: number[];
}

const hold = (schedule: Schedule, more: Partial<TrainerOptions> = {}): Promise<Held> =>
  withLiveBuffers((live) => {
    const made = { model: resnet18({ width: 4 }), dataset, schedule, batchSize: 16, optimizer: { momentum: 0.9 }, ...more };
    return withTrainer(made, async ({ memory, plans }) => ({
      bytes: totalBytes(live), trials: memory.trials, passes: [...(plans.trials?.passes ?? [])],
    }));
  });

describe('ResNet18 with trials', () => {
  test.each([[1, 1], [7, 2], [16, 4], [100, 25], [300, 75]])('%d of them add at most 64 KiB, in %d passes', async (n, passes) => {
    const bare = await hold(new ConstantSchedule({ lr: 0.01 }));
    const held = await hold(trials(n));
    expect(held.bytes - bare.bytes).toBe(held.trials);
    expect(held.trials).toBeLessThanOrEqual(64 * 1024);
    expect(held.passes).toHaveLength(passes);
    expect(held.passes.reduce((a, b) => a + b)).toBe(n);
  });

  test('so they do where a pass has room for one alone', async () => {
    const options = { model: resnet18({ width: 4, stem: 'imagenet' as const }), batchSize: 2, dataset: proceduralDataset({ train: 16, test: 8 }) };
    const bare = await hold(new ConstantSchedule({ lr: 0.01 }), options);
    const held = await hold(trials(200), { ...options, model: resnet18({ width: 4, stem: 'imagenet' }) });
    expect(held.passes.length).toBeGreaterThanOrEqual(100);
    expect(held.bytes - bare.bytes).toBe(held.trials);
    expect(held.trials).toBeLessThanOrEqual(64 * 1024);
  });

  test('trials over momentum and weight decay look along what training holds', async () => {
    const bare = await hold(new ConstantSchedule({ lr: 0.01 }));
    const factors = { lr: [2, 1, 0.5], momentum: [0.95, 0.8], weightDecay: [1e-3, 1e-4] };
    const held = await hold(new TrialScheduler(minMax({ factors })));
    expect(held.bytes - bare.bytes).toBe(held.trials);
    expect(held.trials).toBeLessThanOrEqual(64 * 1024);
    expect(held.passes.reduce((a, b) => a + b)).toBe(12);
  });

  test('the preset, with its slope and the loss at the weights, in nothing else', async () => {
    const bare = await hold(new ConstantSchedule({ lr: 0.01 }));
    const held = await hold(new TrialScheduler(robust()));
    expect(held.bytes - bare.bytes).toBe(held.trials);
    expect(held.trials).toBeLessThanOrEqual(64 * 1024);
    expect(held.passes.reduce((a, b) => a + b)).toBe(8);
  });

  test('the host\'s rule adds no more', async () => {
    const score = (losses: readonly number[]) => losses.map((loss) => 1 / loss);
    const held = await hold(new TrialScheduler(minMax({ normalize: 'none', score })));
    expect(held.trials).toBeLessThanOrEqual(64 * 1024);
  });

  test('a constant of the model is there once, however many passes were tried', async () => {
    const shift = Float32Array.from({ length: 16 * 192 }, (_, i) => i / 1000);
    class Shifted extends LinearNet {
      override forward(x: Tensor): Tensor {
        return linear(add(flatten(x), tensor(shift, [16, 192])), this.fc.weight, this.fc.bias);
      }
    }
    const more = () => ({ model: new Shifted(), dataset: randomDataset({ train: 16 }) });
    const bare = await hold(new ConstantSchedule({ lr: 0.01 }), more());
    const held = await hold(trials(64), more());
    expect(held.passes.length).toBeGreaterThan(1);
    expect(held.bytes - bare.bytes).toBe(held.trials);
  });

  test('a budget buys fewer passes, and is kept to', async () => {
    const free = await hold(trials(16));
    const memoryBudget = 2 ** 20;
    const paid = await hold(trials(16), { memoryBudget });
    expect(paid.passes.length).toBeLessThan(free.passes.length);
    expect(paid.trials).toBeGreaterThan(64 * 1024);
    expect(paid.trials).toBeLessThanOrEqual(memoryBudget + 64 * 1024);
    expect((await hold(trials(16), { memoryBudget: 2 ** 30 })).passes).toEqual([16]);
  });
});
