/** Training by the ALR technique: the branches of `AlrTree` side by side, an epoch each, then the best go on. */
import { EpochSampler } from '../data/batches.ts';
import { defaultDevice, type Device } from '../gpu/device.ts';
import { AttrError } from '../gpu/errors.ts';
import { Control } from '../graph/control.ts';
import { Memory, type MemoryReport } from '../graph/memory.ts';
import { modelParts, type ModelPart } from '../graph/modelStack.ts';
import { readStorage } from '../graph/run.ts';
import type { Variable } from '../graph/tensor.ts';
import { flagNonFiniteLoss } from '../kernels/sgd.ts';
import type { SafetensorsTensor } from '../nn/safetensors.ts';
import { AlrTree, type AlrBranch } from '../sched/index.ts';
import {
  checkAlrOptions,
  checkAlrRun,
  type AlrCallbacks,
  type AlrEpoch,
  type AlrResult,
  type AlrTrainerOptions,
} from './alrOptions.ts';
import type { AlrCheckpoint } from './checkpoint.ts';
import { evaluateTest } from './evaluationPlan.ts';
import { evaluationOrder, ImageFeed } from './feed.ts';
import { alrRecipeOf, checkAlrResume } from './resume.ts';
import { CheckpointClock } from './runLoop.ts';
import type { StackedStep } from './stackedLog.ts';
import { StackedPlans, type Group } from './stackedPlans.ts';
import type { LoggedStep } from './stepLog.ts';
import { checkModel } from './trainerParts.ts';
import { lengthOf, type Evaluation } from './trainerOptions.ts';

/** Steps the host may be ahead of the GPU. */
const stepsAhead = 2;

/** Forward passes that a step costs: one forward, two for backward. */
const forwardsPerStep = 3;

const defaultBudget = 2 ** 30;

/** A variable's values in a beam, by name. */
interface Named {
  readonly name: string;
  readonly beam: number;
  readonly part: ModelPart;
  readonly index: number;
  readonly variable: Variable;
}

export class AlrTrainer {
  readonly totalSteps: number;
  readonly stepsPerEpoch: number;
  #step = 0;
  #forwards = 0;
  #branches: readonly AlrBranch[] = [];
  /** Of the epoch in progress, step by step, what has been read. */
  #logged: StackedStep[][] = [];
  /** Where the epoch in progress began; null between epochs. */
  #begun: { readonly step: number; readonly forwards: number } | null = null;
  readonly #pending: Promise<void>[] = [];

  private constructor(
    readonly device: Device,
    readonly options: AlrTrainerOptions,
    readonly tree: AlrTree,
    readonly plans: StackedPlans,
    readonly sampler: EpochSampler,
    readonly train: ImageFeed,
    readonly test: ImageFeed,
  ) {
    const { stepsPerEpoch, totalSteps } = lengthOf(options);
    this.stepsPerEpoch = stepsPerEpoch;
    this.totalSteps = totalSteps;
  }

  /**
   * Uploads the data, compiles the kernels and makes every buffer and bind group that the run needs.
   * @throws AttrError for options out of range, a model on a device already, a checkpoint of another run; DeviceError without an adapter
   */
  static async create(options: AlrTrainerOptions): Promise<AlrTrainer> {
    checkAlrOptions(options);
    const { model, dataset, lr, beam, factors, optimizer, labelSmoothing, onCompile } = options;
    const { batchSize = 32, shuffle = true, seed = 0, augment = 'none', memoryBudget = defaultBudget } = options;
    const tree = new AlrTree({ lr, beam, factors });
    if (options.resume) checkAlrResume(options, options.resume.state);
    const device = options.device ?? (await defaultDevice());
    const memory = new Memory(device);
    try {
      const control = new Control(memory);
      control.write({ seed });
      const sampler = new EpochSampler({ count: dataset.train.count, batchSize, shuffle, seed });
      const { mean, std } = dataset;
      const train = new ImageFeed(memory, dataset.train, control, { mean, std, capacity: dataset.train.count });
      const order = evaluationOrder(dataset.test.count, batchSize);
      const test = new ImageFeed(memory, dataset.test, control, { mean, std, capacity: order.length });
      const batch = train.batch(batchSize, 'cursor', 'counter', augment === 'crop-flip');
      checkModel(model, batch, dataset);
      const evaluation = test.batch(batchSize, 'cursor', 'counter', false);
      const plans = await StackedPlans.create(memory, control, {
        model, batch, evaluation, models: tree.branchesPerEpoch, beams: tree.beam, optimizer, labelSmoothing, memoryBudget, onCompile,
      });
      test.writeOrder(order);
      const trainer = new AlrTrainer(device, options, tree, plans, sampler, train, test);
      if (options.resume) trainer.#restore(options.resume);
      return trainer;
    } catch (error) {
      // A model that another trainer holds stays with it.
      for (const variable of model.variables()) if (variable.storage && memory.owns(variable.storage.buffer)) variable.storage = null;
      memory.release();
      throw error;
    }
  }

