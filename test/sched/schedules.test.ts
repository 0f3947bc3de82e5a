/** Schedules in closed form against PyTorch's, and what they have beside it. */
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { AttrError } from '../../src/gpu/errors.ts';
import * as sched from '../../src/sched/index.ts';
import { ConstantSchedule, epochs, percent, PureSchedule, ReduceLROnPlateau, steps } from '../../src/sched/index.ts';
import type { Schedule, ScheduleState } from '../../src/sched/index.ts';

interface Made {
  readonly name: string;
  readonly options: Record<string, unknown>;
}
interface Golden extends Made {
  readonly children?: readonly Made[];
  readonly milestones?: readonly number[];
  readonly metrics?: readonly (number | string)[];
  readonly lrs: readonly number[];
}
const file = new URL('../goldens/schedules.json', import.meta.url);
const { cases } = JSON.parse(readFileSync(file, 'utf8')) as { cases: Golden[] };

const durations = ['totalIters', 'tMax', 't0', 'stepSize', 'stepSizeUp', 'stepSizeDown', 'totalSteps', 'warmupSteps', 'decaySteps', 'timescale'];
const withUnits = (options: Record<string, unknown>) =>
  Object.fromEntries(
    Object.entries(options).map(([name, value]) => {
      if (name === 'milestones') return [name, (value as number[]).map(steps)];
      return [name, durations.includes(name) ? steps(value as number) : value];
    }),
  );

const make = ({ name, options }: Made): PureSchedule => {
  const lambda = name === 'lambdaLr' ? { lrLambda: (step: number) => 0.95 ** step } : {};
  return (sched as unknown as Record<string, (given: object) => PureSchedule>)[name]({ ...withUnits(options), ...lambda });
};

function scheduleOf(golden: Golden): PureSchedule {
  const children = golden.children?.map(make) ?? [];
  if (golden.name === 'chained') return sched.chained(children);
  if (golden.name === 'sequential') return sched.sequential(children, golden.milestones!.map(steps));
  return make(golden);
}

const label = ({ name, options, children }: Golden) =>
  `${name} ${JSON.stringify(options)}${children ? children.map((one) => ` ${one.name}`).join() : ''}`;
const pure = cases.filter(({ metrics }) => !metrics);
const plateaus = cases.filter(({ metrics }) => metrics);
const metricsOf = ({ metrics }: Golden) => metrics!.map(Number);

function expectRates(got: readonly number[], want: readonly number[]): void {
  expect(got).toHaveLength(want.length);
  got.forEach((rate, step) => {
    const tolerance = 1e-12 * Math.abs(want[step]);
    expect(Math.abs(rate - want[step]), `step ${step}: ${rate} for ${want[step]}`).toBeLessThanOrEqual(tolerance);
  });
}

describe("PyTorch's rates, to 1e-12", () => {
  it.each(pure.map((golden) => [label(golden), golden] as const))('%s', (_, golden) => {
    const schedule = scheduleOf(golden);
    expectRates(schedule.preview(golden.lrs.length), golden.lrs);
    // In any order, and without the length of the run where no length is a share of it.
    for (let step = golden.lrs.length - 1; step >= 0; step -= 7) expect(schedule.lrAt(step)).toBe(schedule.preview(golden.lrs.length)[step]);
  });

  it.each(plateaus.map((golden) => [label(golden), golden] as const))('%s', (_, golden) => {
    expectRates(new ReduceLROnPlateau(golden.options as never).preview(metricsOf(golden)), golden.lrs);
  });

  it('of every schedule that has an equal there', () => {
    expect(new Set(cases.map(({ name }) => name)).size).toBe(16);
  });
});

