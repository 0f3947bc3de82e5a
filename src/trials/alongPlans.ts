/**
 * The GPU's part of `lossesAlong`: what moves is put into memory once, a plan is made for each size of pass, and replayed over chunks and
 * batches.
 */
import type { Device } from '../gpu/device.ts';
import { DeviceError, ShapeError } from '../gpu/errors.ts';
import { mean } from '../graph/functional.ts';
import { fuse, type Fusion } from '../graph/fuse/index.ts';
import type { LowerContext } from '../graph/lower/context.ts';
import { Memory } from '../graph/memory.ts';
import { externalTensor } from '../graph/ops.ts';
import {
  allocateSlots,
  buildPlan,
  compileKernels,
  draft,
  leafStorage,
  placeDrafts,
  type Draft,
  type OnCompile,
  type Output,
  type Plan,
} from '../graph/plan.ts';
import { submit } from '../graph/run.ts';
import { pack, sizeBytes, unpack, type Node, type Storage, type Tensor, type Variable } from '../graph/tensor.ts';
import { topologicalOrder } from '../graph/traverse.ts';
import { inferenceContext, trainingContext } from '../nn/module.ts';
import type { Along } from './alongOptions.ts';
import { chunkTrials, fitsBinding, largestPass, type PassLimits } from './passes.ts';
import { trials } from './trials.ts';

export interface HowToRun {
  readonly fusions: readonly Fusion[];
  readonly lowering: LowerContext;
  readonly onCompile?: OnCompile;
}

type Batch = Along['batches'][number];

/** Batches of one shape: they run by the same plans, one after the other through the same memory. */
interface BatchGroup {
  readonly input: Batch;
  /** Loss of one trial: a scalar, or [B] a sample. */
  readonly losses: Tensor;
  /** What moves does not reach the losses: they are the same in every trial, and computed once a pass. */
  readonly isShared: boolean;
  /** Losses of the trials of a pass. */
  readonly output: Storage;
  /** Plans by their number of trials. */
  readonly passes: Map<number, Plan>;
}

const keyOf = ({ x, labels }: Batch): string => `${x} ${labels}`;
const storageOf = (tensor: Tensor): Storage => (tensor.node as Node<'external'>).attrs.storage;

export class AlongPlans {
  readonly #variables = new Map<Tensor, Storage>();
  readonly #directions = new Map<Variable, readonly Tensor[]>();
  readonly #groups = new Map<string, BatchGroup>();
  readonly #coefficients: Storage;

  private constructor(
    readonly memory: Memory,
    readonly along: Along,
    readonly how: HowToRun,
  ) {
    const { rows, maxTrialsPerPass } = along;
    this.#coefficients = memory.storage('trials', 'trial coefficients', Math.min(rows.length, maxTrialsPerPass) * rows[0].length * 4);
  }

  /** All buffers are `memory`'s. @throws DeviceError where a single trial is too large for the adapter's bindings */
  static async create(memory: Memory, along: Along, how: HowToRun): Promise<AlongPlans> {
    const plans = new AlongPlans(memory, along, how);
    for (const batch of along.batches) plans.#addGroup(batch);
    for (const variable of along.model.variables()) plans.#variables.set(variable, leafStorage(memory, variable.node)!);
    await plans.#placeDirections();
    await plans.#build();
    return plans;
  }

  get device(): Device {
    return this.memory.device;
  }

