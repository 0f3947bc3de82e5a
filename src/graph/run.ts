/** Running a graph once: what `tensor.read()` does. Training uses plans that are built once and replayed. */
import { defaultDevice, type Device } from '../gpu/device.ts';
import { fuse, fusions, type Fusion } from './fuse/index.ts';
import type { LowerContext } from './lower/context.ts';
import { Memory } from './memory.ts';
import { allocateSlots, buildPlan, draft, placeDrafts, type OnCompile, type Plan } from './plan.ts';
import { numbersOf, setReader, sizeBytes, unpack, type Storage, type Tensor } from './tensor.ts';

export interface EvaluateOptions {
  /** @default the shared device, opened at first use */
  readonly device?: Device;
  /** Graph passes to apply. @default all */
  readonly fusions?: readonly Fusion[];
  /** Tiles and splits. @default the adapter's */
  readonly lowering?: LowerContext;
  /** Called while kernels compile. */
  readonly onCompile?: OnCompile;
}

/** Values of a tensor that lies in `storage`, unpadded. */
export async function readStorage(device: Device, spec: Tensor, storage: Storage): Promise<Float32Array | Uint32Array> {
  const bytes = await device.read(storage.buffer, storage.offset, sizeBytes(spec));
  return unpack(spec, numbersOf(spec.dtype, bytes));
}

/** Runs a plan once, and what `after` records behind it. */
export function submit(device: Device, plan: Plan, after?: (encoder: GPUCommandEncoder) => void): void {
  const encoder = device.gpu.createCommandEncoder({ label: plan.label });
  const pass = encoder.beginComputePass({ label: plan.label });
  plan.encode(pass);
  pass.end();
  after?.(encoder);
  device.gpu.queue.submit([encoder.finish()]);
}

/**
 * Compiles and runs the graph of several tensors together and returns their values.
 * Variables that live on a device are read where they are; others are uploaded for the occasion.
 */
export async function evaluate(tensors: readonly Tensor[], options: EvaluateOptions = {}): Promise<(Float32Array | Uint32Array)[]> {
  const device = options.device ?? (await defaultDevice());
  const memory = new Memory(device);
  try {
    const fused = fuse(tensors, options.fusions ?? fusions);
    const outputs = fused.map((tensor) => ({ tensor, storage: memory.storage('slots', 'output', sizeBytes(tensor)) }));
    const one = draft(memory, 'read', outputs, [], options.lowering);
    const placement = placeDrafts(device, [one]);
    const plan = await buildPlan(memory, one, {
      slots: allocateSlots(memory, placement),
      places: placement.places[0],
      onCompile: options.onCompile,
    });
    submit(device, plan);
    const values: (Float32Array | Uint32Array)[] = [];
    for (const { tensor, storage } of outputs) values.push(await readStorage(device, tensor, storage));
    return values;
  } finally {
    memory.release();
  }
}

setReader(async (tensor) => (await evaluate([tensor]))[0]);
