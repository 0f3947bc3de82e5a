/** The controls of trials in a run, and what the newer scores need of one: memory, refusals, mixed precision, divergence. */
import { describe, expect, test } from 'vitest';
import { AttrError } from '../../src/gpu/errors.ts';
import { asPublished, TrialScheduler, type TrialEvent, type TrialOptions } from '../../src/sched/index.ts';
import type { LoggedStep } from '../../src/train/stepLog.ts';
import type { TrainerOptions } from '../../src/train/trainerOptions.ts';
import { expectClose } from '../support/close.ts';
import { useDevice } from '../support/device.ts';
import { minMax } from '../support/minMax.ts';
import { ConvNet, LinearNet, randomDataset, ratesAt, withTrainer } from './nets.ts';

useDevice();

const options = (more: Partial<TrainerOptions>): TrainerOptions => ({
  model: new ConvNet(), dataset: randomDataset(), batchSize: 4, epochs: 3, optimizer: { momentum: 0.9 },
  schedule: ratesAt(() => 0.05), ...more,
});

async function run(more: Partial<TrainerOptions>) {
  const made = options(more);
  const [steps, events]: [LoggedStep[], TrialEvent[]] = [[], []];
  const outcome = await withTrainer(made, async (trainer) => {
    const told = { onSteps: (some: readonly LoggedStep[]) => steps.push(...some), onEvent: (event: TrialEvent) => events.push(event) };
    const result = await trainer.run({ logEvery: 1, evaluate: false, ...told });
    return { result, trials: trainer.memory.trials, hasEvent: trainer.plans.event !== null };
  });
  return { ...outcome, steps, events, values: made.model.variables().map(({ data }) => data.slice()) };
}

const blind = (overrides: Partial<TrialOptions> = {}) =>
  new TrialScheduler(asPublished('factor5', { lr: 0.05, control: 'blindDrift', ...overrides }));

describe('blind drift', () => {
  test('runs no trial and takes no memory for any; the rate drifts once an epoch, and the run is that of those rates', async () => {
    const schedule = blind();
    const drifting = await run({ schedule });
    expect(drifting).toMatchObject({ trials: 0, hasEvent: false });
    expect(drifting.events.map(({ step }) => step)).toEqual([0, 5, 10]);
    drifting.events.forEach(({ lrAfter }, i) => expect(Math.abs(lrAfter / (0.05 * 2 ** (-0.2 * (i + 1))) - 1)).toBeLessThan(1e-12));
    expect(drifting.steps.map(({ lr }) => lr)).toEqual(drifting.steps.map(({ step }) => drifting.events[Math.floor(step / 5)].lrAfter));
    expect(schedule.events).toEqual(drifting.events);
    const given = await run({ schedule: ratesAt((step) => drifting.steps[step].lr) });
    expect(given.values).toEqual(drifting.values);
  });

  test('a run that diverges keeps the scale of the last step made', async () => {
    const schedule = blind({ lr: 3e37, every: { steps: 1 }, factors: [4, 2] });
    const { result, events } = await run({ model: new LinearNet(), schedule });
    expect(result.divergence).not.toBeNull();
    const { step } = result.divergence!;
    expect(schedule.events.map((event) => event.step)).toEqual(Array.from({ length: step }, (_, i) => i));
    // That of the step which was refused is told, later ones never came.
    expect(Math.max(...events.map((event) => event.step))).toBe(step);
    expect(schedule.lr).toBe(events[step].lrBefore);
  });

  test('in mixed precision too', async () => {
    const { events, steps } = await run({ schedule: blind(), precision: 'mixed' });
    expect(events.map(({ step }) => step)).toEqual([0, 5, 10]);
    expectClose(steps.map(({ lr }) => lr), steps.map(({ step }) => events[Math.floor(step / 5)].lrAfter), { atol: 0, rtol: 1e-6 });
  });

  test('has no use for memory', async () => {
    const refused = expect.objectContaining({ constructor: AttrError, arg: 'memoryBudget' });
    await expect(run({ schedule: blind(), memoryBudget: 1 })).rejects.toThrow(refused);
  });
});

describe('shuffled losses', () => {
  const shuffled = (seed: number) =>
    run({ seed, shuffle: false, schedule: new TrialScheduler(minMax({ lr: 0.05, every: { steps: 1 }, control: 'shuffledLosses' })) });

  test('go by the run\'s seed: the same one the same run, another one other orders', async () => {
    const [one, again, other] = [await shuffled(1), await shuffled(1), await shuffled(2)];
    expect(again).toEqual(one);
    // Images come in the same order, and the first event is at the same weights.
    expectClose(other.events[0].losses, one.events[0].losses, { atol: 0, rtol: 1e-6 });
    expect(other.events.map(({ order }) => order)).not.toEqual(one.events.map(({ order }) => order));
    expect(new Set(one.events.map(({ order }) => String(order))).size).toBeGreaterThan(10);
  });
});

describe('scores that look at more than losses', () => {
  const scheduler = (overrides: Partial<TrialOptions>) => new TrialScheduler(minMax({ lr: 0.05, every: { steps: 4 }, ...overrides }));

  test('of one image there is no noise to tell', async () => {
    const made = run({ batchSize: 1, schedule: scheduler({ score: 'pairedNoise' }) });
    await expect(made).rejects.toThrow(expect.objectContaining({ constructor: AttrError, arg: 'scoreBatch' }));
    const { events } = await run({ batchSize: 1, schedule: scheduler({ score: 'pairedNoise', batch: 'both' }) });
    expect(events[0].pairs!.standardErrors.every((error) => error >= 0)).toBe(true);
  });

  test.each(['pairedNoise', 'armijo'] as const)('%s in mixed precision: the gradient is that of the loss as it is', async (score) => {
    const schedule = () => scheduler({ score, factors: [1.5, 1, 0.7] });
    const [single, mixed] = [await run({ schedule: schedule() }), await run({ schedule: schedule(), precision: 'mixed' })];
    expect(mixed.events).toHaveLength(single.events.length);
    const looked = ({ slope, pairs }: TrialEvent) => [slope ?? 0, ...(pairs?.differences ?? [])];
    expectClose(looked(mixed.events[0]), looked(single.events[0]), { atol: 2e-3, rtol: 0.05 });
    expect(looked(single.events[0]).some((value) => Math.abs(value) > 4e-3)).toBe(true);
  });

  test('take a few KiB for it, most of them of the event log', async () => {
    const plain = await run({ schedule: scheduler({}) });
    for (const score of ['pairedNoise', 'armijo'] as const) {
      const { trials } = await run({ schedule: scheduler({ score }) });
      expect(trials - plain.trials).toBeGreaterThan(0);
      expect(trials - plain.trials).toBeLessThan(8192);
    }
  });
});
