/** Runs of softmax regression against the same training in float64 on the host: which images, at what rate, along what, scored on what. */
import { describe, expect, test } from 'vitest';
import { AttrError } from '../../src/gpu/errors.ts';
import { linearLr, steps } from '../../src/sched/index.ts';
import { ConstantSchedule, type Schedule } from '../../src/sched/schedule.ts';
import { asPublished, type TrialOptions } from '../../src/sched/trialOptions.ts';
import { TrialScheduler, type TrialEvent, type TriedOptimizer } from '../../src/sched/trialScheduler.ts';
import type { LoggedStep } from '../../src/train/stepLog.ts';
import type { TrainerOptions } from '../../src/train/trainerOptions.ts';
import { expectClose } from '../support/close.ts';
import { useDevice } from '../support/device.ts';
import { minMax } from '../support/minMax.ts';
import { hostRun, weightsOf } from './hostTrainer.ts';
import { LinearNet, randomDataset, withTrainer } from './nets.ts';

useDevice();

/** Whose rule is overridden, so that the host is asked. */
class HostScheduler extends TrialScheduler {
  override apply(...args: Parameters<TrialScheduler['apply']>): TrialEvent {
    return super.apply(...args);
  }
}

interface Row {
  readonly name: string;
  readonly schedule: () => Schedule;
  readonly more?: Partial<TrainerOptions>;
  /** Steps at which events come. @default none */
  readonly events?: readonly number[];
}

const lr = 0.002;
const constant = () => new ConstantSchedule({ lr });
const trial = (overrides: Partial<TrialOptions>) => () => new TrialScheduler(minMax({ lr, every: { steps: 2 }, ...overrides }));
const published = (overrides: Partial<TrialOptions> = {}) => () => new TrialScheduler(asPublished('factor5', { lr, ...overrides }));
const momentum = { momentum: 0.9, weightDecay: 0.01 };
const nesterov = { momentum: 0.9, nesterov: true };
/** A gate takes a factor whole: larger ones end in losses of no digits within the run. */
const gentle = [1.5, 1.25, 1, 0.8, 0.6];
const rising = () => linearLr({ lr, startFactor: 0.5, totalIters: steps(20) });
/** All forms of the direction that the slope is along. */
const damped = { momentum: 0.8, dampening: 0.4, weightDecay: 0.1 };
const gated = [{}, { weightDecay: 0.3 }, momentum, { ...nesterov, weightDecay: 0.1 }, damped] as const;
const everySecond = [0, 2, 4, 6, 8, 10, 12];

