import { describe, expect, it } from 'vitest';
import { EpochSampler } from '../../src/data/batches.ts';
import { AttrError } from '../../src/gpu/errors.ts';

const sampler = (options: Partial<ConstructorParameters<typeof EpochSampler>[0]> = {}): EpochSampler =>
  new EpochSampler({ count: 1000, batchSize: 32, shuffle: true, seed: 0, ...options });

describe('EpochSampler', () => {
  it.each([1, 2, 3, 7, 1000])('visits each of %i images once an epoch', (count) => {
    const order = sampler({ count, batchSize: 1 }).epochOrder(3);
    expect([...order].sort((a, b) => a - b)).toEqual(Array.from({ length: count }, (_, i) => i));
  });

  it('depends on seed and epoch only, in whatever order epochs are asked for', () => {
    const unbroken = sampler();
    unbroken.epochOrder(0);
    unbroken.epochOrder(1);
    expect(sampler({ batchSize: 7 }).epochOrder(2)).toEqual(unbroken.epochOrder(2));
    expect(sampler().epochOrder(3)).not.toEqual(unbroken.epochOrder(2));
    expect(sampler({ seed: 1 }).epochOrder(2)).not.toEqual(unbroken.epochOrder(2));
  });

  it('gives these orders, for resuming across versions', () => {
    expect([...sampler({ count: 10, batchSize: 1 }).epochOrder(0)]).toEqual([8, 0, 6, 2, 9, 1, 3, 4, 5, 7]);
    expect([...sampler({ count: 10, batchSize: 1 }).epochOrder(1)]).toEqual([3, 2, 6, 1, 9, 4, 5, 8, 0, 7]);
  });

  it('puts every image at every place equally often', () => {
    const places = 5;
    const epochs = 20_000;
    const counts = new Float64Array(places * places);
    const small = sampler({ count: places, batchSize: 1 });
    for (let epoch = 0; epoch < epochs; epoch++) small.epochOrder(epoch).forEach((image, place) => counts[place * places + image]++);
    // Expected 4,000, standard deviation 57; bound 5 of them.
    for (const count of counts) expect(Math.abs(count - epochs / places)).toBeLessThan(283);
  });

  it('keeps the order of the set without shuffling', () => {
    expect([...sampler({ count: 4, batchSize: 2, shuffle: false }).epochOrder(5)]).toEqual([0, 1, 2, 3]);
  });

  it('counts whole batches, and the last one if it is to be kept', () => {
    expect(sampler().stepsPerEpoch).toBe(31);
    expect(sampler({ dropLast: false }).stepsPerEpoch).toBe(32);
    expect(sampler({ count: 64, dropLast: false }).stepsPerEpoch).toBe(2);
  });

  it.each([
    [{ count: 0 }, 'count'],
    [{ count: 10.5 }, 'count'],
    [{ batchSize: 0 }, 'batchSize'],
    [{ batchSize: 1001 }, 'batchSize'],
    [{ seed: -1 }, 'seed'],
  ])('refuses %o', (options, arg) => {
    expect(() => sampler(options)).toThrowError(expect.objectContaining({ name: 'AttrError', arg }));
  });

  it('refuses an epoch that is no u32', () => {
    expect(() => sampler().epochOrder(-1)).toThrowError(AttrError);
  });

  it('says what is wrong', () => {
    expect(() => sampler({ count: 8 })).toThrowError(
      'EpochSampler: batchSize must be an integer in 1…8 (the number of images), got 32 (number); use a smaller batch or more images',
    );
  });
});
