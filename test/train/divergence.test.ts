/** Runs that blow up: they say when and why, and keep the last good state. */
import { describe, expect, test } from 'vitest';
import { asPublished, type TrialOptions } from '../../src/sched/trialOptions.ts';
import { ConstantSchedule, type Schedule } from '../../src/sched/schedule.ts';
import { TrialScheduler, type TrialEvent } from '../../src/sched/trialScheduler.ts';
import type { LoggedStep } from '../../src/train/stepLog.ts';
import type { Evaluation, RunResult, TrainerOptions } from '../../src/train/trainerOptions.ts';
import { useDevice } from '../support/device.ts';
import { minMax } from '../support/minMax.ts';
import { ConvNet, LinearNet, randomDataset, ratesAt, withTrainer } from './nets.ts';

useDevice();

const options = (more: Partial<TrainerOptions> = {}): TrainerOptions => ({
  model: new ConvNet(), dataset: randomDataset(), batchSize: 4, epochs: 4, optimizer: { momentum: 0.9 },
  schedule: new ConstantSchedule({ lr: 0.05 }), ...more,
});

/** A small rate but for one step. */
const spike = (at: number, lr: number): Schedule => ratesAt((step) => (step === at ? lr : 0.05));

interface Outcome {
  readonly result: RunResult;
  readonly steps: LoggedStep[];
  readonly events: TrialEvent[];
  readonly evaluations: Evaluation[];
  readonly values: Float32Array[];
}

async function runOf(more: Partial<TrainerOptions>, logEvery = 10): Promise<Outcome> {
  const made = options(more);
  const [steps, events, evaluations]: [LoggedStep[], TrialEvent[], Evaluation[]] = [[], [], []];
  const result = await withTrainer(made, async (trainer) => {
    const run = await trainer.run({
      logEvery, onSteps: (some) => steps.push(...some), onEvent: (event) => events.push(event),
      onEvaluation: (evaluation) => evaluations.push(evaluation),
    });
    expect(trainer.divergence).toEqual(run.divergence);
    return run;
  });
  return { result, steps, events, evaluations, values: made.model.variables().map(({ data }) => data) };
}

const isAllFinite = (values: readonly Float32Array[]): boolean => values.every((data) => data.every(Number.isFinite));

/** The state after `steps` updates of the same run. */
async function stateAfter(steps: number, more: Partial<TrainerOptions>): Promise<Float32Array[]> {
  const made = options(more);
  await withTrainer(made, async (trainer) => {
    for (let i = 0; i < steps; i++) await trainer.trainStep();
  });
  return made.model.variables().map(({ data }) => data);
}

/** Images so bright that one step at a great rate leaves float32 for some weights, and not for all. */
const bright = () => ({ ...randomDataset(), mean: [0, 0, 0], std: [1e-3, 1e-3, 1e-3] });

