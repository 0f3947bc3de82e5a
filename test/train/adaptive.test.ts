/** Rules in a trainer: calls, memory, log, the second point, going on from a state, skipped steps, divergence. */
import { beforeAll, describe, expect, test } from 'vitest';
import { proceduralDataset } from '../../src/data/procedural.ts';
import { AttrError } from '../../src/gpu/errors.ts';
import { align } from '../../src/graph/memory.ts';
import { sizeBytes, type Storage, type Variable } from '../../src/graph/tensor.ts';
import { resnet18 } from '../../src/nn/resnet.ts';
import type { SgdOptions } from '../../src/optim/sgd.ts';
import {
  aliG, cdat, ConstantSchedule, dog, hypergradient, pal, scheduleFree, slsArmijo, sps, steps,
  type AdaptiveSchedule, type RuleWords, type StepFacts,
} from '../../src/sched/index.ts';
import { decodeCheckpoint, encodeCheckpoint } from '../../src/train/checkpoint.ts';
import type { LoggedStep } from '../../src/train/stepLog.ts';
import { Trainer } from '../../src/train/trainer.ts';
import type { TrainerOptions } from '../../src/train/trainerOptions.ts';
import { expectClose } from '../support/close.ts';
import { testDevice, useDevice } from '../support/device.ts';
import { LesserDevice } from '../support/lesserDevice.ts';
import { countCalls, creations, totalBytes, withLiveBuffers } from './gpuCalls.ts';
import { ConvNet, LinearNet, randomDataset, withTrainer } from './nets.ts';

const device = useDevice();
beforeAll(async () => void (await testDevice()));

const made: Record<string, () => AdaptiveSchedule> = {
  sps: () => sps({ c: 2 }), aliG, hypergradient: () => hypergradient({ lr: 0.02, hypergradLr: 1e-3 }), dog: () => dog({ repsRel: 1e-2 }),
  scheduleFree: () => scheduleFree({ lr: 0.1, warmupSteps: steps(3) }), slsArmijo: () => slsArmijo({ trials: 5, beta: 0.6 }),
  pal: () => pal({ measuringStep: 0.1 }), cdat: () => cdat({ sigma: 1, maxLr: 0.5 }),
};
const names = Object.keys(made);
/** Those that want no momentum. */
const spared = ['dog', 'scheduleFree'];
const nesterov = { momentum: 0.8, nesterov: true };

const options = (schedule: TrainerOptions['schedule'], more: Partial<TrainerOptions> = {}): TrainerOptions =>
  ({ model: new ConvNet(), dataset: randomDataset(), batchSize: 4, epochs: 10, shuffle: false, schedule, ...more });

const bytesOf = async ({ buffer, offset, size }: Storage): Promise<number[]> =>
  [...new Uint32Array(await device().read(buffer, offset, size))];
const arenasOf = async ({ plans: { store } }: Trainer) =>
  Promise.all([...store.parameterArena.segments, ...store.statisticArena.segments].map(bytesOf));

async function take(trainer: Trainer, count: number): Promise<LoggedStep[]> {
  for (let i = 0; i < count; i++) await trainer.trainStep();
  return trainer.losses();
}

/** What the rule in float64 makes of the facts that were logged, step by step; steps that were skipped are none. */
function replayed(schedule: AdaptiveSchedule, { plans }: Trainer, log: readonly LoggedStep[]): number[] {
  let words: RuleWords = schedule.spec.words;
  const zero = { gradientSquared: 0, slope: 0, directionSquared: 0, hypergradient: 0, distanceSquared: 0 };
  return log.filter(({ rule }) => rule).map(({ loss, rule }) => {
    const facts: StepFacts = { ...zero, loss, ...rule!.facts };
    const { lr } = schedule.spec.next(words, facts, plans.adaptive!.run, rule!.losses ?? []);
    words = rule!.words;
    return lr;
  });
}

