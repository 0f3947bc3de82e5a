import { describe, expect, it } from 'vitest';
import { AttrError } from '../../src/gpu/errors.ts';
import { asPublished, ConstantSchedule, constantLr, envelopeAt, eventFromJson, eventToJson, isDueAt, robust, steps, TrialScheduler, trialUpdate } from '../../src/sched/index.ts';
import type { Cadence, EnvelopeName, OwnScore, ScheduleState, TrialOptions } from '../../src/sched/index.ts';
import { minMax } from '../support/minMax.ts';

const dueSteps = (every: Cadence, stepsPerEpoch: number | undefined, until: number): number[] =>
  Array.from({ length: until }, (_, step) => step).filter((step) => isDueAt(every, step, stepsPerEpoch));

describe('cadence', () => {
  it.each([
    [{ epochs: 1 }, 5, [0, 5, 10]], [{ epochs: 2 }, 5, [0, 10]], [{ steps: 4 }, undefined, [0, 4, 8, 12]], [{ perEpoch: 1 }, 5, [0, 5, 10]],
    [{ perEpoch: 2 }, 5, [0, 2, 5, 7, 10, 12]], [{ perEpoch: 4 }, 8, [0, 2, 4, 6, 8, 10, 12]],
    [{ perEpoch: 9 }, 2, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]],
  ] as [Cadence, number | undefined, number[]][])('%j with %s steps an epoch', (every, stepsPerEpoch, due) => {
    expect(dueSteps(every, stepsPerEpoch, 13)).toEqual(due);
  });

  it('n times an epoch is n times in each, for every length', () => {
    for (let stepsPerEpoch = 1; stepsPerEpoch <= 60; stepsPerEpoch += 1) {
      for (const n of [1, 3, 4, 7]) {
        const due = dueSteps({ perEpoch: n }, stepsPerEpoch, 2 * stepsPerEpoch);
        expect(due.length, `${n} in ${stepsPerEpoch}`).toBe(2 * Math.min(n, stepsPerEpoch));
      }
    }
  });

  it('needs to know the epoch unless it counts steps', () => {
    expect(() => isDueAt({ epochs: 1 }, 0)).toThrow(expect.objectContaining({ arg: 'stepsPerEpoch' }));
    expect(() => isDueAt({ perEpoch: 4 }, 0, 1.5)).toThrow(expect.objectContaining({ arg: 'stepsPerEpoch' }));
    expect(() => isDueAt({ steps: 1 }, -1)).toThrow(expect.objectContaining({ arg: 'step' }));
  });
});

describe('envelopes', () => {
  it.each([
    ['none', [1, 1, 1, 1, 1]], ['linear', [1, 0.99, 0.5, 0.01, 0]],
    ['cosine', [1, 0.5 + 0.5 * Math.cos(Math.PI / 100), 0.5, 0.5 - 0.5 * Math.cos(Math.PI / 100), 0]],
  ] as [EnvelopeName, number[]][])('%s at 0, 1, 50, 99, 100 of 100', (name, want) => {
    [0, 1, 50, 99, 100].forEach((step, i) => expect(Math.abs(envelopeAt(name, step, 100) - want[i])).toBeLessThanOrEqual(1e-15));
  });

  it('inverse root: 1, ½, ¼ after 0, 3 and 15 epochs, beyond any end, by the steps of an epoch alone', () => {
    expect([0, 30, 150, 1200].map((step) => envelopeAt('inverseSqrt', step, undefined, 10))).toEqual([1, 0.5, 0.25, 1 / 11]);
    expect(new ConstantSchedule({ lr: 2, envelope: 'inverseSqrt' }).lrAt(30, 40, 10)).toBe(1);
    expect(new TrialScheduler(minMax({ lr: 2, envelope: 'inverseSqrt' })).lrAt(30, undefined, 10)).toBe(1);
    for (const stepsPerEpoch of [undefined, 0, NaN]) {
      expect(() => envelopeAt('inverseSqrt', 0, 100, stepsPerEpoch)).toThrow(expect.objectContaining({ arg: 'stepsPerEpoch' }));
    }
  });

  it('need the length of the run, and stay within it', () => {
    expect(envelopeAt('none', 7)).toBe(1);
    for (const total of [undefined, 0, Infinity, NaN]) {
      expect(() => envelopeAt('cosine', 0, total)).toThrow(expect.objectContaining({ arg: 'totalSteps' }));
    }
    expect(() => envelopeAt('linear', 11, 10)).toThrow(expect.objectContaining({ arg: 'step' }));
    expect(() => envelopeAt('none', -1)).toThrow(expect.objectContaining({ arg: 'step' }));
    expect(() => envelopeAt('exp' as never, 0, 10)).toThrow(expect.objectContaining({ arg: 'envelope' }));
  });
});

