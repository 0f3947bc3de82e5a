import { describe, expect, test } from 'vitest';
import { useDevice } from '../support/device.ts';
import { checkForwardAndGradient, checkSideBySide, checkTrials, type OpCase } from './check.ts';
import { inHalf } from './half.ts';
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
    for (const one of row.onlyF32 === undefined ? [row, inHalf(row)] : [row]) {
      test(`${one.name}: value and gradient`, () => checkForwardAndGradient(device(), one, 100 + index));
      test(`${one.name}: trials`, () => checkTrials(device(), one, 300 + index));
      test(`${one.name}: models side by side`, () => checkSideBySide(device(), one, 500 + index));
    }
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
