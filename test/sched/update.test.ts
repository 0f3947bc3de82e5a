import { describe, expect, it } from 'vitest';
import { AttrError } from '../../src/gpu/errors.ts';
import { factorSets, isBalanced, normalizers, resolveFactors, scores, trialUpdate, trialWeights } from '../../src/sched/index.ts';
import type { TrialUpdateInput } from '../../src/sched/index.ts';

const published = { lr: 0.1, normalize: 'minMax', score: 'exp', tau: 1, anchor: false, bounds: null, holdBelow: null } as const;
const update = (factors: readonly number[], losses: readonly number[], options: Partial<TrialUpdateInput> = {}) =>
  trialUpdate({ ...published, factors, losses, ...options });
const { factor3, factor5, factor7 } = factorSets;
const losses7 = [2.9, 2.1, 1.7, 1.6, 1.8, 1.95, 2.05];

function expectNear(got: readonly number[], want: readonly number[], tolerance = 1e-12): void {
  expect(got.length).toBe(want.length);
  got.forEach((g, i) => expect(Math.abs(g - want[i]), `index ${i}: ${g} vs ${want[i]}`).toBeLessThanOrEqual(tolerance));
}

describe('normalisations', () => {
  it.each([
    ['minMax', [0, 0.25, 1]], ['zScore', [-0.9805806757, -0.3922322703, 1.372812946]], ['mean', [0.375, 0.75, 1.875]],
    ['sum', [0.125, 0.25, 0.625]], ['l2', [0.1825741858, 0.3651483717, 0.9128709292]], ['none', [1, 2, 5]],
  ] as const)('%s of 1, 2, 5', (name, want) => {
    expectNear(normalizers[name]([1, 2, 5]), want, 1e-9);
  });

  it('equal losses become equal, and zero losses zero, without NaN', () => {
    for (const normalize of Object.values(normalizers)) {
      expect(new Set(normalize([3, 3, 3])).size).toBe(1);
      expect(normalize([0, 0])).toEqual([0, 0]);
    }
  });

  it('keep the order of negative losses too', () => {
    for (const normalize of Object.values(normalizers)) {
      const [a, b, c] = normalize([-3, -1, 2]);
      expect(a < b && b < c).toBe(true);
    }
  });
});

describe('scores', () => {
  it('exp is e^-x up to one common factor, and survives x = 5000', () => {
    const total = Math.exp(-1) + Math.exp(-2) + Math.exp(-5);
    expectNear(trialWeights([1, 2, 5], { normalize: 'none', score: 'exp', tau: 1 }, null), [1, 2, 5].map((x) => Math.exp(-x) / total));
    expectNear(scores.exp([5000, 5001], { tau: 2, baseLoss: null }), [1, Math.exp(-0.5)]);
  });

  it('rank looks at the order alone and shares ties', () => {
    expectNear(scores.rank([7, 7, 1, 900], { tau: 1, baseLoss: null }), [1.5, 1.5, 0, 3].map((r) => Math.exp(-r)));
  });

  it('give weights at any temperature, ties for the best place and losses of 0 too', () => {
    expect(trialWeights([7, 7, 9], { normalize: 'none', score: 'rank', tau: 1e-4 }, null)).toEqual([0.5, 0.5, 0]);
    expect(trialWeights([0, 0, 1], { normalize: 'none', score: 'relGain', tau: 0.1 }, 0)).toEqual([0.5, 0.5, 0]);
    expect(trialWeights([7, 7, 9], { normalize: 'minMax', score: 'exp', tau: 1e-30 }, null)).toEqual([0.5, 0.5, 0]);
  });

  it('relGain measures in units of the best gain, and of rounding where nothing gains', () => {
    expectNear(scores.relGain([1, 1.5, 3], { tau: 0.5, baseLoss: 2 }), [0, 1, 4].map((x) => Math.exp(-x)));
    const flat = scores.relGain([2, 2 + 2 ** -21], { tau: 1, baseLoss: 1.5 });
    expectNear(flat, [1, Math.exp(-(2 ** -21) / (4 * 2 ** -23 * 1.5))]);
  });

  it('weights sum to 1', () => {
    for (const [normalize, score] of [['zScore', 'exp'], ['none', 'rank'], ['none', 'relGain']] as const) {
      const weights = trialWeights([...losses7.slice(1), NaN], { normalize, score, tau: 0.3 }, 2.2);
      expect(Math.abs(weights.reduce((a, b) => a + b) - 1)).toBeLessThanOrEqual(1e-12);
      expect(weights[6]).toBe(0);
    }
  });
});

