/** The words of a refusal. That each op refuses what it should is in its rows, `test/ops/table.ts`. */
import { expect, test } from 'vitest';
import { ShapeError } from '../../src/gpu/errors.ts';
import { conv2d, tensor } from '../../src/graph/functional.ts';
import { Variable } from '../../src/graph/tensor.ts';
import { table } from '../ops/table.ts';
import type { ErrorCase, OpCase } from '../ops/check.ts';

const refusals = Object.values<OpCase[]>(table).flat().filter((row): row is ErrorCase => 'throws' in row);

function errorOf(build: () => unknown): Error {
  try {
    build();
  } catch (error) {
    return error as Error;
  }
  throw new Error('nothing was thrown');
}

test.each(refusals.map((row) => [row.throws.op, row.name, row] as const))('%s, %s: says op, argument, rule, value and remedy', (_, __, row) => {
  const error = errorOf(row.build) as ShapeError;
  const { op, arg } = row.throws;
  expect(error.message.startsWith(`${op}: ${arg} ${error.expected}, got `)).toBe(true);
  const [got, fix] = error.message.slice(`${op}: ${arg} ${error.expected}, got `.length).split('; ');
  expect(got).toContain(String(error.got));
  expect(fix.length).toBeGreaterThan(3);
});

test('a refusal prints the values it compared, and the shapes they are from', () => {
  const zeros = (shape: number[]) => tensor(new Float32Array(shape.reduce((a, b) => a * b)), shape);
  expect(errorOf(() => conv2d(zeros([8, 6, 6, 4]), zeros([3, 3, 3, 16]))).message).toMatchInlineSnapshot(`"conv2d: weight.shape[2] must equal x.shape[3] = 4, got 3 (x f32[8, 6, 6, 4], weight f32[3, 3, 3, 16]); layouts are NHWC, [kH][kW][Cin][Cout]"`);
});

test.each<[string, string, () => unknown]>([
  ['a tensor of too few values', 'values', () => tensor([1, 2, 3], [2, 2])],
  ['a tensor with an empty dimension', 'shape', () => tensor([], [0])],
  ['a variable of too few values', 'data of w', () => new Variable('parameter', 'w', [2, 2], new Float32Array(3))],
])('%s', (_, arg, build) => {
  const error = errorOf(build);
  expect(error).toBeInstanceOf(ShapeError);
  expect(error).toMatchObject({ arg });
});