  /** Losses of each trial on a batch: one number, or one a sample. */
  async losses(batch: Batch): Promise<Float32Array[]> {
    const { along, device } = this;
    const { input, losses, output, passes, isShared } = this.#groups.get(keyOf(batch))!;
    await this.#fill(input, batch);
    const rowBytes = sizeBytes(losses);
    const results = device.createBuffer('losses', along.rows.length * rowBytes, GPUBufferUsage.COPY_DST | GPUBufferUsage.COPY_SRC);
    try {
      const rowOf: number[] = [];
      for (const count of this.#chunks(passes)) {
        const start = rowOf.length;
        const { buffer, offset } = this.#coefficients;
        device.gpu.queue.writeBuffer(buffer, offset, Float32Array.from(along.rows.slice(start, start + count).flat()));
        submit(device, passes.get(count)!, (encoder) => {
          encoder.copyBufferToBuffer(output.buffer, output.offset, results, start * rowBytes, count * rowBytes);
        });
        for (let i = 0; i < count; i++) rowOf.push(isShared ? start : start + i);
      }
      const bytes = await device.read(results, 0, along.rows.length * rowBytes);
      return rowOf.map((row) => unpack(losses, new Float32Array(bytes, row * rowBytes, rowBytes / 4)));
    } finally {
      device.destroyBuffer(results);
    }
  }

