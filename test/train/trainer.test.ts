/** The loop around the steps: repeatability, order, cadence, logging, ending. */
import { describe, expect, test } from 'vitest';
import { ConstantSchedule } from '../../src/sched/schedule.ts';
import { asPublished, type TrialOptions, robust } from '../../src/sched/trialOptions.ts';
import { TrialScheduler } from '../../src/sched/trialScheduler.ts';
import { AttrError } from '../../src/gpu/errors.ts';
import type { LoggedStep } from '../../src/train/stepLog.ts';
import { Trainer } from '../../src/train/trainer.ts';
import type { Evaluation, RunCallbacks, RunResult, TrainerOptions } from '../../src/train/trainerOptions.ts';
import { useDevice } from '../support/device.ts';
import { minMax } from '../support/minMax.ts';
import { ConvNet, randomDataset, ratesAt, withTrainer } from './nets.ts';

useDevice();

const options = (more: Partial<TrainerOptions> = {}): TrainerOptions => ({
  model: new ConvNet(), dataset: randomDataset(), batchSize: 4, epochs: 2, optimizer: { momentum: 0.9, weightDecay: 5e-4 },
  schedule: new ConstantSchedule({ lr: 0.05 }), ...more,
});

interface Outcome {
  readonly result: RunResult;
  readonly steps: LoggedStep[];
  /** Step numbers of each call. */
  readonly told: number[][];
  readonly evaluations: Evaluation[];
  readonly weights: Float32Array[];
}

async function runOf(more: Partial<TrainerOptions> = {}, callbacks: RunCallbacks = {}): Promise<Outcome> {
  const made = options(more);
  const [steps, told, evaluations]: [LoggedStep[], number[][], Evaluation[]] = [[], [], []];
  const result = await withTrainer(made, (trainer) => trainer.run({
    ...callbacks,
    onSteps: (some) => {
      steps.push(...some);
      told.push(some.map(({ step }) => step));
      callbacks.onSteps?.(some);
    },
    onEvaluation: (evaluation) => {
      evaluations.push(evaluation);
      callbacks.onEvaluation?.(evaluation);
    },
  }));
  return { result, steps, told, evaluations, weights: made.model.variables().map(({ data }) => data) };
}

const range = (n: number) => Array.from({ length: n }, (_, i) => i);

describe('the same seed gives the same bits', () => {
  const cases: [string, () => Partial<TrainerOptions>][] = [
    ['shuffled', () => ({})],
    ['cropped and flipped', () => ({ augment: 'crop-flip' })],
    ['with trials', () => ({ augment: 'crop-flip', schedule: new TrialScheduler(robust({ lr: 0.05, batch: 'both' })) })],
  ];

  test.each(cases)('%s; another seed gives others', async (_, make) => {
    const first = await runOf({ ...make(), seed: 5 });
    const again = await runOf({ ...make(), seed: 5 });
    const other = await runOf({ ...make(), seed: 6 });
    expect(again).toEqual(first);
    expect(other.steps.map(({ loss }) => loss)).not.toEqual(first.steps.map(({ loss }) => loss));
    expect(other.weights).not.toEqual(first.weights);
  });

  test('evaluations between steps and reading the log change nothing', async () => {
    const quiet = await runOf({ epochs: 3 }, { evaluate: false, logEvery: 256 });
    const busy = await runOf({ epochs: 3 }, { logEvery: 1 });
    expect(busy.weights).toEqual(quiet.weights);
    expect(busy.steps).toEqual(quiet.steps);
    expect(busy.evaluations).toHaveLength(3);
    expect(quiet.evaluations).toHaveLength(0);
  });

  test('without a shuffle the seed does not matter, with crops it does', async () => {
    const of = async (seed: number, augment: 'none' | 'crop-flip') => (await runOf({ shuffle: false, seed, augment })).steps;
    expect(await of(1, 'none')).toEqual(await of(2, 'none'));
    expect(await of(1, 'crop-flip')).not.toEqual(await of(2, 'crop-flip'));
    expect(await of(1, 'crop-flip')).not.toEqual(await of(1, 'none'));
  });
});

