/** What `lossesAlong` leaves alone, frees and refuses. */
import { describe, expect, test, vi } from 'vitest';
import { AttrError, DeviceError, DtypeError, ShapeError, type ForkstepError } from '../../src/gpu/errors.ts';
import { crossEntropy, mean, scale, tensor } from '../../src/graph/functional.ts';
import { externalTensor } from '../../src/graph/ops.ts';
import { readStorage } from '../../src/graph/run.ts';
import { Variable, type Tensor } from '../../src/graph/tensor.ts';
import type { LossesAlongOptions } from '../../src/trials/alongOptions.ts';
import { lossesAlong } from '../../src/trials/lossesAlong.ts';
import { chunkTrials, largestPass } from '../../src/trials/passes.ts';
import type { Draft } from '../../src/graph/plan.ts';
import { trials } from '../../src/trials/trials.ts';
import { useDevice } from '../support/device.ts';
import { LesserDevice } from '../support/lesserDevice.ts';
import { ConvNet, randomDataset, ratesAt, withTrainer } from '../train/nets.ts';
import { alongNet, exact, hostBatch, onGpu } from './alongNet.ts';

const device = useDevice();
const batch = onGpu(hostBatch(4, 1));

test.each(['batch', 'running'] as const)('no bit of what training keeps changes, statistics of the %s', async (batchNorm) => {
  const steps = async (look: boolean) => {
    const options = { dataset: randomDataset(), batchSize: 4, epochs: 3, optimizer: { momentum: 0.9 }, schedule: ratesAt(() => 0.05) };
    return withTrainer({ model: new ConvNet(), ...options }, async (trainer) => {
      const { store, sgd } = trainer.plans;
      const kept = async () => {
        const own = [...store.parameters, ...store.statistics].map((variable) => readStorage(device(), variable, variable.storage!));
        const momentum = store.parameters.map((variable, i) => readStorage(device(), variable, sgd.directions.at(i)));
        return Promise.all([...own, ...momentum]);
      };
      for (let i = 0; i < 3; i++) await trainer.trainStep();
      if (look) {
        const before = await kept();
        const momentum = new Map(store.parameters.map((variable, i) => [variable, externalTensor(sgd.directions.at(i), variable)]));
        const losses = await lossesAlong({
          model: trainer.options.model, batches: batch, directions: [momentum], coefficients: [0, -0.05, 100], scales: [1, 0.9, 2],
          batchNorm,
        });
        expect(new Set(losses).size).toBe(3);
        expect(await kept()).toEqual(before);
      }
      for (let i = 0; i < 3; i++) await trainer.trainStep();
      return { losses: await trainer.losses(), kept: await kept() };
    });
  };
  expect(await steps(true)).toEqual(await steps(false));
});

describe('frees its buffers', () => {
  const model = alongNet();
  const direction = new Map<Variable, Tensor>(model.parameters().map((v) => [v, tensor(exact(v.shape, 1), v.shape)]));
  const base = { model, directions: [direction], coefficients: [0, 0.25] };

  test('where the loss throws at the second batch', async () => {
    const before = device().liveBytes;
    let calls = 0;
    const loss = (logits: Tensor, labels: Tensor): Tensor => {
      if (++calls === 3) throw new Error('enough');
      return crossEntropy(logits, labels);
    };
    await expect(lossesAlong({ ...base, batches: [batch, onGpu(hostBatch(3, 2))], loss })).rejects.toThrow('enough');
    expect(device().liveBytes).toBe(before);
  });

  test('where reading fails', async () => {
    const before = device().liveBytes;
    vi.spyOn(device(), 'read').mockRejectedValueOnce(new Error('no reading'));
    await expect(lossesAlong({ ...base, batches: [batch, batch] })).rejects.toThrow('no reading');
    vi.restoreAllMocks();
    await device().idle();
    expect(device().liveBytes).toBe(before);
  });

  test('and two at once do not disturb one another', async () => {
    const jobs = [[0, 0.25], [1, 0.5]].map((coefficients) => () => lossesAlong({ ...base, batches: batch, coefficients }));
    const alone = [await jobs[0](), await jobs[1]()];
    expect(await Promise.all(jobs.map((job) => job()))).toEqual(alone);
  });
});

describe('passes', () => {
  test.each([
    [7, 7, [7]], [7, 4, [3, 4]], [7, 1, [1, 1, 1, 1, 1, 1, 1]], [5, 2, [1, 2, 2]], [3, 9, [3]],
  ])('%i trials, at most %i: %j', (count, most, sizes) => expect(chunkTrials(count, most)).toEqual(sizes));

  /** One tensor of so many bytes a trial, another at another time. */
  const draftOf = (bytes: number) => (count: number): Draft => ({
    label: '', launches: [], itemOf: new Map(), storageOf: new Map(),
    items: [0, 1].map((first) => ({ sizeBytes: bytes * count, first, last: first, reads: new Set(), writes: new Set() })),
  });
  test.each([
    [10, 100, Infinity, 64, 10], [10, Infinity, 100, 64, 10], [10, 100, 99, 64, 9], [10, 639, Infinity, 64, 63], [10, 640, Infinity, 64, 64],
    [10, 1, 1, 64, 1], [10, 20, Infinity, 2, 2], [10, 19, Infinity, 2, 1],
  ])('of %i bytes a trial, tensors of %d at most, %d at once: of %i trials %i', (bytes, bindingBytes, budgetBytes, most, expected) =>
    expect(largestPass(most, draftOf(bytes), { bindingBytes, budgetBytes })).toBe(expected));
});

