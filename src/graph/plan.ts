/**
 * From a graph to dispatches. A draft lists the launches and the lifetimes of what they touch; drafts of one trainer are placed into shared
 * slots; a plan is a draft with its pipelines, uniforms and bind groups made, and is replayed by a tight loop.
 */
import type { CompiledKernel, Device } from '../gpu/device.ts';
import { DeviceError } from '../gpu/errors.ts';
import type { Launch, Owner } from '../kernels/contract.ts';
import { absorbs, isFormable, lower } from './lower/index.ts';
import { Scratch, type IsWanted, type LowerContext, type Ref } from './lower/context.ts';
import { subgroupMatrices } from '../kernels/matrixUnit.ts';
import { defaultLowerContext } from './lower/convChoice.ts';
import { align, type Memory, type MemoryCategory } from './memory.ts';
import { place, type Item, type Placement } from './placement.ts';
import { topologicalOrder } from './traverse.ts';
import { ownerOf } from './owner.ts';
import { lastDim, pack, sizeBytes, Tensor, type Node, type Storage } from './tensor.ts';

/** What a plan is made for: a tensor, and memory that outlives the plan to put it into (null where only later launches of the plan read it). */
export interface Output {
  readonly tensor: Tensor;
  readonly storage: Storage | null;
}

export interface Draft {
  readonly label: string;
  readonly launches: readonly Launch<Ref>[];
  readonly items: readonly Item[];
  readonly itemOf: ReadonlyMap<Tensor | Scratch, number>;
  /** Tensors with memory of their own: outputs, variables, constants. */
  readonly storageOf: ReadonlyMap<Tensor, Storage>;
}

export function lowerContextOf({ limits, adapter }: Device): LowerContext {
  const { isSoftware, subgroupSize, matrices } = adapter;
  const unit = matrices && subgroupSize ? subgroupMatrices(matrices, subgroupSize) : null;
  const { maxComputeWorkgroupStorageSize: workgroupBytes, maxComputeInvocationsPerWorkgroup: maxInvocations } = limits;
  return defaultLowerContext({ workgroupBytes, maxInvocations, isSoftware, subgroupSize, unit });
}

/** Formable tensors that some op cannot form by itself, or that are outputs: their nodes. */
function materialized(order: readonly Node[], outputs: readonly Tensor[], isWanted: IsWanted): Set<Node> {
  const needed = new Set(outputs.filter(isFormable).map((tensor) => tensor.node));
  for (const node of order) {
    node.inputs.forEach((input, index) => {
      if (isFormable(input) && !absorbs(node, index, isWanted)) needed.add(input.node);
    });
  }
  return needed;
}

/**
 * Lowers the graph of `outputs`, then appends `extra` launches (an optimizer's). Constants are uploaded into `memory` as `data`, once for
 * all its drafts, variables that are on no device as what they are; neither where `placed` says that they lie somewhere already.
 */
export function draft(
  memory: Memory,
  label: string,
  outputs: readonly Output[],
  extra: readonly Launch<Ref>[] = [],
  context?: LowerContext,
  placed: ReadonlyMap<Tensor, Storage> = new Map(),
): Draft {
  const storageOf = new Map<Tensor, Storage>();
  const launches: Launch<Ref>[] = [];
  const order = topologicalOrder(outputs.map((output) => output.tensor));
  const copies: Launch<Ref>[] = [];
  for (const { tensor, storage } of outputs) {
    if (!storage) continue;
    if (storageOf.has(tensor) || isLeaf(tensor)) copies.push(...copyInto(tensor, storage));
    else storageOf.set(tensor, storage);
  }
  const bound = extra.flatMap(({ bindings }) => Object.values(bindings));
  const wanted = new Set<Ref>([...outputs.map((output) => output.tensor), ...order.flatMap((node) => node.inputs), ...bound]);
  const isWanted: IsWanted = (tensor) => wanted.has(tensor);
  const needed = materialized(
    order,
    outputs.map((output) => output.tensor),
    isWanted,
  );
  const lowering = context ?? lowerContextOf(memory.device);
  for (const node of order) {
    const leaf = placed.get(node.outputs[0]) ?? leafStorage(memory, node);
    if (leaf) storageOf.set(node.outputs[0], leaf);
    else if (!isFormable(node.outputs[0]) || needed.has(node)) launches.push(...owned(node, lower(node, lowering, isWanted)));
  }
  for (const tensor of clashing([...launches, ...copies], storageOf)) {
    const output = outputs.find((one) => one.tensor === tensor && one.storage === storageOf.get(tensor));
    if (!output) continue;
    storageOf.delete(tensor);
    copies.push(...copyInto(tensor, output.storage!));
  }
  launches.push(...copies, ...extra);
  return { label, launches, storageOf, ...lifetimes(launches, storageOf) };
}