/** 22 images in batches of 4: five steps an epoch, two images left over; 13 steps reach into the third epoch. */
const rows: Row[] = [
  { name: 'constant rate, shuffled', schedule: constant },
  { name: 'constant rate, in order', schedule: constant, more: { shuffle: false } },
  { name: 'another seed', schedule: constant, more: { seed: 0xfffffff1 } },
  { name: 'cosine envelope', schedule: () => new ConstantSchedule({ lr, envelope: 'cosine' }), more: { optimizer: momentum } },
  { name: 'crops and flips', schedule: constant, more: { augment: 'crop-flip', seed: 7 } },
  { name: 'weight decay alone', schedule: constant, more: { optimizer: { weightDecay: 0.3 } } },
  { name: 'momentum with dampening', schedule: constant, more: { optimizer: { momentum: 0.8, dampening: 0.4 } } },
  { name: 'nesterov, label smoothing', schedule: constant, more: { optimizer: { ...momentum, nesterov: true }, labelSmoothing: 0.2 } },
  { name: 'batch of one image', schedule: constant, more: { batchSize: 1 } },
  { name: 'as published', schedule: published(), events: [0, 5, 10] },
  { name: 'as published, with momentum', schedule: published(), more: { optimizer: momentum }, events: [0, 5, 10] },
  { name: 'gradient, nesterov', schedule: published({ every: { steps: 3 } }), more: { optimizer: nesterov }, events: [0, 3, 6, 9, 12] },
  { name: 'gradient, without weight decay', schedule: published(), more: { optimizer: { weightDecay: 0.3 } }, events: [0, 5, 10] },
  {
    name: 'robust', schedule: trial({ every: { perEpoch: 4 } }), more: { optimizer: momentum }, events: [0, 1, 2, 3, 5, 6, 7, 8, 10, 11, 12],
  },
  { name: 'robust, plain SGD', schedule: trial({}), events: everySecond },
  { name: 'robust, weight decay in the direction', schedule: trial({}), more: { optimizer: { weightDecay: 0.3 } }, events: everySecond },
  { name: 'robust, nesterov', schedule: trial({}), more: { optimizer: nesterov }, events: everySecond },
  {
    name: 'held-out images, at the end of an epoch round the order', schedule: trial({ batch: 'heldOut', every: { steps: 1 } }),
    more: { optimizer: momentum }, events: Array.from({ length: 13 }, (_, i) => i),
  },
  { name: 'both batches', schedule: trial({ batch: 'both' }), more: { optimizer: momentum }, events: everySecond },
  { name: 'scored on part of the batch', schedule: trial({ scoreBatch: 3 }), more: { optimizer: momentum }, events: everySecond },
  { name: 'scored on more than the batch', schedule: trial({ scoreBatch: 7, batch: 'both' }), events: everySecond },
  { name: 'scored on all images', schedule: trial({ scoreBatch: 22, batch: 'heldOut' }), events: everySecond },
  {
    name: 'held-out images, cropped and flipped', schedule: trial({ batch: 'both', scoreBatch: 5 }),
    more: { augment: 'crop-flip', optimizer: momentum }, events: everySecond,
  },
  { name: 'trials with label smoothing', schedule: trial({}), more: { labelSmoothing: 0.3 }, events: everySecond },
  {
    name: 'gain relative to the present loss', schedule: trial({ score: 'relGain', normalize: 'none' }),
    more: { optimizer: momentum }, events: everySecond,
  },
  ...(['same', 'heldOut', 'both'] as const).map((batch): Row => ({
    name: `paired noise, ${batch}`, schedule: trial({ score: 'pairedNoise', batch, scoreBatch: 5, kappa: 2 }),
    more: { optimizer: momentum, labelSmoothing: 0.1 }, events: everySecond,
  })),
  {
    name: 'paired noise over a grid', events: everySecond, more: { optimizer: momentum },
    schedule: trial({ score: 'pairedNoise', factors: { lr: [1.5, 1, 0.6], momentum: [0.9, 0.5] } }),
  },
  {
    name: 'paired noise, scored on the host', more: { optimizer: momentum }, events: everySecond,
    schedule: () => new HostScheduler(minMax({ lr, factors: gentle, every: { steps: 2 }, score: 'pairedNoise', batch: 'both' })),
  },
  ...gated.flatMap((optimizer): Row[] => [
    {
      name: `Armijo gate, ${JSON.stringify(optimizer)}`, more: { optimizer }, events: everySecond,
      schedule: trial({ score: 'armijo', factors: gentle, c: 0.3 }),
    },
    {
      name: `Armijo gate along the gradient, held-out images, ${JSON.stringify(optimizer)}`, more: { optimizer }, events: everySecond,
      schedule: trial({ score: 'armijo', factors: gentle, direction: 'gradient', batch: 'heldOut', c: 0.4 }),
    },
  ]),
  {
    name: 'Armijo gate on a base, scored on the host', more: { optimizer: momentum }, events: everySecond,
    schedule: () => new HostScheduler(minMax({ every: { steps: 2 }, score: 'armijo', factors: gentle, base: rising() })),
  },
  {
    name: 'Armijo gate on a base', more: { optimizer: momentum }, events: everySecond,
    schedule: trial({ lr: 1, score: 'armijo', factors: gentle, envelope: 'none', base: rising() }),
  },
  ...(['exp', 'pairedNoise', 'armijo'] as const).map((score): Row => ({
    name: `shuffled losses, ${score}`, schedule: trial({ score, control: 'shuffledLosses', factors: gentle }),
    more: { optimizer: momentum, seed: 5 }, events: everySecond,
  })),
  {
    name: 'shuffled losses, a score of one\'s own', more: { optimizer: momentum, seed: 9 }, events: everySecond,
    schedule: trial({
      control: 'shuffledLosses', factors: gentle, score: (losses, { factors }) => losses.map((loss, i) => Math.exp(-loss / factors[i])),
    }),
  },
  {
    name: 'blind drift', more: { optimizer: momentum }, events: [0, 2, 5, 7, 10, 12],
    schedule: published({ control: 'blindDrift', every: { perEpoch: 2 } }),
  },
  ...([momentum, nesterov, { momentum: 0.8, dampening: 0.4, weightDecay: 0.02 }] as const).map((optimizer): Row => ({
    name: `a grid over momentum and weight decay, ${JSON.stringify(optimizer)}`, events: everySecond, more: { optimizer },
    schedule: trial({ factors: { lr: [2, 0.5], momentum: [0.95, 0.7], weightDecay: [0.3, 0.03] } }),
  })),
  {
    name: 'a grid over momentum alone, held-out images', events: everySecond, more: { optimizer: momentum },
    schedule: trial({ factors: { lr: [4, 1, 0.25], momentum: [0.97, 0.5] }, batch: 'both' }),
  },
  {
    name: 'a grid over weight decay alone, plain SGD', events: everySecond, more: { optimizer: { weightDecay: 0.1 } },
    schedule: trial({ factors: { lr: [2, 1, 0.5], weightDecay: [0.5, 0.01] }, scoreBatch: 3 }),
  },
  {
    name: 'a grid, scored on the host', events: everySecond, more: { optimizer: { momentum: 0.8, dampening: 0.4, weightDecay: 0.02 } },
    schedule: trial({
      factors: { lr: [2, 0.5], momentum: [0.95, 0.7], weightDecay: [0.3, 0.03] }, normalize: 'none',
      score: (losses, { baseLoss }) => losses.map((loss) => Math.exp(3 * (baseLoss! - loss))),
    }),
  },
  ...[1, 2, 3, 4, 5, 6, 7].map((n): Row => ({
    name: `${n} trials`, schedule: trial({ factors: [1, 2, 0.5, 4, 0.25, 8, 0.125].slice(0, n), anchor: false }),
    more: { optimizer: momentum }, events: everySecond,
  })),
];