describe('presets', () => {
  it('asPublished', () => {
    expect(asPublished()).toEqual({
      lr: 0.005, factors: 'factor5', every: { epochs: 1 }, normalize: 'minMax', score: 'exp', tau: 1, kappa: null, c: null, anchor: false,
      hold: false, batch: 'same', scoreBatch: null, direction: 'gradient', envelope: 'none', base: null, bounds: null, search: null, control: null,
    });
    expect(asPublished('factor3', { lr: 1 })).toMatchObject({ factors: 'factor3', lr: 1 });
  });

  it('robust', () => {
    const preset = {
      lr: 0.1, factors: 'factor7', every: { perEpoch: 4 }, normalize: 'none', score: 'armijo', tau: 1, kappa: null, c: null, anchor: false,
      hold: true, batch: 'same', scoreBatch: null, direction: 'accumulated', envelope: 'cosine', base: null,
      bounds: [1e-8, 1], search: { events: 8, every: 32 }, control: null,
    };
    expect(robust({ lr: 0.1 })).toEqual(preset);
    // Events every so many steps are so from the start.
    expect(robust({ lr: 0.1, every: { steps: 5 } })).toEqual({ ...preset, every: { steps: 5 }, search: { events: 8, every: 5 } });
    expect(robust({ every: { steps: 5 }, search: null }).search).toBeNull();
    // A gate takes steps of one direction; factors of the rate alone are no grid.
    expect(robust({ lr: 0.1, factors: { lr: [2, 1] } })).toEqual({ ...preset, factors: { lr: [2, 1] } });
    const base = constantLr({ lr: 0.1, totalIters: steps(5) });
    expect(robust({ base })).toEqual({ ...preset, lr: 1, base, envelope: 'none', bounds: [1e-3, 10] });
    const factors = { lr: [2, 1], momentum: [0.9] };
    expect(robust({ lr: 0.1, factors })).toEqual({ ...preset, factors, score: 'exp', normalize: 'minMax', anchor: true, direction: 'optimizer' });
  });

  it('a state brings no m out of bounds, and takes defaults for what they are', () => {
    const state = new TrialScheduler(minMax({ bounds: null, lr: 100 })).state();
    const bounded = new TrialScheduler(minMax());
    const options = { ...(state.options as object), bounds: [1e-8, 10] };
    expect(() => bounded.load({ ...state, options })).toThrow(expect.objectContaining({ arg: 'state.lr' }));
    // 1/3 is no float32; where m was stopped there it is the next one.
    const third = () => new TrialScheduler(minMax({ bounds: [1e-8, 1 / 3] }));
    third().load({ ...third().state(), lr: 0.33333334 });
    const gate = (c: number | null) => new TrialScheduler(minMax({ score: 'armijo', c }));
    gate(0.1).load(gate(null).state());
    expect(() => gate(0.2).load(gate(null).state())).toThrow(AttrError);
  });

  it('options that are undefined are left to the preset', () => {
    expect(robust({ lr: undefined, score: undefined, c: undefined })).toEqual(robust());
    expect(asPublished('factor3', { tau: undefined, anchor: undefined })).toEqual(asPublished('factor3'));
  });
});

