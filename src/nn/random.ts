/**
 * The one random generator of forkstep: counter-based, integers only, so a draw depends on (seed, stream, counter) and on
 * nothing else, and is the same on every machine and in WGSL.
 *
 * `hash32(seed, counter, stream)`, all arithmetic on u32 modulo 2³² (WGSL's own `u32` +, *, ^, >>):
 *
 *     a = counter * 1664525 + 1013904223
 *     b = stream  * 1664525 + 1013904223
 *     c = seed    * 1664525 + 1013904223
 *     repeat 2 times:
 *       a = a + b * c;   b = b + c * a;   c = c + a * b
 *       a = a ^ (a >> 16);   b = b ^ (b >> 16);   c = c ^ (c >> 16)
 *     a = a + b * c
 *     return a ^ (a >> 16)
 *
 * Each statement uses the values that the ones before it left.
 * A Feistel-like mix of three words by a linear congruential step, multiply-adds and xor-shifts, after "pcg3d"
 * (Jarzynski & Olano, *Hash Functions for GPU Rendering*, JCGT 9(3), 2020), with their second round repeated and a last
 * xor-shift so that the low bits are as good as the high ones.
 */
import { AttrError } from '../gpu/errors.ts';
import { exactCosSinTurns, exactLog } from './exactMath.ts';

/** Stream numbers in use. A purpose has a number of its own, so that one seed serves all of them without repeats. */
export const STREAM = {
  /** Order of samples, `EpochSampler`. */
  shuffle: 1,
  /** Random crop and flip. */
  augment: 2,
  /** Initial weights. */
  init: 3,
  /** Procedural images of the training set and of the test set; their labels' order. */
  proceduralTrain: 4,
  proceduralTest: 5,
  /** Directions of loss landscapes, `randomDirections`. */
  landscape: 6,
  /** Whose loss a factor is scored by, `shuffledTrials`. */
  trials: 7,
} as const;

/** A u32 that depends on all bits of three u32 (higher bits of the arguments are dropped). The mixing is in the file's head. */
export function hash32(seed: number, counter: number, stream: number): number {
  let a = (Math.imul(counter, 1664525) + 1013904223) | 0;
  let b = (Math.imul(stream, 1664525) + 1013904223) | 0;
  let c = (Math.imul(seed, 1664525) + 1013904223) | 0;
  for (let round = 0; round < 2; round++) {
    a = (a + Math.imul(b, c)) | 0;
    b = (b + Math.imul(c, a)) | 0;
    c = (c + Math.imul(a, b)) | 0;
    a ^= a >>> 16;
    b ^= b >>> 16;
    c ^= c >>> 16;
  }
  a = (a + Math.imul(b, c)) | 0;
  return (a ^ (a >>> 16)) >>> 0;
}

/** Throws AttrError unless `value` is an integer in 0 … 2³²−1. */
export function checkU32(op: string, arg: string, value: number): void {
  if (!Number.isInteger(value) || value < 0 || value > 0xffffffff) {
    throw new AttrError({ op, arg, rule: 'must be an integer in 0…4294967295', got: value, fix: 'pass a 32-bit unsigned integer' });
  }
}

/**
 * The draws of one (seed, stream), in order: draw k is `hash32(seed, k, stream)`, k from 0 and wrapping after 2³².
 * @throws AttrError if seed or stream is not a u32
 */
export class CounterRandom {
  readonly seed: number;
  readonly stream: number;
  /** Number of u32 drawn so far. */
  counter = 0;
  #spare: number | null = null;

  constructor(seed: number, stream: number) {
    checkU32('CounterRandom', 'seed', seed);
    checkU32('CounterRandom', 'stream', stream);
    this.seed = seed;
    this.stream = stream;
  }

  /** An integer, uniform in 0 … 2³²−1. One draw. */
  nextU32(): number {
    return hash32(this.seed, this.counter++, this.stream);
  }

  /** u32 / 2³², uniform in [0, 1), exact in float64. One draw. */
  uniform(): number {
    return this.nextU32() / 4294967296;
  }

  /** floor(u32 · n / 2³²): an integer in 0 … n−1, 1 ≤ n ≤ 2³², each within n/2³² of equally likely. One draw. */
  below(n: number): number {
    return Math.floor((this.nextU32() * n) / 4294967296);
  }

  /**
   * Standard normal, by Box and Muller: two draws u, v give two values, r·cos 2πv, then r·sin 2πv, r = √(−2 ln((u + 1)/2³²)).
   * @numerics logarithm and sine are ours (`exactMath.ts`), from exactly rounded operations only: the same bits in every engine.
   * |value| ≤ √(64 ln 2) = 6.66.
   */
  normal(): number {
    if (this.#spare !== null) {
      const value = this.#spare;
      this.#spare = null;
      return value;
    }
    const r = Math.sqrt(-2 * exactLog((this.nextU32() + 1) / 4294967296));
    const { cos, sin } = exactCosSinTurns(this.uniform());
    this.#spare = r * sin;
    return r * cos;
  }
}
