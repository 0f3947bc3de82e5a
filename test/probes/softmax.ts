/** Softmax regression in float64, with all that a probe asks of it: loss, gradient, and the curvature of a direction in closed form. */
import type { ImageDataset } from '../../src/data/dataset.ts';
import { imageBatch } from '../../src/data/imageBatch.ts';
import type { Variable } from '../../src/graph/tensor.ts';
import * as ref from '../support/reference.ts';
import { nd, scalar, type Nd } from '../support/nd.ts';
import { LinearNet, randomDataset } from '../train/nets.ts';

/** Numbers for a weight [features, classes] and a bias [classes]. */
export interface Point {
  readonly weight: Nd;
  readonly bias: Nd;
}

export const net = new LinearNet();
export const [weight, bias] = net.parameters();
export const theta: Point = { weight: nd(weight.shape, weight.data), bias: nd(bias.shape, bias.data) };
const dataset: ImageDataset = randomDataset();

/** Images of the training set as tensors, and the same in float64. */
export function batchOf(indices: readonly number[]) {
  const { train, mean, std } = dataset;
  const { data } = ref.assembleBatch(train.images, { C: 3, H: 8, W: 8 }, indices, mean, std);
  return {
    batch: imageBatch(train, dataset, indices),
    host: { x: nd([indices.length, 192], data), labels: indices.map((index) => train.labels[index]) },
  };
}
export type HostBatch = ReturnType<typeof batchOf>['host'];

/** Several batches as one: what an average weighed by samples equals. */
export const joined = (batches: readonly HostBatch[]): HostBatch => ({
  x: nd(
    [batches.reduce((n, { labels }) => n + labels.length, 0), 192],
    batches.flatMap(({ x }) => [...x.data]),
  ),
  labels: batches.flatMap(({ labels }) => labels),
});

/** a + Σ c·d */
export function moved(from: Point, ...steps: readonly (readonly [number, Point])[]): Point {
  const part = (name: 'weight' | 'bias'): Nd =>
    nd(
      from[name].shape,
      from[name].data.map((value, i) => steps.reduce((sum, [c, d]) => sum + c * d[name].data[i], value)),
    );
  return { weight: part('weight'), bias: part('bias') };
}

export const dot = (a: Point, b: Point): number =>
  (['weight', 'bias'] as const).reduce(
    (sum, name) => sum + a[name].data.reduce((total, value, i) => total + value * b[name].data[i], 0),
    0,
  );

export const lossAt = (at: Point, { x, labels }: HostBatch): number =>
  ref.crossEntropy(ref.linear(x, at.weight, at.bias), labels, {}).mean.data[0];

export function gradientAt(at: Point, { x, labels }: HostBatch): Point {
  const { dLogits } = ref.crossEntropyMeanVjp(ref.linear(x, at.weight, at.bias), labels, {}, scalar(1));
  const { dWeight, dBias } = ref.linearVjp(x, at.weight, dLogits);
  return { weight: dWeight, bias: dBias };
}

/** dᵀHd = mean over samples of Σ_c p_c z_c² − (Σ_c p_c z_c)², p the softmax, z what d adds to the logits. */
export function curvatureAlong(at: Point, d: Point, { x }: HostBatch): number {
  const logits = ref.linear(x, at.weight, at.bias);
  const z = ref.linear(x, d.weight, d.bias);
  const [n, classes] = logits.shape;
  let total = 0;
  for (let sample = 0; sample < n; sample++) {
    const row = (values: Nd) => [...values.data.subarray(sample * classes, (sample + 1) * classes)];
    const [l, step] = [row(logits), row(z)];
    const exps = l.map((value) => Math.exp(value - Math.max(...l)));
    const p = exps.map((value) => value / exps.reduce((a, b) => a + b, 0));
    const mean = p.reduce((sum, share, c) => sum + share * step[c], 0);
    total += p.reduce((sum, share, c) => sum + share * (step[c] - mean) ** 2, 0);
  }
  return total / n;
}

/** A point as a direction of the net. */
export const partsOf = (point: Point): [Variable, Nd][] => [
  [weight, point.weight],
  [bias, point.bias],
];