describe('a fresh schedule with the state of another', () => {
  it.each(plateaus.map((golden) => [label(golden), golden] as const))('has the same future at every metric: %s', (_, golden) => {
    const metrics = metricsOf(golden);
    for (let cut = 0; cut <= metrics.length; cut++) {
      const first = new ReduceLROnPlateau(golden.options as never);
      for (const metric of metrics.slice(0, cut)) first.step(metric);
      const second = new ReduceLROnPlateau(golden.options as never);
      second.load(JSON.parse(JSON.stringify(first.state())) as ScheduleState);
      expectRates(second.preview(metrics.slice(cut)), golden.lrs.slice(cut));
    }
  });

  it.each(pure.map((golden) => [label(golden), golden] as const))('has the same future at every step, others are refused: %s', (_, golden) => {
    const n = golden.lrs.length;
    const first = scheduleOf(golden);
    for (let t = 0; t < n; t++) {
      first.lrAt(t);
      const second = scheduleOf(golden);
      second.load(JSON.parse(JSON.stringify(first.state())) as ScheduleState);
      expect(second.preview(n).slice(t)).toEqual(first.preview(n).slice(t));
    }
    // Names in another order are the same state.
    const turned = (value: unknown): unknown => (typeof value === 'object' && value !== null && !Array.isArray(value)
      ? Object.fromEntries(Object.entries(value).reverse().map(([name, one]) => [name, turned(one)])) : value);
    first.load(turned(first.state()) as ScheduleState);
    expect(() => sched.exponentialLr({ lr: 0.123, gamma: 0.5 }).load(first.state())).toThrow(AttrError);
    const state = { ...first.state(), parameters: { ...(first.state().parameters as object), more: 1 } };
    expect(() => scheduleOf(golden).load(state)).toThrow(expect.objectContaining({ arg: 'state.parameters' }));
  });

  it.each([
    [{ lr: NaN }, 'state.lr'], [{ numBadEpochs: -1 }, 'state.numBadEpochs'], [{ cooldownCounter: 0.5 }, 'state.cooldownCounter'],
    [{ best: 'x' }, 'state.best'], [{ kind: 'stepLr' }, 'state.kind'], [{ options: undefined }, 'state.options.mode'],
    [{ options: new ReduceLROnPlateau({ lr: 0.1, mode: 'max' }).options }, 'state.options.mode'],
  ])('refuses a plateau of %j', (change, arg) => {
    const schedule = new ReduceLROnPlateau({ lr: 0.1 });
    const before = schedule.state();
    expect(() => schedule.load({ ...before, ...change } as ScheduleState)).toThrow(expect.objectContaining({ arg }));
    expect(schedule.state()).toEqual(before);
  });
});

describe('lengths', () => {
  const at = (schedule: Schedule, n: number, stepsPerEpoch?: number) =>
    Array.from({ length: n }, (_, step) => schedule.lrAt(step, n, stepsPerEpoch));

  it.each([
    [epochs(2), steps(10)], [epochs(0.5), steps(3)], [percent(25), steps(10)], [percent(3), steps(1)],
  ])('%j of 5 steps an epoch and 40 in all is %j', (length, same) => {
    const of = (totalIters: sched.Duration) => at(sched.constantLr({ lr: 0.1, totalIters }), 40, 5);
    expect(of(length)).toEqual(of(same));
    expect(of(length)).not.toEqual(of(steps(11)));
  });

  it('that refer to what is unknown throw', () => {
    const cosine = (tMax: sched.Duration) => sched.cosineAnnealingLr({ lr: 0.1, tMax });
    expect(() => cosine(epochs(5)).lrAt(0, 100)).toThrow(expect.objectContaining({ arg: 'stepsPerEpoch' }));
    expect(() => cosine(percent(5)).lrAt(0, undefined, 5)).toThrow(expect.objectContaining({ arg: 'totalSteps' }));
    expect(() => sched.oneCycleLr({ maxLr: 0.1 }).lrAt(0)).toThrow(
      'oneCycleLr: totalSteps must be an integer ≥ 1 for totalSteps in percent, got undefined; tell it, or give totalSteps in steps',
    );
    expect(() => sched.perEpoch(cosine(epochs(5))).lrAt(0, 5)).toThrow(expect.objectContaining({ arg: 'stepsPerEpoch' }));
    expect(() => cosine(percent(1)).lrAt(0, 10)).toThrow('cosineAnnealingLr: tMax must be ≥ 1 steps, got {"percent":1} = 0 steps; make it longer');
  });

  it('without a unit are refused', () => {
    expect(() => sched.stepLr({ lr: 0.1, stepSize: 30 as never })).toThrow(
      'stepLr: stepSize must be a length with its unit, got 30 (number); pass steps(30) or epochs(30)',
    );
    for (const bad of [() => epochs(-1), () => steps(1.5), () => percent(101), () => percent(NaN)]) expect(bad).toThrow(AttrError);
    expect(() => sched.stepLr({ lr: 0.1, stepSize: { percent: 200 } })).toThrow(expect.objectContaining({ arg: 'stepSize.percent' }));
  });
});