describe('events come when they are due', () => {
  // 5 steps an epoch.
  const cases: [string, Partial<TrialOptions>, number[]][] = [
    ['every epoch', { every: { epochs: 1 } }, [0, 5, 10, 15]],
    ['every other epoch', { every: { epochs: 2 } }, [0, 10]],
    ['twice an epoch', { every: { perEpoch: 2 } }, [0, 2, 5, 7, 10, 12, 15, 17]],
    ['four times an epoch', { every: { perEpoch: 4 } }, [0, 1, 2, 3, 5, 6, 7, 8, 10, 11, 12, 13, 15, 16, 17, 18]],
    ['every 7 steps', { every: { steps: 7 } }, [0, 7, 14]],
  ];

  test.each(cases)('%s', async (_, overrides, due) => {
    const schedule = new TrialScheduler(asPublished('factor3', { ...overrides, lr: 0.05 }));
    const events: number[] = [];
    const told: string[] = [];
    const { steps } = await runOf({ schedule, epochs: 4 }, {
      logEvery: 3,
      onSteps: (some) => told.push(...some.map(({ step }) => `step ${step}`)),
      onEvent: ({ step }) => {
        events.push(step);
        told.push(`event ${step}`);
      },
      onEvaluation: ({ step }) => told.push(`evaluation ${step}`),
    });
    expect(events).toEqual(due);
    expect(schedule.events.map(({ step }) => step)).toEqual(due);
    // An event comes before its step, and after all steps before it; an evaluation after the last step of its epoch.
    const expected = range(20).flatMap((step) => [
      ...(due.includes(step) ? [`event ${step}`] : []), `step ${step}`, ...(step % 5 === 4 ? [`evaluation ${step + 1}`] : []),
    ]);
    expect(told).toEqual(expected);
    // Between events the rate stays; each event's goes to the steps from it on.
    for (const { step, lr } of steps) expect(lr).toBe(schedule.events.findLast((event) => event.step <= step)!.lrAfter);
  });

  test.each(['asPublished', 'robust'] as const)('%s: each step is made at the rate the schedule gives, and that moves', async (preset) => {
    const scheduler = new TrialScheduler(preset === 'robust' ? robust({ lr: 0.01, search: { events: 2, every: 3 } }) : asPublished('factor5', { lr: 0.05 }));
    const asked: { step: number; lr: number; total: number | undefined }[] = [];
    const lrAt = scheduler.lrAt.bind(scheduler);
    scheduler.lrAt = (step, total) => {
      const lr = lrAt(step, total);
      asked.push({ step, lr, total });
      return lr;
    };
    const { steps } = await runOf({ schedule: scheduler, epochs: 3, maxSteps: 12 });
    expect(asked).toEqual(steps.map(({ step, lr }) => ({ step, lr, total: 12 })));
    expect(steps).toHaveLength(12);
    if (preset === 'robust') expect(scheduler.events.some(({ lrAfter, lrBefore }) => lrAfter !== lrBefore)).toBe(true);
    else expect(new Set(scheduler.events.map(({ lrAfter }) => lrAfter)).size).toBe(scheduler.events.length);
    if (preset === 'robust') expect(steps[11].lr).toBeLessThan(0.05 * scheduler.events.at(-1)!.lrAfter);
    else expect(steps[11].lr).toBe(scheduler.lr);
  });

  test('any object that says a rate is a schedule', async () => {
    const schedule = { ...ratesAt((step) => (step + 1) / 100), isDue: () => true };
    const { steps, result } = await runOf({ schedule, maxSteps: 6 });
    expect(steps.map(({ lr }) => lr)).toEqual([0.01, 0.02, 0.03, 0.04, 0.05, 0.06]);
    expect(result.divergence).toBeNull();
  });
});

