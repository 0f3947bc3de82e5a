/** Evaluation against the host's sums over the model's own logits, and running statistics against PyTorch's formula. */
import { describe, expect, test } from 'vitest';
import { tensor } from '../../src/graph/functional.ts';
import { evaluate } from '../../src/graph/run.ts';
import { inferenceContext, trainingContext, type Module } from '../../src/nn/module.ts';
import { ConstantSchedule } from '../../src/sched/schedule.ts';
import { TrialScheduler } from '../../src/sched/trialScheduler.ts';
import type { Evaluation, TrainerOptions } from '../../src/train/trainerOptions.ts';
import { minMax } from '../support/minMax.ts';
import { assembleBatch, crossEntropy } from '../support/reference.ts';
import { expectClose } from '../support/close.ts';
import { useDevice } from '../support/device.ts';
import { nd } from '../support/nd.ts';
import { ConvNet, randomDataset, withTrainer } from './nets.ts';

useDevice();

const options = (more: Partial<TrainerOptions> = {}): TrainerOptions => ({
  model: new ConvNet(), dataset: randomDataset({ train: 24, test: 21 }), batchSize: 8, epochs: 4,
  schedule: new ConstantSchedule({ lr: 0.1 }), ...more,
});

/** Images by index, as a tensor [n, H, W, C]. */
function imagesOf({ dataset: { train, test: held, mean, std } }: TrainerOptions, part: 'train' | 'test', indices: number[]) {
  const { images, channels: C, height: H, width: W } = part === 'train' ? train : held;
  return tensor(Float32Array.from(assembleBatch(images, { C, H, W }, indices, mean, std).data), [indices.length, H, W, C]);
}

/** Mean loss and accuracy over the test images from the logits of the model as it is on the host. */
async function hostEvaluation(made: TrainerOptions): Promise<Omit<Evaluation, 'step'>> {
  const { labels, count } = made.dataset.test;
  const images = imagesOf(made, 'test', Array.from({ length: count }, (_, i) => i));
  const [logits] = await evaluate([made.model.forward(images, inferenceContext())]);
  const classes = logits.length / count;
  const rows = Array.from({ length: count }, (_, n) => [...logits.subarray(n * classes, (n + 1) * classes)]);
  const right = rows.filter((row, n) => row.indexOf(Math.max(...row)) === labels[n]).length;
  return { testLoss: crossEntropy(nd([count, classes], logits), labels).mean.data[0], testAccuracy: right / count };
}

describe('evaluation', () => {
  test('is the mean over all test images, once each, in inference mode', async () => {
    const made = options();
    const { step, ...found } = await withTrainer(made, async (trainer) => {
      // Of other weights: it must not count in the next one.
      await trainer.evaluate();
      await trainer.run({ evaluate: false });
      return trainer.evaluate();
    });
    const expected = await hostEvaluation(made);
    expect(step).toBe(12);
    expectClose([found.testLoss, found.testAccuracy], [expected.testLoss, expected.testAccuracy], { atol: 1e-6, rtol: 1e-6 });
    expect(found.testAccuracy * 21).toBeCloseTo(Math.round(found.testAccuracy * 21), 4);
    expect(found.testAccuracy).toBeGreaterThan(0);
    expect(found.testAccuracy).toBeLessThan(1);
  });

  test.each([1, 2, 5, 7, 20, 21, 24])('does not depend on the batch size: %d', async (batchSize) => {
    const made = options({ batchSize });
    const found = await withTrainer(made, (trainer) => trainer.evaluate());
    const expected = await hostEvaluation(made);
    expectClose([found.testLoss, found.testAccuracy], [expected.testLoss, expected.testAccuracy], { atol: 1e-6, rtol: 1e-6 });
  });

  test('a test set smaller than a batch, and one of a single image', async () => {
    for (const count of [1, 5]) {
      const made = options({ dataset: randomDataset({ train: 24, test: count }) });
      const found = await withTrainer(made, (trainer) => trainer.evaluate());
      const expected = await hostEvaluation(made);
      expectClose([found.testLoss, found.testAccuracy], [expected.testLoss, expected.testAccuracy], { atol: 1e-6, rtol: 1e-6 });
    }
  });

  test('says the same twice, leaves no trace, and knows neither crops nor label smoothing', async () => {
    const plain = await withTrainer(options(), (trainer) => trainer.evaluate());
    await withTrainer(options({ augment: 'crop-flip', labelSmoothing: 0.5 }), async (trainer) => {
      const first = await trainer.evaluate();
      expect(await trainer.evaluate()).toEqual(first);
      expect(first).toEqual(plain);
    });
  });

  test('run evaluates after each epoch and at the end, and returns the last', async () => {
    const evaluations: Evaluation[] = [];
    const onEvaluation = (evaluation: Evaluation) => void evaluations.push(evaluation);
    const result = await withTrainer(options({ maxSteps: 8 }), (trainer) => trainer.run({ onEvaluation }));
    expect(evaluations.map(({ step }) => step)).toEqual([3, 6, 8]);
    expect(result.evaluation).toEqual(evaluations[2]);
    expect(new Set(evaluations.map(({ testLoss }) => testLoss)).size).toBe(3);
  });
});

/** Batch mean and unbiased variance of both batch norms of a model on a batch. */
async function batchStatistics(model: Module, x: ReturnType<typeof imagesOf>): Promise<Map<string, Float64Array>> {
  const context = trainingContext();
  model.forward(x, context);
  const tensors = context.updates.flatMap(({ statistics: { mean, variance } }) => [mean, variance]);
  const values = await evaluate(tensors);
  const names = context.updates.flatMap(({ runningMean, runningVar }) => [runningMean.name, runningVar.name]);
  return new Map(names.map((name, i) => [name, Float64Array.from(values[i])]));
}

describe.each([[[0.1, 0.1]], [[0.3, 0.05]], [[1, 0.5]]] as [[number, number]][])('running statistics with momenta %o', (momenta) => {
  test('running ← (1 − momentum)·running + momentum·batch, once a step; no event and no evaluation touches them', async () => {
    const schedule = new TrialScheduler(minMax({ lr: 0.02, every: { steps: 2 }, batch: 'both' }));
    const made = options({ model: new ConvNet(momenta), shuffle: false, schedule });
    await withTrainer(made, async (trainer) => {
      const { store } = trainer.plans;
      const statistics = store.statistics;
      expect(statistics).toHaveLength(4);
      const expected = new Map(statistics.map(({ name, data }) => [name, Float64Array.from(data)]));
      for (let step = 0; step < 5; step++) {
        // A copy of the model as it is before the step.
        const copy = new ConvNet(momenta);
        const copied = copy.namedVariables();
        for (const variable of [...store.parameters, ...statistics]) copied.get(variable.name)!.data = await store.read(variable);
        const images = Array.from({ length: 8 }, (_, i) => (step % 3) * 8 + i);
        const batch = await batchStatistics(copy, imagesOf(made, 'train', images));
        expect(trainer.isEventDue).toBe(step % 2 === 0);
        await trainer.trainStep();
        await trainer.evaluate();
        for (const { name } of statistics) {
          const momentum = name.startsWith('bn1') ? momenta[0] : momenta[1];
          expected.set(name, expected.get(name)!.map((value, i) => (1 - momentum) * value + momentum * batch.get(name)![i]));
        }
        for (const variable of statistics) {
          expectClose(await store.read(variable), expected.get(variable.name)!, { atol: 2e-6, rtol: 2e-6 });
        }
      }
    });
  });
});
