import { expect, test } from 'vitest';
import { add, conv2d, mean, scale, sum, tensor } from '../../src/graph/functional.ts';
import { evaluate } from '../../src/graph/run.ts';
import { Variable } from '../../src/graph/tensor.ts';
import { useDevice } from '../support/device.ts';

// The hook of `useDevice` also fails a test that leaves a buffer behind.
const device = useDevice();
const x = new Variable('parameter', 'x', [2, 3], Float32Array.of(1, 2, 3, 4, 5, 6));

test('read() runs what a tensor needs', async () => {
  expect(await scale(x, 2).read()).toEqual(Float32Array.of(2, 4, 6, 8, 10, 12));
  expect(await mean(x).read()).toEqual(Float32Array.of(3.5));
});

test('read() of what is computed from nothing gives what was put in', async () => {
  expect(await x.read()).toEqual(x.data);
  expect(await tensor(Uint32Array.of(7, 0xffffffff)).read()).toEqual(Uint32Array.of(7, 0xffffffff));
});

test('several outputs, one of them twice, one of them an input of another', async () => {
  const y = add(x, x);
  const values = await evaluate([y, sum(y), y, x], { device: device() });
  const doubled = Float32Array.of(2, 4, 6, 8, 10, 12);
  expect(values).toEqual([doubled, Float32Array.of(42), doubled, x.data]);
});

test('reads at the same time do not disturb each other', async () => {
  const reads = Array.from({ length: 8 }, (_, i) => scale(x, i).read());
  expect((await Promise.all(reads)).map((values) => values[5])).toEqual([0, 6, 12, 18, 24, 30, 36, 42]);
});

test('a failed evaluation leaves no buffer behind', async () => {
  const wrong = { wantedWorkgroups: 1, tiles: [{ m: 1024, n: 1024, k: 64 }] };
  const y = conv2d(tensor([1], [1, 1, 1, 1]), tensor([1], [1, 1, 1, 1]));
  await expect(evaluate([y], { device: device(), lowering: wrong })).rejects.toThrow('conv2dForward_1024x1024x64');
});
