import { describe, expect, it } from 'vitest';
import { logGrid } from '../../src/probes/grids.ts';
import { rateRange } from '../../src/probes/rateRange.ts';
import { knownLine, quadratic } from './lines.ts';

// φ(η) = 2 − η + 2η²: least at ¼, back at φ(0) at ½, at 4·φ(0) where 2η² − η = 6: η = 2.
const line = () => quadratic(2, -1, 4);

describe('rateRange', () => {
  it('finds where a quadratic is least, breaks even and explodes, in one evaluation', async () => {
    const one = line();
    const rates = [4, 0.03125, 0.0625, 0.125, 0.25, 0.4375, 0.5, 0.53125, 1, 2, 2.03125];
    const range = await rateRange(one, { rates });
    const rising = [...rates].sort((a, b) => a - b);
    expect(range.rates).toEqual(rising);
    expect(range.losses).toEqual(rising.map((rate) => 2 - rate + 2 * rate ** 2));
    expect(range).toMatchObject({ baseLoss: 2, least: { rate: 0.25, loss: 1.875 }, breakEven: 0.4375, explodes: 2.03125 });
    expect(one.calls).toEqual([[0, ...rising]]);
    expect(rates[0]).toBe(4);
  });

  it('reads the explosion off another multiple', async () => {
    expect((await rateRange(line(), { rates: [0.1, 1, 2, 4], explosion: 1.4 })).explodes).toBe(1);
    expect((await rateRange(line(), { rates: [0.1, 1, 2], explosion: 4 })).explodes).toBeNull();
  });

  it('counts losses that are not finite as exploded, and never as least', async () => {
    for (const bad of [NaN, Infinity, -Infinity]) {
      const phi = (step: number) => (step > 0.3 ? bad : 2 - step);
      const range = await rateRange(knownLine(phi, -1), { rates: [0.1, 0.2, 0.4, 0.8] });
      expect(range).toMatchObject({ least: { rate: 0.2, loss: 1.8 }, breakEven: 0.2, explodes: 0.4 });
    }
  });

  it('is not misled by steps whose decrease a float32 loss does not show', async () => {
    const rounded = quadratic(2, -1, 4, { isRounded: true });
    const range = await rateRange(rounded, { rates: logGrid(1e-9, 0.45, 40) });
    expect(range.losses[0]).toBe(2);
    expect(range.breakEven).toBe(0.45);
    expect(range.least!.rate).toBeGreaterThan(0.2);
  });

  it('has no least loss and no break-even where every rate is too large', async () => {
    expect(await rateRange(line(), { rates: [0.6, 1] })).toMatchObject({ least: null, breakEven: null, explodes: null });
  });

  it('finds none either where losses beside those that rise are infinite', async () => {
    const phi = (step: number) => (step > 1 ? Infinity : 2 + step);
    const range = await rateRange(knownLine(phi, -1), { rates: [0.5, 1, 2] });
    expect(range).toMatchObject({ least: null, breakEven: null, explodes: 2 });
  });

  it('calls no multiple of a loss below 0 an explosion', async () => {
    const negative = knownLine((step) => -2 - step, -1);
    expect(await rateRange(negative, { rates: [0.5, 1] })).toMatchObject({ least: { rate: 1, loss: -3 }, breakEven: 1, explodes: null });
  });

  it.each([
    [{ rates: [0.1] }, 'rates'],
    [{ rates: [0, 0.1] }, 'rates'],
    [{ rates: [0.1, 0.1] }, 'rates'],
    [{ rates: [0.1, 0.2], explosion: 1 }, 'explosion'],
    [{ rates: [0.1, 0.2], explosion: Infinity }, 'explosion'],
  ])('refuses %o', async (options, arg) => {
    await expect(rateRange(line(), options)).rejects.toThrow(expect.objectContaining({ name: 'AttrError', arg }));
  });

  it('refuses a line that does not descend', async () => {
    await expect(rateRange(quadratic(1, 1, 1), { rates: [0.1, 0.2] })).rejects.toThrow(/line\.slope must be < 0/);
  });
});