describe.each(names)('%s', (name) => {
  test('makes nothing in a step, reads nothing back, and is one pass of one submit', async () => {
    await withTrainer(options(made[name]()), async (trainer) => {
      const calls = await countCalls(async () => {
        for (let i = 0; i < 7; i++) await trainer.trainStep();
      });
      expect(creations(calls)).toEqual({});
      expect(calls).toMatchObject({ mapAsync: 0, destroy: 0, copyBufferToBuffer: 0, submit: 7, beginComputePass: 7 });
      expect(calls.dispatchWorkgroups).toBe(7 * trainer.dispatchesPerStep);
    });
  });

  test('logs the rate of every step, and what it was made of', async () => {
    await withTrainer(options(made[name]()), async (trainer) => {
      const log = await take(trainer, 12);
      const { spec } = trainer.options.schedule as AdaptiveSchedule;
      const want = replayed(made[name](), trainer, log);
      log.forEach(({ lr, rule, loss }, i) => {
        expect(Math.abs(lr - want[i]), `step ${i}: ${lr} beside ${want[i]}`).toBeLessThanOrEqual(2e-5 * Math.abs(want[i]) + 1e-12);
        expect(Object.keys(rule!.facts)).toEqual([...spec.facts].filter((fact) => fact !== 'loss'));
        expect(rule!.losses?.length ?? 0).toBe(spec.trials ?? 0);
        if (rule!.losses) expect(Math.abs(rule!.losses.at(-1)! - loss)).toBeLessThan(1e-5);
      });
      // Something moved.
      expect(new Set(log.map(({ loss }) => loss)).size).toBe(12);
      expect(trainer.options.schedule.lrAt(0)).toBe(log[11].lr);
    });
  });

  test('goes on from a checkpoint, to the bit', async () => {
    for (const optimizer of spared.includes(name) ? [{ weightDecay: 0.01 }] : [{}, { momentum: 0.8, dampening: 0.2 }, nesterov]) {
      const first = made[name]();
      await withTrainer(options(first, { optimizer, shuffle: true }), async (trainer) => {
        await take(trainer, 7);
        if (name === 'dog') await trainer.evaluate();
        const { checkpoint } = decodeCheckpoint(encodeCheckpoint(await trainer.checkpoint()));
        const log = await take(trainer, 5);
        const second = made[name]();
        const rest = await withTrainer(options(second, { optimizer, shuffle: true, resume: checkpoint }), async (other) =>
          ({ log: await take(other, 5), arenas: await arenasOf(other), evaluation: await other.evaluate(), end: await other.checkpoint() }));
        expect(rest.log).toEqual(log);
        expect(rest.arenas).toEqual(await arenasOf(trainer));
        expect(rest.evaluation).toEqual(await trainer.evaluate());
        expect(second.state()).toEqual(first.state());
        expect(rest.end).toEqual(await trainer.checkpoint());
      });
    }
  });

  test('is the same where parameters lie in several buffers', async () => {
    const run = (more: Partial<TrainerOptions>) =>
      withTrainer(options(made[name](), { optimizer: { weightDecay: 0.01 }, ...more }), async (trainer) => {
        const log = await take(trainer, 6);
        const { testLoss } = await trainer.evaluate();
        const { length: segments } = trainer.plans.store.parameterArena.segments;
        return { rates: log.map(({ lr }) => lr), losses: [...log.map(({ loss }) => loss), testLoss], segments };
      });
    const [whole, split] = [await run({}), await run({ device: new LesserDevice(device(), { maxStorageBufferBindingSize: 2048 }) })];
    expect([whole.segments, split.segments]).toEqual([1, 2]);
    // Sums of products are then of other chunks.
    expectClose(split.rates, whole.rates, { atol: 0, rtol: 1e-3 });
    expectClose(split.losses, whole.losses, { atol: 0, rtol: 1e-3 });
  });

  test('an evaluation leaves the run as it is, and the model holds what it was of', async () => {
    const run = async (evaluates: boolean) => {
      const { model, ...rest } = options(made[name]());
      return withTrainer({ model, ...rest }, async (trainer) => {
        await take(trainer, 4);
        if (evaluates) await trainer.evaluate();
        const log = await take(trainer, 4);
        const testLoss = (await trainer.evaluate()).testLoss;
        return { log, arenas: await arenasOf(trainer), testLoss };
      }).then((found) => ({ ...found, model }));
    };
    const [with_, without] = [await run(true), await run(false)];
    expect(with_.log).toEqual(without.log);
    expect(with_.arenas).toEqual(without.arenas);
    const again = await withTrainer({ ...options(new ConstantSchedule({ lr: 1 })), model: with_.model }, (trainer) => trainer.evaluate());
    expect(again.testLoss).toBe(with_.testLoss);
  });

  test('skipped steps leave the rule and its memory alone', async () => {
    const lossScaling = { initScale: 2 ** 24, growthInterval: 2 };
    await withTrainer(options(made[name](), { precision: 'mixed', lossScaling }), async (trainer) => {
      const log = await take(trainer, 20);
      const skipped = log.filter((one) => one.skipped);
      expect(skipped.length).toBeGreaterThan(1);
      expect(log.length - skipped.length).toBeGreaterThan(5);
      for (const one of skipped) expect(one.rule).toBeUndefined();
      const want = replayed(made[name](), trainer, log);
      const rates = log.filter((one) => !one.skipped).map(({ lr }) => lr);
      rates.forEach((lr, i) => expect(Math.abs(lr - want[i])).toBeLessThanOrEqual(2e-5 * Math.abs(want[i]) + 1e-12));
      expect(trainer.updates).toBe(rates.length);
      const { words } = trainer.options.schedule as AdaptiveSchedule;
      if (words.steps !== undefined) expect(words.steps).toBe(rates.length);
    });
  });
});

