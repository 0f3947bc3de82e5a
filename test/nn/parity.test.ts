/**
 * ResNet18 against PyTorch's float64, tensor by tensor: at most 5 × as far from it as PyTorch's own float32 (`test/goldens/README.md`).
 * Each test prints the worst of its figures.
 */
import { describe, expect, test } from 'vitest';
import { grad } from '../../src/autograd/grad.ts';
import type { Device } from '../../src/gpu/device.ts';
import { defaultLowerContext } from '../../src/graph/lower/convChoice.ts';
import { evaluate, type EvaluateOptions } from '../../src/graph/run.ts';
import { goldenNames, loadGolden, type Training } from '../goldens/load.ts';
import { useDevice } from '../support/device.ts';
import {
  expectParity, goldenModel, inTorchLayout, lossGraph, scalarFigure, scalarFigures, tensorFigure, tensorFigures, withRun,
  type Figure, type GoldenRun,
} from './goldenRun.ts';

const device = useDevice();

/** Ways to run one graph: other sums in another order, the same bound. */
const ways = {
  'as trained': (on: Device): EvaluateOptions => ({ device: on }),
  'nothing fused': (on: Device): EvaluateOptions => ({ device: on, fusions: [] }),
  'K split as for a GPU': (on: Device): EvaluateOptions => {
    const { maxComputeWorkgroupStorageSize, maxComputeInvocationsPerWorkgroup } = on.limits;
    return { device: on, lowering: defaultLowerContext({ workgroupBytes: maxComputeWorkgroupStorageSize, maxInvocations: maxComputeInvocationsPerWorkgroup, isSoftware: false }) };
  },
};

/** Losses of the golden's SGD steps and one after, then eval-mode logits. */
async function trainingFigures(run: GoldenRun, name: string, want: Training): Promise<Figure[]> {
  const { lr, steps } = run.golden.sgd;
  const losses: number[] = [];
  for (let step = 0; step < steps; step++) losses.push(await run.step(step, lr, step === 0));
  const logits = await run.evalLogits(0);
  losses.push(await run.lossOf(steps));
  return [...scalarFigures(`${name}/losses`, losses, want.losses), tensorFigure(`${name}/evalLogits`, logits, want.evalLogits)];
}

describe.each(goldenNames)('%s', (name) => {
  const golden = loadGolden(name);
  const { momentum, weightDecay } = golden.sgd;

  test.each(Object.keys(ways) as (keyof typeof ways)[])('logits, loss and every gradient, %s', async (way) => {
    const model = goldenModel(golden);
    const parameters = model.parameters();
    const graph = lossGraph(golden, model);
    const values = await evaluate([graph.logits, graph.loss, ...grad(graph.loss, parameters)], ways[way](device()));
    const [logits, [loss], ...gradients] = values as Float32Array[];
    const byName = inTorchLayout(golden, parameters, gradients);
    expect([...byName.keys()]).toEqual([...golden.gradients.keys()]);
    expectParity(`${name} forward, ${way}`, [tensorFigure('logits', logits, golden.logits), scalarFigure('loss', loss, golden.loss)]);
    expectParity(`${name} gradients, ${way}`, tensorFigures('gradient', byName, golden.gradients));
  });

  test('running statistics, eval mode, three steps of SGD', async () => {
    await withRun(device(), golden, { optimizer: { momentum, weightDecay } }, async (run) => {
      await run.step(0, 0, true);
      const running = await run.running();
      expect([...running.keys()]).toEqual([...golden.running.keys()]);
      expectParity(`${name} running statistics`, tensorFigures('running', running, golden.running));
      await run.step(1, 0, false);
      await run.step(2, 0, false);
      expectParity(`${name} eval mode`, [tensorFigure('evalLogits', await run.evalLogits(0), golden.evalLogits)]);
      run.reset();
      expectParity(`${name} SGD`, await trainingFigures(run, 'sgd', golden.sgd.plain));
    });
  });

  test('three steps of SGD with Nesterov momentum', async () => {
    await withRun(device(), golden, { optimizer: { momentum, weightDecay, nesterov: true } }, async (run) => {
      expectParity(`${name} Nesterov`, await trainingFigures(run, 'nesterov', golden.sgd.nesterov));
    });
  });
});
