/** State dicts: torchvision's names, layouts and sizes; files there and back; what does not fit is refused whole. */
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import { DataError, ForkstepError, ShapeError } from '../../src/gpu/errors.ts';
import { evaluate } from '../../src/graph/run.ts';
import { tensor } from '../../src/graph/functional.ts';
import { elements } from '../../src/graph/tensor.ts';
import { inferenceContext } from '../../src/nn/module.ts';
import { resnet18, type ResNet, type ResNetOptions } from '../../src/nn/resnet.ts';
import { decodeSafetensors, type SafetensorsTensor } from '../../src/nn/safetensors.ts';
import { loadSafetensors, loadStateDict, saveSafetensors, stateDict } from '../../src/nn/stateDict.ts';
import { distance, goldenNames, loadGolden } from '../goldens/load.ts';
import { generatedBatch } from '../goldens/generate.ts';
import { useDevice } from '../support/device.ts';
import { goldenModel, toNhwc } from './goldenRun.ts';

const device = useDevice();
const python = '/usr/bin/python3';
const script = fileURLToPath(new URL('../goldens/check_state_dict.py', import.meta.url));
const hasTorch = spawnSync(python, ['-c', 'import torch, torchvision']).status === 0;
const noTorch = `${python} has no torch and torchvision (Debian: python3-torch, python3-torchvision)`;

const bytesOf = ({ data }: SafetensorsTensor): Buffer => Buffer.from(data.buffer, data.byteOffset, data.byteLength);

/** The same names in the same order, shapes, dtypes and bits. */
function expectSameTensors(got: ReadonlyMap<string, SafetensorsTensor>, want: ReadonlyMap<string, SafetensorsTensor>): void {
  expect([...got.keys()]).toEqual([...want.keys()]);
  for (const [name, tensorWanted] of want) {
    const { dtype, shape } = got.get(name)!;
    expect([name, dtype, ...shape]).toEqual([name, tensorWanted.dtype, ...tensorWanted.shape]);
    expect([name, bytesOf(got.get(name)!).equals(bytesOf(tensorWanted))]).toEqual([name, true]);
  }
}

describe('torchvision\'s ResNet18', () => {
  test.each([['cifar', 11_173_962], ['imagenet', 11_181_642]] as const)('%s at width 64 has %i parameters', (stem, count) => {
    const parameters = resnet18({ stem }).parameters();
    expect(parameters.reduce((sum, { shape }) => sum + elements(shape), 0)).toBe(count);
    expect(parameters.length).toBe(62);
  });

  test.each(goldenNames)('%s: names, order and shapes are torchvision\'s, and every value comes back as it went in', (name) => {
    const golden = loadGolden(name);
    const out = stateDict(goldenModel(golden));
    expect([...out].map(([key, { shape }]) => ({ name: key, shape: [...shape] }))).toEqual(golden.specs);
    expectSameTensors(out, golden.stateDict());
  });

  test('num_batches_tracked is what the caller says', () => {
    const out = stateDict(resnet18({ width: 1 }), 7);
    const tracked = [...out].filter(([name]) => name.endsWith('num_batches_tracked'));
    expect(tracked.length).toBe(20);
    for (const [, { dtype, shape, data }] of tracked) expect([dtype, shape, data]).toEqual(['I64', [], BigInt64Array.of(7n)]);
  });
});

describe('files', () => {
  test('saved and loaded into a fresh model: every bit, −0, subnormals and extremes too', () => {
    const model = resnet18({ width: 3, stem: 'imagenet', numClasses: 7, inChannels: 5, seed: 1 });
    const odd = [-0, 1e-45, -3.4028234663852886e38, Infinity, 1 / 3];
    for (const { data } of model.variables()) odd.forEach((value, i) => i < data.length && (data[data.length - 1 - i] = value));
    const bytes = saveSafetensors(model, { note: 'kept' }, 12);
    expect(decodeSafetensors(bytes).metadata).toEqual({ note: 'kept' });
    const fresh = resnet18({ width: 3, stem: 'imagenet', numClasses: 7, inChannels: 5, seed: 2 });
    loadSafetensors(fresh, bytes);
    fresh.variables().forEach(({ name, data }, i) => {
      expect([name, Buffer.from(data.buffer).equals(Buffer.from(model.variables()[i].data.buffer))]).toEqual([name, true]);
    });
    expect(saveSafetensors(fresh, { note: 'kept' }, 12)).toEqual(bytes);
  });

  test('a float64 checkpoint is rounded to float32', () => {
    const state = stateDict(resnet18({ width: 2, seed: 1 }));
    const widen = (t: SafetensorsTensor): SafetensorsTensor =>
      t.dtype === 'F32' ? { ...t, dtype: 'F64', data: Float64Array.from(t.data, (value) => value * (1 + 2 ** -40)) } : t;
    const wide = new Map([...state].map(([name, t]) => [name, widen(t)]));
    const fresh = resnet18({ width: 2, seed: 2 });
    loadStateDict(fresh, wide);
    expectSameTensors(stateDict(fresh), state);
  });
});

interface Row {
  name: string;
  /** What the checkpoint was saved from, where not from the model's own kind. */
  from?: ResNetOptions;
  change?: (state: Map<string, SafetensorsTensor>) => void;
  cls: typeof ForkstepError;
  message: string;
}

const otherKind = 'build the model with the stem, width and classes of the checkpoint';
const exactly = 'must hold exactly the names of the model';
const otherNames = 'build the model that the checkpoint was saved from';
const foreign = ['module.a', 'module.b', 'module.c', 'd.num_batches_tracked'];

