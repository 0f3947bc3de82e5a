import { describe, expect, it } from 'vitest';
import { exactCosSinTurns, exactLog } from '../../src/nn/exactMath.ts';
import { CounterRandom, hash32, STREAM } from '../../src/nn/random.ts';
import { AttrError } from '../../src/gpu/errors.ts';

/** The mixing of the file's head, in BigInt: an independent reading of the text that the WGSL twin is written from. */
function hash32Reference(seed: number, counter: number, stream: number): number {
  const u32 = (x: bigint): bigint => x & 0xffffffffn;
  const start = (x: number): bigint => u32(BigInt(x) * 1664525n + 1013904223n);
  let [a, b, c] = [start(counter), start(stream), start(seed)];
  for (let round = 0; round < 2; round++) {
    a = u32(a + b * c);
    b = u32(b + c * a);
    c = u32(c + a * b);
    a ^= a >> 16n;
    b ^= b >> 16n;
    c ^= c >> 16n;
  }
  a = u32(a + b * c);
  return Number(a ^ (a >> 16n));
}

describe('hash32', () => {
  it('is the documented mixing', () => {
    const words = [0, 1, 2, 7, 65_535, 65_536, 0x7fffffff, 0x80000000, 0xdeadbeef, 0xffffffff];
    for (const seed of words) {
      for (const counter of words) {
        for (const stream of words) expect(hash32(seed, counter, stream)).toBe(hash32Reference(seed, counter, stream));
      }
    }
  });

  it('has these values, for its twins in other languages', () => {
    const values = [hash32(0, 0, 0), hash32(0, 1, 0), hash32(1, 0, 0), hash32(0, 0, 1), hash32(0xffffffff, 123_456_789, 42)];
    expect(values).toEqual([824758716, 3572852490, 2006749859, 2346843807, 2794420707]);
  });

  // Each input bit flips each output bit half of the time: 4,096 tries, standard deviation 1/128, bound 5 of them.
  it.each(['seed', 'counter', 'stream'] as const)('spreads every bit of %s over all 32 bits', (argument) => {
    const tries = 4096;
    let worst = 0;
    for (let bit = 0; bit < 32; bit++) {
      const flips = new Uint32Array(32);
      for (let i = 0; i < tries; i++) {
        // Small, neighbouring arguments, as they are used.
        const from = { seed: i & 15, counter: i >> 4, stream: i & 3 };
        const to = { ...from, [argument]: (from[argument] ^ (1 << bit)) >>> 0 };
        const changed = hash32(from.seed, from.counter, from.stream) ^ hash32(to.seed, to.counter, to.stream);
        for (let out = 0; out < 32; out++) flips[out] += (changed >>> out) & 1;
      }
      for (const count of flips) worst = Math.max(worst, Math.abs(count / tries - 0.5));
    }
    expect(worst).toBeLessThan(5 / 128);
  });

  it('is flat in its high and its low byte, along counters, streams and seeds', () => {
    // χ² of 256 cells: mean 255, standard deviation 22.6; bounds 5 of them away.
    const n = 1 << 16;
    const draws = [(i: number) => hash32(0, i, 0), (i: number) => hash32(3, 5, i), (i: number) => hash32(i, 0, STREAM.augment)];
    for (const draw of draws) {
      for (const shift of [0, 24]) {
        const cells = new Float64Array(256);
        for (let i = 0; i < n; i++) cells[(draw(i) >>> shift) & 255]++;
        const chi2 = cells.reduce((sum, cell) => sum + (cell - n / 256) ** 2 / (n / 256), 0);
        expect(chi2).toBeGreaterThan(255 - 5 * 22.6);
        expect(chi2).toBeLessThan(255 + 5 * 22.6);
      }
    }
  });
});

describe('CounterRandom', () => {
  it('draws hash32(seed, 0, stream), hash32(seed, 1, stream), …', () => {
    const random = new CounterRandom(9, 4);
    expect([random.nextU32(), random.nextU32()]).toEqual([hash32(9, 0, 4), hash32(9, 1, 4)]);
    expect(random.uniform()).toBe(hash32(9, 2, 4) / 2 ** 32);
    expect(random.below(1000)).toBe(Math.floor((hash32(9, 3, 4) / 2 ** 32) * 1000));
    expect(random.counter).toBe(4);
  });

  it('is normal: moments, tails and independence of neighbours', () => {
    const random = new CounterRandom(0, STREAM.init);
    const n = 200_000;
    const z = Float64Array.from({ length: n }, () => random.normal());
    const moment = (k: number): number => z.reduce((sum, x) => sum + x ** k, 0) / n;
    // Standard errors 1/√n · (1, √2, √15, √96) = 0.0022, 0.0032, 0.0087, 0.022; bounds 4 of them.
    expect(Math.abs(moment(1))).toBeLessThan(0.009);
    expect(Math.abs(moment(2) - 1)).toBeLessThan(0.013);
    expect(Math.abs(moment(3))).toBeLessThan(0.035);
    expect(Math.abs(moment(4) - 3)).toBeLessThan(0.09);
    expect(z.filter((x) => Math.abs(x) > 1.959964).length / n).toBeCloseTo(0.05, 2);
    const neighbours = z.reduce((sum, x, i) => sum + (i > 0 ? x * z[i - 1] : 0), 0) / n;
    expect(Math.abs(neighbours)).toBeLessThan(0.009);
  });

  it.each([-1, 0.5, 2 ** 32, Number.NaN])('refuses the seed %s', (seed) => {
    expect(() => new CounterRandom(seed, 0)).toThrowError(AttrError);
    expect(() => new CounterRandom(0, seed)).toThrowError(/^CounterRandom: stream must be an integer in 0…4294967295, got/);
  });
});

describe('exactMath', () => {
  it('agrees with the engine to the last bits', () => {
    for (let i = 1; i <= 10_000; i++) {
      const x = i / 10_000;
      expect(Math.abs(exactLog(x) - Math.log(x))).toBeLessThanOrEqual(4e-16 + 4e-16 * Math.abs(Math.log(x)));
      const { cos, sin } = exactCosSinTurns(x - 1e-4);
      // The reference rounds its own argument: 2π(1 − ε) is off by up to 9e-16.
      expect(Math.abs(cos - Math.cos(2 * Math.PI * (x - 1e-4)))).toBeLessThan(1.5e-15);
      expect(Math.abs(sin - Math.sin(2 * Math.PI * (x - 1e-4)))).toBeLessThan(1.5e-15);
    }
    for (const e of [-32, -1, 1, 40]) expect(exactLog(2 ** e)).toBeCloseTo(e * Math.LN2, 13);
  });
});
