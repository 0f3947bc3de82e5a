/**
 * Kernels of the second point against float64: averages, z, what changes places; every element, none beside them, nothing with a flag set.
 */
import { describe, expect, test } from 'vitest';
import { emit, type Ref } from '../../src/graph/lower/context.ts';
import type { Storage } from '../../src/graph/tensor.ts';
import { grid1d, type Launch } from '../../src/kernels/contract.ts';
import { averageStep, exchange, keepStep, scheduleFreeCheck, scheduleFreePoint, scheduleFreeStep } from '../../src/kernels/secondPoint.ts';
import { flagNonFiniteWeight } from '../../src/kernels/sgd.ts';
import { expectClose } from '../support/close.ts';
import { useDevice } from '../support/device.ts';
import { runLaunches } from '../support/launch.ts';
import { randomNd } from '../support/random.ts';

const device = useDevice();

const n = 131;
const guard = 77;
const random = (seed: number) => [...randomNd([4 * n], seed).data];

/** What the launches leave in memories that begin as `filled`, each with a guard behind it. */
async function run(filled: number[][], make: (storages: Storage[], input: (values: number[] | Uint32Array) => Storage) => Launch<Ref>[]) {
  const found = await runLaunches(device(), ({ input, output }) => {
    const storages = filled.map((values) => {
      const storage = output(values.length + 4);
      device().gpu.queue.writeBuffer(storage.buffer, 0, Float32Array.from([...values, guard, guard, guard, guard]));
      return storage;
    });
    return make(storages, (values) => input(values instanceof Uint32Array ? values : Float32Array.from(values)));
  });
  return found.map((words, i) => {
    const values = [...new Float32Array(words.buffer, words.byteOffset, words.length)];
    expect(values.slice(filled[i].length)).toEqual([guard, guard, guard, guard]);
    return values.slice(0, filled[i].length);
  });
}

const sizes = { grid: grid1d(n, 64) };
const close = { atol: 1e-6, rtol: 1e-6 };

describe.each([0, 8])('with flags %d', (flagged) => {
  const flags = Uint32Array.of(flagged);
  const [value, before] = [random(1), random(2)];

  test('averageStep', async () => {
    const [average] = await run([before], ([target], input) => [
      emit(averageStep, {
        bindings: { value: input(value), record: input([9, 0.25]), flags: input(flags), average: target },
        uniforms: { n, share_word: 1 }, ...sizes,
      }),
    ]);
    const want = flagged ? before : before.map((old, i) => 0.75 * old + 0.25 * value[i]);
    expectClose(average, want, close);
  });

  test('averageStep with share 1 takes the value, bit for bit', async () => {
    const [average] = await run([before], ([target], input) => [
      emit(averageStep, {
        bindings: { value: input(value), record: input([1]), flags: input(flags), average: target },
        uniforms: { n, share_word: 0 }, ...sizes,
      }),
    ]);
    expect(average).toEqual(flagged ? before : value);
  });

  test('averageStep with share 1 is rid of what is not finite', async () => {
    const spoilt = before.map((old, i) => (i % 3 === 0 ? Infinity : i % 3 === 1 ? NaN : old));
    const [average] = await run([spoilt], ([target], input) => [
      emit(averageStep, {
        bindings: { value: input(value), record: input([1]), flags: input(flags), average: target },
        uniforms: { n, share_word: 0 }, ...sizes,
      }),
    ]);
    expect(average).toEqual(flagged ? spoilt : value);
  });

  test('keepStep', async () => {
    const [kept] = await run([before], ([target], input) => [
      emit(keepStep, { bindings: { value: input(value), flags: input(flags), kept: target }, uniforms: { n }, ...sizes }),
    ]);
    expect(kept).toEqual(flagged ? before : value);
  });

  test('scheduleFreeStep: z goes along the direction, x averages z, y lies between', async () => {
    const [y, z, direction] = [random(3), random(4), random(5)];
    const [eta, c, beta] = [0.125, 0.25, 0.75];
    const [moved, movedZ] = await run([y, z], ([weight, zs], input) => [
      emit(scheduleFreeStep, {
        bindings: { direction: input(direction), rates: input([eta]), record: input([7, 7, c]), flags: input(flags), weight, z: zs },
        uniforms: { n, beta, share_word: 2 }, ...sizes,
      }),
    ]);
    const nextZ = z.map((old, i) => old - eta * direction[i]);
    const x = y.map((old, i) => (old - (1 - beta) * z[i]) / beta);
    const nextX = x.map((old, i) => (1 - c) * old + c * nextZ[i]);
    const nextY = nextX.map((point, i) => (1 - beta) * nextZ[i] + beta * point);
    expectClose(moved, flagged ? y : nextY, close);
    expectClose(movedZ, flagged ? z : nextZ, close);
  });
});

test('exchange: both change places, bits that are no numbers too', async () => {
  const a = [...random(1).slice(0, -2), Infinity, -0];
  const b = random(2);
  const both = run([a, b], ([one, other]) => [emit(exchange, { bindings: { a: one, b: other }, uniforms: { n }, ...sizes })]);
  expect(await both).toEqual([b, a]);
});

test('scheduleFreePoint: x of y and z', async () => {
  const [x, z] = [random(1), random(2)];
  const y = x.map((point, i) => 0.875 * point + 0.125 * z[i]);
  const [found] = await run([new Array<number>(4 * n).fill(0)], ([target], input) => [
    emit(scheduleFreePoint, { bindings: { weight: input(y), z: input(z), x: target }, uniforms: { n, beta: 0.875 }, ...sizes }),
  ]);
  expectClose(found, x, close);
});

const spoiled = [[0, 'weight'], [4 * n - 1, 'weight'], [4 * 64, 'z'], [null, 'nothing']] as const;
test.each(spoiled)('scheduleFreeCheck: element %s of %s would not be finite', async (at, what) => {
  const [y, z, direction] = [random(3), random(4), random(5)];
  if (at !== null && what === 'weight') y[at] = Infinity;
  if (at !== null && what === 'z') z[at] = NaN;
  const words = await runLaunches(device(), ({ input, output }) => [
    emit(scheduleFreeCheck, {
      bindings: {
        direction: input(Float32Array.from(direction)), rates: input(Float32Array.of(0.1)), record: input(Float32Array.of(0)),
        weight: input(Float32Array.from(y)), z: input(Float32Array.from(z)), flags: output(1),
      },
      uniforms: { n, beta: 0.9, share_word: 0 }, ...sizes,
    }),
  ]);
  expect(words[0][0]).toBe(at === null ? 0 : flagNonFiniteWeight);
});
