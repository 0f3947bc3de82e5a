/** The op table's rows as tests, in float32 and f16. Its checks are three files' work, so that both workers have some of it. */
import { describe } from 'vitest';
import type { ValueCase } from './check.ts';
import { inHalf } from './half.ts';
import { table } from './table.ts';

/** Defines tests for each row that computes something, by `define`; its seed is one of the row's own. */
export function eachRow(precision: 'f32' | 'f16' | 'both', define: (row: ValueCase, seed: number) => void): void {
  for (const [op, rows] of Object.entries(table)) {
    const some = rows.flatMap((row, seed) => {
      if ('throws' in row) return [];
      const f16 = precision === 'f32' || row.onlyF32 !== undefined ? [] : [inHalf(row)];
      return [...(precision === 'f16' ? [] : [row]), ...f16].map((one) => ({ one, seed }));
    });
    // Casts have no rows in f16.
    if (some.length > 0) describe(op, () => some.forEach(({ one, seed }) => define(one, seed)));
  }
}
