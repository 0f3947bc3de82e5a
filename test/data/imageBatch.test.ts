import { describe, expect, it } from 'vitest';
import { imageBatch } from '../../src/data/imageBatch.ts';
import type { ImageSet } from '../../src/data/dataset.ts';
import { evaluate } from '../../src/graph/run.ts';
import { useDevice } from '../support/device.ts';
import { randomInts } from '../support/random.ts';
import { assembleBatch } from '../support/reference.ts';

useDevice();

const [C, H, W] = [3, 2, 5];
const set: ImageSet = {
  name: 'random', count: 6, channels: C, height: H, width: W,
  images: Uint8Array.from(randomInts(6 * C * H * W, 256, 1)), labels: Uint8Array.from([4, 3, 2, 1, 0, 4]), classes: ['a', 'b', 'c', 'd', 'e'],
};
const normalisation = { mean: [0.5, 0.4, 0.3], std: [0.25, 0.2, 0.3] };

describe('imageBatch', () => {
  it('normalises the images named, in their order, with their labels', async () => {
    const { x, labels } = imageBatch(set, normalisation, [5, 0, 3, 3]);
    expect([x.shape, labels.shape]).toEqual([[4, H, W, C], [4]]);
    const expected = assembleBatch(set.images, { C, H, W }, [5, 0, 3, 3], normalisation.mean, normalisation.std);
    expect(await evaluate([x, labels])).toEqual([Float32Array.from(expected.data), Uint32Array.of(4, 4, 1, 1)]);
  });

  it.each([[[]], [[6]], [[-1]], [[0.5]], [[0, NaN]]])('refuses the indices %j', (indices) => {
    expect(() => imageBatch(set, normalisation, indices)).toThrowError(expect.objectContaining({ name: 'AttrError', arg: 'indices' }));
  });
});
