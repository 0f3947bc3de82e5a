/** `lossesAlong` against float64 and against copies of the model; what it leaves alone, and what it refuses. */
import { describe, expect, test, vi } from 'vitest';
import { grad } from '../../src/autograd/grad.ts';
import type { Device } from '../../src/gpu/device.ts';
import { crossEntropy, mean, tensor } from '../../src/graph/functional.ts';
import { lowerContextOf } from '../../src/graph/plan.ts';
import { evaluate } from '../../src/graph/run.ts';
import { Variable, type Tensor } from '../../src/graph/tensor.ts';
import { trainingContext } from '../../src/nn/module.ts';
import { resnet18 } from '../../src/nn/resnet.ts';
import type { LossesAlongOptions } from '../../src/trials/alongOptions.ts';
import { lossesAlong } from '../../src/trials/lossesAlong.ts';
import { expectClose } from '../support/close.ts';
import { useDevice } from '../support/device.ts';
import { likeCopies } from '../support/likeCopies.ts';
import { LesserDevice } from '../support/lesserDevice.ts';
import { randomNd } from '../support/random.ts';
import { countCalls, withLiveBuffers } from '../train/gpuCalls.ts';
import { LinearNet, type ConvNet } from '../train/nets.ts';
import { alongNet, copyLosses, exact, hostBatch, hostLosses, onGpu, perturbed, valuesOf, type HostBatch, type Norms } from './alongNet.ts';

const device = useDevice();

type HostDirection = Map<Variable, Float32Array>;
const onDevice = (direction: HostDirection): Map<Variable, Tensor> => new Map([...direction].map(([v, d]) => [v, tensor(d, v.shape)]));
/** Short binary fractions for all parameters. */
const directionOf = (net: ConvNet, seed: number): HostDirection =>
  new Map(net.parameters().map((variable, i) => [variable, exact(variable.shape, seed + i)]));

interface Job {
  readonly batches: readonly HostBatch[];
  readonly directions: readonly HostDirection[];
  readonly coefficients: readonly (readonly number[])[];
  readonly scales?: readonly number[];
  readonly only?: (variable: Variable) => boolean;
  readonly batchNorm: Norms;
}

const run = (net: ConvNet, { batches, directions, ...job }: Job, more: Partial<LossesAlongOptions> = {}) =>
  lossesAlong({ model: net, batches: batches.map(onGpu), directions: directions.map(onDevice), device: device(), ...job, ...more });

const samplesOf = ({ batches }: Job): number => batches.reduce((sum, { labels }) => sum + labels.length, 0);

/** Losses of each trial's samples, all batches one after the other, from weights of float64. */
function reference(net: ConvNet, { batches, directions, coefficients, scales, only, batchNorm }: Job): number[][] {
  return coefficients.map((c, i) => {
    const values = perturbed(net, directions, c, scales?.[i] ?? 1, { only, round: (value) => value });
    return batches.flatMap((batch) => hostLosses(values, batch, batchNorm));
  });
}

/** The losses of copies of the model, a trial and batch each: of all samples, or their means. */
async function copies(net: ConvNet, job: Job, perSample: boolean): Promise<Float32Array[][]> {
  const { batches, directions, coefficients, scales, only, batchNorm } = job;
  const all = coefficients.flatMap((c, i) => {
    const values = perturbed(net, directions, c, scales?.[i] ?? 1, { only });
    return batches.map((batch) => ({ values, batch }));
  });
  const losses = await copyLosses(device(), all, batchNorm, perSample);
  return coefficients.map((_, i) => losses.slice(i * batches.length, (i + 1) * batches.length));
}

/** Bit for bit what copies give, in either form of the result. */
async function expectCopies(net: ConvNet, job: Job): Promise<void> {
  const more = { fusions: likeCopies };
  const each = (await run(net, job, { ...more, perSample: true })) as Float32Array[];
  expect(each.map((losses) => [...losses])).toEqual((await copies(net, job, true)).map((parts) => parts.flatMap((part) => [...part])));
  const means = (await copies(net, job, false)).map((parts) =>
    parts.length === 1 ? parts[0][0] : parts.reduce((sum, [loss], b) => sum + loss * job.batches[b].labels.length, 0) / samplesOf(job));
  expect(await run(net, job, more)).toEqual(means);
}

const layer = (prefix: string) => ({ name }: Variable): boolean => name.startsWith(prefix);
const bothNorms: Norms[] = ['batch', 'running'];
const batches = [hostBatch(5, 1), hostBatch(3, 2), hostBatch(5, 3)];
/** A row for each of four trials, the first of zeros. */
const coefficientsOf = (K: number): number[][] => [0, 1, 2, 3].map((i) => Array.from({ length: K }, (_, k) => i * (k - 1.5) / 16));