describe('a run that blows up', () => {
  test('in its last step says so: the test loss tells', async () => {
    const { result, evaluations } = await runOf({ model: new LinearNet(), schedule: new ConstantSchedule({ lr: 3e38 }), maxSteps: 1 });
    expect(Number.isFinite(evaluations[0].testLoss)).toBe(false);
    expect(result).toMatchObject({ steps: 1, divergence: { step: 1 } });
    expect(result.divergence!.reason).toMatch(/^the test loss is not finite/);
  });

  const statistic = /^a batch statistic is not finite/;
  const weight = /^the step would make a weight not finite/;
  const divided = () => ({ ...randomDataset(), std: [0, 1, 1] });
  const cases: { name: string; more: () => Partial<TrainerOptions>; step: number; reason: RegExp }[] = [
    { name: 'far too great a rate', more: () => ({ schedule: new ConstantSchedule({ lr: 1e30 }) }), step: 1, reason: statistic },
    { name: 'one step too great, in the second epoch', more: () => ({ schedule: spike(6, 1e30) }), step: 7, reason: statistic },
    { name: 'one step too great, the last of an epoch', more: () => ({ schedule: spike(4, 1e30) }), step: 5, reason: statistic },
    { name: 'images divided by 0', more: () => ({ dataset: divided() }), step: 0, reason: statistic },
    { name: 'images divided by 0, no batch norm', more: () => ({ model: new LinearNet(), dataset: divided() }), step: 0, reason: /^the loss/ },
    {
      name: 'weights that would overflow', step: 2, reason: weight,
      more: () => ({ model: new LinearNet(), dataset: bright(), optimizer: {}, schedule: spike(2, 3e37) }),
    },
    {
      name: 'weight decay far too great', step: 1, reason: /the step would make a weight not finite/,
      more: () => ({ model: new LinearNet(), optimizer: { weightDecay: 3e38 } }),
    },
  ];

  test.each(cases)('$name: ends, says at which step and why, and keeps the state before it', async ({ more, step, reason }) => {
    const { result, steps, evaluations, values } = await runOf(more());
    expect(result.divergence).toEqual({ step, reason: expect.stringMatching(reason) });
    expect(result.divergence!.reason).toMatch(/\(loss .*, learning rate .*\)$/);
    expect(result).toMatchObject({ steps: step, aborted: false });
    expect(steps.map((one) => one.step)).toEqual(Array.from({ length: step }, (_, i) => i));
    // 5 steps an epoch: evaluated after the epochs that ended well.
    expect(evaluations.map((one) => one.step)).toEqual([5, 10].filter((end) => end <= step));
    expect(isAllFinite(values)).toBe(true);
    expect(values).toEqual(await stateAfter(step, more()));
    if (step > 0) expect(values).not.toEqual(await stateAfter(step - 1, more()));
  });

  test('is told the same, whatever the distance of the reads', async () => {
    const first = await runOf({ schedule: spike(6, 1e30) }, 1);
    for (const logEvery of [2, 7, 256]) expect(await runOf({ schedule: spike(6, 1e30) }, logEvery)).toEqual(first);
  });

  test('that begins with NaN in a weight ends before the first update', async () => {
    const model = new ConvNet();
    model.fc.weight.data[3] = NaN;
    const before = model.variables().map(({ data }) => data.slice());
    const { result, values, steps } = await runOf({ model });
    expect(result.divergence).toMatchObject({ step: 0 });
    expect(result.divergence!.reason).toMatch(/^the loss is not finite; a gradient is not finite/);
    expect(steps).toEqual([]);
    expect(values).toEqual(before);
  });

  test('stays ended: another run makes no step', async () => {
    const made = options({ schedule: new ConstantSchedule({ lr: 1e30 }) });
    await withTrainer(made, async (trainer) => {
      const first = await trainer.run();
      const at = trainer.step;
      expect(await trainer.run()).toMatchObject({ steps: first.steps, divergence: first.divergence });
      expect(trainer.step).toBe(at);
    });
  });
});

