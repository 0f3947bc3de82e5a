/**
 * Random shapes and attributes, every one through what the rows of the table go through. The seed is new each run and printed;
 * to repeat a run, set FORKSTEP_FUZZ_SEED to it. A case that fails becomes a row of the table.
 */
import { test } from 'vitest';
import { useDevice } from '../support/device.ts';
import { uniformStream } from '../support/random.ts';
import { checkForwardAndGradient, checkTrials, type ValueCase } from './check.ts';
import { inHalf } from './half.ts';
import { conv, linear, norm, pool, sumOf } from './table.ts';

const seed = process.env.FORKSTEP_FUZZ_SEED === undefined ? Date.now() % 2 ** 31 : Number(process.env.FORKSTEP_FUZZ_SEED);
if (!Number.isInteger(seed)) throw new Error(`FORKSTEP_FUZZ_SEED must be an integer, got ${process.env.FORKSTEP_FUZZ_SEED}`);
console.log(`fuzz: FORKSTEP_FUZZ_SEED=${seed}`);

const uniform = uniformStream(seed);
/** A whole number from `least` to `most`. */
const int = (least: number, most: number): number => least + Math.floor(uniform() * (most - least + 1));
const pick = <V>(values: readonly V[]): V => values[int(0, values.length - 1)];
const coin = (): boolean => uniform() < 0.5;

function randomConv(): ValueCase {
  const [kH, kW] = coin() ? new Array<number>(2).fill(pick([1, 2, 3, 5, 7])) : [int(1, 4), int(1, 4)];
  const padding = int(0, 3);
  const side = (kernel: number) => Math.max(1, kernel - 2 * padding) + int(0, 9);
  const [cin, cout] = [int(1, 40), int(1, 40)];
  // Splits of K depend on the number of trials where there is enough of it.
  const trialTolerance = sumOf(kH * kW * cin);
  const row = conv({ x: [int(1, 3), side(kH), side(kW), cin], k: [kH, kW, cout], stride: int(1, 3), padding, trialTolerance });
  // With more stride and padding than kernel, no window may meet the image.
  return { ...row, isConstant: row.reference(row.inputs()).data.every((value) => value === 0) };
}

const randomNorm = (): ValueCase => norm({
  shape: pick([[int(2, 90), int(1, 20)], [int(2, 4), int(1, 9), int(1, 9), int(1, 20)]]),
  training: coin(), relu: coin(), residual: coin(), x: { offset: int(-3, 3) },
  // Two values a channel normalise to ±1 whatever they are: where they are nearly equal, rounding is all there is.
  tolerance: { atol: 2e-5, rtol: 1e-5 }, gradTolerance: { atol: 1e-3, rtol: 1e-3 },
});

function randomPool(): ValueCase {
  const kernelSize = int(1, 4);
  const shape = [int(1, 3), kernelSize + int(0, 8), kernelSize + int(0, 8), int(1, 13)];
  return pool(shape, kernelSize, int(1, 4), int(0, Math.floor(kernelSize / 2)), coin());
}

function randomLinear(): ValueCase {
  const [n, k, m] = [int(1, 70), int(1, 150), int(1, 70)];
  return { ...linear(n, k, m), trialTolerance: sumOf(k) };
}

const makers = [randomConv, randomConv, randomNorm, randomPool, randomLinear];

for (let index = 0; index < 30; index++) {
  const made = makers[index % makers.length]();
  const row = coin() && made.onlyF32 === undefined ? inHalf(made) : made;
  test(`case ${index} of seed ${seed}: ${row.name}`, async () => {
    await checkForwardAndGradient(device(), row, seed + index);
    await checkTrials(device(), row, seed + index);
  });
}

const device = useDevice();
