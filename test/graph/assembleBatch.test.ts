import { describe, expect, test } from 'vitest';
import { tensor } from '../../src/graph/functional.ts';
import { emit } from '../../src/graph/lower/context.ts';
import { op, type AssembleAttrs } from '../../src/graph/ops.ts';
import { hash32Wgsl } from '../../src/kernels/assembleBatch.ts';
import { builtins, defineKernel, grid1d, linearIndex, read, write } from '../../src/kernels/contract.ts';
import { hash32, STREAM } from '../../src/nn/random.ts';
import { runGuarded } from '../ops/runner.ts';
import { expectClose } from '../support/close.ts';
import { useDevice } from '../support/device.ts';
import { runLaunches } from '../support/launch.ts';
import { randomInts } from '../support/random.ts';
import { assembleBatch as reference, cropFlip } from '../support/reference.ts';

const device = useDevice();

test('hash32 gives the same in WGSL as in TypeScript', async () => {
  const kernel = defineKernel({
    name: 'hash32Test',
    bindings: { triples: read('u32'), y: write('u32') },
    uniforms: { n: 'u32' },
    wgsl: `${hash32Wgsl}
@compute @workgroup_size(64)
fn main(${builtins}) {
  let i = ${linearIndex};
  if (i < u.n) { y[i] = hash32(triples[3u * i], triples[3u * i + 1u], triples[3u * i + 2u]); }
}`,
  });
  const words = [0, 1, 2, 65535, 65536, 0x7fffffff, 0x80000000, 0xdeadbeef, 0xffffffff];
  const triples = words.flatMap((a) => words.flatMap((b) => words.map((c) => [a, b, c])));
  const n = triples.length;
  const [found] = await runLaunches(device(), ({ input, output }) =>
    [emit(kernel, { bindings: { triples: input(Uint32Array.from(triples.flat())), y: output(n) }, uniforms: { n }, grid: grid1d(n, 64) })]);
  expect([...found]).toEqual(triples.map(([seed, counter, stream]) => hash32(seed, counter, stream)));
});

interface Batch { count: number; channels: number; height: number; width: number; indices: number[]; cursor: number; counter: number; seed: number; imagesPerSegment: number }

const mean = [0.49, 0.48, 0.45, 0.4];
const std = [0.25, 0.24, 0.26, 0.3];

function bytesOf({ count, channels, height, width }: Batch): Uint8Array {
  return Uint8Array.from(randomInts(count * channels * height * width, 256, 3));
}

/** x and labels by the kernel. Indices before the cursor are of no image: they must not be used. */
async function assemble(batch: Batch, augment: boolean): Promise<{ x: Float32Array; labels: Uint32Array }> {
  const { count, channels, height, width, indices, imagesPerSegment } = batch;
  const bytes = bytesOf(batch);
  const imageBytes = channels * height * width;
  const segments = Array.from({ length: Math.ceil(count / imagesPerSegment) }, (_, s) => {
    const part = bytes.slice(s * imagesPerSegment * imageBytes, (s + 1) * imagesPerSegment * imageBytes);
    const padded = new Uint8Array(Math.ceil(part.length / 4) * 4);
    padded.set(part);
    return tensor(new Uint32Array(padded.buffer));
  });
  const order = [...new Array<number>(batch.cursor).fill(0xffffffff), ...indices];
  const inputs = [...segments, tensor(Uint32Array.from({ length: count }, (_, i) => i * 3 + 1)), tensor(Uint32Array.from(order)), tensor(Uint32Array.of(9, batch.seed, batch.cursor, batch.counter))];
  const attrs: AssembleAttrs = {
    dtype: 'f32', batch: indices.length, height, width, channels, count, imagesPerSegment, mean: mean.slice(0, channels), std: std.slice(0, channels), augment,
    cursorWord: 2, counterWord: 3, seedWord: 1,
  };
  const [x, labels] = await runGuarded(device(), op('assembleBatch', inputs, attrs));
  return { x, labels: new Uint32Array(labels.buffer) };
}

/** The images cropped and flipped as bytes, planar: the border is black (byte 0) before normalisation, as PyTorch's transforms have it. */
function augmented(batch: Batch): Uint8Array {
  const { channels: C, height: H, width: W, indices, counter, seed } = batch;
  const bytes = bytesOf(batch);
  const picked = Uint8Array.from(indices.flatMap((image) => [...bytes.subarray(image * C * H * W, (image + 1) * C * H * W)]));
  return cropFlip(picked, { C, H, W }, indices.map((_, sample) => hash32(seed, (counter + sample) >>> 0, STREAM.augment)));
}

const batches: Batch[] = [
  { count: 8, channels: 3, height: 12, width: 10, indices: [3, 0, 7, 7, 5], cursor: 2, counter: 40, seed: 5, imagesPerSegment: 8 },
  { count: 11, channels: 3, height: 9, width: 7, indices: [10, 0, 4, 3, 8, 7, 9], cursor: 0, counter: 0xfffffffd, seed: 0xffffffff, imagesPerSegment: 4 },
  { count: 5, channels: 1, height: 7, width: 5, indices: [4], cursor: 3, counter: 1, seed: 0, imagesPerSegment: 8 },
  { count: 4, channels: 4, height: 3, width: 3, indices: [0, 1, 2, 3], cursor: 1, counter: 9, seed: 77, imagesPerSegment: 4 },
];

describe.each(batches)('$indices.length of $count images, $channels × $height × $width, $imagesPerSegment a segment', (batch) => {
  const size = { C: batch.channels, H: batch.height, W: batch.width };

  test('gathers, normalises and labels', async () => {
    const { x, labels } = await assemble(batch, false);
    expectClose(x, reference(bytesOf(batch), size, batch.indices, mean, std).data, { atol: 1e-6, rtol: 1e-6 });
    expect([...labels]).toEqual(batch.indices.map((index) => index * 3 + 1));
  });

  test('crops and flips by the counter of each sample', async () => {
    const { x, labels } = await assemble(batch, true);
    const moved = augmented(batch);
    expectClose(x, reference(moved, size, batch.indices.map((_, sample) => sample), mean, std).data, { atol: 1e-6, rtol: 1e-6 });
    expect([...labels]).toEqual(batch.indices.map((index) => index * 3 + 1));
  });
});

test('over many samples every offset and both flips come about', async () => {
  const seen = new Set(Array.from({ length: 4000 }, (_, k) => {
    const draw = hash32(1, k, STREAM.augment);
    return `${draw % 9},${Math.floor(draw / 9) % 9},${draw & 0x10000}`;
  }));
  expect(seen.size).toBe(162);
});
