/** Scores that look at more than mean losses, and the controls, in float64: numbers worked out by hand, closed forms, refusals. */
import { describe, expect, it } from 'vitest';
import { AttrError } from '../../src/gpu/errors.ts';
import { asPublished, eventFromJson, eventToJson, factorSets, pairedDifferences, scores, shuffledTrials, TrialScheduler, trialUpdate, robust } from '../../src/sched/index.ts';
import type { ScheduleState, TrialOptions, TrialUpdateInput } from '../../src/sched/index.ts';
import { uniformStream } from '../support/random.ts';
import { minMax } from '../support/minMax.ts';

const plain = { lr: 0.1, normalize: 'none', tau: 1, anchor: false, bounds: null, holdBelow: null } as const;
const { factor3, factor5, factor7 } = factorSets;
const meanOf = (xs: readonly number[]): number => xs.reduce((a, b) => a + b, 0) / xs.length;
const near = (got: number, want: number, tolerance = 1e-12) =>
  expect(Math.abs(got - want), `${got} vs ${want}`).toBeLessThanOrEqual(tolerance);

describe('paired differences', () => {
  it('of samples 1 2 3 against 1 1 1 and 0 3 6: mean and standard error by hand', () => {
    const samples = [[1, 2, 3], [1, 1, 1], [0, 3, 6]];
    const { differences, standardErrors } = pairedDifferences(samples, samples.map(meanOf));
    expect(differences).toEqual([1, 0, 2]);
    // Deviations −1 0 1 and −3 0 3: √(2/2/3), √(18/2/3).
    [1 / Math.sqrt(3), 0, Math.sqrt(3)].forEach((want, i) => near(standardErrors[i], want));
  });

  it('a diverged trial is no best one and has none; of equal losses the first is the best', () => {
    const { differences } = pairedDifferences([[NaN, 0], [2, 4], [4, 2]], [NaN, 3, 3]);
    expect(differences).toEqual([NaN, 0, 0]);
    expect(pairedDifferences([[NaN, 1]], [NaN])).toEqual({ differences: [NaN], standardErrors: [NaN] });
  });

  it('keep digits that two means lose', () => {
    const samples = [0, 1e-13].map((more) => Array.from({ length: 4 }, (_, j) => 1000 * j + more * (j + 1)));
    const { differences } = pairedDifferences(samples, [0, 1]);
    expect(differences[1]).toBeGreaterThan(0);
  });

  it.each([[undefined], [[[1, 2]]], [[[1, 2], [1]]], [[[1], [1]]], [[[], []]]])('%j for two trials is refused', (samples) => {
    expect(() => pairedDifferences(samples, [1, 2])).toThrow(expect.objectContaining({ constructor: AttrError, arg: 'samples' }));
  });
});

/** Trials whose samples differ from the best one's by `gap` on average, give or take `spread`. */
function noisy(gaps: readonly number[], spread: number, n: number, seed: number): number[][] {
  const uniform = uniformStream(seed);
  const hard = Array.from({ length: n }, () => 3 * uniform());
  return gaps.map((gap) => hard.map((h) => h + gap + spread * (uniform() - 0.5)));
}

