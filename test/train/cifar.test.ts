/** ResNet18 on real images: the loss falls. */
import { expect, test } from 'vitest';
import { readCifar10 } from '../../src/data/cifar.node.ts';
import { limitSet } from '../../src/data/dataset.ts';
import { resnet18 } from '../../src/nn/resnet.ts';
import { ConstantSchedule } from '../../src/sched/schedule.ts';
import { realCifar10Dir } from '../data/realData.ts';
import { useDevice } from '../support/device.ts';
import { withTrainer } from './nets.ts';

useDevice();

const dir = realCifar10Dir();
const average = (values: readonly number[]) => values.reduce((a, b) => a + b, 0) / values.length;

test.skipIf(dir === null)('ResNet18 of width 4: forty steps of real CIFAR-10 lower the loss', async () => {
  const { train, test: held, ...rest } = readCifar10(dir!);
  // Four epochs of ten steps: the first ten and the last ten losses are of the same images.
  const dataset = { ...rest, train: limitSet(train, 320), test: limitSet(held, 64) };
  const losses: number[] = [];
  const schedule = new ConstantSchedule({ lr: 0.05 });
  const model = resnet18({ width: 4 });
  await withTrainer({ model, dataset, batchSize: 32, epochs: 4, schedule, optimizer: { momentum: 0.9 } }, async (trainer) => {
    expect(trainer.totalSteps).toBe(40);
    const { evaluation, divergence } = await trainer.run({ onSteps: (steps) => losses.push(...steps.map(({ loss }) => loss)) });
    expect(divergence).toBeNull();
    expect(Number.isFinite(evaluation!.testLoss)).toBe(true);
  });
  expect(losses).toHaveLength(40);
  expect(average(losses.slice(-10))).toBeLessThan(average(losses.slice(0, 10)) - 0.2);
  expect(average(losses.slice(-10))).toBeLessThan(Math.log(10) * 0.97);
});
