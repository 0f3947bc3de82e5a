/** Schedules in a run: in closed form, under the trials, by metrics, and past steps that are not made. */
import { describe, expect, test } from 'vitest';
import { ConstantSchedule, cosineAnnealingLr, epochs, exponentialLr, oneCycleLr, percent, perEpoch, reduceLROnPlateau, sequential, stepLr, steps, TrialScheduler, warmup } from '../../src/sched/index.ts';
import type { PureSchedule, Schedule, TrialOptions } from '../../src/sched/index.ts';
import type { LoggedStep } from '../../src/train/stepLog.ts';
import { Trainer } from '../../src/train/trainer.ts';
import type { Evaluation, TrainerOptions } from '../../src/train/trainerOptions.ts';
import { shortest } from '../../src/train/float32.ts';
import { useDevice } from '../support/device.ts';
import { minMax } from '../support/minMax.ts';
import { hostRun } from './hostTrainer.ts';
import { LinearNet, randomDataset, withTrainer } from './nets.ts';

useDevice();

/** 5 steps an epoch, 20 in all. */
const options = (schedule: Schedule, more: Partial<TrainerOptions> = {}): TrainerOptions => ({
  model: new LinearNet(), dataset: randomDataset(), batchSize: 4, epochs: 4, schedule, ...more,
});

async function stepsOf(made: TrainerOptions, logEvery = 10) {
  const [log, evaluations]: [LoggedStep[], Evaluation[]] = [[], []];
  const updates = await withTrainer(made, async (trainer) => {
    await trainer.run({ logEvery, onSteps: (some) => log.push(...some), onEvaluation: (one) => evaluations.push(one) });
    return trainer.updates;
  });
  return { log, evaluations, updates };
}

const f32 = (rate: number): number => shortest(Math.fround(rate));

describe('a schedule in closed form', () => {
  test.each<[string, PureSchedule]>([
    ['in percent', cosineAnnealingLr({ lr: 0.1, tMax: percent(100) })],
    ['in epochs', stepLr({ lr: 0.1, stepSize: epochs(2) })],
    ['an epoch at a time', perEpoch(exponentialLr({ lr: 0.1, gamma: 0.5 }))],
    ['in stretches', sequential([exponentialLr({ lr: 0.1, gamma: 0.9 }), cosineAnnealingLr({ lr: 0.05, tMax: percent(50) })], [epochs(1)])],
  ])('%s sets the rate of every step', async (_, schedule) => {
    const { log, updates } = await stepsOf(options(schedule));
    expect(log.map(({ lr }) => lr)).toEqual(schedule.preview(20, { stepsPerEpoch: 5 }));
    expect(updates).toBe(20);
  });

  test.each<[string, Schedule, Partial<TrainerOptions>, string, string]>([
    ['a cycle that ends before the run', oneCycleLr({ maxLr: 0.1, totalSteps: steps(19) }), {}, 'oneCycleLr', 'step'],
    ['one in the middle of others', sequential(
      [oneCycleLr({ maxLr: 0.1, totalSteps: steps(3) }), exponentialLr({ lr: 0.1, gamma: 0.9 })], [steps(4)]), {}, 'oneCycleLr', 'step'],
    ['a warm-up longer than the run', warmup(cosineAnnealingLr({ lr: 0.1, tMax: percent(100) }), { totalIters: epochs(4) }), {}, 'warmup', 'totalIters'],
    ['a length of no step', cosineAnnealingLr({ lr: 0.1, tMax: percent(20) }), { maxSteps: 2 }, 'cosineAnnealingLr', 'tMax'],
    ['rates past all numbers', exponentialLr({ lr: 0.1, gamma: 1e30 }), {}, 'Trainer', 'schedule'],
    ['such a base of trials', new TrialScheduler(minMax({ base: oneCycleLr({ maxLr: 1, totalSteps: steps(19) }) })), {}, 'oneCycleLr', 'step'],
  ])('that does not fit the run is refused before it begins: %s', async (_, schedule, more, op, arg) => {
    await expect(Trainer.create(options(schedule, more))).rejects.toMatchObject({ op, arg });
  });

  test('that ends with the run is not', async () => {
    const schedule = oneCycleLr({ maxLr: 0.1, totalSteps: steps(20) });
    expect((await stepsOf(options(schedule))).updates).toBe(20);
  });

  test('stays where a step is refused', async () => {
    const rates = sequential([stepLr({ lr: 0.1, stepSize: epochs(1) }), exponentialLr({ lr: 1e38, gamma: 1 })], [steps(7)]);
    const bright = { ...randomDataset(), mean: [0, 0, 0], std: [1e-3, 1e-3, 1e-3] } as TrainerOptions['dataset'];
    const { log, updates } = await stepsOf(options(rates, { dataset: bright }));
    expect(log.map(({ lr }) => lr)).toEqual(rates.preview(7, { totalSteps: 20, stepsPerEpoch: 5 }));
    expect(updates).toBe(7);
  });
});

