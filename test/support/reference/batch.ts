import type { Nd } from '../nd.ts';
import { zeros } from '../nd.ts';

/** Sizes of one stored image: C planes of H rows of W pixels, as CIFAR's files hold them. */
export interface ImageSize {
  C: number;
  H: number;
  W: number;
}

/**
 * y[i,h,w,c] = (images[indices[i]][c][h][w] / 255 − mean[c]) / std[c]
 * @param images uint8, planar: [n][C][H][W]  @param indices which images, in order; repeats are fine
 * @param mean, std C values, in the 0 … 1 scale
 * @returns [indices.length, H, W, C]
 * @throws RangeError if an index is no image
 */
export function assembleBatch(
  images: Uint8Array, { C, H, W }: ImageSize, indices: ArrayLike<number>, mean: readonly number[], std: readonly number[],
): Nd {
  const nImages = images.length / (C * H * W);
  const y = zeros([indices.length, H, W, C]);
  for (let i = 0, at = 0; i < indices.length; i++) {
    const image = indices[i];
    if (!Number.isInteger(image) || image < 0 || image >= nImages) {
      throw new RangeError(`assembleBatch: indices[${i}] must be an image 0 … ${nImages - 1}, got ${image}`);
    }
    for (let h = 0; h < H; h++) for (let w = 0; w < W; w++) for (let c = 0; c < C; c++, at++) {
      y.data[at] = (images[((image * C + c) * H + h) * W + w] / 255 - mean[c]) / std[c];
    }
  }
  return y;
}

/**
 * Random crop with a black border of 4 pixels, and flip, of planar images [n][C][H][W]: image i by the bits of draws[i], d = draw % 9 − 4 rows
 * down, draw / 9 % 9 − 4 columns right, mirrored first where bit 16 is set.
 * @returns the bytes of the moved images, in order
 */
export function cropFlip(images: Uint8Array, { C, H, W }: ImageSize, draws: ArrayLike<number>): Uint8Array {
  const moved = new Uint8Array(images.length);
  for (let i = 0; i < draws.length; i++) {
    const [down, right, isFlipped] = [(draws[i] % 9) - 4, (Math.floor(draws[i] / 9) % 9) - 4, (draws[i] & 0x10000) !== 0];
    for (let c = 0; c < C; c++) for (let h = 0; h < H; h++) for (let w = 0; w < W; w++) {
      const row = h + down;
      const column = (isFlipped ? W - 1 - w : w) + right;
      if (row < 0 || row >= H || column < 0 || column >= W) continue;
      const plane = (i * C + c) * H;
      moved[(plane + h) * W + w] = images[(plane + row) * W + column];
    }
  }
  return moved;
}
