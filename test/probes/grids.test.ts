import { describe, expect, it } from 'vitest';
import { linearGrid, logGrid } from '../../src/probes/grids.ts';

describe('linearGrid and logGrid', () => {
  it('hold both ends exactly, and points between at equal distances or ratios', () => {
    expect(linearGrid(-1, 1, 5)).toEqual([-1, -0.5, 0, 0.5, 1]);
    expect(logGrid(0.01, 1, 3)).toEqual([0.01, 0.1, 1]);
    expect(linearGrid(-1, 1, 41).slice(20, 24)).toEqual([0, 0.05, 0.1, 0.15]);
    const [linear, log] = [linearGrid(-0.3, 0.7, 12), logGrid(1e-7, 10, 33)];
    expect([linear[0], linear[11], log[0], log[32]]).toEqual([-0.3, 0.7, 1e-7, 10]);
    for (let i = 1; i < 12; i++) expect(linear[i] - linear[i - 1]).toBeCloseTo(1 / 11, 10);
    for (let i = 1; i < 33; i++) expect(log[i] / log[i - 1]).toBeCloseTo(10 ** 0.25, 9);
  });

  it('a symmetrical grid of odd length holds 0', () => {
    expect(linearGrid(-0.7, 0.7, 9)[4]).toBe(0);
  });

  it.each([
    [() => linearGrid(1, 1, 3), 'from'],
    [() => linearGrid(0, Infinity, 3), 'from'],
    [() => linearGrid(NaN, 1, 3), 'from'],
    [() => linearGrid(0, 1, 1), 'points'],
    [() => logGrid(0, 1, 3), 'from'],
    [() => logGrid(1, 0.1, 3), 'from'],
    [() => logGrid(0.1, Infinity, 3), 'from'],
    [() => logGrid(0.1, 1, 2.5), 'points'],
  ])('refuse %s', (make, arg) => expect(make).toThrowError(expect.objectContaining({ name: 'AttrError', arg })));
});
