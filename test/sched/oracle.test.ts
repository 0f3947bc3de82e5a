/**
 * The update against closed forms and against the printed table of the project's learning-rate notes (4 digits).
 * Closed forms are written out here on their own, without the code under test.
 */
import { describe, expect, it } from 'vitest';
import { factorSets, trialUpdate } from '../../src/sched/index.ts';
import type { TrialUpdateInput } from '../../src/sched/index.ts';
import { randomNd } from '../support/random.ts';

type SetName = keyof typeof factorSets;
const names: SetName[] = ['factor3', 'factor5', 'factor7'];
const published = { normalize: 'minMax', score: 'exp', tau: 1, anchor: false, bounds: null, holdBelow: null } as const;

const multiplierOf = (factors: readonly number[], losses: readonly number[], options: Partial<TrialUpdateInput> = {}): number =>
  trialUpdate({ lr: 1, factors, losses, ...published, ...options }).multiplier;

/** Weighted geometric mean with weights e^-x for the given x, in another form than the code's: a product of powers. */
function productForm(factors: readonly number[], x: readonly number[]): number {
  const w = x.map((v) => Math.E ** -v);
  const total = w.reduce((a, b) => a + b);
  return factors.reduce((product, f, i) => product * f ** (w[i] / total), 1);
}

/** Relative distance ≤ 1e-6 to the exact value, and the table's digits. */
function expectOracle(got: number, exact: number, printed: number, digits = 4): void {
  expect(Math.abs(got / exact - 1)).toBeLessThanOrEqual(1e-6);
  expect(Math.abs(got - printed)).toBeLessThanOrEqual(0.5000001 * 10 ** -digits);
}

/** Every way to hand out x ∈ {0, 1}: the extremes of a function quasi-convex in each weight lie there. */
const corners = (n: number): number[][] =>
  Array.from({ length: 2 ** n }, (_, bits) => Array.from({ length: n }, (_, i) => (bits >> i) & 1));

