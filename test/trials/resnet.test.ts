/** Fused losses of whole ResNet18s against as many copies of the model, run one by one: the same bits where K is split alike. */
import { expect, test } from 'vitest';
import { crossEntropy, tensor } from '../../src/graph/functional.ts';
import { lowerContextOf } from '../../src/graph/plan.ts';
import { evaluate } from '../../src/graph/run.ts';
import type { Variable } from '../../src/graph/tensor.ts';
import { inferenceContext, trainingContext } from '../../src/nn/module.ts';
import { resnet18, type ResNetOptions } from '../../src/nn/resnet.ts';
import { lossesAlong } from '../../src/trials/lossesAlong.ts';
import { useDevice } from '../support/device.ts';
import { likeCopies } from '../support/likeCopies.ts';
import { randomInts, randomNd } from '../support/random.ts';
import { exact } from './alongNet.ts';

const device = useDevice();

const cases: [ResNetOptions, 'batch' | 'running', K: number, scales?: number[]][] = [
  [{ width: 8 }, 'batch', 1],
  [{ width: 5 }, 'running', 1, [1, 0.5, 1.25, 1]],
  [{ width: 5 }, 'batch', 3, [1, 0.5, 1.25, 1]],
  [{ width: 4, stem: 'imagenet' }, 'running', 2],
  [{ width: 4, stem: 'imagenet' }, 'batch', 2, [1, 0.75, 1.5, 1]],
];

test.each(cases)('%j, statistics of the %s, %i directions, scaled by %j', async (network, batchNorm, K, scales) => {
  const model = resnet18(network);
  const x = tensor(Float32Array.from(randomNd([2, 32, 32, 3], 1).data), [2, 32, 32, 3]);
  const labels = tensor(Uint32Array.from(randomInts(2, 10, 2)));
  const directions = Array.from({ length: K }, (_, k) =>
    new Map<Variable, Float32Array>(model.parameters().map((variable, i) => [variable, exact(variable.shape, 100 * k + i)])));
  // The first and the last trial are the model itself, one between them is far away.
  const coefficients = [0, 1 / 64, 8, 0].map((c, i) => Array.from({ length: K }, (_, k) => (k % 2 === 1 ? -c / 4 : c) * Math.min(i, 1)));
  const lowering = { ...lowerContextOf(device()), trials: coefficients.length };
  const fused = await lossesAlong({
    model, batches: { x, labels }, coefficients, scales, batchNorm, perSample: true, maxTrialsPerPass: 3, device: device(), lowering, fusions: likeCopies,
    directions: directions.map((direction) => new Map([...direction].map(([variable, d]) => [variable, tensor(d, variable.shape)]))),
  });
  for (const [i, c] of coefficients.entries()) {
    const copy = resnet18(network);
    const variables = copy.namedVariables();
    for (const variable of model.parameters()) {
      const scaled = variable.data.map((w) => (scales?.[i] ?? 1) * w);
      const moved = directions.reduce((w, direction, k) => w.map((value, j) => value + c[k] * direction.get(variable)![j]), scaled);
      variables.get(variable.name)!.data = moved;
    }
    const logits = copy.forward(x, batchNorm === 'batch' ? trainingContext() : inferenceContext());
    const [losses] = await evaluate([crossEntropy(logits, labels)], { device: device(), lowering });
    expect([...fused[i]], `trial ${i}`).toEqual([...losses]);
  }
  expect(fused[1]).not.toEqual(fused[0]);
  expect(fused[3]).toEqual(fused[0]);
});
