import { readdirSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { checksum, generatedBatch } from './generate.ts';
import { distance, goldenNames, loadGolden, parityBound, type Reference, type ScalarReference } from './load.ts';

test('the loader lists every golden there is', () => {
  const files = readdirSync(new URL('.', import.meta.url)).filter((file) => file.endsWith('.safetensors'));
  expect(files.sort()).toEqual(goldenNames.map((name) => `${name}.safetensors`).sort());
});

test('batches and tensors of different numbers and seeds differ', () => {
  const images = [[0, 1], [1, 1], [0, 2]].map(([index, seed]) => checksum(generatedBatch(index, [2, 3, 4, 4], 10, seed).images));
  expect(new Set(images).size).toBe(3);
});

test('distance is relative to the reference, NaN stays NaN, and the bound has a floor', () => {
  expect(distance([3, 5], [3, 4])).toBeCloseTo(0.2, 12);
  expect(distance([NaN, 4], [3, 4])).toBeNaN();
  expect(() => distance([1], [1, 2])).toThrow('got 1 elements, want 2');
  expect(parityBound({ float32Distance: 1e-6 })).toBeCloseTo(5e-6, 15);
  expect(parityBound({ float32Distance: 1e-8 })).toBe(5 * 2 ** -24);
});

describe.each(goldenNames)('%s', (name) => {
  const golden = loadGolden(name);
  const [N, C] = golden.images;

  test('generate.ts makes the weights and batches PyTorch was given', () => {
    const state = golden.stateDict();
    expect([...state.keys()]).toEqual(golden.checksums.state.map((entry) => entry.name));
    for (const { name: tensor, checksum: sum, first } of golden.checksums.state) {
      const { data } = state.get(tensor)!;
      expect([tensor, ...Array.from(data.subarray(0, 4), Number)]).toEqual([tensor, ...first]);
      expect([tensor, checksum(data)]).toEqual([tensor, sum]);
    }
    golden.checksums.batches.forEach(({ images: sum, firstImages, labels }, index) => {
      const batch = golden.batch(index);
      expect(Array.from(batch.images.subarray(0, 4))).toEqual(firstImages);
      expect(checksum(batch.images)).toBe(sum);
      expect(Array.from(batch.labels)).toEqual(labels);
    });
    expect(golden.checksums.batches.length).toBe(golden.sgd.steps + 1);
  });

  test('shapes follow from stem and width', () => {
    const w = golden.width;
    const shapes = new Map(golden.specs.map((spec) => [spec.name, spec.shape]));
    expect(golden.specs.length).toBe(122);
    expect(shapes.get('conv1.weight')).toEqual(golden.stem === 'cifar' ? [w, C, 3, 3] : [w, C, 7, 7]);
    expect(shapes.get('layer4.0.downsample.0.weight')).toEqual([8 * w, 4 * w, 1, 1]);
    expect(shapes.get('fc.weight')).toEqual([golden.classes, 8 * w]);
    expect(golden.params.length).toBe(62);
    for (const { name: tensor, shape } of golden.params) expect(golden.gradients.get(tensor)!.shape).toEqual(shape);
    expect(golden.running.size).toBe(40);
    for (const [tensor, { shape }] of golden.running) expect(shape).toEqual(shapes.get(tensor));
    for (const { shape } of [golden.logits, golden.evalLogits, golden.sgd.plain.evalLogits, golden.sgd.nesterov.evalLogits]) {
      expect(shape).toEqual([N, golden.classes]);
    }
    expect(golden.trials.losses.length).toBe(golden.trials.factors.length);
    for (const run of [golden.sgd.plain, golden.sgd.nesterov]) expect(run.losses.length).toBe(golden.sgd.steps + 1);
  });

  test('every reference is finite and not zero, with float32 near it in every variant', () => {
    const tensors: [string, Reference][] = [
      ['logits', golden.logits], ['evalLogits', golden.evalLogits], ['sgd.evalLogits', golden.sgd.plain.evalLogits],
      ['nesterov.evalLogits', golden.sgd.nesterov.evalLogits], ...golden.gradients, ...golden.running,
    ];
    for (const [key, { data, shape }] of tensors) {
      expect([key, data.length]).toEqual([key, shape.reduce((size, n) => size * n, 1)]);
      expect([key, data.every(Number.isFinite)]).toEqual([key, true]);
      expect(Math.hypot(...data), key).toBeGreaterThan(1e-3);
    }
    const scalars = [golden.loss, ...golden.trials.losses, ...golden.sgd.plain.losses, ...golden.sgd.nesterov.losses];
    for (const { value } of scalars) expect(value).toSatisfy((loss: number) => loss > 0.1 && loss < 10);
    const named = scalars.map((scalar, i): [string, ScalarReference] => [`scalar ${i}`, scalar]);
    const distances: [string, Reference | ScalarReference][] = [...tensors, ...named];
    for (const [key, { float32Distance, float32Distances }] of distances) {
      expect([key, float32Distances.length]).toEqual([key, golden.variants.length]);
      expect(float32Distance, key).toBe(Math.max(...float32Distances));
      expect(float32Distance, key).toSatisfy((figure: number) => figure > 1e-9 && figure < 1e-3);
    }
  });

  test('loss and the gradient of fc.bias follow from the logits and the generated labels', () => {
    const { labels } = golden.batch(0);
    const dBias = new Float64Array(golden.classes);
    let loss = 0;
    for (let n = 0; n < N; n++) {
      const row = golden.logits.data.subarray(n * golden.classes, (n + 1) * golden.classes);
      const sum = row.reduce((total, logit) => total + Math.exp(logit), 0);
      loss += (Math.log(sum) - row[labels[n]]) / N;
      row.forEach((logit, k) => (dBias[k] += (Math.exp(logit) / sum - (k === labels[n] ? 1 : 0)) / N));
    }
    expect(Math.abs(loss - golden.loss.value)).toBeLessThan(1e-12);
    const want = golden.gradients.get('fc.bias')!.data;
    expect(Math.max(...dBias.map((figure, k) => Math.abs(figure - want[k])))).toBeLessThan(1e-12);
    expect(golden.sgd.plain.losses[0].value).toBe(golden.loss.value);
    expect(golden.sgd.nesterov.losses[0].value).toBe(golden.loss.value);
  });

  test('no unit is near enough to a kink for rounding to switch it', () => {
    expect(golden.kinkMargins.batch0).toBeGreaterThan(8);
    expect(golden.kinkMargins.training).toBeGreaterThan(2);
  });
});