describe("score 'pairedNoise'", () => {
  const of = (samples: number[][], more: Partial<TrialUpdateInput> = {}) =>
    trialUpdate({ ...plain, factors: factor3, losses: samples.map(meanOf), samples, score: 'pairedNoise', ...more });

  it('weights are e^(−½(t/κ)²)', () => {
    const pairs = { differences: [0, 1, 3], standardErrors: [0, 1, 2] };
    for (const kappa of [undefined, 1, 2]) {
      const weights = scores.pairedNoise([1, 2, 4], { tau: 1, baseLoss: null, pairs, kappa });
      weights.forEach((w, i) => near(w, Math.exp(-0.5 * ([0, 1, 1.5][i] / (kappa ?? 1)) ** 2)));
    }
  });

  it('where every sample differs alike t is infinite; where none differs it is 0', () => {
    const pairs = { differences: [0, 1e-9, 0], standardErrors: [0, 0, 0] };
    expect(scores.pairedNoise([1, 1, 1], { tau: 1, baseLoss: null, pairs })).toEqual([1, 0, 1]);
  });

  it('trials alike within noise hold lr with an anchor; clear ones move it as far as their factors', () => {
    // Gaps of a hundredth of the noise of one sample, 200 samples.
    const tied = of(noisy([0, 0, 0], 1e-6, 200, 1), { factors: [2, 2.2, 2.4], anchor: true });
    expect(Math.abs(Math.log(tied.multiplier))).toBeLessThan(0.06);
    const equal = Array.from({ length: 5 }, () => [1, 2, 3]);
    near(of(equal, { factors: factor5, anchor: true }).multiplier, 1);
    near(of(equal, { factors: factor5 }).multiplier, 2 ** -0.2);
    near(of(noisy([0, 1, 2], 0.1, 32, 2)).multiplier, 2);
    near(of(noisy([2, 1, 0], 0.1, 32, 2)).multiplier, 0.5);
  });

  it('unlike min-max, moves little where a difference is noise, whatever its size', () => {
    for (const scale of [1e-6, 1, 1e6]) {
      // Over many events of pure noise the steps are small and average out.
      const steps = Array.from({ length: 200 }, (_, i) => {
        const samples = noisy([0, 0, 0], 1, 32, i).map((all) => all.map((x) => x * scale));
        return Math.log2(of(samples, { kappa: 2 }).multiplier);
      });
      expect(Math.abs(meanOf(steps))).toBeLessThan(0.02);
      expect(Math.sqrt(meanOf(steps.map((x) => x * x)))).toBeLessThan(0.13);
    }
  });

  it('does not depend on the order of trials or samples, nor on the unit of the loss', () => {
    const samples = noisy([0.3, 0.05, 0, 0.02, 0.1, 0.2, 0.25], 0.3, 16, 3);
    const straight = of(samples, { factors: factor7 });
    const order = [3, 0, 6, 1, 5, 2, 4];
    const turned = of(order.map((i) => [...samples[i]].reverse()), { factors: order.map((i) => factor7[i]) });
    near(turned.multiplier, straight.multiplier, 1e-11);
    near(of(samples.map((all) => all.map((x) => 1024 * x)), { factors: factor7 }).multiplier, straight.multiplier);
    near(of(samples.map((all) => all.map((x) => x + 8)), { factors: factor7 }).multiplier, straight.multiplier, 1e-9);
  });

  it('diverged trials weigh 0, one factor is the identity', () => {
    const samples = [[NaN, 1, 2], [1, 2, 3], [2, 1, 3.1]];
    const got = of(samples);
    expect(got.weights[0]).toBe(0);
    expect(got.pairs!.differences[0]).toBeNaN();
    expect(of([[1, 2]], { factors: [1], anchor: true }).lrAfter).toBe(0.1);
    expect(of(samples.map(() => [NaN, 1]))).toMatchObject({ allNonFinite: true, lrAfter: 0.05 });
  });
});

describe("score 'armijo'", () => {
  const gate = (losses: readonly number[], more: Partial<TrialUpdateInput> = {}) =>
    trialUpdate({ ...plain, factors: factor7, losses, baseLoss: 2, slope: 1, score: 'armijo', ...more });
  /** L = 2 − s·η + h·η²/2. */
  const along = (lr: number, s: number, h: number) => factor7.map((f) => 2 - s * f * lr + (h / 2) * (f * lr) ** 2);

  it.each([0.1, 0.3, 0.5, 0.9])('c = %d on a quadratic: the largest factor up to 2(1 − c) of the line minimum', (c) => {
    for (let lr = 1e-3; lr < 10; lr *= 1.37) {
      // Least at 1.5.
      const chosen = factor7.find((f) => f * lr <= 2 * (1 - c) * 1.5) ?? 0.125;
      near(gate(along(lr, 3, 2), { lr, slope: 3, c }).multiplier, chosen);
    }
  });

  it('takes the base schedule into the rate, and 0.1 for c where none is given', () => {
    const losses = along(0.25 * 0.4, 3, 2);
    near(gate(losses, { lr: 0.4, baseRate: 0.25, slope: 3, c: 0.5 }).multiplier, 8);
    near(gate(losses, { lr: 0.4, slope: 3, c: 0.5 }).multiplier, 0.125);
    const boundary = factor7.map((f) => 2 - 0.1 * f * 0.1);
    near(gate(boundary.map((l) => l - 1e-12), { lr: 0.1 }).multiplier, 8);
    near(gate(boundary.map((l) => l + 1e-12), { lr: 0.1 }).multiplier, 0.125);
  });

  it('accepts none where the slope is not finite, none that diverged, and then takes the smallest that did not', () => {
    for (const slope of [NaN, Infinity, -Infinity]) near(gate(along(0.1, 1, 0), { slope }).multiplier, 0.125);
    near(gate([NaN, 1.9, 1.8, 2, 2, 2, NaN], { lr: 0.001 }).multiplier, 4);
    near(gate([NaN, 3, 3, 3, 3, 3, NaN]).multiplier, 0.25);
    near(gate(Array(7).fill(NaN)).multiplier, 0.125);
  });

  it.each([
    ['baseLoss', { baseLoss: null }], ['baseLoss', { baseLoss: Infinity }], ['slope', { slope: undefined }], ['baseRate', { baseRate: -1 }],
    ['c', { c: 1 }], ['c', { c: 0 }], ['c', { score: 'exp', c: 0.1 }], ['kappa', { kappa: 1 }], ['tau', { tau: 0.5 }],
    ['normalize', { normalize: 'minMax' }],
    ['samples', { score: 'pairedNoise' }], ['kappa', { score: 'pairedNoise', kappa: 0 }], ['tau', { score: 'pairedNoise', tau: 2 }],
    ['order', { order: [0, 1] }], ['order', { order: [0, 1, 2, 3, 4, 5, 5] }],
  ] as [string, Partial<TrialUpdateInput>][])('refuses %s: %j', (arg, more) => {
    expect(() => gate(along(0.1, 1, 1), more)).toThrow(expect.objectContaining({ constructor: AttrError, arg }));
  });
});

