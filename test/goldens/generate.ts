/**
 * Weights and batches of the goldens, made from a seed: the twin of `common.py`, bit for bit (the goldens hold checksums).
 * Everything is a hash of (seed, tensor name, element index), so tensors may be made in any order.
 */
import type { SafetensorsTensor } from '../../src/nn/safetensors.ts';

/** A bijective 32-bit hash. @source lowbias32 of C. Wellons' hash prospector (public domain) */
function mix(x: number): number {
  x ^= x >>> 16;
  x = Math.imul(x, 0x7feb352d);
  x ^= x >>> 15;
  x = Math.imul(x, 0x846ca68b);
  return (x ^ (x >>> 16)) >>> 0;
}

/** FNV-1a of the name's UTF-8 bytes. */
function nameHash(name: string): number {
  let h = 0x811c9dc5;
  for (const byte of new TextEncoder().encode(name)) h = Math.imul(h ^ byte, 0x01000193);
  return h >>> 0;
}

export function randomBits(name: string, seed: number, n: number): Uint32Array {
  const key = mix((nameHash(name) + seed) >>> 0);
  return Uint32Array.from({ length: n }, (_, i) => mix(key ^ mix((i + 0x9e3779b9) >>> 0)));
}

/** n numbers in [-1, 1), multiples of 2^-23: exact in float32. */
export function uniform(name: string, seed: number, n: number): Float64Array {
  return Float64Array.from(randomBits(name, seed, n), (bits) => (bits >>> 8) / 2 ** 23 - 1);
}

/** The largest power of two b <= 2 with b² · fanIn <= energy. */
function bound(energy: number, fanIn: number): number {
  let b = 2;
  while (b * b * fanIn > energy) b /= 2;
  return b;
}

export interface TensorSpec {
  name: string;
  /** PyTorch's layout: conv weights OIHW, linear weights [out, in]. */
  shape: readonly number[];
}

/**
 * A state dict under PyTorch's names and layouts. Conv weights are uniform with a bound near He's, batch norm weights in
 * [0.75, 1.25), biases in [-0.25, 0.25), running means 0 and variances 1, num_batches_tracked 0 (I64).
 */
export function generatedStateDict(specs: readonly TensorSpec[], seed: number): Map<string, SafetensorsTensor> {
  return new Map(specs.map((spec) => [spec.name, generatedTensor(spec, seed)]));
}

function generatedTensor({ name, shape }: TensorSpec, seed: number): SafetensorsTensor {
  const n = shape.reduce((size, k) => size * k, 1);
  if (name.endsWith('num_batches_tracked')) return { dtype: 'I64', shape, data: new BigInt64Array(n) };
  if (name.endsWith('running_mean')) return { dtype: 'F32', shape, data: new Float32Array(n) };
  if (name.endsWith('running_var')) return { dtype: 'F32', shape, data: new Float32Array(n).fill(1) };
  const u = uniform(name, seed, n);
  return { dtype: 'F32', shape, data: Float32Array.from(u, (x) => scaled(x, name, shape)) };
}

function scaled(u: number, name: string, shape: readonly number[]): number {
  if (shape.length === 4) return u * bound(6, shape[1] * shape[2] * shape[3]);
  if (shape.length === 2) return u * bound(3, shape[1]);
  return name.endsWith('weight') ? 1 + u / 4 : u / 4;
}

export interface GeneratedBatch {
  /** [N, C, H, W] in [-2, 2): noise plus an offset per image and channel. */
  images: Float32Array;
  /** [N], each in 0 … classes − 1. */
  labels: Int32Array;
}

/** Batch number `index` of a seed; `shape` is [N, C, H, W]. */
export function generatedBatch(index: number, shape: readonly number[], classes: number, seed: number): GeneratedBatch {
  const [N, C, H, W] = shape;
  const offsets = uniform(`batch${index}.offset`, seed, N * C);
  const images = Float32Array.from(uniform(`batch${index}.noise`, seed, N * C * H * W), (u, i) => u + offsets[Math.floor(i / (H * W))]);
  return { images, labels: Int32Array.from(randomBits(`batch${index}.labels`, seed, N), (bits) => bits % classes) };
}

/** An order-sensitive hash of an array's 32-bit words (float bits, or integers below 2^32), as `common.py` computes it. */
export function checksum(data: ArrayBufferView): number {
  const words = data instanceof BigInt64Array
    ? Uint32Array.from(data, Number)
    : new Uint32Array(data.buffer, data.byteOffset, data.byteLength / 4);
  return words.reduce((sum, word, i) => (sum + mix(word ^ mix(i))) >>> 0, 0);
}