describe('a checkpoint that does not fit is refused, and the model stays as it was', () => {
  const model: ResNetOptions = { width: 4, stem: 'cifar', numClasses: 10 };
  const rows: Row[] = [
    {
      name: 'another width', from: { ...model, width: 8 }, cls: ShapeError,
      message: `loadStateDict: conv1.weight must be [4, 3, 3, 3], got [8, 3, 3, 3]; ${otherKind}`,
    },
    {
      name: 'the other stem', from: { ...model, stem: 'imagenet' }, cls: ShapeError,
      message: `loadStateDict: conv1.weight must be [4, 3, 3, 3], got [4, 3, 7, 7]; ${otherKind}`,
    },
    {
      name: 'more classes', from: { ...model, numClasses: 100 }, cls: ShapeError,
      message: `loadStateDict: fc.weight must be [10, 32], got [100, 32]; ${otherKind}`,
    },
    {
      name: 'a missing tensor', change: (state) => state.delete('layer1.0.bn1.running_var'), cls: DataError,
      message: `loadStateDict: tensors ${exactly}, got 1 (layer1.0.bn1.running_var) missing, 0 unknown; ${otherNames}`,
    },
    {
      name: 'foreign names', cls: DataError,
      change: (state) => foreign.forEach((key) => state.set(key, { dtype: 'F32', shape: [1], data: Float32Array.of(1) })),
      message: `loadStateDict: tensors ${exactly}, got 0 missing, 4 (module.a, module.b, module.c, …) unknown; ${otherNames}`,
    },
    {
      name: 'integers', change: (state) => state.set('fc.bias', { dtype: 'I64', shape: [10], data: new BigInt64Array(10) }), cls: DataError,
      message: 'loadStateDict: fc.bias must be F32 or F64, got I64; save the checkpoint in float32',
    },
  ];

  test.each(rows)('$name', ({ from, change, cls, message }) => {
    const target = resnet18({ ...model, seed: 1 });
    const before = stateDict(target);
    const state = stateDict(resnet18({ ...(from ?? model), seed: 2 }));
    change?.(state);
    let error: unknown;
    try {
      loadStateDict(target, state);
    } catch (thrown) {
      error = thrown;
    }
    expect(error).toBeInstanceOf(cls);
    expect((error as Error).message).toBe(message);
    expectSameTensors(stateDict(target), before);
  });

  test('num_batches_tracked may be missing, as in checkpoints from before PyTorch had it', () => {
    const state = stateDict(resnet18({ ...model, seed: 2 }));
    const old = new Map([...state].filter(([name]) => !name.endsWith('num_batches_tracked')));
    const target = resnet18({ ...model, seed: 1 });
    loadStateDict(target, old);
    expectSameTensors(stateDict(target), state);
  });
});

describe('with PyTorch', () => {
  const images = [2, 3, 40, 40];

  /** Runs the script; one object a model. */
  function runScript(...args: string[]): { parameters: number; logits: number[] }[] {
    return execFileSync(python, [script, ...args], { encoding: 'utf8' }).trim().split('\n').map((line) => JSON.parse(line));
  }

  /** Our eval-mode logits of the images that the script uses. */
  async function logitsOf(model: ResNet): Promise<Float32Array> {
    const [n, c, h, w] = images;
    const x = tensor(toNhwc(generatedBatch(0, images, model.numClasses, 1).images, images), [n, h, w, c]);
    return (await evaluate([model.forward(x, inferenceContext())], { device: device() }))[0] as Float32Array;
  }

  async function inFolder(use: (path: (name: string) => string) => Promise<void>): Promise<void> {
    const folder = mkdtempSync(join(tmpdir(), 'forkstep-state-'));
    try {
      await use((name) => join(folder, name));
    } finally {
      rmSync(folder, { recursive: true });
    }
  }

  test('our files load into torchvision\'s model with strict=True and compute the same', async ({ skip }) => {
    skip(!hasTorch, noTorch);
    await inFolder(async (path) => {
      const [cifar, imagenet]: ResNetOptions[] = [{ width: 5, numClasses: 7, seed: 3 }, { width: 4, stem: 'imagenet', seed: 4 }];
      const models = [cifar, imagenet, { ...imagenet, width: 64 }].map(resnet18);
      const files = models.map((_, i) => path(`model${i}.safetensors`));
      models.forEach((model, i) => writeFileSync(files[i], saveSafetensors(model, {}, 3)));
      const got = runScript('load', ...files);
      expect(got[2].parameters).toBe(11_181_642);
      for (const i of [0, 1]) expect(distance(await logitsOf(models[i]), got[i].logits)).toBeLessThan(2e-6);
    });
  });

  const initialised = [{ stem: 'cifar', width: 5, numClasses: 7 }, { stem: 'imagenet', width: 4, numClasses: 10 }] as const;

  test.for(initialised)('a $stem model that torchvision initialised loads here and computes the same', async (options, { skip }) => {
    skip(!hasTorch, noTorch);
    await inFolder(async (path) => {
      const file = path('torch.safetensors');
      const [{ logits }] = runScript('make', file, options.stem, String(options.width), String(options.numClasses), '6');
      const model = resnet18(options);
      loadSafetensors(model, readFileSync(file));
      expect(distance(await logitsOf(model), logits)).toBeLessThan(2e-6);
      const { tensors } = decodeSafetensors(readFileSync(file));
      const ours = stateDict(model);
      expectSameTensors(new Map([...tensors.keys()].map((name) => [name, ours.get(name)!])), tensors);
      expect(tensors.size).toBe(ours.size);
    });
  });
});