describe('one event, min-max, e^-x', () => {
  it.each([['factor3', 1, 1], ['factor5', 2 ** -0.2, 2 ** -20], ['factor7', 1, 1]] as const)(
    '%s: equal losses give the geometric mean of the factors', (name, mean, after100) => {
      const factors = factorSets[name];
      const got = multiplierOf(factors, factors.map(() => 2.3));
      expect(Math.abs(got / mean - 1)).toBeLessThanOrEqual(1e-12);
      let lr = 1;
      for (let i = 0; i < 100; i += 1) lr = trialUpdate({ lr, factors, losses: factors.map(() => 2.3), ...published }).lrAfter;
      expect(Math.abs(lr / after100 - 1)).toBeLessThanOrEqual(1e-9);
    });

  it('factor5: equal losses print as 0.870551', () => {
    expect(multiplierOf(factorSets.factor5, [1, 1, 1, 1, 1]).toFixed(6)).toBe('0.870551');
  });

  it.each([['factor3', 0.7769, 1.2871], ['factor5', 0.5237, 1.4069], ['factor7', 0.5555, 1.8002]] as const)(
    '%s: bounds of one event', (name, low, high) => {
      const factors = factorSets[name];
      const reached = corners(factors.length).map((x) => multiplierOf(factors, x));
      const exact = corners(factors.length).map((x) => productForm(factors, x));
      expectOracle(Math.min(...reached), Math.min(...exact), low);
      expectOracle(Math.max(...reached), Math.max(...exact), high);
      let seed = 7;
      const random = (): number => (seed = (seed * 48271) % 2147483647) / 2147483647;
      for (let i = 0; i < 2000; i += 1) {
        const got = multiplierOf(factors, factors.map(() => random() ** 4));
        expect(got >= Math.min(...exact) - 1e-12 && got <= Math.max(...exact) + 1e-12).toBe(true);
      }
    });

  const rows = [
    {
      what: 'lr far too small: loss falls linearly', phi: (f: number) => 5 - 0.01 * f,
      x: (f: number, max: number, min: number) => (max - f) / (max - min), printed: [1.2623, 1.3052, 1.5961],
    },
    {
      what: 'lr far too large: quadratic blow-up', phi: (f: number) => 2 + 1e4 * f * f,
      x: (f: number, max: number, min: number) => (f * f - min * min) / (max * max - min * min), printed: [0.8184, 0.6568, 0.7607],
    },
    {
      what: 'lr far too large: linear blow-up', phi: (f: number) => 2 + 1e4 * f,
      x: (f: number, max: number, min: number) => (f - min) / (max - min), printed: [0.8104, 0.6187, 0.7064],
    },
    {
      what: 'only the largest factor is bad', phi: (f: number, max: number) => (f === max ? 900 : 2),
      x: (f: number, max: number) => (f === max ? 1 : 0), printed: [0.8311, 0.6982, 0.8135],
    },
  ];
  it.each(rows)('$what', ({ phi, x, printed }) => {
    names.forEach((name, i) => {
      const factors = factorSets[name];
      const [max, min] = [Math.max(...factors), Math.min(...factors)];
      const exact = productForm(factors, factors.map((f) => x(f, max, min)));
      expectOracle(multiplierOf(factors, factors.map((f) => phi(f, max))), exact, printed[i]);
    });
  });

  it('events from lr 1 down to 0.005, and up by 10', () => {
    const perEvent = (name: SetName, phi: (f: number) => number): number =>
      Math.log(multiplierOf(factorSets[name], factorSets[name].map(phi)));
    const down = names.map((name) => [2, 1].map((power) => Math.log(0.005) / perEvent(name, (f) => f ** power)));
    expect(down.map((pair) => pair.map((n) => Number(n.toFixed(1))))).toEqual([[26.4, 25.2], [12.6, 11], [19.4, 15.2]]);
    const up = names.map((name) => Math.log(10) / perEvent(name, (f) => -f));
    expect(up.map((n) => Number(n.toFixed(1)))).toEqual([9.9, 8.6, 4.9]);
  });
});

/** φ along a step on a quadratic, rho = lr / line minimum; L = 1 at 0 and the best step gains `gain` of it. */
const quadratic = (gain: number) => (rho: number, f: number): number => 1 - gain * (2 * f * rho - (f * rho) ** 2);

/** The rho in (low, high) where the multiplier crosses 1 from above, or null where it is below 1 all over. */
function equilibrium(factors: readonly number[], options: Partial<TrialUpdateInput>, gain = 0.05): number | null {
  const excess = (rho: number): number => Math.log(multiplierOf(factors, factors.map((f) => quadratic(gain)(rho, f)), options));
  let [low, high] = [1e-3, 4];
  if (excess(low) <= 0) return null;
  for (let i = 0; i < 80; i += 1) {
    const middle = (low + high) / 2;
    if (excess(middle) > 0) low = middle;
    else high = middle;
  }
  return low;
}