describe.each(bothNorms)('statistics of the %s', (batchNorm) => {
  test.each([1, 2, 3])('%i directions, several batches: as near to float64 as float32 is', async (K) => {
    const net = alongNet();
    const job: Job = {
      batches, batchNorm, directions: Array.from({ length: K }, (_, k) => directionOf(net, 50 * k + 7)), coefficients: coefficientsOf(K),
      scales: K === 2 ? [1, 0.9, 1.3, 0.37] : undefined,
    };
    const expected = reference(net, job);
    const each = (await run(net, job, { perSample: true })) as Float32Array[];
    each.forEach((losses, i) => expectClose(losses, expected[i], { atol: 2e-5, rtol: 2e-5 }));
    const means = expected.map((losses) => losses.reduce((a, b) => a + b, 0) / losses.length);
    expectClose((await run(net, job)) as number[], means, { atol: 1e-5, rtol: 1e-5 });
    expect(new Set(means).size).toBe(4);
  });

  test('one batch: the very losses of copies of the model, and at c = 0 of the model itself', async () => {
    const net = alongNet();
    const job: Job = { batches: [batches[0]], batchNorm, directions: [directionOf(net, 7)], coefficients: [[0], [0.5], [-0.25]] };
    await expectCopies(net, job);
    const [itself] = await copyLosses(device(), [{ values: valuesOf(net), batch: batches[0] }], batchNorm, false);
    expect(((await run(net, job)) as number[])[0]).toBe(itself[0]);
  });

  test('trials far apart do not mix their statistics', async () => {
    const net = alongNet();
    const coefficients = [0, 4096, -4096, 0, 1 / 1024].map((c) => [c]);
    const job: Job = { batches: [batches[0]], batchNorm, directions: [directionOf(net, 7)], coefficients };
    await expectCopies(net, job);
  });

  test.each<[string, Partial<Job>]>([
    ['a layer', { only: layer('conv2.') }],
    ['a norm', { only: layer('bn1.') }],
    ["a norm's bias", { only: layer('bn2.bias') }],
    ['scales', { scales: [1, 0.5, 3, 0] }],
    ['scales of a norm and a layer', { scales: [2, 0.5, 0, 1], only: ({ name }) => /^(bn1|fc)\./.test(name) }],
  ])('%s', async (_, part) => {
    const net = alongNet();
    const directions = [directionOf(net, 7)];
    await expectCopies(net, { batches: [batches[1]], batchNorm, directions, coefficients: coefficientsOf(1), ...part });
  });

  test('directions that name different variables', async () => {
    const net = alongNet();
    const only = (prefix: RegExp, seed: number) => new Map([...directionOf(net, seed)].filter(([{ name }]) => prefix.test(name)));
    const directions = [only(/^conv/, 1), only(/^bn1|^conv2|^fc/, 2)];
    const job: Job = { batches: [batches[0]], batchNorm, directions, coefficients: coefficientsOf(2) };
    await expectCopies(net, job);
    // Scales reach the parameters that no direction names.
    await expectCopies(net, { ...job, scales: [0.5, 2, 1, 1.5] });
  });
});

test('running statistics move and scale where a direction names them', async () => {
  const net = alongNet();
  const direction = directionOf(net, 7);
  direction.set(net.bn1.runningMean, exact([4], 90)).set(net.bn2.runningVar, exact([8], 91).map((value) => Math.abs(value)));
  const job: Job = { batches: [batches[0]], batchNorm: 'running', directions: [direction], coefficients: [[0], [0.5], [0.25]] };
  await expectCopies(net, job);
  await expectCopies(net, { ...job, scales: [1, 0.5, 2] });
});

