/** Plans outside a trainer, and parts of plans: what the benches replay and time. */
import { fuse } from '../../src/graph/fuse/index.ts';
import type { Memory } from '../../src/graph/memory.ts';
import { allocateSlots, buildPlan, draft, placeDrafts, Plan } from '../../src/graph/plan.ts';
import { sizeBytes, type Storage, type Tensor } from '../../src/graph/tensor.ts';
import type { Launch } from '../../src/kernels/contract.ts';
import type { Ref } from '../../src/graph/lower/context.ts';
import type { Device } from '../../src/gpu/device.ts';

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

/** Each dispatch of a plan as a plan of its own. */
export const singly = (plan: Plan): Plan[] => plan.steps.map((step) => new Plan(plan.device, step.name, [step]));