describe('shuffled losses', () => {
  it('are permutations by seed and step alone, each about as often', () => {
    const counts = new Map<string, number>();
    for (let step = 0; step < 3000; step++) {
      const order = shuffledTrials(7, step, 3);
      expect(shuffledTrials(7, step, 3)).toEqual(order);
      counts.set(order.join(), (counts.get(order.join()) ?? 0) + 1);
    }
    expect([...counts.keys()].sort()).toEqual(['0,1,2', '0,2,1', '1,0,2', '1,2,0', '2,0,1', '2,1,0']);
    // Six deviations of a binomial of 3000 and 1/6.
    for (const count of counts.values()) expect(Math.abs(count - 500)).toBeLessThan(6 * Math.sqrt((3000 * 5) / 36));
    expect(shuffledTrials(8, 0, 20)).not.toEqual(shuffledTrials(7, 0, 20));
    expect(shuffledTrials(0, 0, 1)).toEqual([0]);
  });

  it('factor i is scored by the loss of trial order[i]', () => {
    const losses = [5, NaN, 1];
    const got = trialUpdate({ ...plain, factors: factor3, losses, score: 'rank', order: [1, 2, 0] });
    const want = trialUpdate({ ...plain, factors: factor3, losses: [NaN, 1, 5], score: 'rank' });
    expect(got).toEqual(want);
  });

  it('do not move lr on average: the control has the steps, not their direction', () => {
    const scheduler = new TrialScheduler(asPublished('factor3', { control: 'shuffledLosses' }));
    const steps: number[] = [];
    for (let step = 0; step < 2000; step++) {
      const { lrBefore, lrAfter } = scheduler.apply(step, [1, 2, 3], null, { seed: 3 });
      steps.push(Math.log2(lrAfter / lrBefore));
    }
    expect(Math.abs(meanOf(steps))).toBeLessThan(0.03);
    expect(new Set(steps.map((x) => x.toFixed(6))).size).toBe(6);
  });

  it('a scheduler goes on from its state as if unbroken, and tells the order', () => {
    const make = () => new TrialScheduler(minMax({ control: 'shuffledLosses' }));
    const losses = [8, 7, 6, 5, 4, 3, 2];
    const [whole, first, second] = [make(), make(), make()];
    for (let step = 0; step < 8; step++) whole.apply(step, losses, null, { seed: 5 });
    for (let step = 0; step < 4; step++) first.apply(step, losses, null, { seed: 5 });
    second.load(JSON.parse(JSON.stringify(first.state())) as ScheduleState);
    for (let step = 4; step < 8; step++) second.apply(step, losses, null, { seed: 5 });
    expect(second.events).toEqual(whole.events);
    expect(whole.events[6]).toMatchObject({ control: 'shuffledLosses', order: shuffledTrials(5, 6, 7), losses });
  });
});