  /** Steps made so far, by each of the branches that were alive then. */
  get step(): number {
    return this.#step;
  }

  /** Cost so far in forward passes of a batch. */
  get forwards(): number {
    return this.#forwards;
  }

  /** GPU bytes by category: the sum of all live buffers of this trainer. */
  get memory(): MemoryReport {
    return this.plans.memory.report();
  }

  /** Dispatches of a step of all branches. */
  get dispatchesPerStep(): number {
    return this.plans.steps.reduce((sum, { dispatches }) => sum + dispatches, 0);
  }

  /** Whether the run stands between two epochs. */
  get isAtBoundary(): boolean {
    return this.#begun === null;
  }

  #copies(record: (encoder: GPUCommandEncoder) => void): void {
    const encoder = this.device.gpu.createCommandEncoder({ label: 'branches' });
    record(encoder);
    this.device.gpu.queue.submit([encoder.finish()]);
  }

  #groupOf(branch: number): Group {
    return this.plans.groups.find(({ first, models }) => branch < first + models)!;
  }

  /** Rates of the branches; models that are none stand still. */
  #writeSettings(isFirst: boolean): void {
    const { settings } = this.plans;
    const values = new Float32Array(4 * this.tree.branchesPerEpoch);
    this.#branches.forEach(({ lr }, i) => values.set([lr, Number(isFirst)], 4 * i));
    this.device.gpu.queue.writeBuffer(settings.buffer, settings.offset, values);
  }

  #beginEpoch(): void {
    const { plans, tree, device, sampler } = this;
    this.#branches = tree.branches();
    this.#logged = [];
    this.#begun = { step: this.#step, forwards: this.#forwards };
    this.train.writeOrder(sampler.epochOrder(Math.floor(this.#step / this.stepsPerEpoch)));
    const idle = Uint32Array.from({ length: tree.branchesPerEpoch }, (_, i) => (i < this.#branches.length ? 0 : flagNonFiniteLoss));
    device.gpu.queue.writeBuffer(plans.flags.buffer, plans.flags.offset, idle);
    this.#writeSettings(tree.isRoot);
    this.#copies((encoder) => {
      this.#branches.forEach(({ beam }, i) => {
        const { stack, first } = this.#groupOf(i);
        stack.copyFrom(encoder, plans.beams, beam, i - first);
      });
    });
  }

  /**
   * One step of all branches, in one submit, after an epoch is begun where one is due. Nothing is read back but the log when it is full.
   * Resolves once the GPU has done the step before the last one.
   * @throws AttrError where the epoch is over and was not ended
   */
  async trainStep(): Promise<void> {
    const { plans, device, sampler } = this;
    device.check();
    if (this.#begun === null) this.#beginEpoch();
    else if (this.#step > this.#begun.step && this.#step % this.stepsPerEpoch === 0) {
      const [rule, got] = ['must not go beyond the epoch', `step ${this.#step} of one that began at ${this.#begun.step}`];
      throw new AttrError({ op: 'AlrTrainer', arg: 'trainStep', rule, got, fix: 'call endEpoch() first' });
    }
    if (plans.log.isFull) await this.#readLog();
    const step = this.#step;
    const cursor = (step % this.stepsPerEpoch) * sampler.batchSize;
    plans.control.write({ cursor, counter: step * sampler.batchSize, slot: plans.log.note() });
    const encoder = device.gpu.createCommandEncoder({ label: 'step' });
    const pass = encoder.beginComputePass({ label: 'step' });
    // A group without a branch has nothing to do.
    plans.groups.forEach(({ first }, i) => {
      if (first < this.#branches.length) plans.steps[i].encode(pass);
    });
    pass.end();
    device.gpu.queue.submit([encoder.finish()]);
    if (step === this.#begun?.step && this.tree.isRoot) this.#writeSettings(false);
    this.#step++;
    this.#forwards += forwardsPerStep * this.#branches.length;
    if (this.#pending.length >= stepsAhead) await this.#pending.shift();
    this.#pending.push(device.wait(device.gpu.queue.onSubmittedWorkDone()).then(() => undefined));
  }

  async #readLog(): Promise<void> {
    this.#logged.push(...(await this.plans.log.read()));
  }

  /** The losses of all branches in the last step. Waits for the GPU. */
  async losses(): Promise<number[]> {
    await this.#readLog();
    const last = this.#logged.at(-1) ?? [];
    return this.#branches.map((_, i) => (last[i].flags === 0 ? last[i].loss : NaN));
  }

  /**
   * Ends the epoch in progress, by what it had: the branches of the least mean loss are the next beams. Waits for the GPU.
   * @returns what came of it, and the steps of the branch that is the best
   * @throws AttrError where no step was made in it
   */
  async endEpoch(): Promise<{ event: AlrEpoch; steps: LoggedStep[] }> {
    const { plans, tree } = this;
    if (this.#begun === null) {
      const [rule, got] = ['must follow a step', 'none in this epoch'];
      throw new AttrError({ op: 'AlrTrainer', arg: 'endEpoch', rule, got, fix: 'call trainStep() first' });
    }
    await this.#readLog();
    const logged = this.#logged;
    const lossOf = (branch: number): number => {
      if (logged.some((models) => models[branch].flags !== 0)) return Infinity;
      return logged.reduce((sum, models) => sum + models[branch].loss, 0) / logged.length;
    };
    const event = tree.next(this.#branches.map((_, i) => lossOf(i)));
    this.#copies((encoder) => {
      event.kept.forEach((branch, beam) => {
        const { stack, first } = this.#groupOf(branch);
        plans.beams.copyFrom(encoder, stack, branch - first, beam);
      });
    });
    const [best] = event.kept;
    const begun = this.#begun.step;
    const stepOf = (models: StackedStep[], i: number) => ({ step: begun + i, loss: models[best].loss, lr: event.candidates[best].lr });
    const steps = best === undefined ? [] : logged.map(stepOf);
    this.#begun = null;
    return { event: { ...event, step: this.#step, forwards: this.#forwards }, steps };
  }

  /** Mean loss and accuracy of the best beam over the test images, in inference mode: as the last epoch that has ended left it. */
  async evaluate(): Promise<Evaluation> {
    const { plans: { control, totals, evaluation: plan }, device, sampler: { batchSize } } = this;
    const measured = await evaluateTest({ device, control, plan, totals, count: this.test.set.count, batchSize });
    return { step: this.#step, ...measured };
  }

  /** Trains to the end of the run, or until the signal says stop. */
  async run(callbacks: AlrCallbacks = {}): Promise<AlrResult> {
    checkAlrRun(callbacks);
    const { onSteps, onEvent, onEvaluation, onProgress, onCheckpoint, checkpointEvery, logEvery = 10, evaluate = true, signal } = callbacks;
    let evaluation: Evaluation | null = null;
    const clock = new CheckpointClock(checkpointEvery ?? { epochs: 1 }, this.stepsPerEpoch);
    let kept = this.#step;
    const keep = async (): Promise<void> => {
      const checkpoint = await this.checkpoint();
      if (checkpoint.state.step === kept) return;
      await onCheckpoint!(checkpoint);
      kept = checkpoint.state.step;
      clock.made();
    };
    while (this.#step < this.totalSteps && !signal?.aborted) {
      await this.trainStep();
      if (onProgress && this.#step % logEvery === 0) onProgress({ step: this.#step - 1, losses: await this.losses() });
      const isEnd = this.#step === this.totalSteps || signal?.aborted;
      const isWhole = this.#step % this.stepsPerEpoch === 0;
      if (!isEnd && !isWhole) continue;
      // Its beginning is what can be gone on from, and all before that has been told.
      if (!isWhole && onCheckpoint) await keep();
      const { event, steps } = await this.endEpoch();
      if (steps.length > 0) onSteps?.(steps);
      onEvent?.(event);
      if (evaluate) {
        evaluation = await this.evaluate();
        onEvaluation?.(evaluation);
      }
      if (isWhole && onCheckpoint && clock.isDue(this.#step)) await keep();
    }
    if (onCheckpoint && this.#step % this.stepsPerEpoch === 0) await keep();
    return { steps: this.#step, forwards: this.#forwards, aborted: signal?.aborted ?? false, evaluation };
  }

  #named(): Named[] {
    const { beams } = this.plans;
    return this.tree.rates.flatMap((_, beam) =>
      modelParts.flatMap((part) =>
        beams.variables[part].map((variable, index) => ({ name: `${beam}.${part}.${variable.name}`, beam, part, index, variable })),
      ),
    );
  }

  /**
   * All that another trainer of the same options needs to go on, by `resume`, as if there had been no break, bit for bit: from between two
   * epochs, within an epoch from where that began.
   * @throws AttrError after an epoch that was cut short
   */
  async checkpoint(): Promise<AlrCheckpoint> {
    const { device, tree, options } = this;
    // The beams and the tree are those of the last end of an epoch until the next.
    const { step, forwards } = this.#begun ?? { step: this.#step, forwards: this.#forwards };
    if (step % this.stepsPerEpoch !== 0) {
      const fix = 'take it before endEpoch()';
      throw new AttrError({ op: 'AlrTrainer', arg: 'checkpoint', rule: 'must not follow an epoch that was cut short', got: `step ${step}`, fix });
    }
    const tensors = new Map<string, SafetensorsTensor>();
    for (const { name, part, index, beam, variable } of this.#named()) {
      const data = (await readStorage(device, variable, this.plans.beams.at(part, index, beam))) as Float32Array;
      tensors.set(name, { dtype: 'F32', shape: [...variable.shape], data });
    }
    const adapter = device.adapter.description || device.adapter.device;
    const state = { kind: 'alr', step, forwards, tree: tree.state(), adapter, recipe: alrRecipeOf(options) } as const;
    return { state, tensors };
  }

  /** @throws AttrError where a tensor is missing or of another size */
  #restore({ state, tensors }: AlrCheckpoint): void {
    this.tree.load(state.tree);
    this.#step = state.step;
    this.#forwards = state.forwards;
    for (const { name, part, index, beam, variable } of this.#named()) {
      const values = tensors.get(name)?.data as Float32Array | undefined;
      if (values?.length !== variable.data.length) {
        const got = values ? `${values.length} values` : 'none';
        const rule = `must hold ${variable.data.length} values`;
        throw new AttrError({ op: 'AlrTrainer', arg: `resume: ${name}`, rule, got, fix: 'use the options of the run' });
      }
      this.plans.beams.write(part, index, beam, values);
    }
  }

  /** Brings the best beam's weights back to the host model and frees everything on the GPU. */
  async close(): Promise<void> {
    await Promise.allSettled(this.#pending);
    const variables = this.options.model.variables();
    try {
      for (const variable of variables) variable.data = (await readStorage(this.device, variable, variable.storage!)) as Float32Array;
    } finally {
      for (const variable of variables) variable.storage = null;
      this.plans.memory.release();
    }
  }
}