describe('directions', () => {
  const job = { batches: [batches[0]], batchNorm: 'batch', directions: [], coefficients: [[0], [-0.5], [0.25]] } as const;

  test('may be the variables themselves', async () => {
    const net = alongNet();
    const itself = [new Map(net.parameters().map((variable) => [variable, variable]))];
    const values = new Map(net.parameters().map((variable) => [variable, variable.data]));
    const expected = await copies(net, { ...job, directions: [values] }, false);
    expect(await run(net, job, { directions: itself, fusions: likeCopies })).toEqual(expected.map(([[loss]]) => loss));
  });

  test('may be gradients, which are computed once', async () => {
    const net = alongNet();
    const { x, labels } = onGpu(batches[1]);
    const parameters = net.parameters();
    const gradients = grad(mean(crossEntropy(net.forward(x, trainingContext()), labels)), parameters);
    const traced = new Map(parameters.map((variable, i) => [variable, gradients[i]]));
    const values = (await evaluate(gradients)) as Float32Array[];
    const read = new Map(parameters.map((variable, i) => [variable, tensor(values[i], variable.shape)]));
    const dispatches: number[] = [];
    const losses: unknown[] = [];
    for (const [direction, maxTrialsPerPass] of [[read, 1], [traced, 1], [read, 3], [traced, 3]] as const) {
      const options = { directions: [direction], maxTrialsPerPass };
      const calls = await countCalls(async () => void losses.push(await run(net, job, options)));
      dispatches.push(calls.dispatchWorkgroups);
    }
    expect(new Set(losses.map(String)).size).toBe(1);
    expect(dispatches[1] - dispatches[0]).toBeGreaterThan(0);
    expect(dispatches[1] - dispatches[0]).toBe(dispatches[3] - dispatches[2]);
  });
});

describe('what the loss and the batches may be', () => {
  const net = alongNet();
  const direction = onDevice(directionOf(net, 7));
  const base = { model: net, directions: [direction], coefficients: [0, 0.25] };

  test('a loss of one’s own, and labels by themselves', async () => {
    const { x, labels } = onGpu(batches[0]);
    const smooth = (logits: Tensor, classes: Tensor) => crossEntropy(logits, classes, { labelSmoothing: 0.25 });
    const got = await lossesAlong({ ...base, batches: { x, labels }, loss: smooth });
    const plain = await lossesAlong({ ...base, batches: { x, labels } });
    const expected = await mean(smooth(net.forward(x, trainingContext()), labels)).read();
    expect(got[0]).toBe(expected[0]);
    expect(got[0]).not.toBe(plain[0]);
    expect(await lossesAlong({ ...base, batches: { x, labels: Uint32Array.from(batches[0].labels) } })).toEqual(plain);
  });

  test('a batch that is computed', async () => {
    const { x, labels } = onGpu(batches[0]);
    const plain = await lossesAlong({ ...base, batches: { x, labels } });
    const held = new Variable('statistic', 'images', x.shape, Float32Array.from(batches[0].x.data));
    expect(await lossesAlong({ ...base, batches: [{ x: held, labels }] })).toEqual(plain);
    const other = onGpu(hostBatch(5, 9));
    const both = await lossesAlong({ ...base, batches: [{ x: other.x, labels: other.labels }, { x: held, labels }] });
    const [alone] = [await lossesAlong({ ...base, batches: other })];
    expect(both).toEqual(plain.map((loss, i) => (alone[i] * 5 + loss * 5) / 10));
  });

  test('a loss that no weight reaches is the same in every trial', async () => {
    const { x, labels } = onGpu(batches[0]);
    const flat = (_: Tensor, classes: Tensor) => crossEntropy(tensor(new Float32Array(25), [5, 5]), classes);
    const three = { ...base, batches: { x, labels }, loss: flat, coefficients: [0, 1, 2] };
    const losses = await lossesAlong({ ...three, maxTrialsPerPass: 2, perSample: true });
    for (const each of losses) expectClose(each, Array(5).fill(Math.log(5)), { atol: 0, rtol: 2e-7 });
  });
});