describe('blind drift', () => {
  const after100 = [['factor3', 1], ['factor5', 2 ** -20], ['factor7', 1]] as const;
  it.each(after100)('%s, as published: after 100 events the rate is ×%d', (name, want) => {
    const scheduler = new TrialScheduler(asPublished(name, { lr: 0.5, control: 'blindDrift' }));
    for (let step = 0; step < 100; step++) scheduler.drift(step);
    expect(Math.abs(scheduler.lr / 0.5 / want - 1)).toBeLessThanOrEqual(1e-9);
    expect(scheduler.events[3]).toMatchObject({ control: 'blindDrift', path: 'host', losses: factorSets[name].map(() => 0) });
  });

  it.each([
    { normalize: 'zScore' }, { normalize: 'sum' }, { score: 'rank' }, { score: 'relGain' }, { score: 'pairedNoise' },
  ] as Partial<TrialOptions>[])('%j drifts as far', (overrides) => {
    near(new TrialScheduler(asPublished('factor5', { lr: 1, control: 'blindDrift', ...overrides })).drift(0).lrAfter, 2 ** -0.2);
  });

  it('an anchored or holding rule stays where it is: its control is its envelope alone', () => {
    const scheduler = new TrialScheduler(minMax({ lr: 0.3, factors: 'factor5', control: 'blindDrift' }));
    expect(scheduler.drift(0)).toMatchObject({ held: true, lrAfter: 0.3 });
    near(new TrialScheduler(minMax({ lr: 0.3, factors: 'factor5', hold: false, control: 'blindDrift' })).drift(0).lrAfter, 0.3);
  });

  it('is for that control alone', () => {
    expect(() => new TrialScheduler(minMax()).drift(0)).toThrow(expect.objectContaining({ arg: 'control', op: 'TrialScheduler.drift' }));
  });
});

describe('options', () => {
  it('normalize and anchor follow from the score where they are not given', () => {
    expect(robust({ score: 'pairedNoise' })).toMatchObject({ normalize: 'none', anchor: true, kappa: null });
    expect(robust({ score: 'armijo' })).toMatchObject({ normalize: 'none', anchor: false });
    expect(asPublished('factor3', { score: 'rank' })).toMatchObject({ normalize: 'none', anchor: false });
    expect(robust({ score: (losses) => losses })).toMatchObject({ normalize: 'none', anchor: true });
  });

  const grid = { lr: [1], momentum: [0.9] };
  it.each([
    ['anchor', { score: 'armijo', anchor: true }], ['score', { score: 'armijo', factors: grid }],
    ['scoreBatch', { score: 'pairedNoise', scoreBatch: 1 }], ['normalize', { score: 'pairedNoise', normalize: 'minMax' }],
    ['kappa', { kappa: 1 }], ['kappa', { score: 'pairedNoise', kappa: 1e-50 }], ['kappa', { score: 'pairedNoise', kappa: NaN }],
    ['c', { c: 0.1 }], ['c', { score: 'armijo', c: 2 }], ['tau', { score: 'armijo', tau: 2 }],
    ['control', { control: 'blind' as never }],
    ['control', { control: 'blindDrift', score: 'armijo' }],
    ['control', { control: 'blindDrift', score: (losses) => losses }], ['control', { control: 'blindDrift', factors: grid }],
  ] as [string, Partial<TrialOptions>][])('refuses %s: %j', (arg, overrides) => {
    const make = () => new TrialScheduler(minMax(overrides));
    expect(make).toThrow(expect.objectContaining({ constructor: AttrError, arg }));
  });

  it('two batches of one image are two samples', () => {
    expect(new TrialScheduler(robust({ score: 'pairedNoise', scoreBatch: 1, batch: 'both' })).options.scoreBatch).toBe(1);
  });
});

it('events survive JSON with what their scores looked at', () => {
  const noise = new TrialScheduler(robust({ factors: 'factor3', score: 'pairedNoise' }));
  const gate = new TrialScheduler(robust({ factors: 'factor3', score: 'armijo' }));
  const samples = [[NaN, 1], [0, 2], [1, 3]];
  const events = [noise.apply(0, [NaN, 1, 2], null, { samples }), gate.apply(0, [1, 2, 3], 2, { slope: -Infinity })];
  expect(events[0].pairs).toEqual({ differences: [NaN, 0, 1], standardErrors: [NaN, 0, 0] });
  for (const event of events) {
    expect(JSON.stringify(eventToJson(event))).not.toContain('null,null');
    expect(eventFromJson(JSON.parse(JSON.stringify(eventToJson(event))))).toEqual(event);
  }
});