describe('equilibria on an exact quadratic', () => {
  it('factor3 settles at exactly 2 / (2 + 1/2)', () => {
    expect(Math.abs(equilibrium(factorSets.factor3, {})! - 0.8)).toBeLessThanOrEqual(1e-12);
  });

  // Found by a program of its own, to 8 digits. The notes print them cut or rounded to 4: 0.4934, 0.3074; 0.5614; 0.5701, 0.3572.
  const rows: [string, Partial<TrialUpdateInput>, (number | null)[]][] = [
    ['min-max', {}, [0.8, 0.4934905, 0.30739272]],
    ['min-max, anchored', { anchor: true }, [0.8, 0.56138002, 0.30739272]],
    ['z-score', { normalize: 'zScore' }, [0.8, 0.57013743, 0.35727827]],
    ['sum, best step gains 5 %', { normalize: 'sum' }, [0.8, null, 0.28692806]],
    ['L2, best step gains 5 %', { normalize: 'l2' }, [0.8, null, 0.28728337]],
    ['mean, best step gains 5 %', { normalize: 'mean' }, [0.8, null, 0.28825143]],
  ];
  it.each(rows)('%s', (_name, options, exact) => {
    names.forEach((name, i) => {
      const rho = equilibrium(factorSets[name], options);
      if (exact[i] === null) expect(rho).toBeNull();
      else expect(Math.abs(rho! - exact[i])).toBeLessThanOrEqual(1e-6);
    });
  });

  it.each(['sum', 'l2', 'mean'] as const)('factor5 with %s decays whatever the losses say', (normalize) => {
    for (let rho = 1e-3; rho < 4; rho *= 1.05) {
      const losses = factorSets.factor5.map((f) => quadratic(0.05)(rho, f));
      expect(multiplierOf(factorSets.factor5, losses, { normalize })).toBeLessThan(0.9);
    }
  });

  it.each([[0.1, 0.8, 7.9], [0.25, 0.74, 5.7], [0.5, 0.5, 2.7], [1, 0.38, 1.6]])('relGain, factor7, tau %f', (tau, rho, small) => {
    const options = { normalize: 'none', score: 'relGain', tau, baseLoss: 1, anchor: true } as const;
    expect(Math.abs(equilibrium(factorSets.factor7, options)! - rho)).toBeLessThanOrEqual(0.00501);
    const far = multiplierOf(factorSets.factor7, factorSets.factor7.map((f) => 1 - 1e-4 * f), options);
    expect(Math.abs(far - small)).toBeLessThanOrEqual(0.0501);
  });
});

describe('losses that tell nothing', () => {
  it.each([['factor3', 0, 0.239], ['factor5', -0.2, 0.311], ['factor7', 0, 0.271]] as const)(
    '%s: of normal noise the steps have mean %f and deviation %f octaves', (name, mean, sd) => {
      const n = 20_000;
      const factors = factorSets[name];
      const noise = randomNd([n, factors.length], 3).data;
      const steps = Array.from({ length: n }, (_, i) =>
        Math.log2(multiplierOf(factors, [...noise.subarray(i * factors.length, (i + 1) * factors.length)])));
      const got = steps.reduce((a, b) => a + b) / n;
      // Five standard errors of each, and half of the last digit printed.
      expect(Math.abs(got - mean)).toBeLessThanOrEqual((5 * sd) / Math.sqrt(n));
      const deviation = Math.sqrt(steps.reduce((sum, x) => sum + (x - got) ** 2, 0) / n);
      expect(Math.abs(deviation - sd)).toBeLessThanOrEqual((5 * sd) / Math.sqrt(2 * n) + 5e-4);
    });

  it('a slope whose sign is a coin flip moves factor3 by ×1.011 an event, factor5 by ×0.899, factor7 by ×1.062', () => {
    const drift = names.map((name) => {
      const [falling, rising] = [-1, 1].map((sign) => multiplierOf(factorSets[name], factorSets[name].map((f) => 5 + sign * f)));
      return Number(Math.sqrt(falling * rising).toFixed(3));
    });
    expect(drift).toEqual([1.011, 0.899, 1.062]);
  });


  const permutations = (xs: number[]): number[][] =>
    xs.length <= 1 ? [xs] : xs.flatMap((x, i) => permutations(xs.filter((_, j) => j !== i)).map((rest) => [x, ...rest]));

  it.each(['minMax', 'zScore', 'mean', 'sum', 'l2', 'none'] as const)(
    '%s: averaged over every order of the losses, ln lr moves by mean ln f, and by 0 with an anchor', (normalize) => {
      const orders = permutations([0.31, 1.9, 0.72, 0.7, 1.1]);
      for (const [anchor, drift] of [[false, -0.2], [true, 0]] as const) {
        const steps = orders.map((losses) => Math.log2(multiplierOf(factorSets.factor5, losses, { normalize, anchor })));
        expect(Math.abs(steps.reduce((a, b) => a + b) / steps.length - drift)).toBeLessThanOrEqual(1e-12);
      }
    });
});
