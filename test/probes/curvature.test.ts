import { describe, expect, it } from 'vitest';
import { curvature } from '../../src/probes/curvature.ts';
import { knownLine, quadratic } from './lines.ts';

describe('curvature', () => {
  it('of a quadratic is dᵀHd / dᵀd, held against 2/η', async () => {
    // H = diag(1, 9), d = ∇L = (1, 2): dᵀHd = 37, ‖d‖² = 5.
    const line = quadratic(3, -5, 37, { squaredNorm: 5 });
    const found = await curvature(line, { lr: 0.1 });
    expect(found.curvature).toBeCloseTo(37 / 5, 9);
    expect(found.limit).toBe(20);
    expect(found.ratio).toBeCloseTo(37 / 100, 9);
    // d = ∇L: the break-even step is 2/curvature.
    expect(found.breakEven).toBeCloseTo(2 / (37 / 5), 9);
    expect(found.fit.slope).toBeCloseTo(found.slope, 9);
    expect(found.fit.minimum).toBeCloseTo(5 / 37, 9);
    expect(found.steps).toHaveLength(9);
    expect(line.calls).toEqual([found.steps]);
  });

  it('takes losses where the slope alone changes them by 2 %', async () => {
    const { steps } = await curvature(quadratic(3, -5, 37), { lr: 0.1 });
    expect(steps[8]).toBeCloseTo(0.02 * (3 / 5), 12);
    expect((await curvature(quadratic(3, -5, 37), { lr: 0.1, span: 0.5, points: 5 })).steps).toEqual([-0.5, -0.25, 0, 0.25, 0.5]);
  });

  it('is φ″(0) of a function that is no parabola, from float32 losses, to 1 %', async () => {
    // A logistic loss: φ(0) = ln 2 + 1, φ' = −½·3, φ″ = ¼·9.
    const line = knownLine((step) => 1 + Math.log1p(Math.exp(-3 * step)), -1.5, { isRounded: true });
    const found = await curvature(line, { lr: 1 });
    expect(found.curvature / (9 / 4)).toBeGreaterThan(0.99);
    expect(found.curvature / (9 / 4)).toBeLessThan(1.01);
    expect(found.fit.slope).toBeCloseTo(-1.5, 4);
  });

  it('has no break-even step where the loss curves downwards', async () => {
    expect(await curvature(quadratic(3, -1, -2), { lr: 1 })).toMatchObject({ breakEven: null, fit: { minimum: null } });
  });

  it.each([
    [{ lr: 0 }, 'lr'],
    [{ lr: NaN }, 'lr'],
    [{ lr: 1, points: 4 }, 'points'],
    [{ lr: 1, points: 3 }, 'points'],
    [{ lr: 1, span: 0 }, 'span'],
    [{ lr: 1, span: -1 }, 'span'],
  ])('refuses %o', async (options, arg) => {
    await expect(curvature(quadratic(3, -1, 2), options)).rejects.toThrow(expect.objectContaining({ name: 'AttrError', arg }));
  });

  it('refuses a direction of no length, a default span without a slope, and losses that are not finite', async () => {
    await expect(curvature(quadratic(3, -1, 2, { squaredNorm: 0 }), { lr: 1 })).rejects.toThrow(/line\.squaredNorm must be > 0/);
    await expect(curvature(quadratic(3, 0, 2), { lr: 1 })).rejects.toThrow(/span must be > 0/);
    expect((await curvature(quadratic(3, 0, 2), { lr: 1, span: 0.1 })).curvature).toBeCloseTo(2, 9);
    await expect(
      curvature(
        knownLine((step) => (step > 0 ? Infinity : 1), -1),
        { lr: 1 },
      ),
    ).rejects.toThrow(/losses must be/);
  });
});
