import { createHash } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import type { ImageSet } from '../../src/data/dataset.ts';
import { PROCEDURAL_CLASSES, PROCEDURAL_MEAN, PROCEDURAL_STD, proceduralDataset } from '../../src/data/procedural.ts';
import { CounterRandom } from '../../src/nn/random.ts';

const dataset = proceduralDataset();
const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');
const IMAGE_BYTES = 3 * 32 * 32;

describe('proceduralDataset', () => {
  it('is these bytes for seed 0, on every machine', () => {
    expect(sha256(dataset.train.images)).toBe('23f393a30947918d84b109aa5c1c44e70420c1223002e5e49cf336ee407ad749');
    expect(sha256(dataset.test.images)).toBe('aa9ffc91de80244ee3b082cc970184fc4a4e25bea007292afcb2aeeb916dd55d');
    expect([...dataset.train.labels.subarray(0, 12)]).toEqual([3, 0, 6, 4, 2, 8, 7, 9, 5, 1, 8, 2]);
  });

  it('is another set for another seed', () => {
    const other = proceduralDataset({ seed: 1, train: 64, test: 64 });
    const images = (set: ImageSet): string[] => Array.from({ length: 64 }, (_, i) => sha256(imageOf(set, i)));
    const known = new Set([...images(dataset.train), ...images(dataset.test)]);
    expect([...images(other.train), ...images(other.test)].filter((image) => known.has(image))).toEqual([]);
    expect(other.train.labels).not.toEqual(dataset.train.labels.subarray(0, 64));
  });

  it('has every class in each ten images, and shares no image between training and test', () => {
    for (const set of [dataset.train, dataset.test]) {
      for (let i = 0; i + 10 <= set.count; i += 10) {
        expect([...set.labels.subarray(i, i + 10)].sort()).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
      }
    }
    const hashes = [dataset.train, dataset.test].flatMap((set) => Array.from({ length: set.count }, (_, i) => sha256(imageOf(set, i))));
    expect(new Set(hashes).size).toBe(2048 + 512);
  });

  it('makes a smaller set the beginning of a larger one', () => {
    const small = proceduralDataset({ train: 25, test: 3 });
    expect(small.train.images).toEqual(dataset.train.images.subarray(0, 25 * IMAGE_BYTES));
    expect(small.train.labels).toEqual(dataset.train.labels.subarray(0, 25));
    expect(small.test.images).toEqual(dataset.test.images.subarray(0, 3 * IMAGE_BYTES));
  });

  it('states the mean and deviation of its training images', () => {
    const { images, count } = dataset.train;
    const n = count * 1024;
    for (let c = 0; c < 3; c++) {
      let sum = 0;
      let squares = 0;
      for (let i = 0; i < count; i++) {
        for (let k = 0; k < 1024; k++) {
          const value = images[i * IMAGE_BYTES + c * 1024 + k] / 255;
          sum += value;
          squares += value * value;
        }
      }
      expect(Math.abs(sum / n - PROCEDURAL_MEAN[c])).toBeLessThan(1e-3);
      expect(Math.abs(Math.sqrt(squares / n - (sum / n) ** 2) - PROCEDURAL_STD[c])).toBeLessThan(1e-3);
    }
    expect([dataset.mean, dataset.std]).toEqual([PROCEDURAL_MEAN, PROCEDURAL_STD]);
  });

  it('gives no class away by its mean colour', () => {
    const means = PROCEDURAL_CLASSES.map((_, label) => classMean(dataset.train, label));
    // A class's mean over about 205 images has a standard error near 0.01; bound 5 of them.
    for (let c = 0; c < 3; c++) {
      for (const mean of means) expect(Math.abs(mean[c] - PROCEDURAL_MEAN[c])).toBeLessThan(0.05);
    }
  });

  it.each([
    [{ seed: -1 }, 'seed'],
    [{ train: 0 }, 'train'],
    [{ test: 2.5 }, 'test'],
  ])('refuses %o', (options, arg) => {
    expect(() => proceduralDataset(options)).toThrowError(expect.objectContaining({ name: 'AttrError', arg }));
  });
});

describe('a linear model on raw pixels', () => {
  it('learns its training images and stays under 60 % on the test images', () => {
    const trained = trainLinear(dataset.train, 1024, 50);
    // Chance is 10 %.
    expect(accuracy(trained, dataset.train, 1024)).toBeGreaterThan(0.8);
    expect(accuracy(trained, dataset.test, 512)).toBeLessThan(0.6);
  });

  it('shows a set that is too easy: it solves one with a mark in a place of its class', () => {
    const marked = { ...dataset.train, images: dataset.train.images.slice() };
    for (let i = 0; i < marked.count; i++) imageOf(marked, i).fill(255, 96 * marked.labels[i], 96 * (marked.labels[i] + 1));
    const held = { ...marked, images: marked.images.subarray(1024 * IMAGE_BYTES), labels: marked.labels.subarray(1024), count: 1024 };
    expect(accuracy(trainLinear(marked, 1024, 20), held, 512)).toBeGreaterThan(0.9);
  });
});

function imageOf(set: ImageSet, i: number): Uint8Array {
  return set.images.subarray(i * IMAGE_BYTES, (i + 1) * IMAGE_BYTES);
}

function classMean(set: ImageSet, label: number): number[] {
  const sums = [0, 0, 0];
  let count = 0;
  for (let i = 0; i < set.count; i++) {
    if (set.labels[i] !== label) continue;
    imageOf(set, i).forEach((byte, k) => (sums[k >> 10] += byte));
    count++;
  }
  return sums.map((sum) => sum / (255 * 1024 * count));
}

/** Softmax regression: weights [3072][10], pixels scaled to −1…1, and biases [10]. */
interface Linear {
  weight: Float64Array;
  bias: Float64Array;
}

function logits({ weight, bias }: Linear, image: Uint8Array): Float64Array {
  const z = bias.slice();
  for (let k = 0; k < IMAGE_BYTES; k++) {
    const x = image[k] / 127.5 - 1;
    for (let label = 0; label < 10; label++) z[label] += x * weight[k * 10 + label];
  }
  return z;
}

/** Trained on the first n images by stochastic gradient descent, in a seeded order. */
function trainLinear(set: ImageSet, n: number, epochs: number): Linear {
  const model = { weight: new Float64Array(IMAGE_BYTES * 10), bias: new Float64Array(10) };
  const random = new CounterRandom(0, 77);
  for (let step = 0; step < epochs * n; step++) {
    const i = random.below(n);
    const image = imageOf(set, i);
    const z = logits(model, image);
    const top = Math.max(...z);
    const exp = z.map((value) => Math.exp(value - top));
    const total = exp.reduce((sum, value) => sum + value, 0);
    const push = exp.map((value, label) => -1e-3 * (value / total - (label === set.labels[i] ? 1 : 0)));
    for (let k = 0; k < IMAGE_BYTES; k++) {
      const x = image[k] / 127.5 - 1;
      for (let label = 0; label < 10; label++) model.weight[k * 10 + label] += x * push[label];
    }
    push.forEach((value, label) => (model.bias[label] += value));
  }
  return model;
}

function accuracy(model: Linear, set: ImageSet, n: number): number {
  let right = 0;
  for (let i = 0; i < n; i++) {
    const z = logits(model, imageOf(set, i));
    if (z.indexOf(Math.max(...z)) === set.labels[i]) right++;
  }
  return right / n;
}
