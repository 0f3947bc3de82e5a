/** A golden's model on our engine, driven as the trainer drives it: the batch written by the host, then plans submitted. */
import { createHash } from 'node:crypto';
import { expect } from 'vitest';
import type { Device } from '../../src/gpu/device.ts';
import { Control } from '../../src/graph/control.ts';
import { crossEntropy, mean, tensor } from '../../src/graph/functional.ts';
import { Memory } from '../../src/graph/memory.ts';
import type { Plan } from '../../src/graph/plan.ts';
import { evaluate, readStorage } from '../../src/graph/run.ts';
import { pack, sizeBytes, type Storage, type Tensor, type TensorSpec, type Variable } from '../../src/graph/tensor.ts';
import { inferenceContext, trainingContext } from '../../src/nn/module.ts';
import { resnet18, type ResNet } from '../../src/nn/resnet.ts';
import { loadStateDict, stateDict } from '../../src/nn/stateDict.ts';
import type { SgdOptions } from '../../src/optim/sgd.ts';
import { externalTensor } from '../../src/graph/ops.ts';
import { StepPlans } from '../../src/train/stepPlans.ts';
import { distance, parityBound, type Golden, type Reference, type ScalarReference } from '../goldens/load.ts';

/** The golden's model, with its weights. */
export function goldenModel(golden: Golden): ResNet {
  const model = resnet18({ stem: golden.stem, width: golden.width, numClasses: golden.classes });
  loadStateDict(model, golden.stateDict());
  return model;
}

/** [N, C, H, W] → [N, H, W, C]. */
export function toNhwc(images: Float32Array, [N, C, H, W]: readonly number[]): Float32Array {
  const plane = H * W;
  const out = new Float32Array(images.length);
  for (let n = 0; n < N; n++) {
    for (let c = 0; c < C; c++) for (let i = 0; i < plane; i++) out[(n * plane + i) * C + c] = images[(n * C + c) * plane + i];
  }
  return out;
}

/** Batch number `index` of the golden in our layout. */
export function goldenBatch(golden: Golden, index: number): { x: Float32Array; labels: Uint32Array } {
  const { images, labels } = golden.batch(index);
  return { x: toNhwc(images, golden.images), labels: Uint32Array.from(labels) };
}

function batchSpecs({ images: [N, C, H, W] }: Golden): { x: TensorSpec; labels: TensorSpec } {
  return { x: { shape: [N, H, W, C], dtype: 'f32', trials: 1 }, labels: { shape: [N], dtype: 'u32', trials: 1 } };
}

/** Batch number `index` as tensors of a graph. */
export function batchTensors(golden: Golden, index: number): { x: Tensor; labels: Tensor } {
  const specs = batchSpecs(golden);
  const { x, labels } = goldenBatch(golden, index);
  return { x: tensor(x, specs.x.shape), labels: tensor(labels, specs.labels.shape) };
}

/** Mean cross-entropy of batch `index` in train mode, and its logits. */
export function lossGraph(golden: Golden, model: ResNet, index = 0): { loss: Tensor; logits: Tensor } {
  const { x, labels } = batchTensors(golden, index);
  const logits = model.forward(x, trainingContext());
  return { logits, loss: mean(crossEntropy(logits, labels)) };
}

/** Values of variables in PyTorch's names and layouts. */
export function inTorchLayout(golden: Golden, variables: readonly Variable[], values: readonly Float32Array[]): Map<string, Float32Array> {
  const holder = resnet18({ stem: golden.stem, width: golden.width, numClasses: golden.classes });
  const named = holder.namedVariables();
  const names = new Set(variables.map(({ name }) => name));
  variables.forEach(({ name }, i) => (named.get(name)!.data = values[i]));
  return new Map([...stateDict(holder)].filter(([name]) => names.has(name)).map(([name, { data }]) => [name, data as Float32Array]));
}

export interface GoldenRunOptions {
  readonly optimizer?: SgdOptions;
  /** Rates of an event's trials, L(θ − rate·D); none for no event. */
  readonly coefficients?: readonly number[];
  /** What the event looks along. @default 'gradient' */
  readonly direction?: 'gradient' | 'optimizer';
}

/** SHA-256 of the bits on the GPU that training keeps. */
export type State = Record<'parameters' | 'statistics' | 'momentum', string>;

