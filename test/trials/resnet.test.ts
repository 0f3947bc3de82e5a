/**
 * Fused losses of whole ResNet18s, sample by sample, against as many copies of the model, run one by one: the same bits where K is split alike and
 * no first layer is shared. `FORKSTEP_EXACT=wide` runs widths of 8 to 64, batches of up to 64 and up to 16 trials, which takes minutes.
 */
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
import { randomInts, randomNd, uniformStream } from '../support/random.ts';
import { exact } from './alongNet.ts';

const device = useDevice();

interface Case {
  readonly network: ResNetOptions;
  readonly batchNorm: 'batch' | 'running';
  /** [N][K], of few bits. */
  readonly coefficients: readonly (readonly number[])[];
  readonly scales?: readonly number[];
  readonly batch: number;
  readonly maxTrialsPerPass?: number;
  readonly seed?: number;
}

/** The losses of the trials' samples, which it has compared with the copies'. */
async function expectCopies({ network, batchNorm, coefficients, scales, batch, maxTrialsPerPass, seed = 0 }: Case): Promise<Float32Array[]> {
  const model = resnet18(network);
  const x = tensor(Float32Array.from(randomNd([batch, 32, 32, 3], seed + 1).data), [batch, 32, 32, 3]);
  const labels = tensor(Uint32Array.from(randomInts(batch, 10, seed + 2)));
  const directions = coefficients[0].map((_, k) =>
    new Map<Variable, Float32Array>(model.parameters().map((variable, i) => [variable, exact(variable.shape, seed + 100 * k + i)])));
  const lowering = { ...lowerContextOf(device()), trials: coefficients.length };
  const fused = await lossesAlong({
    model, batches: { x, labels }, coefficients, scales, batchNorm, perSample: true, maxTrialsPerPass, device: device(), lowering,
    fusions: likeCopies,
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
  return fused;
}

const cases: [ResNetOptions, 'batch' | 'running', K: number, scales?: number[]][] = [
  [{ width: 8 }, 'batch', 1],
  [{ width: 5 }, 'running', 1, [1, 0.5, 1.25, 1]],
  [{ width: 5 }, 'batch', 3, [1, 0.5, 1.25, 1]],
  [{ width: 4, stem: 'imagenet' }, 'running', 2],
  [{ width: 4, stem: 'imagenet' }, 'batch', 2, [1, 0.75, 1.5, 1]],
];

test.each(cases)('%j, statistics of the %s, %i directions, scaled by %j', async (network, batchNorm, K, scales) => {
  // The first and the last trial are the model itself, one between them is far away.
  const coefficients = [0, 1 / 64, 8, 0].map((c, i) => Array.from({ length: K }, (_, k) => (k % 2 === 1 ? -c / 4 : c) * Math.min(i, 1)));
  const fused = await expectCopies({ network, batchNorm, coefficients, scales, batch: 2, maxTrialsPerPass: 3 });
  expect(fused[1]).not.toEqual(fused[0]);
  expect(fused[3]).toEqual(fused[0]);
});

const wide = process.env.FORKSTEP_EXACT === 'wide';
const seed = Number(process.env.FORKSTEP_FUZZ_SEED ?? Date.now() % 1e9);
console.log(`ResNet18s: FORKSTEP_FUZZ_SEED=${seed}${wide ? ' FORKSTEP_EXACT=wide' : ''}`);
const uniform = uniformStream(seed);
const int = (low: number, high: number): number => low + Math.floor(uniform() * (high - low + 1));
const pick = <T>(list: readonly T[]): T => list[int(0, list.length - 1)];

for (let index = 0; index < (wide ? 12 : 3); index++) {
  const network: ResNetOptions = { stem: pick(['cifar', 'imagenet']), width: wide ? pick([8, 16, 24, 32, 64]) : int(1, 9) };
  const N = wide ? int(1, 16) : int(1, 6);
  const K = int(1, 3);
  const batchNorm = pick(['batch', 'running'] as const);
  // One image of the ImageNet stem is one value a channel at the end: no statistics.
  const least = network.stem === 'imagenet' && batchNorm === 'batch' ? 2 : 1;
  const batch = Math.max(least, wide ? pick([1, 2, 7, 32, 64]) : int(1, 4));
  const scales = uniform() < 0.3 ? Array.from({ length: N }, () => pick([0.5, 0.75, 1, 1.25, 1.5])) : undefined;
  const maxTrialsPerPass = uniform() < 0.5 ? int(1, N) : undefined;
  const coefficients = Array.from({ length: N }, () => Array.from({ length: K }, () => int(-8, 8) / 64));
  const name = `${index} of seed ${seed}: ${JSON.stringify(network)}, N ${N}, K ${K}, batch ${batch}, ${batchNorm}`;
  test(`${name}${scales ? ', scaled' : ''}, at most ${maxTrialsPerPass ?? N} a pass`, { timeout: 600_000 }, async () => {
    await expectCopies({ network, batchNorm, coefficients, scales, batch, maxTrialsPerPass, seed: index * 1000 });
  });
}
