import { AttrError } from '../gpu/errors.ts';

/** Labelled images as bytes, the way CIFAR's binary version stores them: colour planes one after the other, row by row. */
export interface ImageSet {
  /** For messages: 'cifar10 test'. */
  name: string;
  /** u8 [count][channels][height][width], 0…255. */
  images: Uint8Array;
  /** u8 [count], index into `classes`. */
  labels: Uint8Array;
  count: number;
  channels: number;
  height: number;
  width: number;
  /** Names of the classes by label. */
  classes: string[];
}

export type DatasetName = 'procedural' | 'cifar10' | 'cifar100';

export interface ImageDataset {
  name: DatasetName;
  train: ImageSet;
  test: ImageSet;
  /** Per channel, on a scale of 0…1: what images are normalised with, (x/255 − mean) / std. */
  mean: number[];
  std: number[];
}

/**
 * The first n images of a set, sharing its memory.
 * @throws AttrError unless n is an integer in 1 … set.count
 */
export function limitSet(set: ImageSet, n: number): ImageSet {
  if (!Number.isInteger(n) || n < 1 || n > set.count) {
    throw new AttrError({
      op: 'limitSet',
      arg: 'n',
      rule: `must be an integer in 1…${set.count} (${set.name} has ${set.count} images)`,
      got: n,
      fix: 'ask for fewer images, or leave the limit out',
    });
  }
  const imageBytes = set.channels * set.height * set.width;
  return { ...set, count: n, images: set.images.subarray(0, n * imageBytes), labels: set.labels.subarray(0, n) };
}