describe('run', () => {
  test('onSteps gives every step once, in order: every logEvery steps, and at the ends of epochs', async () => {
    const { told } = await runOf({ epochs: 3, maxSteps: 14 }, { logEvery: 4 });
    expect(told).toEqual([[0, 1, 2, 3], [4], [5, 6, 7], [8, 9], [10, 11], [12, 13]]);
    expect((await runOf({ epochs: 2 }, { logEvery: 1 })).told).toEqual(range(10).map((step) => [step]));
    expect((await runOf({ epochs: 2 }, { logEvery: 256 })).told).toEqual([range(5), range(10).slice(5)]);
  });

  test('the length is that of the epochs, or maxSteps', async () => {
    const lengthOf = async (more: Partial<TrainerOptions>) => {
      const { result, steps } = await runOf(more, { evaluate: false });
      expect(steps).toHaveLength(result.steps);
      return result.steps;
    };
    expect(await lengthOf({ epochs: 1 })).toBe(5);
    expect(await lengthOf({ epochs: 3, batchSize: 10 })).toBe(6);
    expect(await lengthOf({ epochs: 2, batchSize: 22 })).toBe(2);
    expect(await lengthOf({ epochs: 2, maxSteps: 3 })).toBe(3);
    expect(await lengthOf({ epochs: 1, maxSteps: 30 })).toBe(5);
  });

  test('a signal ends it after the step in progress, with all steps told', async () => {
    const controller = new AbortController();
    const { result, steps, evaluations } = await runOf({ epochs: 50 }, {
      signal: controller.signal, logEvery: 3, onSteps: (some) => {
        if (some.some(({ step }) => step === 5)) controller.abort();
      },
    });
    // Told at 3, 5 (an epoch), 6, where step 5 is in, each while the step after it is made.
    expect(result).toMatchObject({ steps: 7, aborted: true, divergence: null });
    expect(steps.map(({ step }) => step)).toEqual(range(7));
    expect(result.evaluation).toEqual(evaluations.at(-1));
    expect(evaluations).toHaveLength(1);
  });

  test('a signal in the middle of a step lets it end, and is told of the steps since the last read', async () => {
    const controller = new AbortController();
    const schedule = ratesAt((step) => {
      if (step === 7) controller.abort();
      return 0.05;
    });
    const { result, told } = await runOf({ epochs: 50, schedule }, { signal: controller.signal });
    expect(result).toMatchObject({ steps: 8, aborted: true, divergence: null });
    expect(told).toEqual([range(5), [5, 6, 7]]);
  });

  test('a signal that was given before the start: no step is made', async () => {
    const { result, steps } = await runOf({}, { signal: AbortSignal.abort() });
    expect(result).toEqual({ steps: 0, divergence: null, aborted: true, evaluation: null });
    expect(steps).toEqual([]);
  });

  test.each([0, -1, 1.5, 257, NaN])('logEvery %s is refused', async (logEvery) => {
    await expect(runOf({}, { logEvery })).rejects.toMatchObject({ constructor: AttrError, arg: 'logEvery' });
  });

  test('goes on where it was ended', async () => {
    const whole = await runOf({ epochs: 2 });
    const steps: LoggedStep[] = [];
    await withTrainer(options({ epochs: 2 }), async (trainer) => {
      for (let i = 0; i < 3; i++) await trainer.trainStep();
      steps.push(...await trainer.losses());
      const controller = new AbortController();
      const part = await trainer.run({
        signal: controller.signal, logEvery: 1, onSteps: (some) => {
          steps.push(...some);
          if (trainer.step === 7) controller.abort();
        },
      });
      expect(part.steps).toBe(7);
      expect((await trainer.run({ onSteps: (some) => steps.push(...some) })).steps).toBe(10);
    });
    expect(steps).toEqual(whole.steps);
  });
});

test('a loop of one\'s own that reads no losses for long gets all of them', async () => {
  await withTrainer(options({ epochs: 120 }), async (trainer) => {
    for (let i = 0; i < 600; i++) await trainer.trainStep();
    expect((await trainer.losses()).map(({ step }) => step)).toEqual(range(600));
    expect(await trainer.losses()).toEqual([]);
  });
});