describe('memory', () => {
  const aligned = (variables: readonly Variable[]) => variables.reduce((sum, variable) => sum + align(sizeBytes(variable)), 0);
  const held = (schedule: TrainerOptions['schedule'], optimizer: SgdOptions = {}) => {
    const one = { model: resnet18({ width: 4 }), dataset: proceduralDataset({ train: 64, test: 32 }), batchSize: 16 };
    return withLiveBuffers((live) =>
      withTrainer(options(schedule, { ...one, optimizer }), async ({ memory, plans }) => {
        expect(totalBytes(live)).toBe(memory.total);
        return { memory: { ...memory }, parameters: aligned(plans.store.parameters), statistics: aligned(plans.store.statistics) };
      }),
    );
  };

  test('of a rule counts as the schedule, and there is none without one', async () => {
    const bare = await held(new ConstantSchedule({ lr: 0.1 }));
    expect(bare.memory.schedule).toBe(0);
    const { parameters: P, statistics: S } = bare;
    const rows: [AdaptiveSchedule, SgdOptions, number][] = [
      [sps(), {}, 0], [aliG(), {}, 0], [hypergradient({ lr: 0.1 }), {}, P], [hypergradient({ lr: 0.1 }), { momentum: 0.9 }, 0],
      [hypergradient({ lr: 0.1 }), { momentum: 0.9, nesterov: true }, P], [dog(), {}, 2 * P + S],
      [dog({ average: false }), {}, P], [scheduleFree(), {}, P + S], [scheduleFree({ statisticBatches: 0 }), {}, P],
      [slsArmijo(), { momentum: 0.9 }, 0], [pal(), { momentum: 0.4 }, 0], [cdat(), { weightDecay: 0.1 }, 0],
    ];
    for (const [schedule, optimizer, arenas] of rows) {
      const { memory } = await held(schedule, optimizer);
      const what = `${schedule.spec.kind}, ${JSON.stringify(optimizer)}`;
      // Record, log, products and partial sums.
      expect(memory.schedule - arenas, what).toBeGreaterThan(0);
      expect(memory.schedule - arenas, what).toBeLessThan(64 * 1024);
      expect(memory.gradients, what).toBe(P);
      if (schedule.isDue()) expect(memory.trials, what).toBeGreaterThan(0);
      else expect(memory.trials, what).toBe(0);
      expect(memory.trials, what).toBeLessThan(64 * 1024);
    }
  });

  test('a budget buys line searches fewer passes', async () => {
    const passes = (memoryBudget: number) =>
      withTrainer(options(slsArmijo({ trials: 15 }), { batchSize: 11, memoryBudget }), async ({ plans }) => [...plans.trials!.passes]);
    expect((await passes(0)).length).toBeGreaterThan(1);
    expect(await passes(2 ** 24)).toEqual([16]);
  });
});

