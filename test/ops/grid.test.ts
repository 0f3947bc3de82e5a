/** Grids past 65,535 workgroups, in arithmetic and in fact. */
import { expect, test } from 'vitest';
import { grad } from '../../src/autograd/grad.ts';
import { conv2d, relu, sum, tensor } from '../../src/graph/functional.ts';
import { evaluate } from '../../src/graph/run.ts';
import { grid1d, maxGridDimension } from '../../src/kernels/contract.ts';
import { igemmGrid } from '../../src/kernels/conv2d.ts';
import { useDevice } from '../support/device.ts';

const device = useDevice();

test('grid1d covers n threads within the limits, for any n', () => {
  for (const n of [0, 1, 63, 64, 65, 65535 * 64 - 1, 65535 * 64, 65535 * 64 + 1, 3 * 65535 * 64 + 7, 2 ** 31]) {
    const [x, y, z] = grid1d(n, 64, 3);
    expect(x * y * 64).toBeGreaterThanOrEqual(n);
    expect((x * y - x) * 64).toBeLessThan(Math.max(n, 1));
    expect(Math.max(x, y, z)).toBeLessThanOrEqual(maxGridDimension);
    expect(z).toBe(3);
  }
});

test('igemmGrid gives every tile exactly one workgroup', () => {
  for (const [mTiles, nTiles] of [[1, 1], [65535, 3], [65536, 1], [65536, 3], [140000, 2]]) {
    const [x, y, z] = igemmGrid(mTiles, nTiles, 5);
    expect(Math.max(x, y)).toBeLessThanOrEqual(maxGridDimension);
    expect(z).toBe(5);
    // As the kernels read it: see `tileIndices`.
    const seen = new Uint8Array(mTiles * nTiles);
    for (let wy = 0; wy < y; wy++) for (let wx = 0; wx < x; wx++) {
      const m = wx + Math.floor(wy / nTiles) * maxGridDimension;
      if (m < mTiles) seen[m * nTiles + (wy % nTiles)]++;
    }
    expect(seen.every((count) => count === 1)).toBe(true);
  }
});

test('a convolution, a relu and their gradients over more than 65,535 workgroups', async () => {
  const [h, w] = [2049, 2048];
  const n = h * w * 4;
  expect(h * w).toBeGreaterThan(65535 * 64);
  const x = Float32Array.from({ length: n }, (_, i) => ((i * 7) % 13) - 6);
  // A cyclic shift of the channels with a sign: small whole numbers, so that every result is exact.
  const weight = Float32Array.from({ length: 16 }, (_, i) => (i % 4 === (Math.floor(i / 4) + 1) % 4 ? 1 - 2 * (i % 2) : 0));
  const image = tensor(x, [1, h, w, 4]);
  const y = relu(conv2d(image, tensor(weight, [1, 1, 4, 4])));
  const lowering = { wantedWorkgroups: 1, tiles: [{ m: 64, n: 64, k: 16 }] };
  const [values, dx] = await evaluate([y, ...grad(sum(y), [image])], { device: device(), lowering });
  let wrong = 0;
  for (let i = 0; i < n; i++) {
    const o = (i + 1) % 4;
    const sign = 1 - 2 * (o % 2);
    const expected = Math.max(0, x[i] * sign);
    if (values[i - (i % 4) + o] !== expected || dx[i] !== (expected > 0 ? sign : 0)) wrong++;
  }
  expect(wrong).toBe(0);
});
