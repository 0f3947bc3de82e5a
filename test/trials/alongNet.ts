/** A small net with everything that trials treat in a way of its own, in float32 on the GPU and in float64 on the host. */
import { evaluate } from '../../src/graph/run.ts';
import { crossEntropy, mean, tensor } from '../../src/graph/functional.ts';
import type { Tensor, Variable } from '../../src/graph/tensor.ts';
import type { Device } from '../../src/gpu/device.ts';
import { inferenceContext, trainingContext } from '../../src/nn/module.ts';
import * as ref from '../support/reference.ts';
import { nd, type Nd } from '../support/nd.ts';
import { randomInts, randomNd } from '../support/random.ts';
import { ConvNet } from '../train/nets.ts';

export type Norms = 'batch' | 'running';
/** Values of a net's variables by name. */
export type Values = ReadonlyMap<string, ArrayLike<number>>;

export interface HostBatch {
  readonly x: Nd;
  readonly labels: number[];
}

/** Images of noise, five classes. */
export const hostBatch = (size: number, seed: number): HostBatch => ({
  x: randomNd([size, 8, 8, 3], seed), labels: randomInts(size, 5, seed + 1),
});

export const onGpu = ({ x, labels }: HostBatch): { x: Tensor; labels: Tensor } => ({
  x: tensor(Float32Array.from(x.data), x.shape), labels: tensor(Uint32Array.from(labels)),
});

/** A `ConvNet` whose norms do something, in either mode: weights and statistics away from 1 and 0, all short binary fractions. */
export function alongNet(seed = 1): ConvNet {
  const net = new ConvNet([0.1, 0.1], seed);
  [...net.namedVariables().values()].forEach((variable, i) => {
    const offset = { weight: 1, bias: 0, running_mean: 0, running_var: 1 }[variable.name.split('.')[1]]!;
    if (/^bn/.test(variable.name)) variable.data = exact([...variable.shape], seed + i).map((value) => value / 4 + offset);
  });
  return net;
}

/** Whole multiples of 2⁻⁶ within ±1: times a coefficient of few bits, exact in float32. */
export const exact = (shape: readonly number[], seed: number): Float32Array =>
  Float32Array.from(randomInts(shape.reduce((n, d) => n * d, 1), 128, seed), (value) => (value - 64) / 64);

export const valuesOf = (net: ConvNet): Map<string, ArrayLike<number>> =>
  new Map([...net.namedVariables()].map(([name, { data }]) => [name, data]));

/** Losses of a net with these values, a sample each: in float64. */
export function hostLosses(values: Values, { x, labels }: HostBatch, norms: Norms): number[] {
  const shapes = new ConvNet().namedVariables();
  const of = (name: string): Nd => nd([...shapes.get(name)!.shape], values.get(name)!);
  const norm = (y: Nd, name: string): Nd => norms === 'batch'
    ? ref.batchNormTrain(y, of(`${name}.weight`), of(`${name}.bias`), 1e-5).y
    : ref.batchNormEval(y, of(`${name}.weight`), of(`${name}.bias`), of(`${name}.running_mean`), of(`${name}.running_var`), 1e-5);
  const first = ref.relu(norm(ref.conv2d(x, of('conv1.weight'), null, { stride: 1, padding: 1 }), 'bn1'));
  const second = ref.relu(norm(ref.conv2d(first, of('conv2.weight'), null, { stride: 2, padding: 1 }), 'bn2'));
  return [...ref.crossEntropy(ref.linear(ref.globalAvgPool(second), of('fc.weight'), of('fc.bias')), labels).losses.data];
}

/** The same by the engine's plain forward pass, the values rounded to float32; or their mean, as a training step has it. */
export async function copyLosses(
  device: Device, copies: readonly { values: Values; batch: HostBatch }[], norms: Norms, perSample: boolean,
): Promise<Float32Array[]> {
  const losses = copies.map(({ values, batch }) => {
    const copy = new ConvNet();
    for (const [name, variable] of copy.namedVariables()) variable.data = Float32Array.from(values.get(name)!);
    const { x, labels } = onGpu(batch);
    const each = crossEntropy(copy.forward(x, norms === 'batch' ? trainingContext() : inferenceContext()), labels);
    return perSample ? each : mean(each);
  });
  return (await evaluate(losses, { device })) as Float32Array[];
}

/** a·w + Σ_k c_k·D_k of every variable that moves, added in the kernels' order, each sum rounded as `round` says. */
export function perturbed(
  net: ConvNet, directions: readonly ReadonlyMap<Variable, Float32Array>[], coefficients: readonly number[], a: number,
  { only = () => true, round = Math.fround }: { only?: (variable: Variable) => boolean; round?: (value: number) => number } = {},
): Values {
  const moved = valuesOf(net);
  for (const [name, variable] of net.namedVariables()) {
    if (!only(variable)) continue;
    const named = directions.some((direction) => direction.has(variable));
    let values = Array.from(variable.data, (w) => (named || variable.kind === 'parameter' ? round(a * w) : w));
    directions.forEach((direction, k) => {
      const d = direction.get(variable);
      if (d) values = values.map((value, i) => round(value + coefficients[k] * d[i]));
    });
    moved.set(name, values);
  }
  return moved;
}