describe('line searches', () => {
  test.each([1, 2, 7, 40])('%d trials: as many rates from the start down, the last loss is that at the weights', async (trials) => {
    await withTrainer(options(slsArmijo({ trials, beta: 0.5, initLr: 4, reset: 'init' }), { augment: 'crop-flip' }), async (trainer) => {
      const log = await take(trainer, 6);
      for (const { lr, loss, rule } of log) {
        expect(rule!.losses).toHaveLength(trials + 1);
        // The same crops as the step's own.
        expect(Math.abs(rule!.losses![trials] - loss)).toBeLessThan(1e-5);
        const { accepted } = rule!.words;
        expect(lr).toBe(accepted < 0 ? 1e-6 : 4 * 0.5 ** accepted);
        const fits = rule!.losses!.slice(0, trials).map((phi, i) => phi - rule!.losses![trials] <= -0.1 * 4 * 0.5 ** i * rule!.facts.slope);
        expect(accepted).toBe(fits.indexOf(true));
      }
    });
  });

  test('look along the step that is then made: the next loss on the same batch is the trial that was taken', async () => {
    const whole = randomDataset({ train: 8 });
    for (const optimizer of [{}, { momentum: 0.4, weightDecay: 0.01 }, { momentum: 0.4, nesterov: true }]) {
      const schedule = slsArmijo({ beta: 0.6, maxLr: 0.05, initLr: 0.05 });
      const one = options(schedule, { model: new LinearNet(), dataset: whole, batchSize: 8, optimizer });
      const log = await withTrainer(one, (trainer) => take(trainer, 8));
      const taken = log.slice(0, -1).filter(({ rule }) => rule!.words.accepted >= 0);
      for (const { rule, step } of taken) expect(Math.abs(rule!.losses![rule!.words.accepted] - log[step + 1].loss)).toBeLessThan(1e-5);
      expect(taken.length).toBeGreaterThan(4);
    }
  });
});

describe('divergence', () => {
  test('ends the run with the weights and the words before it', async () => {
    const schedule = hypergradient({ lr: 0.1, hypergradLr: 3e38 });
    const { model, ...rest } = options(schedule, { model: new LinearNet() });
    const { divergence, log } = await withTrainer({ model, ...rest }, async (trainer) => {
      const found = await take(trainer, 8);
      return { divergence: trainer.divergence, log: found };
    });
    expect(divergence).not.toBeNull();
    expect(log).toHaveLength(divergence!.step);
    expect(schedule.words).toEqual(log.at(-1)!.rule!.words);
    expect(model.variables().every(({ data }) => data.every(Number.isFinite))).toBe(true);
  });

  test('of a square beyond float32, though no gradient is, is told as one of gradients', async () => {
    const bright = { ...randomDataset(), mean: [0, 0, 0], std: [1e-20, 1e-20, 1e-20] };
    const schedule = aliG();
    await withTrainer(options(schedule, { model: new LinearNet(), dataset: bright }), async (trainer) => {
      await take(trainer, 1);
      expect(trainer.divergence).toMatchObject({ step: 0, reason: expect.stringMatching(/gradient is not finite/) as string });
    });
  });
});

describe('a schedule', () => {
  test('is of one trainer at a time', async () => {
    const schedule = sps();
    await withTrainer(options(schedule), async () => {
      await expect(Trainer.create(options(schedule))).rejects.toThrow(expect.objectContaining({ constructor: AttrError, arg: 'schedule' }));
    });
    await withTrainer(options(schedule), (trainer) => take(trainer, 1));
    // What it knows is of that run.
    await expect(Trainer.create(options(schedule))).rejects.toMatchObject({ arg: 'schedule', expected: 'must have made no steps' });
    schedule.load(sps().state());
    await withTrainer(options(schedule), (trainer) => take(trainer, 1));
  });

  test('that is loaded during a run goes on from what was loaded, whatever the GPU has made meanwhile', async () => {
    const schedule = sps({ c: 2, initLr: 0.01 });
    const start = schedule.state();
    await withTrainer(options(schedule), async (trainer) => {
      for (let i = 0; i < 4; i++) await trainer.trainStep();
      schedule.load(start);
      const before = await trainer.losses();
      expect(schedule.state()).toEqual(start);
      expect(before[3].lr).toBeGreaterThan(before[0].lr);
      await trainer.trainStep();
      const [after] = await trainer.losses();
      expect(after.lr).toBe(before[0].lr);
      expect(schedule.words).toEqual(after.rule!.words);
    });
  });

  test.each([dog(), scheduleFree()])('$spec.kind refuses momentum', async (schedule) => {
    const arg = 'optimizer.momentum';
    await withLiveBuffers(async (live) => {
      const create = Trainer.create(options(schedule, { optimizer: { momentum: 0.9 } }));
      await expect(create).rejects.toThrow(expect.objectContaining({ constructor: AttrError, arg }));
      expect(live.size).toBe(0);
    });
  });

  test('that makes no trials refuses a budget for them', async () => {
    await expect(Trainer.create(options(sps(), { memoryBudget: 1 }))).rejects.toThrow(expect.objectContaining({ arg: 'memoryBudget' }));
  });
});
