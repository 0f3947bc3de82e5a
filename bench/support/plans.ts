/** Plans outside a trainer, and parts of plans: what the benches replay and time. */
import { fuse } from '../../src/graph/fuse/index.ts';
import type { Memory } from '../../src/graph/memory.ts';
import { allocateSlots, buildPlan, draft, placeDrafts, type Plan } from '../../src/graph/plan.ts';
import { sizeBytes, type Storage, type Tensor } from '../../src/graph/tensor.ts';
import type { Launch } from '../../src/kernels/contract.ts';
import type { Ref } from '../../src/graph/lower/context.ts';
import type { Device } from '../../src/gpu/device.ts';
import { boundBytes } from './gpuCounts.ts';
import { sample, timing, type Sample, type Timing } from './measure.ts';

/** A plan of its own for some tensors, and where their values lie. */
export async function soloPlan(memory: Memory, outputs: readonly Tensor[], extra: readonly Launch<Ref>[] = []): Promise<{ plan: Plan; values: Storage[] }> {
  const values = outputs.map((tensor) => memory.storage('slots', 'output', sizeBytes(tensor)));
  const drafted = draft(memory, 'bench', fuse(outputs).map((tensor, i) => ({ tensor, storage: values[i] })), extra);
  const placement = placeDrafts(memory.device, [drafted]);
  const plan = await buildPlan(memory, drafted, { slots: allocateSlots(memory, placement), places: placement.places[0] });
  return { plan, values };
}

/** Submits plans in one pass and waits for them. */
export async function replay(device: Device, plans: readonly Pick<Plan, 'encode'>[], repeats = 1): Promise<void> {
  const encoder = device.gpu.createCommandEncoder({ label: 'bench' });
  const pass = encoder.beginComputePass({ label: 'bench' });
  for (let i = 0; i < repeats; i++) for (const plan of plans) plan.encode(pass);
  pass.end();
  device.gpu.queue.submit([encoder.finish()]);
  await device.idle();
}

/** Samples of a replay, each of so many repeats that it lasts `leastMs`. */
export async function timeReplay(device: Device, plans: readonly Pick<Plan, 'encode'>[], samples: number, leastMs = 120): Promise<Timing> {
  await replay(device, plans);
  const first = await sample(() => replay(device, plans));
  const repeats = Math.max(1, Math.ceil(leastMs / first.wallMs));
  const taken: Sample[] = [];
  for (let i = 0; i < samples; i++) taken.push(await sample(() => replay(device, plans, repeats), repeats));
  return timing(taken);
}

export interface Dispatch {
  readonly name: string;
  readonly grid: readonly [number, number, number];
  /** Bytes of its storage bindings. */
  readonly bytes: number;
  encode(pass: GPUComputePassEncoder): void;
}

/** The dispatches of a plan, each to be replayed by itself: the plan is encoded into a pass that only takes notes. */
export function dispatchesOf(plan: Plan): Dispatch[] {
  const names = plan.kernelNames;
  const found: Dispatch[] = [];
  let pipeline: GPUComputePipeline;
  let group: GPUBindGroup;
  const notes = {
    setPipeline: (value: GPUComputePipeline) => (pipeline = value),
    setBindGroup: (_: number, value: GPUBindGroup) => (group = value),
    dispatchWorkgroups: (...grid: [number, number, number]) => {
      const [p, g] = [pipeline, group];
      found.push({
        name: names[found.length], grid, bytes: boundBytes(g),
        encode: (pass) => {
          pass.setPipeline(p);
          pass.setBindGroup(0, g);
          pass.dispatchWorkgroups(...grid);
        },
      });
    },
  };
  plan.encode(notes as unknown as GPUComputePassEncoder);
  return found;
}
