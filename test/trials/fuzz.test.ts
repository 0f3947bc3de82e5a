/**
 * Random jobs for `lossesAlong`, each bit for bit what copies of the model give, whole and cut. The seed is new each run and printed; to
 * repeat a run, set FORKSTEP_FUZZ_SEED to it.
 */
import { expect, test } from 'vitest';
import { tensor } from '../../src/graph/functional.ts';
import { lossesAlong } from '../../src/trials/lossesAlong.ts';
import { expectClose } from '../support/close.ts';
import { useDevice } from '../support/device.ts';
import { likeCopies } from '../support/likeCopies.ts';
import { uniformStream } from '../support/random.ts';
import { alongNet, copyLosses, exact, hostBatch, onGpu, perturbed, type Norms } from './alongNet.ts';

const seed = process.env.FORKSTEP_FUZZ_SEED === undefined ? Date.now() % 2 ** 31 : Number(process.env.FORKSTEP_FUZZ_SEED);
if (!Number.isInteger(seed)) throw new Error(`FORKSTEP_FUZZ_SEED must be an integer, got ${process.env.FORKSTEP_FUZZ_SEED}`);
console.log(`fuzz: FORKSTEP_FUZZ_SEED=${seed}`);

const uniform = uniformStream(seed);
const int = (least: number, most: number): number => least + Math.floor(uniform() * (most - least + 1));
const pick = <V>(values: readonly V[]): V => values[int(0, values.length - 1)];
const list = <V>(length: number, make: () => V): V[] => Array.from({ length }, make);
/** a − 1 is a power of two: a·w is rounded once, however it is formed. */
const exactScales = [0, 0.5, 0.75, 1, 1.25, 1.5, 2, 3];

const device = useDevice();

const floats = (losses: number | Float32Array): ArrayLike<number> => (typeof losses === 'number' ? [losses] : losses);

for (let index = 0; index < 12; index++) {
  const [K, N] = [int(1, 3), int(1, 9)];
  const net = alongNet(int(1, 1000));
  const batches = list(int(1, 3), () => hostBatch(int(1, 6), int(1, 1e6)));
  const batchNorm = pick<Norms>(['batch', 'running']);
  const perSample = uniform() < 0.5;
  const scales = uniform() < 0.5 ? list(N, () => pick(exactScales)) : undefined;
  const coefficients = list(N, () => list(K, () => int(-8, 8) / 16));
  const moving = net.parameters().filter(() => uniform() < 0.8);
  const only = uniform() < 0.5 ? (variable: object) => (moving as object[]).includes(variable) : undefined;
  const directions = list(K, () => new Map(net.parameters().filter(() => uniform() < 0.8).map((v) => [v, exact(v.shape, int(1, 1e6))])));
  const maxTrialsPerPass = int(1, N);
  const isNothing = !net.parameters().some((v) => (only?.(v) ?? true) && (scales || directions.some((direction) => direction.has(v))));

  const kind = `${batchNorm}${scales ? ', scaled' : ''}${only ? ', masked' : ''}${perSample ? ', per sample' : ''}`;
  const sizes = `N ${N}, ${maxTrialsPerPass} a pass, K ${K}, batches of ${batches.map(({ labels }) => labels.length)}`;
  test.skipIf(isNothing)(`case ${index} of seed ${seed}: ${sizes}, ${kind}`, async () => {
    const job = {
      model: net, batches: batches.map(onGpu), coefficients, scales, only, batchNorm, perSample, device: device(),
      directions: directions.map((direction) => new Map([...direction].map(([v, d]) => [v, tensor(d, v.shape)]))),
    };
    const whole = await lossesAlong(job);
    expect(await lossesAlong({ ...job, maxTrialsPerPass })).toEqual(whole);
    const own = await lossesAlong({ ...job, fusions: likeCopies });
    own.forEach((got, i) => expectClose(floats(whole[i]), floats(got), { atol: 1e-4, rtol: 1e-4 }));
    const all = coefficients.flatMap((c, i) => {
      const values = perturbed(net, directions, c, scales?.[i] ?? 1, { only });
      return batches.map((batch) => ({ values, batch }));
    });
    const losses = await copyLosses(device(), all, batchNorm, perSample);
    const samples = batches.reduce((sum, { labels }) => sum + labels.length, 0);
    own.forEach((got, i) => {
      const parts = losses.slice(i * batches.length, (i + 1) * batches.length);
      if (typeof got !== 'number') expect([...got]).toEqual(parts.flatMap((part) => [...part]));
      else if (batches.length === 1) expect(got).toBe(parts[0][0]);
      else expect(got).toBe(parts.reduce((sum, [loss], b) => sum + loss * batches[b].labels.length, 0) / samples);
    });
  });
}