describe('refuses', () => {
  const model = alongNet();
  const d = new Map<Variable, Tensor>(model.parameters().map((variable) => [variable, tensor(exact(variable.shape, 1), variable.shape)]));
  const { fc: { weight }, bn1: { runningMean } } = model;
  const one = (variable: Variable, t: Tensor) => [new Map([[variable, t]])];
  const stranger = new Variable('parameter', 'stranger', [2], new Float32Array(2));
  const ofWeight = new Map([[weight, [d.get(weight)!]]]);
  const [moved] = trials([scale(weight, 1)], { count: 2, directions: ofWeight, coefficients: tensor([1, 2]) });
  const good: LossesAlongOptions = { model, batches: batch, directions: [d], coefficients: [0, 1] };

  type Row = [string, new (...args: never[]) => ForkstepError, op: string, arg: string, Record<string, unknown>];
  test.each<Row>([
    ['an option that is none', AttrError, 'lossesAlong', 'batch', { batch }],
    ['no directions', AttrError, 'lossesAlong', 'directions', { directions: [] }],
    ['four directions', AttrError, 'lossesAlong', 'directions', { directions: [d, d, d, d], coefficients: [[1, 2, 3, 4]] }],
    ['a direction outside a list', AttrError, 'lossesAlong', 'directions', { directions: d }],
    ['a direction of nothing', AttrError, 'lossesAlong', 'directions', { directions: [new Map()] }],
    ["a direction of another model's", AttrError, 'lossesAlong', 'directions[0] of stranger', { directions: one(stranger, tensor([1, 2])) }],
    ['a direction of another shape', ShapeError, 'lossesAlong', 'directions[0] of fc.weight', { directions: one(weight, tensor([1])) }],
    ['a direction of integers', DtypeError, 'lossesAlong', 'directions[0] of fc.weight', {
      directions: one(weight, tensor(new Uint32Array(40), [8, 5])),
    }],
    ['a direction with trials of its own', DtypeError, 'lossesAlong', 'directions[0] of fc.weight', { directions: one(weight, moved) }],
    ['running statistics that are not used', AttrError, 'lossesAlong', 'directions[0] of bn1.running_mean', {
      directions: one(runningMean, tensor([1, 2, 3, 4])),
    }],
    ['no trials', AttrError, 'lossesAlong', 'coefficients', { coefficients: [] }],
    ['one number for two directions', AttrError, 'lossesAlong', 'coefficients', { directions: [d, d], coefficients: [1, 2] }],
    ['uneven coefficients', AttrError, 'lossesAlong', 'coefficients', { coefficients: [[1], [1, 2]] }],
    ['a coefficient that is no number', AttrError, 'lossesAlong', 'coefficients', { coefficients: [0, NaN] }],
    ['a coefficient beyond float32', AttrError, 'lossesAlong', 'coefficients', { coefficients: [0, 1e39] }],
    ['too few scales', AttrError, 'lossesAlong', 'scales', { scales: [1] }],
    ['a scale without end', AttrError, 'lossesAlong', 'scales', { scales: [1, Infinity] }],
    ['a mask that lets nothing through', AttrError, 'lossesAlong', 'only', { only: () => false }],
    ['a mode that is none', AttrError, 'lossesAlong', 'batchNorm', { batchNorm: 'eval' }],
    ['perSample that is no flag', AttrError, 'lossesAlong', 'perSample', { perSample: 1 }],
    ['no trial a pass', AttrError, 'lossesAlong', 'maxTrialsPerPass', { maxTrialsPerPass: 0 }],
    ['half a trial a pass', AttrError, 'lossesAlong', 'maxTrialsPerPass', { maxTrialsPerPass: 1.5 }],
    ['no budget', AttrError, 'lossesAlong', 'memoryBudget', { memoryBudget: 0 }],
    ['no batch', AttrError, 'lossesAlong', 'batches', { batches: [] }],
    ['labels of another batch', ShapeError, 'lossesAlong', 'labels of batch 1', {
      batches: [batch, { x: batch.x, labels: Uint32Array.of(1) }],
    }],
    ['labels that name no class', AttrError, 'crossEntropy', 'labels', {
      batches: [batch, { x: batch.x, labels: Uint32Array.of(0, 1, 5, 2) }],
    }],
    ['a loss that averages', ShapeError, 'lossesAlong', 'loss', {
      loss: (logits: Tensor, labels: Tensor) => mean(crossEntropy(logits, labels)),
    }],
    ['images of other channels', ShapeError, 'conv2d', 'weight.shape[2]', {
      batches: { x: tensor(new Float32Array(256), [4, 8, 8, 1]), labels: batch.labels },
    }],
  ])('%s', async (_, cls, op, arg, wrong) => {
    const refused = lossesAlong({ ...good, ...wrong } as LossesAlongOptions);
    await expect(refused).rejects.toThrow(cls);
    await expect(refused).rejects.toThrow(expect.objectContaining({ op, arg }));
  });

  test('a trial that is too large for the adapter', async () => {
    const refused = lossesAlong({ ...good, device: new LesserDevice(device(), { maxStorageBufferBindingSize: 4095 }) });
    await expect(refused).rejects.toThrow(DeviceError);
    await expect(refused).rejects.toThrow(/batches must take at most 4095 bytes/);
  });

  test('a model that a trainer has put on another device', () =>
    withTrainer({ model: new ConvNet(), dataset: randomDataset(), batchSize: 4, schedule: ratesAt(() => 0.1) }, async (trainer) => {
      const { model } = trainer.options;
      const [weight] = model.parameters();
      const other = new LesserDevice(device(), {});
      const refused = lossesAlong({ model, batches: batch, directions: [new Map([[weight, weight]])], coefficients: [0], device: other });
      await expect(refused).rejects.toThrow(/conv1\.weight must lie on the device that is to read it, got memory of another device; pass/);
    }));
});