describe('trials that blow up', () => {
  /** Along the bright images' gradient c·d leaves float32 at the great factors. */
  const trialRun = async (overrides: Partial<TrialOptions>) => {
    const schedule = new TrialScheduler({ ...asPublished([1, 0.5], { every: { steps: 3 }, lr: 1e-9 }), ...overrides });
    return runOf({ model: new LinearNet(), dataset: bright(), optimizer: {}, schedule, maxSteps: 7 });
  };

  test('weigh nothing, and the run goes on', async () => {
    const { result, events, values } = await trialRun({ factors: [1e48, 1, 0.5] });
    expect(result).toMatchObject({ steps: 7, divergence: null });
    expect(events.map(({ step }) => step)).toEqual([0, 3, 6]);
    for (const event of events) {
      expect(event).toMatchObject({ nonFinite: 1, allNonFinite: false });
      expect(Number.isFinite(event.losses[0])).toBe(false);
      expect(event.weights[0]).toBe(0);
      expect(event.losses.slice(1).every(Number.isFinite)).toBe(true);
      expect(event.weights[1] + event.weights[2]).toBeCloseTo(1, 12);
      expect(event.lrAfter).toBeLessThanOrEqual(event.lrBefore);
    }
    expect(isAllFinite(values)).toBe(true);
  });

  test('all of them: the rate falls by the smallest factor', async () => {
    const { result, events, values } = await trialRun({ factors: [1, 0.5, 0.1], lr: 3e38, bounds: [1e-9, 3e38] });
    expect(events[0]).toMatchObject({ nonFinite: 3, allNonFinite: true, weights: [0, 0, 0], lrBefore: 3e38 });
    expect(events[0].lrAfter / 3e37).toBeCloseTo(1, 6);
    // A step at 3e37 overflows too.
    expect(result.divergence).toMatchObject({ step: 0, reason: expect.stringMatching(/^the step would make a weight not finite/) });
    expect(isAllFinite(values)).toBe(true);
  });

  test('a gradient that is not finite: one event at most, no step', async () => {
    const dataset = { ...randomDataset(), std: [0, 1, 1] };
    const { result, events, steps } = await runOf({ dataset, schedule: new TrialScheduler(minMax({ lr: 0.05, every: { steps: 1 } })) });
    expect(events.length).toBeLessThanOrEqual(1);
    expect(result.divergence).toMatchObject({ step: 0 });
    expect(steps).toEqual([]);
  });

  const paths: ['gpu' | 'host', Partial<TrialOptions>][] = [
    ['gpu', {}],
    ['host', { normalize: 'none', score: (losses, { tau }) => losses.map((loss) => Math.exp(-loss / tau)) }],
  ];

  test.each(paths)('a step that is refused leaves the schedule as the weights are: before its event (%s)', async (path, own) => {
    const schedule = () => new TrialScheduler(asPublished([1, 0.5], { every: { steps: 2 }, lr: 1e-9, ...own }));
    const made = (some: Schedule) => options({ model: new LinearNet(), dataset: bright(), optimizer: {}, schedule: some });
    const before = schedule();
    await withTrainer(made(before), async (trainer) => {
      for (let i = 0; i < 4; i++) await trainer.trainStep();
      expect((await trainer.events()).map(({ step }) => step)).toEqual([0, 2]);
    });
    const refused = schedule();
    await withTrainer(made(refused), async (trainer) => {
      for (let i = 0; i < 4; i++) await trainer.trainStep();
      // The weights are lost behind the trainer's back: event 4 sees nothing finite, and its step may not be made.
      const { parameters } = trainer.plans.store;
      trainer.plans.store.write(parameters[0], parameters[0].data.map(() => NaN));
      for (let i = 0; i < 6; i++) await trainer.trainStep();
      const events = await trainer.events();
      expect(events.filter((event) => event.step <= 2).map((event) => event.path)).toEqual([path, path]);
      expect(trainer.divergence).toMatchObject({ step: 4 });
      // What was made on after it is not told.
      expect(events.filter(({ step }) => step > 4)).toEqual([]);
      expect(await trainer.losses()).toHaveLength(4);
      expect(trainer.isEventDue).toBe(false);
    });
    expect(refused.events).toEqual(before.events);
    expect(refused.lr).toBe(before.lr);
    expect(refused.state()).toEqual(before.state());
  });

  test('an event whose own rate is refused is told, and taken back', async () => {
    const schedule = new TrialScheduler(asPublished([1, 0.5, 0.1], { lr: 3e38 }));
    const { events, result } = await runOf({ model: new LinearNet(), dataset: bright(), optimizer: {}, schedule });
    expect(result.divergence).toMatchObject({ step: 0 });
    expect(events).toHaveLength(1);
    expect(events[0].lrAfter).toBeLessThan(3e38);
    expect(schedule.events).toEqual([]);
    expect(schedule.lr).toBe(3e38);
  });

  test('come no more once the run has ended', async () => {
    // The rate is fine for trials; the weights blow up between events, before the log is read.
    const schedule = new TrialScheduler(minMax({ lr: 0.05, every: { steps: 4 }, envelope: 'none' }));
    const lrAt = schedule.lrAt.bind(schedule);
    schedule.lrAt = (step, total) => (step === 1 ? 1e30 : lrAt(step, total));
    const { result, events } = await runOf({ schedule, epochs: 4 }, 256);
    expect(result.divergence).toMatchObject({ step: 2 });
    expect(events.map(({ step }) => step)).toEqual([0]);
  });
});