async function gpuRun(options: TrainerOptions): Promise<{ steps: LoggedStep[]; events: TrialEvent[] }> {
  const steps: LoggedStep[] = [];
  const events: TrialEvent[] = [];
  await withTrainer(options, async (trainer) => {
    const result = await trainer.run({ onSteps: (some) => steps.push(...some), onEvent: (event) => events.push(event), evaluate: false });
    expect(result).toEqual({ steps: options.maxSteps, divergence: null, aborted: false, evaluation: null });
  });
  return { steps, events };
}

describe.each(rows)('$name', ({ schedule, more = {}, events: due = [] }) => {
  test('losses, rates, events and final weights are those of float64', async () => {
    const dataset = randomDataset();
    const batchSize = more.batchSize ?? 4;
    const maxSteps = 13;
    const model = new LinearNet();
    const host = hostRun(model, { dataset, batchSize, steps: maxSteps, ...more, schedule: schedule() });
    const own = schedule();
    const gpu = await gpuRun({ dataset, batchSize, epochs: 5, ...more, maxSteps, model, schedule: own });

    expect(gpu.steps.map(({ step }) => step)).toEqual(host.steps.map(({ step }) => step));
    expectClose(gpu.steps.map(({ loss }) => loss), host.steps.map(({ loss }) => loss), { atol: 1e-6, rtol: 2e-5 });
    expectClose(gpu.steps.map(({ lr: rate }) => rate), host.steps.map(({ lr: rate }) => rate), { atol: 0, rtol: 1e-4 });
    expect(gpu.events.map(({ step }) => step)).toEqual(due);
    gpu.events.forEach((event, i) => {
      expectClose(event.losses, host.events[i].losses, { atol: 1e-6, rtol: 2e-5 });
      const rates = ({ lrBefore, lrAfter, multiplier }: TrialEvent) => [lrBefore, lrAfter, multiplier];
      expectClose(rates(event), rates(host.events[i]), { atol: 0, rtol: 1e-4 });
      expect(event.optimizer === undefined).toBe(host.events[i].optimizer === undefined);
      const hasOwnScore = own instanceof TrialScheduler && typeof own.options.score === 'function';
      const isOnHost = own instanceof HostScheduler || hasOwnScore || event.control === 'blindDrift';
      expect(event.path).toBe(isOnHost ? 'host' : 'gpu');
      expect([event.control, event.order]).toEqual([host.events[i].control, host.events[i].order]);
      expectClose([event.slope ?? -1], [host.events[i].slope ?? -1], { atol: 0, rtol: 1e-4 });
      // A difference of samples is as exact as they are.
      if (event.pairs) expectClose([...event.pairs.differences], [...host.events[i].pairs!.differences], { atol: 5e-6, rtol: 1e-4 });
      if (event.pairs) expectClose([...event.pairs.standardErrors], [...host.events[i].pairs!.standardErrors], { atol: 5e-6, rtol: 1e-3 });
      if (event.optimizer) {
        const numbers = ({ after }: TriedOptimizer) => [after.momentum ?? -1, after.weightDecay ?? -1];
        expectClose(numbers(event.optimizer), numbers(host.events[i].optimizer!), { atol: 0, rtol: 1e-4 });
      }
    });
    if (own instanceof TrialScheduler) {
      expect(own.events).toEqual(gpu.events);
      // The scale has moved, unless the only trial is the scale itself.
      if (own.options.factors.length > 1) expect(own.lr).not.toBe(lr);
    }
    const final = weightsOf(model);
    expectClose(final.weight, host.final.weight, { atol: 2e-6, rtol: 2e-5 });
    expectClose(final.bias, host.final.bias, { atol: 2e-6, rtol: 2e-5 });
  });
});