describe('trialUpdate', () => {
  it('applies the multiplier to lr', () => {
    const { lrAfter, multiplier, ...rest } = update(factor3, [1, 2, 3], { lr: 0.25 });
    expect(lrAfter).toBe(0.25 * multiplier);
    const w = [1, Math.exp(-0.5), Math.exp(-1)];
    const total = w[0] + w[1] + w[2];
    expect(Math.abs(multiplier - 2 ** ((w[0] - w[2]) / total))).toBeLessThanOrEqual(1e-12);
    expectNear(rest.weights, w.map((v) => v / total));
    expect(rest).toMatchObject({ clamped: false, nonFinite: 0, held: false, allNonFinite: false });
  });

  it('does not depend on the order of the trials', () => {
    const order = [3, 0, 6, 1, 5, 2, 4];
    for (const normalize of ['minMax', 'zScore', 'sum', 'none'] as const) {
      const straight = update(factor7, losses7, { normalize });
      const shuffled = update(order.map((i) => factor7[i]), order.map((i) => losses7[i]), { normalize });
      expect(Math.abs(straight.multiplier / shuffled.multiplier - 1)).toBeLessThanOrEqual(1e-14);
      expectNear(shuffled.weights, order.map((i) => straight.weights[i]));
    }
  });

  it.each(['minMax', 'zScore', 'mean', 'sum', 'l2'] as const)('%s: the unit of the loss does not matter', (normalize) => {
    const plain = update(factor5, losses7.slice(0, 5), { normalize }).multiplier;
    const scaled = update(factor5, losses7.slice(0, 5).map((l) => 1024 * l), { normalize }).multiplier;
    expect(Math.abs(plain / scaled - 1)).toBeLessThanOrEqual(1e-12);
  });

  it.each(['minMax', 'zScore', 'none'] as const)('%s: a constant added to the loss does not matter', (normalize) => {
    const plain = update(factor5, losses7.slice(0, 5), { normalize }).multiplier;
    const shifted = update(factor5, losses7.slice(0, 5).map((l) => l + 8), { normalize }).multiplier;
    expect(Math.abs(plain / shifted - 1)).toBeLessThanOrEqual(1e-12);
  });

  it('one factor: 1 is the identity, another one only with an anchor', () => {
    expect(update([1], [2.3]).lrAfter).toBe(0.1);
    expect(Math.abs(update([2], [2.3]).multiplier - 2)).toBeLessThanOrEqual(1e-15);
    expect(update([2], [2.3], { anchor: true }).lrAfter).toBe(0.1);
  });

  it('anchored: equal losses change nothing for unbalanced factors, balanced factors are as published', () => {
    expect(update(factor5, [2, 2, 2, 2, 2], { anchor: true }).lrAfter).toBe(0.1);
    const balanced = [true, false].map((anchor) => update(factor7, losses7, { anchor }).multiplier);
    expect(Math.abs(balanced[0] / balanced[1] - 1)).toBeLessThanOrEqual(1e-14);
    const [free, anchored] = [update(factor5, losses7.slice(0, 5)), update(factor5, losses7.slice(0, 5), { anchor: true })];
    expect(Math.abs(anchored.multiplier / free.multiplier - 2 ** 0.2)).toBeLessThanOrEqual(1e-12);
  });
});

describe('hold', () => {
  const ulp = 2 ** -22; // of a float32 in [2, 4)
  it('keeps lr to the bit up to 4 ulp of the largest loss, and not beyond', () => {
    const at = (ulps: number, holdBelow: number | null) => update(factor5, [2, 2, 2, 2, 2 + ulps * ulp], { holdBelow });
    expect(at(0, 4)).toMatchObject({ lrAfter: 0.1, multiplier: 1, held: true });
    expect(at(4, 4)).toMatchObject({ lrAfter: 0.1, multiplier: 1, held: true });
    expect(at(5, 4).held).toBe(false);
    expect(at(5, 4).multiplier).not.toBe(1);
    expect(at(0, null).held).toBe(false);
    expect(at(0, null).multiplier.toFixed(6)).toBe('0.870551');
  });

  it('holds losses of 0', () => {
    expect(update(factor3, [0, 0, 0], { holdBelow: 4 })).toMatchObject({ lrAfter: 0.1, held: true });
  });

  it.each([NaN, Infinity, -Infinity])('does not hold where a trial diverged to %s', (bad) => {
    const got = update(factor3, [bad, 2, 2], { holdBelow: 4 });
    expect(got.held).toBe(false);
    expect(Math.abs(got.multiplier - Math.SQRT1_2)).toBeLessThanOrEqual(1e-15);
  });
});