function owned(node: Node, launches: readonly Launch<Ref>[]): Launch<Ref>[] {
  const owner = ownerOf(node);
  return launches.map((one) => ({ ...one, owner }));
}

/**
 * Tensors with memory of their own that a launch reads while it writes elsewhere in the same buffer (two gradients of one arena, say), which
 * WebGPU forbids: outputs among them are made in a slot and copied at the end.
 */
function clashing(launches: readonly Launch<Ref>[], storageOf: ReadonlyMap<Tensor, Storage>): Set<Tensor> {
  const found = new Set<Tensor>();
  const bufferOf = (ref: Ref): GPUBuffer | undefined =>
    ref instanceof Scratch ? undefined : ref instanceof Tensor ? storageOf.get(ref)?.buffer : ref.buffer;
  for (const { kernel, bindings } of launches) {
    const bound = Object.entries(bindings).map(([name, ref]) => ({ ref, buffer: bufferOf(ref), access: kernel.bindings[name].access }));
    const written = new Set(bound.filter(({ buffer, access }) => buffer && access === 'write').map(({ buffer }) => buffer));
    for (const { ref, buffer, access } of bound) if (access === 'read' && ref instanceof Tensor && written.has(buffer)) found.add(ref);
  }
  return found;
}

const isLeaf = (tensor: Tensor): boolean => ['variable', 'constant', 'external'].includes(tensor.node.op);

function copyInto(tensor: Tensor, storage: Storage): Launch<Ref>[] {
  const copy = { op: 'copy', inputs: [tensor], attrs: {}, outputs: [new Tensor(tensor, 0)], origin: null } as unknown as Node;
  return lower(copy, { wantedWorkgroups: 1, tiles: [] }, () => true).map((launch) => ({
    ...launch,
    bindings: { ...launch.bindings, y: storage },
  }));
}

/** Where a leaf lies, uploaded where it has to be; null for what is computed. @throws DeviceError for a variable on another device */
export function leafStorage(memory: Memory, node: Node): Storage | null {
  if (node.op === 'external') return (node as Node<'external'>).attrs.storage;
  if (node.op === 'constant') {
    const { data, shape } = (node as Node<'constant'>).attrs;
    return memory.constant(data, lastDim(shape), () => upload(memory, 'data', 'constant', pack(node.outputs[0], data)));
  }
  if (node.op !== 'variable') return null;
  const { variable } = (node as Node<'variable'>).attrs;
  if (variable.storage && !memory.device.holds(variable.storage.buffer)) {
    throw new DeviceError({
      op: 'device',
      arg: variable.name,
      rule: 'must lie on the device that is to read it',
      got: 'memory of another device',
      fix: "pass the trainer's device, or close the trainer first",
    });
  }
  return (
    variable.storage ??
    upload(memory, variable.kind === 'parameter' ? 'parameters' : 'statistics', variable.name, pack(variable, variable.data))
  );
}

export function upload(memory: Memory, category: MemoryCategory, label: string, data: Float32Array | Uint32Array | Uint8Array): Storage {
  const storage = memory.storage(category, label, data.byteLength);
  memory.device.gpu.queue.writeBuffer(storage.buffer, 0, data as Float32Array<ArrayBuffer>);
  return storage;
}