test('rows tell their losses apart: no two batches of a run have the same loss', () => {
  const schedule = new ConstantSchedule({ lr: 1e-9 });
  const { steps } = hostRun(new LinearNet(), { dataset: randomDataset(), batchSize: 4, steps: 13, schedule });
  const sorted = steps.map(({ loss }) => loss).sort((a, b) => a - b);
  for (let i = 1; i < sorted.length; i++) expect(sorted[i] - sorted[i - 1]).toBeGreaterThan(1e-3);
});

const ignored = [['batch', { batch: 8 }], ['lr', { lr: 0.1 }], ['shuffle', { shuffle: 'no' }]] as const;
test.each(ignored)('%s: options that would be ignored are refused', async (arg, more) => {
  const schedule = new ConstantSchedule({ lr: 1 });
  const made = withTrainer({ model: new LinearNet(), dataset: randomDataset(), batchSize: 4, schedule, ...(more as object) }, async () => {});
  await expect(made).rejects.toThrow(expect.objectContaining({ arg }));
});

test('a score batch larger than the training set is refused', async () => {
  const schedule = trial({ scoreBatch: 23 })();
  const made = withTrainer({ model: new LinearNet(), dataset: randomDataset(), batchSize: 4, schedule }, async () => {});
  await expect(made).rejects.toThrow(AttrError);
});