describe('diverged trials', () => {
  it.each([NaN, Infinity, -Infinity])('%s weighs 0 and leaves the others as if it were not there', (bad) => {
    const got = update(factor7, [bad, bad, ...losses7.slice(2)]);
    const without = update(factor7.slice(2), losses7.slice(2));
    expect(got.weights.slice(0, 2)).toEqual([0, 0]);
    expectNear(got.weights.slice(2), without.weights);
    expect(Math.abs(got.multiplier / without.multiplier - 1)).toBeLessThanOrEqual(1e-14);
    expect(got).toMatchObject({ nonFinite: 2, allNonFinite: false });
  });

  it('the anchor runs over all trials: a diverged largest factor lowers lr even where the rest ties', () => {
    const got = update(factor3, [NaN, 2, 2], { anchor: true });
    expect(Math.abs(got.multiplier - Math.SQRT1_2)).toBeLessThanOrEqual(1e-15);
  });

  it('one finite trial alone decides', () => {
    expect(Math.abs(update(factor7, [NaN, NaN, NaN, NaN, NaN, Infinity, 3]).multiplier - 0.125)).toBeLessThanOrEqual(1e-15);
  });

  it.each([true, false])('all diverged: the smallest factor, flagged (anchor %s)', (anchor) => {
    const got = update(factor5, [NaN, Infinity, NaN, -Infinity, NaN], { anchor, holdBelow: 4 });
    expect(got).toMatchObject({ lrAfter: 0.0125, multiplier: 0.125, allNonFinite: true, nonFinite: 5, held: false });
    expect(got.weights).toEqual([0, 0, 0, 0, 0]);
  });
});

describe('bounds', () => {
  it('clamp and flag', () => {
    const bounds = [0.09, 0.11] as const;
    expect(update(factor7, [0, 1, 1, 1, 1, 1, 1], { bounds })).toMatchObject({ lrAfter: 0.11, clamped: true });
    expect(update(factor7, [1, 1, 1, 1, 1, 1, 0], { bounds })).toMatchObject({ lrAfter: 0.09, clamped: true });
    expect(update(factor7, [1, 1, 1, 1, 1, 1, 1], { bounds, holdBelow: 4 })).toMatchObject({ lrAfter: 0.1, clamped: false });
  });

  it('the multiplier stays what the trials asked for', () => {
    const [free, bound] = [update(factor3, [1, 2, 3]), update(factor3, [1, 2, 3], { bounds: [0.01, 0.1] })];
    expect(bound.multiplier).toBe(free.multiplier);
    expect(bound.lrAfter).toBe(0.1);
  });
});

describe('factors', () => {
  it('resolve by name and as a list, as copies', () => {
    expect(resolveFactors('factor5')).toEqual([4, 2, 1, 0.5, 0.125]);
    resolveFactors('factor5').push(9);
    expect(resolveFactors('factor5')).toHaveLength(5);
    expect(resolveFactors([3, 1])).toEqual([3, 1]);
  });

  it('balance', () => {
    expect([factor3, factor5, factor7, [4, 2, 1, 0.5, 0.25]].map(isBalanced)).toEqual([true, false, true, true]);
  });

  it.each([
    ['factor4', 'factors'], ['toString', 'factors'], [[], 'factors'], [[1, 0], 'factors[1]'], [[-1], 'factors[0]'], [[NaN], 'factors[0]'],
    [[1, Infinity], 'factors[1]'], [[2, 1, 2], 'factors[2]'],
  ])('%j is refused', (factors, arg) => {
    const call = (): unknown => resolveFactors(factors as number[]);
    expect(call).toThrow(AttrError);
    expect(call).toThrow(expect.objectContaining({ op: 'resolveFactors', arg }));
  });
});

describe('bad input', () => {
  const rows: [string, Partial<TrialUpdateInput>][] = [
    ['lr', { lr: 0 }], ['lr', { lr: NaN }], ['losses', { losses: [1, 2] }], ['losses', { losses: [], factors: [] }],
    ['normalize', { normalize: 'minmax' as never }], ['score', { score: 'softmax' as never }], ['tau', { tau: 0 }],
    ['normalize', { score: 'rank' }], ['baseLoss', { score: 'relGain', normalize: 'none' }],
    ['baseLoss', { score: 'relGain', normalize: 'none', baseLoss: NaN }],
  ];
  it.each(rows)('%s: %j', (arg, options) => {
    const call = (): unknown => update(factor3, [1, 2, 3], options);
    expect(call).toThrow(AttrError);
    expect(call).toThrow(expect.objectContaining({ arg }));
  });

  it('says what and how', () => {
    expect(() => update(factor3, [1, 2])).toThrowErrorMatchingInlineSnapshot(
      `[AttrError: trialUpdate: losses must hold one loss a factor (3), got 2 (number); pass them in the order of factors]`);
  });
});