describe('compositions', () => {
  const cosine = sched.cosineAnnealingLr({ lr: 0.1, tMax: percent(100) });

  it('perEpoch is the schedule at the epoch', () => {
    const inner = sched.exponentialLr({ lr: 0.1, gamma: 0.9 });
    expect(sched.perEpoch(inner).preview(10, { stepsPerEpoch: 4 })).toEqual([0, 0, 0, 0, 1, 1, 1, 1, 2, 2].map((e) => inner.lrAt(e)));
    // Lengths of what is in it are in epochs: 12 steps are 3 of them.
    expect(sched.perEpoch(cosine).preview(12, { stepsPerEpoch: 4 })).toEqual([0, 1, 2].flatMap((e) => Array(4).fill(cosine.lrAt(e, 3))));
  });

  it('percent in a sequential are of the stretch', () => {
    const both = sched.sequential([sched.constantLr({ lr: 0.1, totalIters: percent(50), factor: 0.5 }), cosine], [steps(4)]);
    expect(both.preview(14)).toEqual([0.05, 0.05, 0.1, 0.1, ...cosine.preview(10)]);
  });

  it('keep their own lists: what becomes of those that they were made of does not matter', () => {
    const [milestones, schedules] = [[steps(2)], [sched.constantLr({ lr: 1, factor: 1 }), sched.constantLr({ lr: 2, factor: 1 })]];
    const factors = [sched.stepLr({ lr: 1, stepSize: steps(1) }), sched.constantLr({ lr: 1 })];
    const made = [sched.multiStepLr({ lr: 1, milestones }), sched.sequential(schedules, milestones), sched.chained(factors)];
    const [rates, states] = [made.map((one) => one.preview(6)), made.map((one) => one.state())];
    milestones[0] = steps(4);
    schedules.reverse();
    factors.pop();
    // Nor what becomes of the states that they gave.
    (made[0].state().parameters as { milestones: unknown[] }).milestones[0] = steps(5);
    expect(made.map((one) => one.preview(6))).toEqual(rates);
    expect(made.map((one) => one.state())).toEqual(states);
  });

  it('a warm-up that leaves the schedule nothing of the run says so, where the schedule goes by that', () => {
    const cosine = sched.warmup(sched.cosineAnnealingLr({ lr: 0.1, tMax: percent(100) }), { totalIters: steps(50) });
    for (const n of [10, 50]) {
      expect(() => cosine.preview(n)).toThrow(
        `warmup: totalIters must be < ${n} steps, the run's: cosineAnnealingLr goes by what is left of it, got {"steps":50} = 50 steps`,
      );
    }
    // What has another reason is told as what it is.
    expect(() => sched.warmup(sched.cosineAnnealingLr({ lr: 0.1, tMax: epochs(5) }), { totalIters: steps(50) }).preview(10)).toThrow(
      expect.objectContaining({ op: 'cosineAnnealingLr', arg: 'stepsPerEpoch' }));
    expect(cosine.preview(51)).toHaveLength(51);
    expect(sched.warmup(sched.stepLr({ lr: 0.1, stepSize: steps(9) }), { totalIters: steps(50) }).preview(10)).toHaveLength(10);
  });

  it('warmup rises to the first rate, and the schedule follows', () => {
    expectRates(sched.warmup(cosine, { totalIters: steps(4), startFactor: 0 }).preview(14), [0, 0.025, 0.05, 0.075, ...cosine.preview(10)]);
    const line = sched.linearLr({ lr: 0.1, totalIters: steps(4) });
    expectRates(sched.warmup(cosine, { totalIters: steps(4) }).preview(9), sched.sequential([line, cosine], [steps(4)]).preview(9));
    expect(sched.warmup(cosine, { totalIters: steps(0) }).preview(5)).toEqual(cosine.preview(5));
  });

  const plateau = new ReduceLROnPlateau({ lr: 0.1 }) as unknown as PureSchedule;
  it.each([
    [() => sched.sequential([cosine, plateau], [steps(2)]), 'schedules[1]'], [() => sched.chained([plateau]), 'schedules[0]'],
    [() => sched.warmup(plateau, { totalIters: steps(2) }), 'schedule'], [() => sched.perEpoch(new ConstantSchedule({ lr: 1 }) as never), 'schedule'],
    [() => sched.chained([]), 'schedules'], [() => sched.sequential([cosine, cosine], []), 'milestones'],
    [() => sched.sequential([cosine, cosine, cosine], [steps(5), steps(5)]).lrAt(0, 9), 'milestones[1]'],
    [() => sched.chained([cosine, sched.exponentialLr({ lr: 0.2, gamma: 0.9 })]), 'schedules[1].lr'],
    [() => sched.chained([sched.oneCycleLr({ maxLr: 0.1 })]), 'schedules[0]'],
  ])('%s is refused', (bad, arg) => expect(bad).toThrow(expect.objectContaining({ arg })));
});

