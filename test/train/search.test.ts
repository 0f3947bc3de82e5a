/** The search before the first step: events that go on from one another, on the GPU, on the host and in controls. */
import { describe, expect, test } from 'vitest';
import { asPublished, robust, TrialScheduler, trialUpdate, type TrialEvent, type TrialOptions } from '../../src/sched/index.ts';
import { decodeCheckpoint, encodeCheckpoint } from '../../src/train/checkpoint.ts';
import type { LoggedStep } from '../../src/train/stepLog.ts';
import type { TrainerOptions } from '../../src/train/trainerOptions.ts';
import { expectClose } from '../support/close.ts';
import { useDevice } from '../support/device.ts';
import { ConvNet, randomDataset, withTrainer } from './nets.ts';

useDevice();

const options = (more: Partial<TrainerOptions>): TrainerOptions => ({
  model: new ConvNet(), dataset: randomDataset(), batchSize: 4, epochs: 3, maxSteps: 8, optimizer: { momentum: 0.9 },
  schedule: new TrialScheduler(robust({ search: 6 })), ...more,
});

async function run(more: Partial<TrainerOptions>) {
  const made = options(more);
  const [steps, events]: [LoggedStep[], TrialEvent[]] = [[], []];
  const result = await withTrainer(made, (trainer) =>
    trainer.run({ logEvery: 1, evaluate: false, onSteps: (some) => steps.push(...some), onEvent: (event) => events.push(event) }));
  return { result, steps, events, values: made.model.variables().map(({ data }) => [...data]) };
}

/** A score of one's own that is e^−x: its rule runs on the host. */
const onHost = (overrides: Partial<TrialOptions>) =>
  new TrialScheduler(robust({
    ...overrides, normalize: 'none',
    score: (losses) => {
      const [least, most] = [Math.min(...losses), Math.max(...losses)];
      return losses.map((loss) => Math.exp(-(loss - least) / (most - least)));
    },
  }));

describe.each([
  ['the GPU', (overrides: Partial<TrialOptions>) => new TrialScheduler(robust(overrides))], ['the host', onHost],
] as const)('on %s', (where, make) => {
  test('events before the first step go on from one another, and no later one', async () => {
    const { events, steps } = await run({ schedule: make({ lr: 1e-4, search: 6, every: { steps: 5 } }) });
    expect(events.map(({ step }) => step)).toEqual([0, 0, 0, 0, 0, 0, 0, 5]);
    expect(events[0].path).toBe(where === 'the GPU' ? 'gpu' : 'host');
    for (let i = 1; i < events.length; i++) expect(events[i].lrBefore).toBe(events[i - 1].lrAfter);
    // Far below, so each takes nearly the largest step that min-max allows.
    for (const { multiplier } of events.slice(0, 4)) expect(multiplier).toBeGreaterThan(1.4);
    expectClose([steps[0].lr], [events[6].lrAfter], { atol: 0, rtol: 1e-6 });
  });

  test('the first step is that of a run which begins at what was found', async () => {
    const searched = await run({ schedule: make({ lr: 1e-3, search: 4, every: { steps: 100 } }), maxSteps: 3 });
    const found = searched.events[3].lrAfter;
    const plain = await run({ schedule: make({ lr: found, every: { steps: 100 } }), maxSteps: 3 });
    expect(plain.events).toHaveLength(1);
    expectClose([plain.events[0].lrBefore], [searched.events[4].lrBefore], { atol: 0, rtol: 1e-7 });
    expectClose(plain.events[0].losses, searched.events[4].losses, { atol: 1e-6, rtol: 1e-6 });
    plain.values.forEach((values, i) => expectClose(searched.values[i], values, { atol: 1e-6, rtol: 1e-5 }));
  });
});

test('each event is the rule on its own losses', async () => {
  const { events } = await run({});
  const { normalize, score, tau, kappa, c, anchor, bounds } = robust();
  for (const { lrBefore: lr, factors, losses, lrAfter } of events) {
    const { lrAfter: told } = trialUpdate({ lr, factors, losses, normalize, score, tau, kappa, c, anchor, bounds, holdBelow: 4 * 2 ** -23 });
    expectClose([lrAfter], [told], { atol: 0, rtol: 1e-5 });
  }
});

test('first rates decades apart come to the same, from which the run goes on alike', async () => {
  const [low, high] = [await run({ schedule: new TrialScheduler(robust({ lr: 1e-4, search: 30 })) }), await run({ schedule: new TrialScheduler(robust({ lr: 1, search: 30 })) })];
  const found = [low, high].map(({ steps }) => steps[0].lr);
  expect(Math.abs(Math.log(found[0] / found[1]))).toBeLessThan(0.1);
  expect(Math.abs(low.steps[7].loss - high.steps[7].loss)).toBeLessThan(0.1 * low.steps[7].loss);
});

test('more events than their log holds', async () => {
  const many = Array.from({ length: 60 }, (_, i) => 2 ** ((i - 30) / 10));
  const { events } = await run({ schedule: new TrialScheduler(robust({ factors: many, search: 40 })), maxSteps: 1 });
  expect(events).toHaveLength(41);
  for (let i = 1; i < events.length; i++) expect(events[i].lrBefore).toBe(events[i - 1].lrAfter);
});

test('a first step that is skipped in mixed precision is searched for again', async () => {
  const { events, steps } = await run({ precision: 'mixed', lossScaling: { initScale: 2 ** 24 }, schedule: new TrialScheduler(robust({ search: 3, every: { steps: 100 } })) });
  const made = steps.find(({ skipped }) => !skipped)!.step;
  expect(made).toBeGreaterThan(0);
  expect(events.map(({ step }) => step)).toEqual([made, made, made, made]);
});

test('controls search too: drift by as many events, losses dealt out anew in each', async () => {
  const drift = await run({ schedule: new TrialScheduler(asPublished('factor5', { lr: 0.01, control: 'blindDrift', search: 3 })), maxSteps: 2 });
  expect(drift.events).toHaveLength(4);
  expectClose([drift.steps[0].lr], [0.01 * 2 ** (-0.2 * 4)], { atol: 0, rtol: 1e-6 });
  const shuffled = await run({ schedule: new TrialScheduler(robust({ control: 'shuffledLosses', search: 5 })), maxSteps: 2, seed: 4 });
  expect(new Set(shuffled.events.slice(0, 6).map(({ order }) => String(order))).size).toBeGreaterThan(4);
});

test('a run that is resumed before its first step, or after, is the unbroken one', async () => {
  const whole = await run({});
  for (const at of [0, 1, 3]) {
    const first = await withTrainer(options({}), async (trainer) => {
      for (let step = 0; step < at; step++) await trainer.trainStep();
      return encodeCheckpoint(await trainer.checkpoint());
    });
    const rest = await run({ model: new ConvNet(undefined, 9), resume: decodeCheckpoint(first).checkpoint });
    expect(rest.events).toEqual(whole.events.filter(({ step }) => step >= at));
    expect(rest.steps).toEqual(whole.steps.slice(at));
    expect(rest.values).toEqual(whole.values);
  }
});

test.each([-1, 0.5, 1001, NaN])('no search of %d events', (search) => {
  expect(() => new TrialScheduler(robust({ search }))).toThrow('TrialScheduler: search must be an integer in 0 … 1000');
});