function lifetimes(launches: readonly Launch<Ref>[], storageOf: ReadonlyMap<Tensor, Storage>) {
  const items: Item[] = [];
  const itemOf = new Map<Tensor | Scratch, number>();
  launches.forEach((launch, time) => {
    for (const [name, ref] of Object.entries(launch.bindings)) {
      if (!(ref instanceof Tensor || ref instanceof Scratch) || (ref instanceof Tensor && storageOf.has(ref))) continue;
      let index = itemOf.get(ref);
      if (index === undefined) {
        index = items.length;
        itemOf.set(ref, index);
        items.push({
          sizeBytes: ref instanceof Scratch ? ref.sizeBytes : sizeBytes(ref),
          first: time,
          last: time,
          reads: new Set(),
          writes: new Set(),
        });
      }
      const item = items[index];
      item.last = time;
      (launch.kernel.bindings[name].access === 'read' ? item.reads : item.writes).add(time);
    }
  });
  return { items, itemOf };
}

export const placeDrafts = (device: Device, drafts: readonly Draft[]): Placement =>
  place(
    drafts.map((one) => one.items),
    device.limits.maxBufferSize,
  );

/** One dispatch of a plan. */
export interface Dispatch {
  readonly pipeline: GPUComputePipeline;
  readonly bindGroup: GPUBindGroup;
  /** Workgroups. */
  readonly grid: readonly [number, number, number];
  /** The kernel's. */
  readonly name: string;
  readonly owner: Owner;
  /** Floating-point operations, 0 where nobody counts them. */
  readonly flops: number;
  /** Bytes that it touches at least: what it both reads and writes counts once. */
  readonly bytes: number;
}

/** Records dispatches into a compute pass. */
export function record(pass: GPUComputePassEncoder, steps: readonly Dispatch[]): void {
  let pipeline: GPUComputePipeline | null = null;
  for (const step of steps) {
    if (step.pipeline !== pipeline) {
      pipeline = step.pipeline;
      pass.setPipeline(pipeline);
    }
    pass.setBindGroup(0, step.bindGroup);
    pass.dispatchWorkgroups(step.grid[0], step.grid[1], step.grid[2]);
  }
}

export class Plan {
  constructor(
    readonly device: Device,
    readonly label: string,
    readonly steps: readonly Dispatch[],
  ) {}

  /** One plan that replays others in order. */
  static join(label: string, plans: readonly Plan[]): Plan {
    return new Plan(
      plans[0].device,
      label,
      plans.flatMap((plan) => plan.steps),
    );
  }

  /** Dispatches of one replay. */
  get dispatches(): number {
    return this.steps.length;
  }

  /** Kernel names in order, for profiles and messages. */
  get kernelNames(): string[] {
    return this.steps.map((step) => step.name);
  }

  /** Records the whole plan into a compute pass. */
  encode(pass: GPUComputePassEncoder): void {
    record(pass, this.steps);
    const last = this.steps.at(-1);
    if (last) this.device.noteDispatch(`${last.name}, the last of plan ${this.label}`);
  }
}

/** Makes the slots' buffers. */
export function allocateSlots(memory: Memory, placement: Placement): GPUBuffer[] {
  return placement.slotBytes.map((size, slot) => memory.create('slots', `slot ${slot}`, size));
}

/** Of launches that no node was lowered to: an optimizer's, a log's. */
const nobody: Owner = { layer: '', direction: null };

/** Called as kernels get ready, where some are not yet. */
export type OnCompile = (done: number, total: number) => void;

/** Compiles all kernels of some drafts at once, each one once. */
export async function compileKernels(device: Device, drafts: readonly Draft[], onCompile?: OnCompile): Promise<void> {
  const all = new Map(drafts.flatMap(({ launches }) => launches.map(({ kernel }) => [kernel.source, kernel])));
  const missing = [...all.values()].filter((kernel) => !device.hasCompiled(kernel));
  let done = 0;
  await Promise.all(
    missing.map(async (kernel) => {
      await device.compile(kernel);
      onCompile?.(++done, missing.length);
    }),
  );
}

