/** Every row of the op table for models side by side. */
import { test } from 'vitest';
import { useDevice } from '../support/device.ts';
import { checkSideBySide } from './check.ts';
import { eachRow } from './rows.ts';

const device = useDevice();

eachRow('both', (row, seed) => {
  test(`${row.name}: models side by side`, () => checkSideBySide(device(), row, 500 + seed));
});
