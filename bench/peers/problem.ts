/** The values that every library is given: the same in every process, as they come from the same seed. */
import type { AdapterSummary } from '../../src/gpu/device.ts';
import { elements, type Shape } from '../../src/graph/tensor.ts';
import { CounterRandom } from '../../src/nn/random.ts';
import { resnet18, type ResNet } from '../../src/nn/resnet.ts';
import { stateDict } from '../../src/nn/stateDict.ts';
import type { OpCase, StepCase } from './cases.ts';

export interface StepProblem {
  readonly batch: number;
  readonly model: ResNet;
  /** The model's, by torchvision's names and layouts, running statistics left out. */
  readonly weights: ReadonlyMap<string, { shape: readonly number[]; data: Float32Array }>;
  /** f32 [batch, 32, 32, 3], standard normal. */
  readonly x: Float32Array;
  /** 0…9 */
  readonly labels: Uint8Array;
}

/** Standard normal, in the layouts of the case. */
export interface OpProblem {
  readonly inputs: readonly Float32Array[];
  /** Of the output. */
  readonly dy: Float32Array;
}

export const imageSize = 32;
export const numClasses = 10;
/** SGD as PyTorch's: g + weightDecay·w, momentum buffer from 0, no dampening. */
export const sgd = { lr: 0.05, momentum: 0.9, weightDecay: 5e-4 };

/** Convolution stages in order: torchvision's prefix, stride, and whether a 1×1 convolution carries the shortcut. */
export const blocks: readonly { readonly name: string; readonly stride: number; readonly hasDownsample: boolean }[] = [1, 2, 3, 4].flatMap(
  (stage) => [0, 1].map((i) => ({ name: `layer${stage}.${i}`, stride: stage > 1 && i === 0 ? 2 : 1, hasDownsample: stage > 1 && i === 0 })),
);

const seed = 1;
const dataStream = 1000;

function normal(shape: Shape, stream: number): Float32Array {
  const random = new CounterRandom(seed, stream);
  return Float32Array.from({ length: elements(shape) }, () => random.normal());
}

export function stepProblem({ width, batch }: StepCase): StepProblem {
  const model = resnet18({ width, seed });
  const weights = new Map<string, { shape: readonly number[]; data: Float32Array }>();
  for (const [name, { shape, data }] of stateDict(model)) {
    if (data instanceof Float32Array && !name.includes('running_')) weights.set(name, { shape, data });
  }
  return {
    batch, model, weights, x: normal([batch, imageSize, imageSize, 3], dataStream),
    labels: Uint8Array.from({ length: batch }, (_, i) => (i * 7) % numClasses),
  };
}

export const opProblem = ({ inputs, output }: OpCase): OpProblem => ({
  inputs: inputs.map((shape, i) => normal(shape, dataStream + 1 + i)),
  dy: normal(output, dataStream),
});

/** [A, B, C, D] → the axes in the order `to`. */
export function permute4(data: Float32Array, shape: readonly number[], to: readonly [number, number, number, number]): Float32Array {
  const strides = [shape[1] * shape[2] * shape[3], shape[2] * shape[3], shape[3], 1];
  const [a, b, c, d] = to;
  const out = new Float32Array(data.length);
  let at = 0;
  for (let i = 0; i < shape[a]; i++)
    for (let j = 0; j < shape[b]; j++)
      for (let k = 0; k < shape[c]; k++)
        for (let l = 0; l < shape[d]; l++) out[at++] = data[i * strides[a] + j * strides[b] + k * strides[c] + l * strides[d]];
  return out;
}

/** A library with a case's values on the GPU. */
export interface Peer {
  /** The work once, finished on the GPU when it returns; nothing is read back. Frees what the run before left. */
  run(): Promise<void>;
  /** What the last run left, to be asked once: the loss before a step; of an op y, and the gradients of its inputs. */
  results(): Promise<Float32Array[]>;
  adapter(): AdapterSummary;
}
