import type { Nd } from './nd.ts';
import { sizeOf, zeros } from './nd.ts';

/**
 * A stream of uniform numbers in [0, 1) with 32 bits each: a counter put through murmur3's 32-bit finaliser.
 * The seed goes through it too, so neighbouring seeds share no stretch of the stream that a test could notice.
 */
export function uniformStream(seed: number): () => number {
  let counter = mix32(seed | 0);
  return () => {
    counter = (counter + 0x9e3779b9) | 0;
    return (mix32(counter) >>> 0) / 2 ** 32;
  };
}

function mix32(bits: number): number {
  let h = bits;
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return h ^ (h >>> 16);
}

/** Standard normal numbers by Box and Muller, one of each pair. */
function normalStream(seed: number): () => number {
  const uniform = uniformStream(seed);
  return () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
}

/**
 * @property scale standard deviation, @default 1
 * @property offset added last, @default 0
 * @property positive take the absolute value before the offset, @default false
 * @property awayFromZero least magnitude before scale and offset, @default 0: smaller values are mirrored out to between it and
 *   twice it. Keeps kinks (relu) out of reach of a finite difference
 */
export interface RandomOptions {
  scale?: number;
  offset?: number;
  positive?: boolean;
  awayFromZero?: number;
}

/**
 * Normal random numbers, the same for the same shape and seed.
 * Every value is a float32 number, so the reference and a float32 kernel get the same input.
 */
export function randomNd(shape: readonly number[], seed: number, options: RandomOptions = {}): Nd {
  const { scale = 1, offset = 0, positive = false, awayFromZero = 0 } = options;
  const normal = normalStream(seed);
  const y = zeros(shape);
  for (let i = 0; i < y.data.length; i++) {
    const value = normal();
    const magnitude = Math.abs(value) < awayFromZero ? 2 * awayFromZero - Math.abs(value) : Math.abs(value);
    y.data[i] = Math.fround((positive || value >= 0 ? magnitude : -magnitude) * scale + offset);
  }
  return y;
}

/** A cotangent for an output of this shape: standard normal, from another stream than `randomNd` has for the same seed. */
export function randomCotangent(shape: readonly number[], seed: number): Nd {
  return randomNd(shape, mix32(seed ^ 0x5bd1e995));
}

/** The whole numbers 0 … n−1 in random order. */
export function randomPermutation(n: number, seed: number): number[] {
  const uniform = uniformStream(seed);
  const order = Array.from({ length: n }, (_, i) => i);
  for (let i = n - 1; i > 0; i--) {
    const j = Math.floor(uniform() * (i + 1));
    [order[i], order[j]] = [order[j], order[i]];
  }
  return order;
}

/** Values centred on 0 of which any two differ by at least `gap`: no ties for a max pool. float32 numbers if `gap` is a power of 2. */
export function randomDistinct(shape: readonly number[], seed: number, gap = 2 ** -5): Nd {
  const n = sizeOf(shape);
  return { shape: [...shape], data: Float64Array.from(randomPermutation(n, seed), (rank) => (rank - Math.floor(n / 2)) * gap) };
}

/** n whole numbers in 0 … below−1: labels, image indices. */
export function randomInts(n: number, below: number, seed: number): number[] {
  const uniform = uniformStream(seed);
  return Array.from({ length: n }, () => Math.floor(uniform() * below));
}
