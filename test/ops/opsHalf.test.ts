/** Every row of the op table in f16: value, gradient, trials. */
import { test } from 'vitest';
import { useDevice } from '../support/device.ts';
import { checkForwardAndGradient, checkTrials } from './check.ts';
import { eachRow } from './rows.ts';

const device = useDevice();

eachRow('f16', (row, seed) => {
  test(`${row.name}: value and gradient`, () => checkForwardAndGradient(device(), row, 100 + seed));
  test(`${row.name}: trials`, () => checkTrials(device(), row, 300 + seed));
});
