/**
 * Events against PyTorch's float64 and against what they replace: N trial losses in one pass beside N perturbed copies of the weights,
 * and a training with events beside one without.
 */
import { describe, expect, test } from 'vitest';
import { tensor } from '../../src/graph/functional.ts';
import type { Variable } from '../../src/graph/tensor.ts';
import { loadStateDict } from '../../src/nn/stateDict.ts';
import { lossesAlong } from '../../src/trials/lossesAlong.ts';
import { distance, goldenNames, loadGolden, type Golden } from '../goldens/load.ts';
import { useDevice } from '../support/device.ts';
import { batchTensors, expectParity, goldenModel, inTorchLayout, scalarFigures, tensorFigures, withRun, type GoldenRun } from './goldenRun.ts';

const device = useDevice();

/** PyTorch's float64 gradients, rounded to float32 once, in the parameters' own layout and order. */
function pytorchGradients(golden: Golden): Float32Array[] {
  const holder = goldenModel(golden);
  const state = golden.stateDict();
  for (const [key, { data, shape }] of golden.gradients) state.set(key, { dtype: 'F64', shape, data });
  loadStateDict(holder, state);
  return holder.parameters().map(({ data }) => data);
}

/** Losses of batch 0 with the weights set to W − c·g, formed by the host in float32, one copy after the other. */
async function lossesOfCopies(run: GoldenRun, coefficients: readonly number[], gradients: Map<Variable, Float32Array>): Promise<number[]> {
  const losses: number[] = [];
  for (const coefficient of coefficients.map(Math.fround)) {
    for (const [variable, g] of gradients) {
      run.plans.store.write(variable, variable.data.map((w, i) => w - Math.fround(coefficient * g[i])));
    }
    losses.push(await run.lossOf(0));
  }
  run.reset();
  return losses;
}

describe.each(goldenNames)('%s', (name) => {
  const golden = loadGolden(name);
  const { momentum, weightDecay } = golden.sgd;
  const { coefficients, losses: want } = golden.trials;
  const reference = want.map(({ value }) => value);

  test('gradients of the step and trial losses of its event, beside copies of the weights', async () => {
    await withRun(device(), golden, { optimizer: { momentum, weightDecay }, coefficients }, async (run) => {
      const fused = await run.trialLosses(0);
      expect(fused.length).toBe(want.length);
      const gradients = await run.gradients();
      const byName = inTorchLayout(golden, [...gradients.keys()], [...gradients.values()]);
      expectParity(`${name} step gradients`, tensorFigures('gradient', byName, golden.gradients));
      expectParity(`${name} event`, scalarFigures('trials/losses', fused, want));

      const copies = await lossesOfCopies(run, coefficients, gradients);
      const [ours, theirs] = [distance(fused, reference), distance(copies, reference)];
      const figures = `fused trials ${ours.toExponential(1)} from float64, copies ${theirs.toExponential(1)}`;
      console.log(`  ${name} ${fused.length} ${figures}: ${(ours / theirs).toFixed(2)} ×`);
      expect(ours).toBeLessThanOrEqual(3 * Math.max(theirs, 2 ** -24));
    });
  });

  test('lossesAlong with PyTorch\'s gradient as the direction', async () => {
    const model = goldenModel(golden);
    const gradients = pytorchGradients(golden);
    const directions = new Map(model.parameters().map((variable, i) => [variable, tensor(gradients[i], variable.shape)]));
    const got = await lossesAlong({
      model, batches: batchTensors(golden, 0), directions: [directions], coefficients: coefficients.map((c) => -c), maxTrialsPerPass: 4,
      device: device(),
    });
    expectParity(`${name} lossesAlong`, scalarFigures('trials/losses', got, want));
  });
});

describe.each(['cifar-w5', 'imagenet-w5'] as const)('%s', (name) => {
  const golden = loadGolden(name);
  const { momentum, weightDecay, lr } = golden.sgd;
  const { coefficients } = golden.trials;

  test.each(['gradient', 'optimizer'] as const)('an event along the %s changes no bit of what training keeps', async (direction) => {
    await withRun(device(), golden, { optimizer: { momentum, weightDecay }, coefficients, direction }, async (run) => {
      const start = await run.state();
      const losses = [await run.step(0, lr, true), await run.step(1, lr, false)];
      const end = await run.state();
      for (const part of ['parameters', 'statistics', 'momentum'] as const) expect(end[part]).not.toBe(start[part]);

      run.reset();
      for (const step of [0, 1]) {
        const { loss, trialLosses, before, after } = await run.stepWithEvent(step, lr, step === 0);
        expect(after).toEqual(before);
        expect(loss).toBe(losses[step]);
        expect(new Set(trialLosses).size).toBe(coefficients.length);
        expect(trialLosses.every(Number.isFinite)).toBe(true);
      }
      expect(await run.state()).toEqual(end);
    });
  });
});
