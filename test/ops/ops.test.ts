/** Every row of the op table in float32: value, gradient, trials; and what is refused. */
import { expect, test } from 'vitest';
import { useDevice } from '../support/device.ts';
import { checkForwardAndGradient, checkTrials, type OpCase } from './check.ts';
import { eachRow } from './rows.ts';
import { table } from './table.ts';

const device = useDevice();

eachRow('f32', (row, seed) => {
  test(`${row.name}: value and gradient`, () => checkForwardAndGradient(device(), row, 100 + seed));
  test(`${row.name}: trials`, () => checkTrials(device(), row, 300 + seed));
});

for (const [op, rows] of Object.entries<OpCase[]>(table)) {
  for (const row of rows) {
    if (!('throws' in row)) continue;
    test(`${op} refuses ${row.name}`, () => {
      const { cls, op: of, arg } = row.throws;
      const thrown = catchError(row.build);
      expect(thrown).toBeInstanceOf(cls);
      expect(thrown).toMatchObject({ op: of, arg });
    });
  }
}

function catchError(build: () => unknown): unknown {
  try {
    build();
  } catch (error) {
    return error;
  }
  throw new Error('nothing was thrown');
}