describe('parameters', () => {
  const lr = 0.1;
  it.each([
    [() => sched.stepLr({ lr: 0, stepSize: steps(3) }), 'lr'], [() => sched.constantLr({ lr, factor: 1.5 }), 'factor'],
    [() => sched.linearLr({ lr, startFactor: 0 }), 'startFactor'], [() => sched.linearLr({ lr, endFactor: 2 }), 'endFactor'],
    [() => sched.cosineAnnealingLr({ lr, tMax: steps(5), etaMin: -1 }), 'etaMin'], [() => sched.cosineAnnealingLr({ lr } as never), 'tMax'],
    [() => sched.cosineAnnealingWarmRestarts({ lr, t0: steps(5), tMult: 1.5 }), 'tMult'],
    [() => sched.multiStepLr({ lr, milestones: [steps(3), 4 as never] }), 'milestones[1]'], [() => sched.exponentialLr({ lr, gamma: NaN }), 'gamma'],
    [() => sched.polynomialLr({ lr, power: 0 }), 'power'], [() => sched.cyclicLr({ baseLr: 1, maxLr: 0.5 }), 'maxLr'],
    [() => sched.cyclicLr({ baseLr: 0, maxLr: 1, mode: 'saw' as never }), 'mode'], [() => sched.cyclicLr({ baseLr: 0, maxLr: 1, gamma: 0.9 }), 'gamma'],
    [() => sched.oneCycleLr({ maxLr: 1, pctStart: 0 }), 'pctStart'], [() => sched.oneCycleLr({ maxLr: 1, totalSteps: steps(5) }).lrAt(5), 'step'],
    [() => sched.warmupStableDecay({ lr, warmupSteps: steps(5), decaySteps: steps(6) }).lrAt(0, 10), 'totalSteps'],
    [() => sched.lambdaLr({ lr, lrLambda: () => NaN }).lrAt(3), 'lrLambda(3)'], [() => sched.stepLr({ lr, stepSize: steps(3), step: 3 } as never), 'step'],
    [() => sched.reduceLROnPlateau({ lr, factor: 1 }), 'factor'], [() => sched.reduceLROnPlateau({ lr, patience: 0.5 }), 'patience'],
    [() => sched.reduceLROnPlateau({ lr, wait: 3 } as never), 'wait'], [() => sched.exponentialLr({ lr, gamma: 0.9 }).lrAt(0.5), 'step'],
    [() => sched.exponentialLr({ lr, gamma: 0.9 }).preview(0), 'n'],
  ])('%s is refused', (bad, arg) => expect(bad).toThrow(expect.objectContaining({ arg })));
});