describe('passes', () => {
  const net = alongNet();
  const directions = [directionOf(net, 7)];
  const job = (N: number, some = [batches[0]]): Job => ({
    batches: some, batchNorm: 'batch', directions, coefficients: Array.from({ length: N }, (_, i) => [(i - N / 2) / 64]),
  });
  const submitsOf = async (work: () => Promise<unknown>) => (await countCalls(async () => void (await work()))).submit;

  test.each<[string, Partial<LossesAlongOptions>, less: Partial<Record<keyof GPUSupportedLimits, number>>, passes: number]>([
    ['told to', { maxTrialsPerPass: 5 }, {}, 13],
    ['one by one', { maxTrialsPerPass: 1 }, {}, 64],
    // Five images' first activation takes 5,120 bytes a trial.
    ['by the binding limit', {}, { maxStorageBufferBindingSize: 51200 }, 7],
    ['by the largest buffer', {}, { maxBufferSize: 51200 }, 7],
    ['by the budget', { memoryBudget: 100_000 }, {}, 0],
    ['by a budget below one trial', { memoryBudget: 1 }, {}, 64],
  ])('of 64 trials, cut %s, give the same bits', async (_, options, less, passes) => {
    const whole = await run(net, job(64), { perSample: true });
    const lesser = new LesserDevice(device(), less);
    let cut: unknown;
    const again = async () => {
      cut = await run(net, job(64), { ...options, perSample: true, device: lesser });
    };
    // The first time kernels are run once as they are compiled.
    await again();
    const submits = await submitsOf(again);
    expect(cut).toEqual(whole);
    // One more reads the losses.
    if (passes > 0) expect(submits - 1).toBe(passes);
    else expect(submits - 1).toBeGreaterThan(3);
  });

  test('of a layer whose sums are cut to fill the adapter give the same bits', async () => {
    const wide = new LinearNet(2048);
    const x = tensor(Float32Array.from(randomNd([4, 2048], 1).data), [4, 2048]);
    const direction = new Map(wide.parameters().map((v, i) => [v, tensor(Float32Array.from(randomNd([...v.shape], i).data), v.shape)]));
    const along = (coefficients: number[], more: Partial<LossesAlongOptions> = {}) =>
      lossesAlong({ model: wide, batches: { x, labels: Uint32Array.of(0, 1, 2, 3) }, directions: [direction], coefficients, ...more });
    const coefficients = Array.from({ length: 16 }, (_, i) => i / 1000);
    const whole = await along(coefficients);
    for (const maxTrialsPerPass of [1, 3, 8]) expect(await along(coefficients, { maxTrialsPerPass })).toEqual(whole);
    // Cut as for one trial they would not: the sums are longer than a workgroup's share.
    const lowering = { ...lowerContextOf(device()), trials: 1 };
    expect(await along(coefficients, { lowering })).not.toEqual(whole);
  });

  /** Bytes of the slots while the losses are read. */
  const slotBytes = (work: () => Promise<unknown>) => withLiveBuffers(async (live) => {
    let bytes = 0;
    const read = vi.spyOn(device(), 'read').mockImplementationOnce(async function (this: Device, ...args) {
      bytes = [...live].filter(({ label }) => label.startsWith('slot ')).reduce((sum, { size }) => sum + size, 0);
      read.mockRestore();
      return this.read(...args);
    });
    await work();
    return bytes;
  });

  test('stay within the budget', async () => {
    for (let memoryBudget = 40_000; memoryBudget < 60_000; memoryBudget += 4000) {
      const bytes = await slotBytes(() => run(net, job(64), { memoryBudget }));
      expect(bytes).toBeLessThanOrEqual(memoryBudget);
      expect(bytes).toBeGreaterThan(memoryBudget / 2);
    }
  });

  test('stay within the budget where slots take more than what lives at once', async () => {
    const model = resnet18({ width: 4, stem: 'imagenet' });
    const direction = new Map(model.parameters().map((variable) => [variable, variable]));
    const bytesOf = (N: number, memoryBudget?: number) => slotBytes(() => lossesAlong({
      model, batches: onGpu({ x: randomNd([2, 32, 32, 3], 1), labels: [0, 1] }), directions: [direction], memoryBudget,
      coefficients: Array.from({ length: N }, (_, i) => i / 64),
    }));
    const [six, seven] = [await bytesOf(6), await bytesOf(7)];
    // Just too little for seven in one pass.
    expect(await bytesOf(7, seven - 1)).toBeLessThan(six);
  });

  test('of more bytes than the adapter binds are cut by themselves', async () => {
    const images = Math.ceil(device().limits.maxStorageBufferBindingSize / (8 * 8 * 16) / 64) + 8;
    // A GPU that binds gigabytes has no bound to meet here.
    if (images > 4096) return;
    const large = hostBatch(images, 20);
    const all = (await run(net, job(64, [large]))) as number[];
    const few: Job = { ...job(64, [large]), coefficients: [0, 31, 63].map((i) => [(i - 32) / 64]) };
    expect(await run(net, few)).toEqual([all[0], all[31], all[63]]);
  });

  test('have one plan for each size of pass and shape of batch', async () => {
    const binds = async (N: number, some: HostBatch[]) => {
      const calls = await countCalls(async () => void (await run(net, job(N, some), { maxTrialsPerPass: 4 })));
      return calls.createBindGroup;
    };
    const one = await binds(4, [batches[0]]);
    expect(await binds(8, [batches[0]])).toBe(one);
    expect(await binds(8, [batches[0], batches[2]])).toBe(one);
    expect(await binds(7, [batches[0]])).toBe(2 * one);
    expect(await binds(8, [batches[0], batches[1]])).toBe(2 * one);
  });
});
