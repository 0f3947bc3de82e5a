import { describe, expect, test } from 'vitest';
import { expectClose, relativeDistance } from './close.ts';
import { nd } from './nd.ts';

const exact = { atol: 0, rtol: 0 };

describe('expectClose', () => {
  test('accepts up to atol + rtol·|expected|, and the bound itself', () => {
    expectClose([1.5, -4.75, 0.25], [1.25, -4, 0], { atol: 0.25, rtol: 0.125 });
    expectClose([Infinity, -Infinity], [Infinity, -Infinity], exact);
    expectClose(Float32Array.of(1, 2), nd([1, 2], [1, 2]), exact);
  });

  test('measures rtol by the expected value, not the actual one', () => {
    expectClose([50], [100], { atol: 0, rtol: 0.5 });
    expect(() => expectClose([100], [50], { atol: 0, rtol: 0.5 })).toThrow('1 of 1');
  });

  test.each<[string, number, number]>([
    ['just beyond the bound', 1.2500001, 1],
    ['on the other side', 0.7499999, 1],
    ['of the other sign', -1, 1],
    ['NaN', NaN, 1],
    ['NaN expected', 1, NaN],
    ['NaN on both sides', NaN, NaN],
    ['Infinity', Infinity, 1],
    ['Infinity expected', 1, Infinity],
    ['the other infinity', -Infinity, Infinity],
  ])('refuses a value that is %s', (_, actual, expected) => {
    expect(() => expectClose([0, actual], [0, expected], { atol: 0.125, rtol: 0.125 })).toThrow('1 of 2 values differ');
  });

  test('says where, what and how many', () => {
    const expected = nd([2, 2, 3], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
    const actual = Float64Array.of(0, 1, 2.5, 3, 4, 5, 6, 7, 16, 9, 10, 11);
    expect(() => expectClose(actual, expected, { atol: 0.125, rtol: 0.125 })).toThrowErrorMatchingInlineSnapshot(`
      [Error: expectClose: 2 of 12 values differ (atol 0.125, rtol 0.125), shape [2, 2, 3], NaN in got: 0
        first at (0, 0, 2): got 2.5, expected 2, error 0.5, allowed 0.375
        worst at (1, 0, 2): got 16, expected 8, error 8, allowed 1.125]
    `);
  });

  test('a NaN is the worst error, and is counted', () => {
    const wrong = () => expectClose([9, NaN, NaN, 1e30], [1, 2, 3, 4], exact);
    expect(wrong).toThrow('4 of 4 values differ (atol 0, rtol 0), shape 4 values, NaN in got: 2');
    expect(wrong).toThrow('first at 0: got 9, expected 1, error 8, allowed 0');
    expect(wrong).toThrow('worst at 1: got NaN, expected 2, error Infinity, allowed 0');
  });

  test('refuses another count or shape', () => {
    expect(() => expectClose([1, 2], [1, 2, 3], exact)).toThrow('got 2 values of 2 vs expected 3 values of 3');
    expect(() => expectClose([1, 2, 3], [1, 2], exact)).toThrow('shapes differ');
    expect(() => expectClose(nd([2, 3], [1, 2, 3, 4, 5, 6]), nd([3, 2], [1, 2, 3, 4, 5, 6]), exact)).toThrow('got [2, 3] of 6');
    expect(() => expectClose({ shape: [3], data: [1, 2] }, { shape: [3], data: [1, 2, 3] }, exact)).toThrow('got [3] of 2');
  });

  test('refuses to compare nothing, or with a tolerance that accepts everything', () => {
    expect(() => expectClose([], [], exact)).toThrow('nothing to compare');
    expect(() => expectClose([1], [1], { atol: NaN, rtol: 0 })).toThrow('atol must be finite and >= 0, got NaN');
    expect(() => expectClose([1], [1], { atol: 0, rtol: Infinity })).toThrow('rtol must be finite and >= 0, got Infinity');
    expect(() => expectClose([1], [1], { atol: -1, rtol: 0 })).toThrow('atol must be finite and >= 0, got -1');
  });
});

describe('relativeDistance', () => {
  test.each<[string, number[], number[], number]>([
    ['‖a − b‖ / ‖b‖', [3, 4 + 10], [3, 4], 2],
    ['the second argument gives the scale', [3, 4], [6, 8], 0.5],
    ['equal', [1, 2], [1, 2], 0],
    ['both 0', [0, 0], [0, 0], 0],
    ['b is 0', [0, 1e-300], [0, 0], Infinity],
    ['squares that underflow', [3 * 2 ** -998], [2 ** -998], 2],
    ['NaN in a', [1, NaN], [1, 2], Infinity],
    ['NaN in b', [1, 2], [1, NaN], Infinity],
    ['NaN in both', [NaN], [NaN], Infinity],
    ['the same infinity in both', [1, Infinity], [1, Infinity], Infinity],
  ])('%s', (_, a, b, distance) => {
    expect(relativeDistance(a, b)).toBe(distance);
  });

  test('refuses another count, another shape, and nothing', () => {
    expect(() => relativeDistance([1], [1, 2])).toThrow('shapes differ');
    expect(() => relativeDistance(nd([1, 2], [1, 2]), nd([2, 1], [1, 2]))).toThrow('shapes differ');
    expect(() => relativeDistance([], [])).toThrow('nothing to compare');
  });
});
