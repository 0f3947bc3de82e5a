import { describe, expect, test } from 'vitest';
import { centralDifferenceVjp } from './centralDifference.ts';
import { expectClose, relativeDistance } from './close.ts';
import { map, nd, scalar } from './nd.ts';
import { randomCotangent, randomDistinct, randomInts, randomNd, randomPermutation } from './random.ts';

describe('randomNd', () => {
  test('repeats for a seed, and differs for another', () => {
    expect(randomNd([3, 5], 7)).toEqual(randomNd([3, 5], 7));
    // Independent normal vectors are about √2 apart.
    expect(relativeDistance(randomNd([1000], 7), randomNd([1000], 8))).toBeGreaterThan(1.2);
    expect(relativeDistance(randomNd([1000], 7), randomCotangent([1000], 7))).toBeGreaterThan(1.2);
  });

  test('neighbouring seeds do not share a stretch of the stream', () => {
    const seen = new Set(Array.from({ length: 20 }, (_, seed) => [...randomNd([100], seed).data]).flat());
    expect(seen.size).toBe(2000);
  });

  test('is standard normal, then scaled and moved', () => {
    const { data } = randomNd([20000], 3, { scale: 2, offset: 5 });
    const mean = data.reduce((a, b) => a + b) / data.length;
    const variance = data.reduce((total, v) => total + (v - mean) ** 2, 0) / data.length;
    // 4 standard errors: 4·2/√20000 for the mean, 4·4·√(2/20000) for the variance.
    expect(Math.abs(mean - 5)).toBeLessThan(0.057);
    expect(Math.abs(variance - 4)).toBeLessThan(0.16);
    expect(data.filter((v) => Math.abs(v - 5) < 2).length / data.length).toBeCloseTo(0.6827, 1);
  });

  test('gives float32 numbers only', () => {
    const { data } = randomNd([100], 4, { scale: 0.1, offset: 3 });
    expect([...Float32Array.from(data)]).toEqual([...data]);
  });

  test('positive and awayFromZero hold', () => {
    const plain = randomNd([1000], 5).data;
    expect(plain.some((v) => v < 0) && plain.some((v) => Math.abs(v) < 0.1)).toBe(true);
    expect(randomNd([1000], 5, { positive: true, offset: 0.5 }).data.every((v) => v >= 0.5)).toBe(true);
    const away = randomNd([1000], 5, { awayFromZero: 0.1 }).data;
    expect(away.every((v, i) => Math.abs(v) >= Math.fround(0.1) && Math.sign(v) === Math.sign(plain[i]))).toBe(true);
  });
});

test('randomDistinct has no ties, and is float32', () => {
  const { shape, data } = randomDistinct([3, 7, 5], 1);
  expect(shape).toEqual([3, 7, 5]);
  const sorted = Float32Array.from(data).sort();
  expect(sorted.slice(1).every((v, i) => v - sorted[i] === 2 ** -5)).toBe(true);
  expect(data).not.toEqual(Float64Array.from(sorted));
});

test('randomPermutation holds each number once', () => {
  const order = randomPermutation(50, 1);
  expect(order).not.toEqual(order.toSorted((a, b) => a - b));
  expect(order.toSorted((a, b) => a - b)).toEqual(Array.from({ length: 50 }, (_, i) => i));
});

test('randomInts reaches every number below, and none other', () => {
  expect(new Set(randomInts(200, 5, 1))).toEqual(new Set([0, 1, 2, 3, 4]));
});

describe('centralDifferenceVjp', () => {
  const x = nd([2], [0.5, -2]);

  test('weights each output by its cotangent, and gives each input its own gradient', () => {
    // y = (x0³·k, x1³·k): dx = dy·3x²·k, dk = Σ dy·x³
    const [dx, dk] = centralDifferenceVjp((a, k) => map(a, (v) => v ** 3 * k.data[0]), [x, scalar(2)], nd([2], [10, -1]));
    expectClose(dx, [10 * 3 * 0.25 * 2, -3 * 4 * 2], { atol: 1e-8, rtol: 0 });
    expectClose(dk, [10 * 0.125 + 8], { atol: 1e-8, rtol: 0 });
    expect([dx.shape, dk.shape]).toEqual([[2], []]);
  });

  test('refuses a cotangent of another shape than the output', () => {
    expect(() => centralDifferenceVjp((a) => a, [x], nd([1, 2], [1, 1]))).toThrow('dy must have the shape [2], got [1,2]');
  });
});
