import { describe, expect, it } from 'vitest';
import { fitParabola } from '../../src/probes/parabola.ts';
import { randomNd } from '../support/random.ts';

describe('fitParabola', () => {
  it('finds a parabola that the points lie on, at any scale and off centre', () => {
    for (const scale of [1e-6, 1, 1e5]) {
      const c = [-0.5, 0.25, 1, 3, 3.5].map((value) => value * scale);
      const phi = c.map((value) => 2 - (3 / scale) * value + (0.5 * 4 * value ** 2) / scale ** 2);
      const fit = fitParabola(c, phi);
      expect(fit.value).toBeCloseTo(2, 10);
      expect(fit.slope * scale).toBeCloseTo(-3, 10);
      expect(fit.secondDerivative * scale ** 2).toBeCloseTo(4, 10);
      expect(fit.minimum! / scale).toBeCloseTo(0.75, 10);
      expect(fit.rms).toBeLessThan(1e-12);
    }
  });

  it('has the least squares: every other parabola near it fits worse', () => {
    const noise = randomNd([12], 5).data;
    const c = Array.from({ length: 12 }, (_, i) => 0.1 * 1.5 ** i);
    const phi = c.map((value, i) => 1 - value + value ** 2 + noise[i]);
    const fit = fitParabola(c, phi);
    const rmsOf = (value: number, slope: number, k: number) =>
      Math.sqrt(c.reduce((total, at, i) => total + (value + slope * at + (k * at * at) / 2 - phi[i]) ** 2, 0) / c.length);
    expect(fit.rms).toBeCloseTo(rmsOf(fit.value, fit.slope, fit.secondDerivative), 12);
    for (const [dv, ds, dk] of [
      [1, 0, 0],
      [0, 1, 0],
      [0, 0, 1],
      [1, -1, 0.5],
    ]) {
      for (const h of [1e-4, -1e-4])
        expect(rmsOf(fit.value + h * dv, fit.slope + h * ds, fit.secondDerivative + h * dk)).toBeGreaterThan(fit.rms);
    }
  });

  it('makes nothing of losses that are equal, however near their steps', () => {
    const steps = Array.from({ length: 9 }, (_, i) => (i - 4) * 1e-30);
    const flat = fitParabola(steps, new Float32Array(9).fill(1.4125479459762573));
    expect(flat).toMatchObject({ value: Math.fround(1.4125479459762573), minimum: null, rms: 0 });
    expect([Math.abs(flat.slope), Math.abs(flat.secondDerivative)]).toEqual([0, 0]);
  });

  it('has no minimum where it opens downwards', () => {
    expect(fitParabola([-1, 0, 1], [-1, 0, -1])).toEqual({ value: 0, slope: 0, secondDerivative: -2, minimum: null, rms: 0 });
  });

  it.each([
    [[0, 1, 1], [1, 2, 2], 'coefficients'],
    [[0, 1, NaN], [1, 2, 3], 'coefficients'],
    [[0, 1, 2], [1, 2], 'losses'],
    [[0, 1, 2], [1, 2, Infinity], 'losses'],
  ])('refuses %j, %j', (c, losses, arg) => {
    expect(() => fitParabola(c, losses)).toThrowError(expect.objectContaining({ name: 'AttrError', arg }));
  });
});
