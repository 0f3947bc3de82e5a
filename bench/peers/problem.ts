/** The one problem that every library is given: weights, batch and optimizer, by value. */
import { readFileSync, writeFileSync } from 'node:fs';
import { decodeSafetensors, encodeSafetensors, type SafetensorsTensor } from '../../src/nn/safetensors.ts';
import { resnet18 } from '../../src/nn/resnet.ts';
import { stateDict } from '../../src/nn/stateDict.ts';
import { CounterRandom } from '../../src/nn/random.ts';

export interface Problem {
  readonly width: number;
  readonly batch: number;
  /** torchvision's names and layouts, running statistics left out. */
  readonly weights: ReadonlyMap<string, { shape: readonly number[]; data: Float32Array }>;
  /** f32 [batch, 32, 32, 3], standard normal. */
  readonly x: Float32Array;
  /** 0…9 */
  readonly labels: Uint8Array;
}

export const imageSize = 32;
export const numClasses = 10;
/** SGD as PyTorch's: g + weightDecay·w, momentum buffer from 0, no dampening. */
export const sgd = { lr: 0.05, momentum: 0.9, weightDecay: 5e-4 };

/** Convolution stages in order: torchvision's prefix, stride, and whether a 1×1 convolution carries the shortcut. */
export const blocks: readonly { readonly name: string; readonly stride: number; readonly hasDownsample: boolean }[] = [1, 2, 3, 4].flatMap((stage) =>
  [0, 1].map((i) => ({ name: `layer${stage}.${i}`, stride: stage > 1 && i === 0 ? 2 : 1, hasDownsample: stage > 1 && i === 0 })),
);

const seed = 1;
const dataStream = 1000;

export function writeProblem(file: string, width: number, batch: number): void {
  const random = new CounterRandom(seed, dataStream);
  const x = Float32Array.from({ length: batch * imageSize * imageSize * 3 }, () => random.normal());
  const labels = Uint8Array.from({ length: batch }, (_, i) => (i * 7) % numClasses);
  const tensors = new Map<string, SafetensorsTensor>(stateDict(resnet18({ width, seed })));
  tensors.set('x', { dtype: 'F32', shape: [batch, imageSize, imageSize, 3], data: x });
  tensors.set('labels', { dtype: 'U8', shape: [batch], data: labels });
  writeFileSync(file, encodeSafetensors(tensors, { width: String(width), batch: String(batch) }));
}

export function readProblem(file: string): Problem {
  const { tensors, metadata } = decodeSafetensors(readFileSync(file));
  const weights = new Map<string, { shape: readonly number[]; data: Float32Array }>();
  for (const [name, { shape, data }] of tensors) {
    if (name !== 'x' && data instanceof Float32Array && !name.includes('running_')) weights.set(name, { shape, data });
  }
  return {
    width: Number(metadata.width), batch: Number(metadata.batch), weights,
    x: tensors.get('x')!.data as Float32Array, labels: tensors.get('labels')!.data as Uint8Array,
  };
}

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

/** A library with the problem loaded. */
export interface Peer {
  readonly name: string;
  readonly version: string;
  /** One whole training step, finished on the GPU when it returns. @returns the loss before the update */
  step(): Promise<number>;
}