describe('TrialScheduler', () => {
  it('runs trials at m f, moves m, and steps at m times the envelope', () => {
    const scheduler = new TrialScheduler(minMax({ lr: 0.5, factors: 'factor3' }));
    expect([0, 1, 25, 26].map((step) => scheduler.isDue(step, 100))).toEqual([true, false, true, false]);
    expect(scheduler.trialRates()).toEqual([1, 0.5, 0.25]);
    expect(scheduler.lrAt(50, 100)).toBeCloseTo(0.25, 14);
    const event = scheduler.apply(0, [3, 2, 1], 2.5);
    expect(event).toMatchObject({
      step: 0, lrBefore: 0.5, lrAfter: scheduler.lr, factors: [2, 1, 0.5], losses: [3, 2, 1], baseLoss: 2.5, clamped: false,
      nonFinite: 0, held: false,
    });
    expect(Math.abs(event.multiplier - 2 ** ((Math.exp(-1) - 1) / (1 + Math.exp(-0.5) + Math.exp(-1))))).toBeLessThanOrEqual(1e-12);
    expect(event.lrAfter).toBe(0.5 * event.multiplier);
    expect(scheduler.trialRates()[1]).toBe(event.lrAfter);
    expect(scheduler.lrAt(0, 100)).toBe(event.lrAfter);
    expect(scheduler.lrAt(50, 100)).toBeCloseTo(event.lrAfter / 2, 14);
    expect(scheduler.events).toEqual([event]);
  });

  it('asPublished drifts on equal losses, what holds stays, bounds stop', () => {
    const drifting = new TrialScheduler(asPublished('factor5', { lr: 1 }));
    const holding = new TrialScheduler(minMax({ lr: 1, factors: 'factor5' }));
    const bounded = new TrialScheduler(minMax({ lr: 9 }));
    for (let step = 0; step < 10; step += 1) {
      drifting.apply(step, [2, 2, 2, 2, 2]);
      holding.apply(step, [2, 2, 2, 2, 2]);
      bounded.apply(step, [1, 2, 2, 2, 2, 2, 2]);
    }
    expect(Math.abs(drifting.lr - 0.25)).toBeLessThanOrEqual(1e-12);
    expect(holding.lr).toBe(1);
    expect(holding.events.every((e) => e.held)).toBe(true);
    expect(bounded.lr).toBe(10);
    expect(bounded.events[0].clamped).toBe(true);
  });

  it('goes on from its state in a fresh object, through JSON, to the bit', () => {
    const make = (): TrialScheduler => new TrialScheduler(minMax({ lr: 0.05 }));
    const losses = (step: number): number[] => [NaN, Infinity, 2.5, 2.1, 2.2 + Math.sin(step) / 9, 2.25, 2.3];
    const whole = make();
    for (let step = 0; step < 12; step += 1) whole.apply(step, losses(step), step === 3 ? -Infinity : 2.4);
    for (let cut = 0; cut <= 12; cut += 1) {
      const first = make();
      for (let step = 0; step < cut; step += 1) first.apply(step, losses(step), step === 3 ? -Infinity : 2.4);
      const second = make();
      second.load(JSON.parse(JSON.stringify(first.state())) as ScheduleState);
      for (let step = cut; step < 12; step += 1) second.apply(step, losses(step), step === 3 ? -Infinity : 2.4);
      expect(second.lr).toBe(whole.lr);
      expect(second.events).toEqual(whole.events);
      expect(second.lrAt(7, 12)).toBe(whole.lrAt(7, 12));
    }
  });

  it('a search has events of its own, and what it leaves behind at most is what later ones may come back to', () => {
    const scheduler = new TrialScheduler(minMax({ lr: 0.1, search: { events: 3, every: 4 }, every: { steps: 10 } }));
    expect([0, 3, 4, 8, 10, 11, 12, 20, 24, 30].filter((step) => scheduler.isDue(step))).toEqual([0, 4, 8, 20, 30]);
    const [up, down] = [[1, 2, 2, 2, 2, 2, 2], [2, 2, 2, 2, 2, 2, 1]];
    expect(scheduler.apply(0, up)).toMatchObject({ clamped: false });
    const most = scheduler.apply(4, up).lrAfter;
    expect(most).toBeGreaterThan(0.2);
    expect(scheduler.apply(8, down).lrAfter).toBeLessThan(most);
    expect([scheduler.ceilingAt(8), scheduler.ceilingAt(12), scheduler.highestFound]).toEqual([Infinity, most, most]);
    expect(scheduler.apply(20, up)).toMatchObject({ lrAfter: most, clamped: false });
    expect(scheduler.apply(30, up)).toMatchObject({ lrAfter: most, clamped: true });
    expect(scheduler.apply(40, down).lrAfter).toBeLessThan(most);
    const fresh = new TrialScheduler(minMax({ lr: 0.1, search: { events: 3, every: 4 }, every: { steps: 10 } }));
    fresh.load(JSON.parse(JSON.stringify(scheduler.state())) as ScheduleState);
    expect(fresh.apply(50, up).lrAfter).toBe(scheduler.apply(50, up).lrAfter);
    expect(fresh.apply(60, up).lrAfter).toBe(most);
    // Events of the search that are taken back have found nothing; where none is left, nothing bounds.
    scheduler.revert(4);
    expect(scheduler.ceilingAt(12)).toBe(scheduler.lr);
    scheduler.revert(0);
    expect([scheduler.highestFound, scheduler.ceilingAt(12)]).toEqual([0, Infinity]);
    // Without a search no event is bounded by others.
    expect(new TrialScheduler(minMax()).ceilingAt(1e6)).toBe(Infinity);
  });

  it('state is a copy', () => {
    const scheduler = new TrialScheduler(asPublished('factor3'));
    const losses = [1, 2, 3];
    const event = scheduler.apply(0, losses);
    losses[1] = 99;
    expect(event.losses).toEqual([1, 2, 3]);
    const state = scheduler.state();
    const before = JSON.stringify(state);
    scheduler.apply(1, [3, 2, 1]);
    event.losses[0] = 99;
    expect(JSON.stringify(state)).toBe(before);
  });

  it('refuses a state that is not its own, and keeps its own', () => {
    const scheduler = new TrialScheduler(asPublished('factor3', { lr: 0.3 }));
    const good = scheduler.state();
    const event = eventToJson(new TrialScheduler(asPublished('factor3')).apply(4, [1, 2, 3]));
    const rows: [Partial<ScheduleState>, string][] = [
      [{ kind: 'constant' }, 'state.kind'], [{ lr: 0 }, 'lr'], [{ lr: null as never }, 'lr'], [{ lr: 1e-50 }, 'lr'],
      [{ options: { ...(good.options as object), factors: [2, 1] } }, 'state.options.factors'], [{ options: undefined }, 'state.options.factors'],
      [{ options: { ...(good.options as object), tau: 2 } }, 'state.options.tau'], [{ events: null }, 'state.events'],
      [{ events: [null] }, 'state.events'], [{ events: [{}] }, 'state.events'], [{ events: [event, event] }, 'state.events'],
      [{ events: [{ ...event, losses: null }] }, 'state.events'], [{ events: [{ ...event, pairs: {} }] }, 'state.events'],
      [{ events: [{ ...event, lrBefore: null }] }, 'state.events'],
      [{ optimizer: { momentum: 1, weightDecay: null } }, 'state.optimizer'], [{ optimizer: { momentum: null } }, 'state.optimizer'],
      [{ optimizer: 0.9 }, 'state.optimizer'], [{ optimizer: { momentum: null, weightDecay: null } }, 'state.optimizer'],
      [{ events: [{ ...event, pairs: null }] }, 'state.events'], [{ events: [{ ...event, losses: [1] }] }, 'state.events'],
      [{ events: [{ ...event, losses: ['a', 1, 2] }] }, 'state.events'],
    ];
    for (const [change, arg] of rows) {
      expect(() => scheduler.load({ ...good, lr: 0.7, ...change })).toThrow(expect.objectContaining({ arg }));
      expect(scheduler.lr).toBe(0.3);
    }
  });

  it('refuses a wrong number of losses and events out of order', () => {
    const scheduler = new TrialScheduler(asPublished('factor3'));
    expect(() => scheduler.apply(0, [1, 2])).toThrow(expect.objectContaining({ arg: 'losses' }));
    expect(scheduler.events).toHaveLength(0);
    scheduler.apply(4, [1, 2, 3]);
    for (const step of [4, 3, 5.5, -1, NaN]) {
      expect(() => scheduler.apply(step, [1, 2, 3])).toThrow(expect.objectContaining({ arg: 'step' }));
    }
    expect(scheduler.events).toHaveLength(1);
  });

  it('a score of one\'s own gets losses as they are, factors, τ and the base loss, and its weights are normalised', () => {
    const seen: unknown[] = [];
    const score: OwnScore = (losses, context) => {
      seen.push(losses, context);
      return [5, 1, 3];
    };
    const scheduler = new TrialScheduler(minMax({ lr: 0.5, factors: 'factor3', normalize: 'none', tau: 0.3, score }));
    const event = scheduler.apply(0, [NaN, 2, 1], 2.5);
    expect(seen).toEqual([[NaN, 2, 1], { tau: 0.3, baseLoss: 2.5, factors: [2, 1, 0.5] }]);
    // The diverged trial's weight does not count.
    expect(event).toMatchObject({ weights: [0, 0.25, 0.75], nonFinite: 1, path: 'host' });
    expect(Math.abs(event.lrAfter - 0.5 * 0.5 ** 0.75)).toBeLessThanOrEqual(1e-15);
    // With no finite loss nobody is asked.
    expect(scheduler.apply(1, [NaN, NaN, Infinity])).toMatchObject({ weights: [0, 0, 0], allNonFinite: true });
    expect(seen).toHaveLength(2);
  });

  it.each([[[1, 2]], [[1, 2, -1]], [[1, NaN, 1]], [[0, 0, 0]], [[1, Infinity, 1]], [undefined], [[7, 0, 0]]])(
    'a score of one\'s own that returns %j is refused, and m stays', (weights) => {
      const scheduler = new TrialScheduler(minMax({ factors: 'factor3', normalize: 'none', score: () => weights as number[] }));
      // The first trial has diverged.
      expect(() => scheduler.apply(0, [NaN, 2, 3])).toThrow(expect.objectContaining({ constructor: AttrError, arg: 'score' }));
      expect(scheduler.lr).toBe(0.005);
      expect(scheduler.events).toEqual([]);
    });

  it('takes over events of the GPU, and takes events back', () => {
    const scheduler = new TrialScheduler(minMax({ lr: 0.5, factors: 'factor3' }));
    const first = scheduler.apply(0, [3, 2, 1]);
    const other = new TrialScheduler(minMax({ lr: 0.5, factors: 'factor3' }));
    const told = { ...other.apply(4, [1, 2, 3]), lrBefore: first.lrAfter, lrAfter: 0.7 };
    scheduler.record(told);
    expect(scheduler.lr).toBe(0.7);
    expect(scheduler.events).toEqual([first, told]);
    expect(() => scheduler.record(told)).toThrow(expect.objectContaining({ arg: 'step' }));
    scheduler.revert(5);
    expect(scheduler.events).toHaveLength(2);
    scheduler.revert(1);
    expect(scheduler.events).toEqual([first]);
    expect(scheduler.lr).toBe(first.lrAfter);
    scheduler.revert(0);
    expect(scheduler.events).toEqual([]);
    expect(scheduler.lr).toBe(0.5);
  });

  it('a grid is every factor with every momentum and weight decay; each takes its weighted mean where it makes sense', () => {
    const factors = { lr: [2, 0.5], momentum: [0.9, 0.99], weightDecay: [1e-4, 1e-2] };
    const scheduler = new TrialScheduler(minMax({ lr: 1, factors, normalize: 'none', score: () => [0, 0, 1, 0, 0, 0, 0, 3] }));
    expect(scheduler.options).toMatchObject({
      factors: [2, 2, 2, 2, 0.5, 0.5, 0.5, 0.5], momenta: [0.9, 0.9, 0.99, 0.99, 0.9, 0.9, 0.99, 0.99],
      weightDecays: [1e-4, 1e-2, 1e-4, 1e-2, 1e-4, 1e-2, 1e-4, 1e-2],
    });
    expect(scheduler.optimizer).toEqual({ momentum: null, weightDecay: null });
    const event = scheduler.apply(0, [1, 2, 3, 4, 5, 6, 7, 8]);
    // A quarter of trial 2 and three of trial 7.
    expect(event.lrAfter).toBeCloseTo(2 ** 0.25 * 0.5 ** 0.75, 12);
    expect(event.optimizer!.after.momentum).toBeCloseTo(0.99, 12);
    expect(event.optimizer!.after.weightDecay).toBeCloseTo(1e-4 ** 0.25 * 1e-2 ** 0.75, 12);
    const made = minMax({ factors, normalize: 'none', hold: false, score: (losses) => losses.map(() => 1) });
    const uniform = new TrialScheduler(made);
    // 1 − μ: the geometric mean of 0.1 and 0.01.
    expect(uniform.apply(0, Array(8).fill(1)).optimizer!.after.momentum).toBeCloseTo(1 - 10 ** -1.5, 12);
    expect(uniform.optimizer.weightDecay).toBeCloseTo(1e-3, 12);
    // Nothing to go by: all stays.
    const before = uniform.optimizer;
    expect(uniform.apply(1, Array(8).fill(NaN)).optimizer!.after).toEqual(before);
    uniform.revert(1);
    expect(uniform.optimizer).toEqual(before);
    const fresh = new TrialScheduler(made);
    fresh.load(JSON.parse(JSON.stringify(uniform.state())) as ScheduleState);
    expect(fresh.optimizer).toEqual(before);
    expect(fresh.state()).toEqual(uniform.state());
    uniform.revert(0);
    expect(uniform.optimizer).toEqual({ momentum: null, weightDecay: null });
    const narrow = new TrialScheduler({ ...made, factors: { ...factors, momentum: [0.9] } });
    expect(() => narrow.load(fresh.state())).toThrow(expect.objectContaining({ arg: 'state.options.factors' }));
    const other = new TrialScheduler({ ...made, factors: { ...factors, momentum: [0.9, 0.5] } });
    expect(() => other.load(fresh.state())).toThrow(expect.objectContaining({ arg: 'state.options.momenta' }));
  });

  const bad: [string, Partial<TrialOptions>][] = [
    ['lr', { lr: 0 }], ['lr', { lr: -1 }], ['lr', { lr: NaN }], ['lr', { lr: Infinity }], ['factors', { factors: [] }],
    ['factors[0]', { factors: [0] }],
    ['factors', { factors: {} as never }], ['factors.momentum', { factors: { lr: [1], momentum: [1] } }],
    ['factors.momentum', { factors: { lr: [1], momentum: [] } }], ['factors.momentum', { factors: { lr: [1], momentum: [0.9, 0.9] } }],
    ['factors.weightDecay', { factors: { lr: [1], weightDecay: [0] } }], ['factors.decay', { factors: { lr: [1], decay: [1] } as never }],
    ['direction', { factors: { lr: [1], momentum: [0.9] }, direction: 'gradient' }],
    ['factors', { factors: 'factor9' as never }], ['every.epochs', { every: { epochs: 0 } }], ['every.steps', { every: { steps: 0.5 } }],
    ['every.perEpoch', { every: { perEpoch: -4 } }], ['every', { every: {} as never }], ['every', { every: { days: 1 } as never }],
    ['every', { every: { steps: 1, epochs: 1 } }], ['every', { every: null as never }],
    ['normalize', { normalize: 'max' as never }], ['score', { score: 'best' as never }], ['tau', { tau: -1 }],
    ['tau', { tau: 1e-50 }], ['factors', { factors: null as never }],
    ['normalize', { score: 'relGain', normalize: 'minMax' }], ['normalize', { score: (losses) => losses, normalize: 'sum' }],
    ['lr', { lr: 1e-40, bounds: null }],
    ['lr', { lr: 1e39, bounds: null }], ['bounds', { bounds: [1e-50, 1] }],
    ['anchor', { anchor: null as never }], ['hold', { hold: 1 as never }], ['batch', { batch: 'heldout' as never }],
    ['scoreBatch', { scoreBatch: 0 }],
    ['direction', { direction: 'raw' as never }], ['envelope', { envelope: 'step' as never }],
    ['bounds', { bounds: [10, 1e-8] }], ['bounds', { bounds: [0, 1] }], ['bounds', { bounds: [1, NaN] }],
    ['factor', { factor: [2, 1] } as never],
    ['bounds', { bounds: [1] as never }],
    ...[{ events: 0, every: 1 }, { events: 1, every: 0.5 }, { events: 2 }, { events: 8, every: 32, after: 1 }, 8, 'none'].map((search): (typeof bad)[number] =>
      ['search', { search: search as never }]),
    ['lr', { lr: 20 }],
  ];
  it.each(bad)('bad option %s: %j', (arg, overrides) => {
    const make = (): unknown => new TrialScheduler(minMax({ lr: 0.1, ...overrides }));
    expect(make).toThrow(AttrError);
    expect(make).toThrow(expect.objectContaining({ arg }));
  });

  it.each([0, -1, NaN])('a ceiling of %s is refused', (ceiling) => {
    const rule = { lr: 1, factors: [2, 1], losses: [1, 2], anchor: false, bounds: null, holdBelow: null, normalize: 'minMax', score: 'exp', tau: 1 } as const;
    expect(() => trialUpdate({ ...rule, ceiling })).toThrow(expect.objectContaining({ arg: 'ceiling' }));
  });

  it('says what and how', () => {
    expect(() => new TrialScheduler(minMax({ every: { perHour: 2 } as never }))).toThrowErrorMatchingInlineSnapshot(
      `[AttrError: TrialScheduler: every must be one of { epochs: n }, { steps: n }, { perEpoch: n }, got {"perHour":2}; pass { epochs: 1 }]`);
  });

  it('events survive JSON with their NaN and Infinity', () => {
    const event = new TrialScheduler(asPublished('factor3')).apply(3, [NaN, -Infinity, 1], Infinity);
    const json = JSON.stringify(eventToJson(event));
    expect(json).toContain('["NaN","-Infinity",1]');
    expect(eventFromJson(JSON.parse(json))).toEqual(event);
  });
});

