import { AttrError } from '../gpu/errors.ts';
import { checkU32, hash32, STREAM } from '../nn/random.ts';

export interface EpochSamplerOptions {
  /** Images in the set, 1 … 2³²−1. */
  count: number;
  /** Images a step, 1 … count. */
  batchSize: number;
  /** true: a new permutation each epoch; false: the set's own order. */
  shuffle: boolean;
  /** u32. */
  seed: number;
  /** true: the images left over after the last whole batch sit this epoch out; false: they make a last, smaller batch. @default true */
  dropLast?: boolean;
}

/**
 * The order in which an epoch visits the images: a function of (seed, epoch) only, so a resumed run sees the order of an unbroken one.
 *
 * Fisher and Yates: order = 0 … count−1; for i = count−1 … 1 swap order[i] with order[j], j = floor(h·(i + 1)/2³²),
 * h = hash32(hash32(seed, epoch, STREAM.shuffle), i, STREAM.shuffle).
 *
 * @throws AttrError if count, batchSize or seed is out of range
 */
export class EpochSampler {
  readonly count: number;
  readonly batchSize: number;
  readonly shuffle: boolean;
  readonly seed: number;
  /** Batches in an epoch. */
  readonly stepsPerEpoch: number;

  constructor({ count, batchSize, shuffle, seed, dropLast = true }: EpochSamplerOptions) {
    if (!Number.isInteger(count) || count < 1 || count > 0xffffffff) {
      throw new AttrError({ op: 'EpochSampler', arg: 'count', rule: 'must be an integer ≥ 1', got: count, fix: 'pass a set with images' });
    }
    if (!Number.isInteger(batchSize) || batchSize < 1 || batchSize > count) {
      throw new AttrError({
        op: 'EpochSampler',
        arg: 'batchSize',
        rule: `must be an integer in 1…${count} (the number of images)`,
        got: batchSize,
        fix: 'use a smaller batch or more images',
      });
    }
    checkU32('EpochSampler', 'seed', seed);
    this.count = count;
    this.batchSize = batchSize;
    this.shuffle = shuffle;
    this.seed = seed;
    this.stepsPerEpoch = dropLast ? Math.floor(count / batchSize) : Math.ceil(count / batchSize);
  }

  /**
   * All image indices of one epoch; batch s is elements s·batchSize … (s + 1)·batchSize − 1.
   * @param epoch u32, from 0
   * @returns u32 [count], a permutation of 0 … count−1
   */
  epochOrder(epoch: number): Uint32Array {
    checkU32('EpochSampler.epochOrder', 'epoch', epoch);
    const order = new Uint32Array(this.count);
    for (let i = 0; i < order.length; i++) order[i] = i;
    if (!this.shuffle) return order;
    const key = hash32(this.seed, epoch, STREAM.shuffle);
    for (let i = order.length - 1; i >= 1; i--) {
      const j = Math.floor((hash32(key, i, STREAM.shuffle) * (i + 1)) / 4294967296);
      const swapped = order[i];
      order[i] = order[j];
      order[j] = swapped;
    }
    return order;
  }
}