export interface StepWithEvent {
  /** Before the step. */
  readonly loss: number;
  readonly trialLosses: readonly number[];
  /** Just before the event and just after. */
  readonly before: State;
  readonly after: State;
}

export class GoldenRun {
  private constructor(
    readonly device: Device,
    readonly golden: Golden,
    readonly options: GoldenRunOptions,
    readonly model: ResNet,
    readonly memory: Memory,
    readonly control: Control,
    readonly plans: StepPlans,
    readonly batch: { x: Tensor; labels: Tensor },
    readonly batchStorage: { x: Storage; labels: Storage },
  ) {}

  static async create(device: Device, golden: Golden, options: GoldenRunOptions = {}): Promise<GoldenRun> {
    const { optimizer, coefficients, direction = 'gradient' } = options;
    const model = goldenModel(golden);
    const memory = new Memory(device);
    const control = new Control(memory);
    const specs = batchSpecs(golden);
    const placed = (spec: TensorSpec, label: string) => memory.storage('data', label, sizeBytes(spec));
    const storage = { x: placed(specs.x, 'x'), labels: placed(specs.labels, 'labels') };
    const batch = { x: externalTensor(storage.x, specs.x), labels: externalTensor(storage.labels, specs.labels) };
    const trials = coefficients ? { count: coefficients.length, direction, batch } : undefined;
    const plans = await StepPlans.create(memory, control, { model, batch, optimizer, trials });
    if (plans.trials) {
      const { buffer, offset } = plans.trials.coefficients;
      device.gpu.queue.writeBuffer(buffer, offset, Float32Array.from(coefficients!, (rate) => -rate));
    }
    return new GoldenRun(device, golden, options, model, memory, control, plans, batch, storage);
  }

  /** Writes batch number `index`, padded as the engine has it. */
  setBatch(index: number): void {
    const { x, labels } = goldenBatch(this.golden, index);
    const { queue } = this.device.gpu;
    queue.writeBuffer(this.batchStorage.x.buffer, 0, pack(this.batch.x, x) as Float32Array<ArrayBuffer>);
    queue.writeBuffer(this.batchStorage.labels.buffer, 0, pack(this.batch.labels, labels) as Uint32Array<ArrayBuffer>);
  }

  /** Submits plans in one compute pass, as a step does. */
  submit(...plans: readonly Plan[]): void {
    const encoder = this.device.gpu.createCommandEncoder({ label: 'golden' });
    const pass = encoder.beginComputePass();
    for (const plan of plans) plan.encode(pass);
    pass.end();
    this.device.gpu.queue.submit([encoder.finish()]);
  }

