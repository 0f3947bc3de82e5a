import { describe, expect, test } from 'vitest';
import { useDevice } from '../support/device.ts';
import { checkForwardAndGradient, checkTrials, type OpCase } from './check.ts';
import { table } from './table.ts';

const device = useDevice();

describe.each(Object.entries<OpCase[]>(table))('%s', (_, rows) => {
  rows.forEach((row, index) => {
    if ('throws' in row) {
      test(`refuses ${row.name}`, () => {
        const { cls, op, arg } = row.throws;
        const thrown = catchError(row.build);
        expect(thrown).toBeInstanceOf(cls);
        expect(thrown).toMatchObject({ op, arg });
      });
      return;
    }
    test(`${row.name}: value and gradient`, () => checkForwardAndGradient(device(), row, 100 + index));
    test(`${row.name}: trials`, () => checkTrials(device(), row, 300 + index));
  });
});

function catchError(build: () => unknown): unknown {
  try {
    build();
  } catch (error) {
    return error;
  }
  throw new Error('nothing was thrown');
}
