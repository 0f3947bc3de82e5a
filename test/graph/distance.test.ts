/** Squared distances of flat memory against float64: sizes around the chunk, each element, values near one another. */
import { expect, test } from 'vitest';
import { emit } from '../../src/graph/lower/context.ts';
import { distancePartials, dotChunk, dotFinish } from '../../src/kernels/dot.ts';
import { expectClose } from '../support/close.ts';
import { useDevice } from '../support/device.ts';
import { runLaunches } from '../support/launch.ts';
import { randomNd } from '../support/random.ts';

const device = useDevice();
const guard = 77;
const floats = (words: Uint32Array) => [...new Float32Array(words.buffer, words.byteOffset, words.length)];

/** Of x and y in one chunked launch, or in a grid of one's own; the sum, and what lies behind the partials. */
async function run(x: Float32Array, y: Float32Array, grid?: [number, number, number]) {
  const n = x.length / 4;
  const chunks = Math.ceil(n / dotChunk);
  const [partials, result] = await runLaunches(device(), ({ input, output }) => {
    const sums = output(chunks + 1);
    device().gpu.queue.writeBuffer(sums.buffer, 0, new Float32Array(chunks + 1).fill(guard));
    const uniforms = { n, chunks, first: 0 };
    return [
      emit(distancePartials, { bindings: { x: input(x), y: input(y), partials: sums }, uniforms, grid: grid ?? [chunks, 1, 1] }),
      emit(dotFinish, { bindings: { partials: sums, result: output(1) }, uniforms: { count: chunks }, grid: [1, 1, 1] }),
    ];
  });
  return { sum: floats(result)[0], behind: floats(partials)[chunks] };
}

const random = (n: number, seed: number) => Float32Array.from(randomNd([4 * n], seed).data);
const squared = (x: Float32Array, y: Float32Array) => x.reduce((sum, value, i) => sum + (value - y[i]) ** 2, 0);

test.each([1, 2, 63, 64, 65, 1009, dotChunk - 1, dotChunk, dotChunk + 1, 3 * dotChunk + 17])('%d vec4s', async (n) => {
  const [x, y] = [random(n, 1), random(n, 2)];
  const found = await run(x, y);
  expectClose([found.sum], [squared(x, y)], { atol: 0, rtol: 2e-6 });
  expect(found.behind).toBe(guard);
  expect(await run(x, y)).toEqual(found);
  expect((await run(x, y, [1, Math.ceil(n / dotChunk) + 1, 1])).sum).toBe(found.sum);
});

test('of each of its elements: the first, the last, and any between', async () => {
  const n = dotChunk + 70;
  for (const at of [0, 3, 4 * 64, 4 * dotChunk - 1, 4 * dotChunk, 4 * n - 1]) {
    const x = new Float32Array(4 * n).fill(0.5);
    const y = x.slice();
    y[at] = -1.5;
    expect((await run(x, y)).sum, `element ${at}`).toBe(4);
  }
});

test('of values that are near one another keeps its digits', async () => {
  const x = random(1000, 3).map((value) => 1000 + value);
  const y = x.map((value) => value + 2 ** -10);
  expectClose([(await run(x, y)).sum], [squared(x, y)], { atol: 0, rtol: 2e-6 });
});