describe('ConstantSchedule', () => {
  it('is constant, without events', () => {
    const schedule = new ConstantSchedule({ lr: 0.1 });
    expect([0, 5, 1e6].map((step) => schedule.lrAt(step))).toEqual([0.1, 0.1, 0.1]);
    expect(schedule.isDue()).toBe(false);
  });

  it('decays under an envelope as PyTorch does: CosineAnnealingLR(100) and LinearLR(1, 0, 100) at 0.005', () => {
    const at = (envelope: EnvelopeName): string[] =>
      [0, 30, 50, 75, 99].map((step) => new ConstantSchedule({ lr: 0.005, envelope }).lrAt(step, 100).toPrecision(3));
    expect(at('cosine')).toEqual(['0.00500', '0.00397', '0.00250', '0.000732', '0.00000123']);
    expect(at('linear')).toEqual(['0.00500', '0.00350', '0.00250', '0.00125', '0.0000500']);
  });

  it('state into a fresh object', () => {
    const fresh = new ConstantSchedule({ lr: 0.02 });
    fresh.load(JSON.parse(JSON.stringify(new ConstantSchedule({ lr: 0.02 }).state())) as ScheduleState);
    expect(fresh.lrAt(3)).toBe(0.02);
    expect(() => fresh.load(new ConstantSchedule({ lr: 1 }).state())).toThrow(expect.objectContaining({ arg: 'state.lr' }));
    expect(() => fresh.load(new ConstantSchedule({ lr: 0.02, envelope: 'linear' }).state())).toThrow(expect.objectContaining({ arg: 'state.envelope' }));
    expect(() => fresh.load({ kind: 'trial', lr: 1 })).toThrow(expect.objectContaining({ arg: 'state.kind' }));
  });

  it.each([
    [{ lr: 0 }, 'lr'], [{ lr: 1, envelope: 'x' as never }, 'envelope'], [{ lr: 1, envlope: 'cosine' } as { lr: number }, 'envlope'],
  ])('refuses %j', (options, arg) => {
    expect(() => new ConstantSchedule(options)).toThrow(expect.objectContaining({ arg }));
  });
});
