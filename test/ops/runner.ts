/**
 * Runs a graph the hard way: outputs lie between guard words, outputs and slots are filled with a NaN of a known pattern before each run, the
 * plan is replayed twice, and inputs are read back afterwards.
 */
import { expect } from 'vitest';
import type { Device } from '../../src/gpu/device.ts';
import { fuse, fusions, type Fusion } from '../../src/graph/fuse/index.ts';
import type { LowerContext } from '../../src/graph/lower/context.ts';
import { Memory } from '../../src/graph/memory.ts';
import { allocateSlots, buildPlan, draft, placeDrafts, type Draft, type Plan } from '../../src/graph/plan.ts';
import { ceil4, lastDim, numbersOf, pack, sizeBytes, unpack, Variable, type Node, type Storage, type Tensor } from '../../src/graph/tensor.ts';

export interface GuardedOptions {
  readonly fusions?: readonly Fusion[];
  readonly lowering?: LowerContext;
}

/** A quiet NaN that no arithmetic makes: a cell that still holds it was never written. */
const poison = 0x7fedcafe;
const guardBytes = 256;

interface Guarded {
  readonly tensor: Tensor;
  readonly storage: Storage;
}

/**
 * Memory for an output between two guards. The binding covers the second guard too: WGSL clamps an index to its binding, so a smaller one
 * would hide an overrun.
 */
function guarded(memory: Memory, tensor: Tensor): Guarded {
  const bytes = sizeBytes(tensor);
  const buffer = memory.create('slots', 'guarded output', bytes + 2 * guardBytes);
  return { tensor, storage: { buffer, offset: guardBytes, size: bytes + guardBytes } };
}

function fillWithPoison(device: Device, buffer: GPUBuffer): void {
  device.gpu.queue.writeBuffer(buffer, 0, new Uint32Array(buffer.size / 4).fill(poison));
}

/** The whole contents of several buffers, by one copy to the host. */
async function readBuffers(device: Device, buffers: readonly GPUBuffer[]): Promise<Uint32Array[]> {
  const total = buffers.reduce((sum, buffer) => sum + buffer.size, 0);
  const all = device.createBuffer('collected', total, GPUBufferUsage.COPY_DST | GPUBufferUsage.COPY_SRC);
  try {
    const encoder = device.gpu.createCommandEncoder();
    let at = 0;
    for (const buffer of buffers) {
      encoder.copyBufferToBuffer(buffer, 0, all, at, buffer.size);
      at += buffer.size;
    }
    device.gpu.queue.submit([encoder.finish()]);
    const bytes = await device.read(all, 0, total);
    at = 0;
    return buffers.map((buffer) => {
      const words = new Uint32Array(bytes, at, buffer.size / 4);
      at += buffer.size;
      return words;
    });
  } finally {
    device.destroyBuffer(all);
  }
}

/** @throws when a guard word was overwritten, a cell was left unwritten, or padding is not zero. @returns the packed words */
function checked({ tensor }: Guarded, words: Uint32Array, label: string): Uint32Array {
  const guard = guardBytes / 4;
  const body = words.subarray(guard, guard + sizeBytes(tensor) / 4);
  const outside = [...words.subarray(0, guard), ...words.subarray(guard + body.length)];
  if (outside.some((word) => word !== poison)) throw new Error(`${label}: a guard word beside ${tensor} was overwritten`);
  const unwritten = body.indexOf(poison);
  if (unwritten >= 0) throw new Error(`${label}: word ${unwritten} of ${tensor} was never written`);
  const width = lastDim(tensor.shape);
  const stride = ceil4(width);
  const values = tensor.dtype === 'u32' ? body : numbersOf(tensor.dtype, body.slice().buffer);
  const stray = values.findIndex((value, i) => i % stride >= width && value !== 0);
  if (stray >= 0) throw new Error(`${label}: padding element ${stray} of ${tensor} is not zero`);
  return body.slice();
}

async function replay(device: Device, plan: Plan, outputs: readonly Guarded[], slots: readonly GPUBuffer[]): Promise<Uint32Array[]> {
  const buffers = outputs.map(({ storage }) => storage.buffer);
  for (const buffer of [...buffers, ...slots]) fillWithPoison(device, buffer);
  const encoder = device.gpu.createCommandEncoder();
  const pass = encoder.beginComputePass();
  plan.encode(pass);
  pass.end();
  device.gpu.queue.submit([encoder.finish()]);
  const words = await readBuffers(device, buffers);
  return outputs.map((output, i) => checked(output, words[i], `output ${i} of ${plan.kernelNames.join(', ')}`));
}

/** What a leaf was given, in GPU layout; null for tensors that are computed. */
function givenWords(tensor: Tensor): Uint32Array | null {
  const { op, attrs } = tensor.node as Node<'constant'>;
  const values = tensor instanceof Variable ? tensor.data : op === 'constant' ? attrs.data : null;
  return values && new Uint32Array(pack(tensor, values).buffer);
}

async function expectInputsUnchanged(device: Device, one: Draft): Promise<void> {
  const leaves = [...one.storageOf].flatMap(([tensor, storage]) => {
    const words = givenWords(tensor);
    return words ? [{ tensor, storage, words }] : [];
  });
  const found = await readBuffers(device, leaves.map(({ storage }) => storage.buffer));
  leaves.forEach(({ tensor, words }, i) => expect(firstDifference(found[i].subarray(0, words.length), words), `input ${tensor} changed`).toBe(-1));
}

/** First index at which two arrays of words differ; −1 where none does. */
export function firstDifference(a: Uint32Array, b: Uint32Array): number {
  if (a.length !== b.length) return Math.min(a.length, b.length);
  return a.findIndex((word, i) => word !== b[i]);
}

/** Values of several tensors of one graph, run with every precaution of this file. */
export async function runGuarded(device: Device, tensors: readonly Tensor[], options: GuardedOptions = {}): Promise<Float32Array[]> {
  const memory = new Memory(device);
  try {
    const outputs = fuse(tensors, options.fusions ?? fusions).map((tensor) => guarded(memory, tensor));
    const one = draft(memory, 'test', outputs, [], options.lowering);
    const placement = placeDrafts(device, [one]);
    const slots = allocateSlots(memory, placement);
    const plan = await buildPlan(memory, one, { slots, places: placement.places[0] });
    const first = await replay(device, plan, outputs, slots);
    const second = await replay(device, plan, outputs, slots);
    first.forEach((words, i) => expect(firstDifference(second[i], words), `output ${i}, first bit that differs in the second run`).toBe(-1));
    await expectInputsUnchanged(device, one);
    return first.map((words, i) => {
      const { tensor } = outputs[i];
      // Words of u32 as they are, in a Float32Array's memory.
      return unpack(tensor, tensor.dtype === 'f16' ? (numbersOf('f16', words.buffer as ArrayBuffer) as Float32Array) : new Float32Array(words.buffer));
    });
  } finally {
    memory.release();
  }
}