interface BuildOptions {
  readonly slots: readonly GPUBuffer[];
  readonly places: Placement['places'][number];
  /** @default nobody is told */
  readonly onCompile?: OnCompile;
  /** Holds this plan's uniforms, and those of others. @default a buffer of its own */
  readonly uniforms?: Uniforms;
}

/** Compiles what `compileKernels` has not, and makes uniforms and bind groups: everything that a replay needs. */
export async function buildPlan(memory: Memory, one: Draft, options: BuildOptions): Promise<Plan> {
  const { device } = memory;
  await compileKernels(device, [one], options.onCompile);
  const compiled = new Map<string, CompiledKernel>();
  for (const { kernel } of one.launches) if (!compiled.has(kernel.source)) compiled.set(kernel.source, await device.compile(kernel));
  const uniforms = options.uniforms ?? new Uniforms(memory, 'slots', `${one.label} uniforms`, one.launches);
  const bufferOf = (ref: Ref): Storage => {
    if (!(ref instanceof Tensor || ref instanceof Scratch)) return ref;
    const own = ref instanceof Tensor ? one.storageOf.get(ref) : undefined;
    if (own) return own;
    const { slot, offset } = options.places[one.itemOf.get(ref)!];
    return { buffer: options.slots[slot], offset, size: ref instanceof Scratch ? ref.sizeBytes : sizeBytes(ref) };
  };
  const steps = one.launches.map((launch) => {
    const { pipeline, layout } = compiled.get(launch.kernel.source)!;
    const names = Object.keys(launch.kernel.bindings);
    const entries = names.map((name, binding) => ({ binding, resource: bufferOf(launch.bindings[name]) }));
    const { grid, owner = nobody, flops = 0, bytes = entries.reduce((sum, { resource }) => sum + resource.size, 0) } = launch;
    const bindGroup = device.gpu.createBindGroup({
      label: launch.kernel.name,
      layout,
      entries: [...entries, { binding: names.length, resource: uniforms.of(launch) }],
    });
    return { pipeline, bindGroup, grid, name: launch.kernel.name, owner, flops, bytes };
  });
  return new Plan(device, one.label, steps);
}

/** The uniform values of many launches in one buffer; equal ones are stored once. */
export class Uniforms {
  readonly #buffer: GPUBuffer;
  readonly #places = new Map<Launch<Ref>, { offset: number; size: number }>();

  constructor(memory: Memory, category: MemoryCategory, label: string, launches: readonly Launch<Ref>[]) {
    const known = new Map<string, { offset: number; size: number }>();
    const blocks: { offset: number; block: Uint8Array }[] = [];
    let end = 0;
    for (const launch of launches) {
      const block = packUniforms(launch);
      const key = block.join();
      let at = known.get(key);
      if (!at) {
        at = { offset: end, size: block.byteLength };
        known.set(key, at);
        blocks.push({ offset: end, block });
        end += align(block.byteLength);
      }
      this.#places.set(launch, at);
    }
    const bytes = new Uint8Array(Math.max(end, 16));
    for (const { offset, block } of blocks) bytes.set(block, offset);
    this.#buffer = memory.create(category, label, bytes.byteLength, GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST);
    memory.device.gpu.queue.writeBuffer(this.#buffer, 0, bytes);
  }

  /** Where the values of one of the launches lie. */
  of(launch: Launch<Ref>): Storage {
    return { buffer: this.#buffer, ...this.#places.get(launch)! };
  }
}

function packUniforms({ kernel, uniforms }: Launch<Ref>): Uint8Array {
  const names = Object.keys(kernel.uniforms);
  const view = new DataView(new ArrayBuffer(Math.ceil(names.length / 4) * 16));
  names.forEach((name, index) => {
    const type = kernel.uniforms[name];
    if (type === 'f32') view.setFloat32(index * 4, uniforms[name], true);
    else if (type === 'i32') view.setInt32(index * 4, uniforms[name], true);
    else view.setUint32(index * 4, uniforms[name], true);
  });
  return new Uint8Array(view.buffer);
}
