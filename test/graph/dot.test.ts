/** Dot products in a fixed order against float64: sizes around the chunk, several rows, several pieces of memory, spilled grids. */
import { describe, expect, test } from 'vitest';
import { dotLaunches } from '../../src/graph/dot.ts';
import { emit } from '../../src/graph/lower/context.ts';
import { Arena, Memory } from '../../src/graph/memory.ts';
import { buildPlan, draft } from '../../src/graph/plan.ts';
import { submit } from '../../src/graph/run.ts';
import { dotChunk, dotFinish, dotPartials } from '../../src/kernels/dot.ts';
import { expectClose } from '../support/close.ts';
import { useDevice } from '../support/device.ts';
import { runLaunches } from '../support/launch.ts';
import { LesserDevice } from '../support/lesserDevice.ts';
import { randomNd } from '../support/random.ts';

const device = useDevice();

const floats = (length: number, seed: number, scale = 1) => Float32Array.from(randomNd([length], seed, { scale }).data);
const dot = (x: Float32Array, y: Float32Array): number => x.reduce((sum, value, i) => sum + value * y[i], 0);
/** Σ |x·y|, what rounding is relative to. */
const magnitude = (x: Float32Array, y: Float32Array): number => x.reduce((sum, value, i) => sum + Math.abs(value * y[i]), 0);
const asFloats = (words: Uint32Array) => new Float32Array(words.buffer, words.byteOffset, words.length);

const guard = 0x7fc12345;

/** Runs both kernels over [x, y] pairs of one length; the result with a guard word at each end. */
async function run(pairs: [Float32Array, Float32Array][], grid?: [number, number, number]): Promise<Uint32Array[]> {
  const n = pairs[0][0].length / 4;
  const chunks = Math.ceil(n / dotChunk);
  return runLaunches(device(), ({ input, output }) => {
    const partials = output(pairs.length * chunks + 1);
    const result = output(pairs.length + 1);
    for (const { buffer, size } of [partials, result]) device().gpu.queue.writeBuffer(buffer, 0, new Uint32Array(size / 4).fill(guard));
    const products = pairs.map(([x, y], row) =>
      emit(dotPartials, {
        bindings: { x: input(x), y: input(y), partials }, uniforms: { n, chunks, first: row * chunks }, grid: grid ?? [chunks, 1, 1],
      }));
    return [...products, emit(dotFinish, { bindings: { partials, result }, uniforms: { count: chunks }, grid: [pairs.length, 1, 1] })];
  });
}

const sizes = [1, 2, 3, 63, 64, 65, 1009, dotChunk - 1, dotChunk, dotChunk + 1, 3 * dotChunk + 17, 70 * dotChunk + 1];

describe.each(sizes)('%d vec4s', (n) => {
  test('the sum of the products, the same bits twice, and nothing beside it', async () => {
    const pairs = [0, 1, 2].map((seed): [Float32Array, Float32Array] => [floats(4 * n, 2 * seed), floats(4 * n, 2 * seed + 1)]).slice(0, n > 1e5 ? 1 : 3);
    const [partials, result] = await run(pairs);
    pairs.forEach(([x, y], row) => expectClose([asFloats(result)[row]], [dot(x, y)], { atol: 1e-6 * magnitude(x, y), rtol: 0 }));
    expect([partials, result].map((words) => words[words.length - 1])).toEqual([guard, guard]);
    expect(await run(pairs)).toEqual([partials, result]);
  });
});

test('of each of its elements: the first, the last, and any between', async () => {
  const n = dotChunk + 70;
  for (const at of [0, 3, 4 * 64, 4 * dotChunk - 1, 4 * dotChunk, 4 * n - 1]) {
    const x = new Float32Array(4 * n);
    x[at] = 3;
    const y = new Float32Array(4 * n).fill(0.5);
    expect(asFloats((await run([[x, y]]))[1])[0], `element ${at}`).toBe(1.5);
  }
});

test('a grid that spills into y leaves the same sums, and its idle workgroups nothing', async () => {
  const n = 4 * dotChunk + 5;
  const pairs: [Float32Array, Float32Array][] = [[floats(4 * n, 1), floats(4 * n, 2)]];
  expect(await run(pairs, [2, 4, 1])).toEqual(await run(pairs));
});

test('NaN and infinities come through', async () => {
  const x = floats(4 * 100, 1);
  const y = floats(4 * 100, 2);
  x[7] = Infinity;
  y[7] = 1;
  expect(asFloats((await run([[x, y]]))[1])[0]).toBe(Infinity);
  x[8] = NaN;
  expect(asFloats((await run([[x, y]]))[1])[0]).toBeNaN();
});

/** Arenas with data, gaps of zeros between. */
async function ofArenas(memory: Memory, sizes: readonly number[]): Promise<void> {
  const { queue } = memory.device.gpu;
  const make = (seed: number) => {
    const arena = new Arena(memory, 'data', 'arena', sizes);
    const data = sizes.map((size, i) => floats(size / 4, 10 * seed + i));
    data.forEach((values, i) => queue.writeBuffer(arena.at(i).buffer, arena.at(i).offset, values as Float32Array<ArrayBuffer>));
    return { arena, flat: Float32Array.from(data.flatMap((values) => [...values])) };
  };
  const [a, b] = [make(1), make(2)];
  const result = memory.storage('data', 'result', 16);
  const pairs = [[a, b], [a, a], [b, b]] as const;
  const launches = dotLaunches(memory, 'data', pairs.map(([x, y]) => [x.arena, y.arena] as const), result);
  expect(launches).toHaveLength(3 * a.arena.segments.length + 1);
  submit(memory.device, await buildPlan(memory, draft(memory, 'dot', [], launches), { slots: [], places: [] }));
  const found = [...new Float32Array(await memory.device.read(result.buffer, 0, 12))];
  pairs.forEach(([x, y], row) => expectClose([found[row]], [dot(x.flat, y.flat)], { atol: 1e-6 * magnitude(x.flat, y.flat), rtol: 0 }));
}

test.each([1, 3])('arenas in %d pieces: every product is over all of them, that of an arena with itself too', async (pieces) => {
  const sizes = [16, 400, 16 * dotChunk, 48, 16 * dotChunk - 256];
  const memory = new Memory(pieces === 1 ? device() : new LesserDevice(device(), { maxStorageBufferBindingSize: 16 * dotChunk + 512 }));
  try {
    expect(new Arena(memory, 'data', 'arena', sizes).segments).toHaveLength(pieces);
    await ofArenas(memory, sizes);
  } finally {
    memory.release();
  }
});