  /** Batch number `index`, the rate and the optimizer's `first`, for the plans that follow. */
  #begin(index: number, lr: number, first: boolean): void {
    const { buffer, offset } = this.plans.rates;
    this.setBatch(index);
    this.control.write({ first: Number(first), slot: 0 });
    this.device.gpu.queue.writeBuffer(buffer, offset, Float32Array.of(lr));
  }

  /** One training step on batch number `index`; `first` on the optimizer's first. Returns the loss before it. */
  async step(index: number, lr: number, first: boolean): Promise<number> {
    const { gradient, direction, update } = this.plans;
    this.#begin(index, lr, first);
    this.submit(gradient, direction, update);
    return this.loss();
  }

  /** The same step with an event inside, where the trainer has it. */
  async stepWithEvent(index: number, lr: number, first: boolean): Promise<StepWithEvent> {
    const { gradient, direction, event, update } = this.plans;
    const isAlongGradient = this.options.direction !== 'optimizer';
    this.#begin(index, lr, first);
    this.submit(...(isAlongGradient ? [gradient] : [gradient, direction]));
    const before = await this.state();
    this.submit(event!);
    const [trialLosses, after] = [await this.readTrialLosses(), await this.state()];
    this.submit(...(isAlongGradient ? [direction, update] : [update]));
    return { loss: await this.loss(), trialLosses, before, after };
  }

  /** Loss of batch number `index` in train mode, with the present weights. */
  async lossOf(index: number): Promise<number> {
    this.setBatch(index);
    this.submit(this.plans.gradient);
    return this.loss();
  }

  /** The N trial losses on batch number `index`, along the raw gradient there. */
  async trialLosses(index: number): Promise<number[]> {
    this.setBatch(index);
    this.submit(this.plans.gradient, this.plans.event!);
    return this.readTrialLosses();
  }

  private async readTrialLosses(): Promise<number[]> {
    const { buffer, offset } = this.plans.trials!.losses;
    return [...new Float32Array(await this.device.read(buffer, offset, this.options.coefficients!.length * 4))];
  }

  private async loss(): Promise<number> {
    const { buffer, offset } = this.plans.loss;
    return new Float32Array(await this.device.read(buffer, offset, 4))[0];
  }

  /** The gradients that the gradient plan left, in the parameters' own layout. */
  async gradients(): Promise<Map<Variable, Float32Array>> {
    const gradients = new Map<Variable, Float32Array>();
    for (const [i, variable] of this.plans.store.parameters.entries()) {
      gradients.set(variable, (await readStorage(this.device, variable, this.plans.sgd.gradients.at(i))) as Float32Array);
    }
    return gradients;
  }

  /** Eval-mode logits of batch number `index`. */
  async evalLogits(index: number): Promise<Float32Array> {
    const [logits] = await evaluate([this.model.forward(batchTensors(this.golden, index).x, inferenceContext())], { device: this.device });
    return logits as Float32Array;
  }

  /** Running statistics by name. */
  async running(): Promise<Map<string, Float32Array>> {
    const running = new Map<string, Float32Array>();
    for (const variable of this.plans.store.statistics) running.set(variable.name, await this.plans.store.read(variable));
    return running;
  }

  /** Puts the golden's weights and running statistics back. */
  reset(): void {
    for (const variable of this.model.variables()) this.plans.store.write(variable, variable.data);
  }

  async state(): Promise<State> {
    const { store, sgd } = this.plans;
    const digest = async (segments: readonly Storage[]) => {
      const hash = createHash('sha256');
      for (const { buffer, offset, size } of segments) hash.update(new Uint8Array(await this.device.read(buffer, offset, size)));
      return hash.digest('hex');
    };
    return {
      parameters: await digest(store.parameterArena.segments), statistics: await digest(store.statisticArena.segments),
      momentum: await digest(sgd.buffer?.segments ?? []),
    };
  }

  release(): void {
    this.plans.store.release();
    this.memory.release();
  }
}

/** One quantity beside its reference: how far we are, and how far PyTorch's float32 is. */
export interface Figure {
  readonly name: string;
  readonly distance: number;
  readonly reference: { readonly float32Distance: number };
}

export const tensorFigure = (name: string, got: ArrayLike<number>, reference: Reference): Figure =>
  ({ name, reference, distance: distance(got, reference.data) });

/** One figure a reference, each tensor by its name. */
export function tensorFigures(prefix: string, got: ReadonlyMap<string, ArrayLike<number>>, want: ReadonlyMap<string, Reference>): Figure[] {
  return [...want].map(([name, reference]) => tensorFigure(`${prefix}/${name}`, got.get(name)!, reference));
}

export const scalarFigure = (name: string, got: number, reference: ScalarReference): Figure =>
  ({ name, reference, distance: distance([got], [reference.value]) });

export const scalarFigures = (prefix: string, got: readonly number[], want: readonly ScalarReference[]): Figure[] =>
  want.map((reference, i) => scalarFigure(`${prefix}/${i}`, got[i], reference));

/** Our distance as a multiple of what PyTorch's own float32 counts as: at most 5. */
export const ratioOf = ({ distance: ours, reference }: Figure): number => (5 * ours) / parityBound(reference);

/** `gradient/conv1.weight 1.3e-6, 0.80 × PyTorch float32's` */
const spoken = (figure: Figure): string =>
  `${figure.name} ${figure.distance.toExponential(1)}, ${ratioOf(figure).toFixed(2)} × PyTorch float32's`;

/** Prints the worst figure; fails with every figure that is out of bounds. */
export function expectParity(title: string, figures: readonly Figure[]): void {
  const worst = figures.reduce((a, b) => (ratioOf(b) <= ratioOf(a) ? a : b));
  console.log(`  ${title}: worst of ${figures.length}: ${spoken(worst)}`);
  expect(figures.filter((figure) => !(figure.distance <= parityBound(figure.reference))).map(spoken)).toEqual([]);
}

type Use = (run: GoldenRun) => Promise<void>;

/** Makes a run, uses it, frees it. */
export async function withRun(device: Device, golden: Golden, options: GoldenRunOptions, use: Use): Promise<void> {
  const run = await GoldenRun.create(device, golden, options);
  try {
    await use(run);
  } finally {
    run.release();
  }
}