describe('a plateau', () => {
  test('is told the test loss of every epoch, and lowers the rate of the next one', async () => {
    const schedule = reduceLROnPlateau({ lr: 0.01, patience: 0, factor: 0.5, threshold: 0.9 });
    const { log, evaluations } = await stepsOf(options(schedule));
    const twin = reduceLROnPlateau(schedule.options);
    const rates = twin.preview(evaluations.map(({ testLoss }) => testLoss));
    expect(new Set(rates).size).toBeGreaterThan(2);
    expect(log.map(({ lr }) => lr)).toEqual(rates.flatMap((rate) => Array<number>(5).fill(rate)));
    expect(schedule.state()).toEqual(twin.state());
  });

  test("with mode 'max' is told the accuracy", async () => {
    const schedule = reduceLROnPlateau({ lr: 0.01, mode: 'max', patience: 0, threshold: 0.9 });
    const { evaluations } = await stepsOf(options(schedule));
    const twin = reduceLROnPlateau(schedule.options);
    twin.preview(evaluations.map(({ testAccuracy }) => testAccuracy));
    expect(schedule.state()).toEqual(twin.state());
  });

  test('needs evaluations', async () => {
    await withTrainer(options(reduceLROnPlateau({ lr: 0.01 })), async (trainer) => {
      await expect(trainer.run({ evaluate: false })).rejects.toThrow(expect.objectContaining({ arg: 'evaluate' }));
    });
  });
});

describe('a base under the trials', () => {
  const base = sequential([stepLr({ lr: 0.1, stepSize: steps(4), gamma: 0.5 }), cosineAnnealingLr({ lr: 0.02, tMax: percent(100) })], [epochs(2)]);
  const onHost: Partial<TrialOptions> = { normalize: 'none', score: (losses) => losses.map((loss) => Math.exp(-loss)) };

  const paths: [string, Partial<TrialOptions>][] = [['on the GPU', {}], ['on the host', onHost]];
  test.each(paths)('trials at base · m · f, steps at base · m, %s', async (_, more) => {
    const make = () => new TrialScheduler(minMax({ base, every: { steps: 3 }, ...more }));
    const schedule = make();
    expect(schedule.lr).toBe(1);
    const { log } = await stepsOf(options(schedule));
    const host = hostRun(new LinearNet(), { dataset: randomDataset(), batchSize: 4, schedule: make(), steps: 20 });
    expect(schedule.events).toHaveLength(7);
    schedule.events.forEach(({ losses, lrAfter }, i) => {
      losses.forEach((loss, j) => expect(Math.abs(loss - host.events[i].losses[j])).toBeLessThan(1e-4));
      expect(Math.abs(lrAfter / host.events[i].lrAfter - 1)).toBeLessThan(1e-3);
    });
    const rates = base.preview(20, { stepsPerEpoch: 5 });
    log.forEach(({ lr, step }) => {
      const { lrAfter } = schedule.events.findLast((event) => event.step <= step)!;
      expect(Math.abs(lr / (lrAfter * rates[step]) - 1)).toBeLessThan(1e-6);
    });
  });

  test('goes into the state, and refuses another', () => {
    const make = (gamma: number) => new TrialScheduler(minMax({ base: exponentialLr({ lr: 0.1, gamma }) }));
    const state = JSON.parse(JSON.stringify(make(0.9).state())) as ReturnType<TrialScheduler['state']>;
    const fresh = make(0.9);
    fresh.load(state);
    expect(fresh.lrAt(5)).toBe(make(0.9).lrAt(5));
    expect(() => make(0.8).load(state)).toThrow(expect.objectContaining({ arg: 'state.parameters' }));
    const without = new TrialScheduler(minMax({ envelope: 'none' }));
    expect(() => without.load(state)).toThrow(expect.objectContaining({ arg: 'state.base' }));
  });

  test('replaces the envelope, and is in closed form', () => {
    expect(() => new TrialScheduler(minMax({ base, envelope: 'cosine' }))).toThrow(expect.objectContaining({ arg: 'envelope' }));
    expect(() => new TrialScheduler(minMax({ base: new ConstantSchedule({ lr: 1 }) as never }))).toThrow(expect.objectContaining({ arg: 'base' }));
  });
});

describe('steps that overflow in mixed precision', () => {
  const rates = exponentialLr({ lr: 0.1, gamma: 0.9 });
  const lossScaling = { initScale: 2 ** 24, growthInterval: 2 };
  const mixed = (schedule: Schedule): TrainerOptions => options(schedule, { precision: 'mixed', lossScaling });

  test.each([1, 3, 256])('do not advance a schedule, with the log read every %d steps', async (logEvery) => {
    const { log, updates } = await stepsOf(mixed(rates), logEvery);
    let update = 0;
    for (const { lr, skipped } of log) {
      expect(lr).toBe(f32(rates.lrAt(update)));
      update += Number(!skipped);
    }
    expect(log.length).toBe(20);
    expect(update).toBe(updates);
    // Skipped ones at the start and between others.
    const skips = log.filter(({ skipped }) => skipped).map(({ step }) => step);
    expect(skips[0]).toBe(0);
    expect(log.slice(0, skips.at(-1)).some(({ skipped }) => !skipped)).toBe(true);
  });

  test('nor the base of trials', async () => {
    const schedule = new TrialScheduler(minMax({ base: rates, every: { steps: 2 }, factors: [2, 1, 0.5] }));
    const { log } = await stepsOf(mixed(schedule), 256);
    let update = 0;
    for (const { lr, skipped, step } of log) {
      const m = schedule.events.findLast((event) => event.step <= step)?.lrAfter ?? 1;
      expect(Math.abs(lr / (m * rates.lrAt(update)) - 1)).toBeLessThan(1e-6);
      update += Number(!skipped);
    }
    expect(update).toBeLessThan(20);
    expect(update).toBeGreaterThan(5);
  });
});
