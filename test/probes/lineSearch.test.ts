import { describe, expect, it } from 'vitest';
import { armijo, goldstein } from '../../src/probes/lineSearch.ts';
import { linearGrid } from '../../src/probes/grids.ts';
import { knownLine, quadratic } from './lines.ts';

// φ(η) = 3 − 2η + 2η²: least at η* = 0.5.
const line = () => quadratic(3, -2, 4);
const fine = linearGrid(0.001, 1.2, 1200);

describe('armijo', () => {
  // Nocedal & Wright, exercise 3.1's algebra: accepted up to 2(1 − c)·η*.
  it.each([0.1, 0.25, 0.5, 0.9])('takes steps up to 2(1 − c)·η* on a quadratic, c = %d', async (c) => {
    const { step, loss, candidates } = await armijo(line(), { steps: fine, c });
    expect(step).toBeGreaterThan(1 - c - 0.0011);
    expect(step).toBeLessThan(1 - c + 1e-9);
    expect(loss).toBe(3 - 2 * step! + 2 * step! ** 2);
    expect(candidates.map(({ isAccepted }) => isAccepted)).toEqual(fine.map((value) => value <= step!));
  });

  it('is what backtracking from the largest candidate ends at', async () => {
    // A loss with two valleys: the far one is lower.
    const phi = (step: number) => 1 - Math.sin(3 * step) * 0.4 - 0.3 * step;
    const steps = Array.from({ length: 24 }, (_, i) => 4 * 0.8 ** i);
    const slope = -1.5;
    for (const c of [0.05, 0.1, 0.15, 0.2, 0.3, 0.6]) {
      const found = steps.find((step) => phi(step) <= phi(0) + c * step * slope);
      expect((await armijo(knownLine(phi, slope), { steps, c })).step).toBe(found ?? null);
    }
  });

  it('tries all candidates and φ(0) in one evaluation', async () => {
    const one = line();
    const { baseLoss, slope } = await armijo(one, { steps: [0.3, 0.1] });
    expect(one.calls).toEqual([[0, 0.3, 0.1]]);
    expect([baseLoss, slope]).toEqual([3, -2]);
  });

  it('returns null and φ(0) where no candidate is good, and passes over losses that are not finite', async () => {
    expect(await armijo(line(), { steps: [1, 2] })).toMatchObject({ step: null, loss: 3 });
    const broken = knownLine((step) => (step === 0 ? 3 : step < 1 ? NaN : -Infinity), -2);
    expect(await armijo(broken, { steps: [0.1, 1] })).toMatchObject({ step: null, loss: 3 });
  });
});

describe('goldstein', () => {
  it.each([0.1, 0.25, 0.4])('takes steps in 2c·η* … 2(1 − c)·η* on a quadratic, c = %d', async (c) => {
    const { step, candidates } = await goldstein(line(), { steps: fine, c });
    const accepted = candidates.filter(({ isAccepted }) => isAccepted).map((candidate) => candidate.step);
    expect(step).toBe(Math.max(...accepted));
    expect(Math.abs(step! - (1 - c))).toBeLessThan(0.0011);
    expect(Math.abs(Math.min(...accepted) - c)).toBeLessThan(0.0011);
  });

  it('returns null where all candidates are too short, which Armijo takes', async () => {
    expect((await goldstein(line(), { steps: [0.01, 0.02] })).step).toBeNull();
    expect((await armijo(line(), { steps: [0.01, 0.02] })).step).toBe(0.02);
  });
});

describe('both refuse', () => {
  it.each([
    [{ steps: [] }, 'steps'],
    [{ steps: [0.1, 0] }, 'steps'],
    [{ steps: [0.1, 0.1] }, 'steps'],
    [{ steps: [Infinity] }, 'steps'],
    [{ steps: [0.1], c: 0 }, 'c'],
    [{ steps: [0.1], c: 1 }, 'c'],
  ])('%o', async (options, arg) => {
    await expect(armijo(line(), options)).rejects.toThrow(expect.objectContaining({ name: 'AttrError', op: 'armijo', arg }));
    await expect(goldstein(line(), options)).rejects.toThrow(expect.objectContaining({ name: 'AttrError', op: 'goldstein', arg }));
  });

  it('c = ½ for goldstein alone, and a line that does not descend', async () => {
    await expect(goldstein(line(), { steps: [0.1], c: 0.5 })).rejects.toThrow(/goldstein: c must be in \(0, 0\.5\), got 0\.5/);
    for (const slope of [0, 1, NaN])
      await expect(armijo(quadratic(3, slope, 1), { steps: [0.1] })).rejects.toThrow(/line\.slope must be < 0/);
  });
});