test('a loop of one\'s own that asks for no events for long gets all of them, and its schedule too', async () => {
  const schedule = new TrialScheduler(minMax({ lr: 0.05, factors: [2, 0.5], every: { steps: 1 }, scoreBatch: 1 }));
  await withTrainer(options({ epochs: 40, schedule }), async (trainer) => {
    for (let i = 0; i < 150; i++) await trainer.trainStep();
    const events = await trainer.events();
    expect(events.map(({ step }) => step)).toEqual(range(150));
    expect(schedule.events).toEqual(events);
    // Each goes on from the one before, and the steps were made at what they say.
    for (let i = 1; i < 150; i++) expect(events[i].lrBefore).toBe(events[i - 1].lrAfter);
    const steps = await trainer.losses();
    const rates = events.map(({ step, lrAfter }) => Math.fround(lrAfter) * Math.fround(schedule.envelopeAt(step, trainer.totalSteps)));
    expect(steps.map(({ lr }) => Math.fround(lr))).toEqual(rates.map(Math.fround));
  });
});

test('a state that is loaded between steps is what the next step is made with', async () => {
  const made = () => new TrialScheduler(asPublished('factor3', { lr: 0.05, every: { steps: 3 } }));
  const schedule = made();
  const other = made();
  other.apply(1, [1, 2, 3]);
  await withTrainer(options({ schedule }), async (trainer) => {
    for (let i = 0; i < 2; i++) await trainer.trainStep();
    schedule.load(other.state());
    for (let i = 0; i < 2; i++) await trainer.trainStep();
    const [first, second] = await trainer.events();
    // The event at 0 was still on its way: it is told, and what was loaded stands.
    expect([first.step, second.step]).toEqual([0, 3]);
    expect(Math.fround(second.lrBefore)).toBe(Math.fround(other.lr));
    const rates = (await trainer.losses()).map(({ lr }) => lr);
    expect(rates).toEqual([first.lrAfter, first.lrAfter, second.lrBefore, second.lrAfter]);
    expect(schedule.events.map(({ step }) => step)).toEqual([1, 3]);
    expect(schedule.lr).toBe(second.lrAfter);
  });
});

test('a step after the last one is refused, and nothing is told of it', async () => {
  const schedule = new TrialScheduler(minMax({ lr: 0.05, factors: 'factor3', every: { steps: 1 } }));
  await withTrainer(options({ maxSteps: 2, schedule }), async (trainer) => {
    // The envelope ends at step 2, with rate 0.
    for (let i = 0; i < 3; i++) await trainer.trainStep();
    for (let i = 0; i < 2; i++) await expect(trainer.trainStep()).rejects.toThrow(expect.objectContaining({ arg: 'step' }));
    expect((await trainer.losses()).map(({ step }) => step)).toEqual([0, 1, 2]);
    expect((await trainer.events()).map(({ step }) => step)).toEqual([0, 1, 2]);
  });
});

test('a scheduler is of one trainer, and of one run', async () => {
  const schedule = new TrialScheduler(minMax({ lr: 0.05, factors: 'factor3' }));
  const refusal = expect.objectContaining({ op: 'Trainer', arg: 'schedule' });
  const refused = () => expect(Trainer.create(options({ schedule }))).rejects.toThrow(refusal);
  await expect(Trainer.create(options({ schedule, batchSize: 1000 }))).rejects.toThrow(expect.objectContaining({ arg: 'batchSize' }));
  await withTrainer(options({ schedule }), refused);
  await withTrainer(options({ schedule }), async (trainer) => {
    await trainer.trainStep();
    expect(await trainer.events()).toHaveLength(1);
  });
  await refused();
});

test('what a score of one\'s own throws ends the run: a second try would give the momentum the same gradient again', async () => {
  let asked = 0;
  const score = (losses: readonly number[]) => {
    if (++asked === 2) throw new Error('no score today');
    return losses.map((loss) => 1 / loss);
  };
  const schedule = new TrialScheduler(minMax({ lr: 0.05, factors: 'factor3', every: { steps: 2 }, normalize: 'none', score }));
  await withTrainer(options({ schedule }), async (trainer) => {
    for (let i = 0; i < 2; i++) await trainer.trainStep();
    for (let i = 0; i < 2; i++) await expect(trainer.trainStep()).rejects.toThrow('no score today');
    expect(trainer.step).toBe(2);
    expect(asked).toBe(2);
    expect(await trainer.losses()).toHaveLength(2);
  });
});
