/** The op table's rows as tests, in float32 and f16. Its checks are three files' work, so that both workers have some of it. */
import { describe } from 'vitest';
import type { ValueCase } from './check.ts';
import { inHalf } from './half.ts';
import { table } from './table.ts';

/** Defines tests for each row that computes something, by `define`; its seed is one of the row's own. */
export function eachRow(precision: 'f32' | 'f16' | 'both', define: (row: ValueCase, seed: number) => void): void {
  describe.each(Object.entries(table))('%s', (_, rows) => {
    rows.forEach((row, index) => {
      if ('throws' in row) return;
      if (precision !== 'f16') define(row, index);
      if (precision !== 'f32' && row.onlyF32 === undefined) define(inHalf(row), index);
    });
  });
}