  #chunks(passes: ReadonlyMap<number, unknown>): number[] {
    return chunkTrials(this.along.rows.length, Math.max(...passes.keys()));
  }

  /** Traced for every batch, so that its own labels are checked too. */
  #lossesOf({ x, labels }: Batch): Tensor {
    const { model, loss, batchNorm, perSample } = this.along;
    const losses = loss(model.forward(x, batchNorm === 'batch' ? trainingContext() : inferenceContext()), labels);
    if (String(losses.shape) !== String([x.shape[0]]) || losses.dtype !== 'f32') {
      const fix = 'do not average them: lossesAlong does';
      throw new ShapeError({
        op: 'lossesAlong',
        arg: 'loss',
        rule: `must give f32[${x.shape[0]}], one a sample`,
        got: String(losses),
        fix,
      });
    }
    return perSample ? losses : mean(losses);
  }

  #addGroup(batch: Batch): void {
    const { memory, along } = this;
    this.#lossesOf(batch);
    if (this.#groups.has(keyOf(batch))) return;
    const room = (name: 'x' | 'labels') => externalTensor(memory.storage('data', name, sizeBytes(batch[name])), batch[name]);
    const input = { x: room('x'), labels: room('labels') };
    const losses = this.#lossesOf(input);
    const isShared = !topologicalOrder([losses]).some(({ outputs }) => along.moves.has(outputs[0] as Variable));
    const output = memory.storage('trials', 'losses', Math.min(along.rows.length, along.maxTrialsPerPass) * sizeBytes(losses));
    this.#groups.set(keyOf(batch), { input, losses, isShared, output, passes: new Map() });
  }

  /** Directions that are computed (gradients, say) are so once; the others are read where they lie. */
  async #placeDirections(): Promise<void> {
    const { memory, along } = this;
    const placed = new Map<Tensor, Storage>(this.#variables);
    const computed: Output[] = [];
    const place = (tensor: Tensor): Storage => {
      let storage = placed.get(tensor) ?? leafStorage(memory, tensor.node);
      if (!storage) computed.push({ tensor, storage: (storage = memory.storage('data', 'direction', sizeBytes(tensor))) });
      placed.set(tensor, storage);
      return storage;
    };
    const moves = [...along.moves];
    const still = moves.filter(([, parts]) => parts.includes(null)).map(([variable]) => sizeBytes(variable));
    const zeros = still.length > 0 ? memory.storage('data', 'zeros', Math.max(...still)) : null;
    for (const [variable, parts] of moves) {
      const storages = parts.map((part) => (part ? place(part) : { ...zeros!, size: sizeBytes(variable) }));
      this.#directions.set(
        variable,
        storages.map((storage) => externalTensor(storage, variable)),
      );
    }
    await this.#runOnce(computed);
  }

  #draft({ losses, output }: BatchGroup, count: number): Draft {
    const { along, how, memory } = this;
    const size = count * along.rows[0].length;
    const coefficients = externalTensor({ ...this.#coefficients, size: size * 4 }, { shape: [size], dtype: 'f32', trials: 1 });
    const transformed = trials([losses], { count, directions: this.#directions, coefficients, scaled: along.scaled });
    const [tensor] = fuse(transformed, how.fusions, along.rows.length);
    // Sums are cut as for all trials at once: the losses must not tell how many share a pass.
    const lowering = { trials: along.rows.length, ...how.lowering };
    return draft(memory, `pass of ${count} trials`, [{ tensor, storage: output }], [], lowering, this.#variables);
  }

  /** Sizes of the passes, by the adapter's limits and the budget; then all plans, in slots that they share. */
  async #build(): Promise<void> {
    const { memory, device, along } = this;
    const { maxStorageBufferBindingSize, maxBufferSize } = device.limits;
    const limits: PassLimits = { bindingBytes: Math.min(maxStorageBufferBindingSize, maxBufferSize), budgetBytes: along.memoryBudget };
    const groups = [...this.#groups.values()];
    const most = groups.map((group) =>
      largestPass(Math.min(along.rows.length, along.maxTrialsPerPass), (count) => this.#draft(group, count), limits),
    );
    for (;;) {
      const drafted = groups.flatMap((group, i) =>
        [...new Set(chunkTrials(along.rows.length, most[i]))].map((count) => ({ group, count, draft: this.#draft(group, count) })),
      );
      const drafts = drafted.map(({ draft: one }) => one);
      for (const one of drafts) checkFits(one, limits);
      const { totalBytes, slotBytes, places } = placeDrafts(device, drafts);
      if (totalBytes > along.memoryBudget && most.some((count) => count > 1)) {
        const share = along.memoryBudget / totalBytes;
        most.forEach((count, i) => (most[i] = Math.max(1, Math.min(count - 1, Math.floor(count * share)))));
        continue;
      }
      const slots = allocateSlots(memory, { totalBytes, slotBytes, places });
      await compileKernels(device, drafts, this.how.onCompile);
      await Promise.all(
        drafted.map(async ({ group, count }, i) =>
          group.passes.set(count, await buildPlan(memory, drafts[i], { slots, places: places[i] })),
        ),
      );
      return;
    }
  }

  /** Puts a batch where its group's plans read it. */
  async #fill(input: Batch, batch: Batch): Promise<void> {
    const computed: Output[] = [];
    for (const name of ['x', 'labels'] as const) {
      const storage = storageOf(input[name]);
      const { node } = batch[name];
      if (node.op !== 'constant') computed.push({ tensor: batch[name], storage });
      else {
        const values = pack(batch[name], (node as Node<'constant'>).attrs.data);
        this.device.gpu.queue.writeBuffer(storage.buffer, storage.offset, values as Float32Array<ArrayBuffer>);
      }
    }
    await this.#runOnce(computed);
  }

  async #runOnce(outputs: readonly Output[]): Promise<void> {
    if (outputs.length === 0) return;
    const { device, how } = this;
    const memory = new Memory(device);
    try {
      const fused = fuse(
        outputs.map(({ tensor }) => tensor),
        how.fusions,
      );
      const given = fused.map((tensor, i) => ({ tensor, storage: outputs[i].storage }));
      const one = draft(memory, 'inputs of lossesAlong', given, [], how.lowering, this.#variables);
      const placement = placeDrafts(device, [one]);
      const { onCompile } = how;
      submit(device, await buildPlan(memory, one, { slots: allocateSlots(memory, placement), places: placement.places[0], onCompile }));
    } finally {
      memory.release();
    }
  }
}

function checkFits(one: Draft, limits: PassLimits): void {
  if (fitsBinding(one, limits)) return;
  throw new DeviceError({
    op: 'lossesAlong',
    arg: 'batches',
    rule: `must take at most ${limits.bindingBytes} bytes a tensor and trial on this adapter`,
    got: Math.max(...one.items.map((item) => item.sizeBytes)),
    fix: 'pass smaller batches: several are averaged',
  });
}
