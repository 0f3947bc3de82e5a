/** Images of a set as tensors, for what works outside a training loop. */
import { AttrError } from '../gpu/errors.ts';
import { tensor } from '../graph/functional.ts';
import type { Tensor } from '../graph/tensor.ts';
import type { ImageDataset, ImageSet } from './dataset.ts';

/**
 * The images of these indices, normalised as a `Trainer` does: (byte/255 − mean) / std a channel.
 * @param normalisation the data set's `mean` and `std`, one number a channel
 * @returns x f32 [n, H, W, C] and labels u32 [n]
 * @throws AttrError without an index, and for one that names no image
 * @example imageBatch(dataset.train, dataset, [0, 1, 2, 3])
 */
export function imageBatch(
  set: ImageSet,
  normalisation: Pick<ImageDataset, 'mean' | 'std'>,
  indices: ArrayLike<number>,
): { x: Tensor; labels: Tensor } {
  const list = Array.from(indices);
  const wrong = list.find((index) => !Number.isInteger(index) || index < 0 || index >= set.count);
  if (list.length === 0 || wrong !== undefined) {
    const rule = `must be integers in 0…${set.count - 1} (${set.name} has ${set.count} images), at least one`;
    throw new AttrError({ op: 'imageBatch', arg: 'indices', rule, got: wrong ?? list, fix: 'name images of the set' });
  }
  const { height, width, channels, images } = set;
  const { mean, std } = normalisation;
  const pixels = height * width;
  const values = new Float32Array(list.length * pixels * channels);
  list.forEach((image, n) => {
    for (let pixel = 0; pixel < pixels; pixel++) {
      for (let c = 0; c < channels; c++) {
        const byte = images[(image * channels + c) * pixels + pixel];
        values[(n * pixels + pixel) * channels + c] = (byte / 255 - mean[c]) / std[c];
      }
    }
  });
  return {
    x: tensor(values, [list.length, height, width, channels]),
    labels: tensor(Uint32Array.from(list, (image) => set.labels[image])),
  };
}
