/**
 * Training of several models side by side on the same batches: every layer is one dispatch for all models of a group, forward, backward and
 * SGD. Each model has its own weights, momentum, statistics, learning rate and divergence flags. Where all models at once would pass the
 * memory or the adapter's bindings there are several groups, whose steps run one after another in the same slots, with gradients in the
 * same memory.
 *
 * The models that a branch begins with lie apart, in `beams`; the first of them is the model that was given, and is what is evaluated.
 */
import { grad } from '../autograd/grad.ts';
import type { Control } from '../graph/control.ts';
import { crossEntropy, mean } from '../graph/functional.ts';
import { fuse } from '../graph/fuse/index.ts';
import { emit, type LowerContext, type Ref } from '../graph/lower/context.ts';
import { Arena, type Memory } from '../graph/memory.ts';
import { ModelStack, stackedTensor, uploadOwners } from '../graph/modelStack.ts';
import {
  allocateSlots,
  buildPlan,
  compileKernels,
  draft,
  lowerContextOf,
  placeDrafts,
  type Draft,
  type OnCompile,
  type Output,
  type Plan,
} from '../graph/plan.ts';
import { sizeBytes, type Storage, type Tensor, type Variable } from '../graph/tensor.ts';
import { grid1d, type Launch } from '../kernels/contract.ts';
import { flagNonFiniteStatistics } from '../kernels/sgd.ts';
import { checkFiniteStacked, checkLossStacked, mostOwners, updateRunningStacked } from '../kernels/sgdStacked.ts';
import { trainingContext, type Module, type StatisticUpdate } from '../nn/module.ts';
import { resolveSgdOptions, type SgdOptions } from '../optim/sgd.ts';
import { stackedSgd } from '../optim/stackedSgd.ts';
import { chunkTrials, largestPass } from '../trials/passes.ts';
import { stackModels } from '../trials/trials.ts';
import { draftEvaluation, evaluationGraph } from './evaluationPlan.ts';
import type { Batch } from './feed.ts';
import { StackedLog, type StackedGroup } from './stackedLog.ts';

export interface StackedPlanOptions {
  readonly model: Module;
  readonly batch: Batch;
  /** Models that are trained, and those that they may begin with. */
  readonly models: number;
  readonly beams: number;
  readonly evaluation: Batch;
  readonly optimizer?: SgdOptions;
  readonly labelSmoothing?: number;
  /** Bytes of activations and their gradients that models side by side may take; one model is always taken. */
  readonly memoryBudget: number;
  readonly onCompile?: OnCompile;
}

/** One model's graph: the loss, and what the norms say of the batch. */
interface Traced {
  readonly loss: Tensor;
  readonly updates: readonly StatisticUpdate[];
}

/** Memory of groups of one size, which take turns in it. */
interface Shared {
  readonly gradients: Arena;
  readonly batchStatistics: Arena | null;
  readonly owners: readonly Storage[];
  readonly statisticOwners: readonly Storage[];
}

export interface Group extends StackedGroup {
  readonly stack: ModelStack;
}

/** Where the outputs of a group's graph go. */
interface Destinations {
  readonly weights: ReadonlyMap<Variable, Tensor>;
  readonly loss: Storage;
  readonly gradient: (index: number) => Storage;
  readonly batchStatistic: (index: number) => Storage;
}

const scalarBytes = 16;

export class StackedPlans {
  readonly beams: ModelStack;
  readonly groups: readonly Group[];
  /** f32 (learning rate, 1 before the first step, 0, 0) of each model. */
  readonly settings: Storage;
  /** Divergence bits of each model, u32. */
  readonly flags: Storage;
  readonly totals: Storage;
  readonly log: StackedLog;
  /** A whole step of each group. */
  steps!: readonly Plan[];
  evaluation!: Plan;
  readonly #parameters: readonly Variable[];
  readonly #statistics: readonly Variable[];

  private constructor(
    readonly memory: Memory,
    readonly control: Control,
    readonly options: StackedPlanOptions,
    traced: Traced,
    readonly lowering: LowerContext,
  ) {
    const { model, models, beams, optimizer } = options;
    const variables = model.variables();
    this.#parameters = variables.filter(({ kind }) => kind === 'parameter');
    this.#statistics = variables.filter(({ kind }) => kind === 'statistic');
    const momentum = resolveSgdOptions(optimizer).momentum > 0;
    this.beams = new ModelStack(memory, variables, { label: 'beams', models: beams, momentum });
    const sizes = chunkTrials(models, this.#largestGroup(traced));
    this.groups = sizes.map((size, i) => ({
      first: sizes.slice(0, i).reduce((sum, one) => sum + one, 0),
      models: size,
      stack: new ModelStack(memory, variables, { label: `group ${i}`, models: size, momentum }),
      loss: memory.storage('slots', 'losses', size * scalarBytes),
    }));
    this.settings = memory.storage('slots', 'settings', models * 16);
    this.flags = memory.storage('slots', 'flags', models * 4);
    this.totals = memory.storage('slots', 'totals', scalarBytes);
    this.log = new StackedLog(memory, models, this.flags, this.settings);
  }

  /** @throws AttrError for a model on a device already */
  static async create(memory: Memory, control: Control, options: StackedPlanOptions): Promise<StackedPlans> {
    const { model, batch, labelSmoothing = 0 } = options;
    const training = trainingContext();
    const loss = mean(crossEntropy(model.forward(batch.x, training), batch.labels, { labelSmoothing }));
    const traced = { loss, updates: training.updates };
    // Sums are cut as for one model: each has the bits of the same training by itself, whatever is trained beside it.
    const lowering = { ...lowerContextOf(memory.device), trials: 1 };
    const plans = new StackedPlans(memory, control, options, traced, lowering);
    plans.beams.lend();
    await plans.#build(traced);
    return plans;
  }

  /** Most models of a group, by memory and bindings. */
  #largestGroup(traced: Traced): number {
    const { memory, options } = this;
    const { maxStorageBufferBindingSize, maxBufferSize } = memory.device.limits;
    const limits = { bindingBytes: Math.min(maxStorageBufferBindingSize, maxBufferSize), budgetBytes: options.memoryBudget };
    const largest = Math.max(...this.#parameters.map(sizeBytes));
    const most = Math.max(1, Math.min(options.models, mostOwners, Math.floor(limits.bindingBytes / largest)));
    // Drafts are tried with memory that stands for what a group will have.
    const labels = ['weights', 'gradients', 'statistics', 'batch statistics', 'loss'];
    const rooms = labels.map((label) => memory.device.createBuffer(label, scalarBytes, GPUBufferUsage.STORAGE));
    const storages = rooms.map((buffer): Storage => ({ buffer, offset: 0, size: buffer.size }));
    const [weights, gradients, statistics, batchStatistics, loss] = storages;
    try {
      const draftOf = (models: number): Draft => {
        const tensors = [
          ...this.#parameters.map((one) => [one, stackedTensor(weights, one, models)] as const),
          ...this.#statistics.map((one) => [one, stackedTensor(statistics, one, models)] as const),
        ];
        const to = { weights: new Map(tensors), loss, gradient: () => gradients, batchStatistic: () => batchStatistics };
        return this.#draftGraph(traced, to, []);
      };
      return largestPass(most, draftOf, limits);
    } finally {
      for (const room of rooms) memory.device.destroyBuffer(room);
    }
  }

  /** Forward and backward of a group, then `extra`. */
  #draftGraph({ loss, updates }: Traced, to: Destinations, extra: readonly Launch<Ref>[]): Draft {
    const { weights, loss: lossPlace, gradient, batchStatistic } = to;
    const batchSays = updates.flatMap(({ runningMean, runningVar, statistics }) => [
      { variable: runningMean, tensor: statistics.mean },
      { variable: runningVar, tensor: statistics.variance },
    ]);
    const [losses, ...statistics] = stackModels([loss, ...batchSays.map(({ tensor }) => tensor)], weights);
    const gradients = grad(losses, this.#parameters.map((one) => weights.get(one)!));
    const outputs: Output[] = [
      { tensor: losses, storage: lossPlace },
      // Last layers first: each weight gradient runs as soon as its dy is there, which is then free.
      ...gradients.map((tensor, i) => ({ tensor, storage: gradient(i) })).reverse(),
      ...statistics.map((tensor, i) => ({ tensor, storage: batchStatistic(this.#statistics.indexOf(batchSays[i].variable)) })),
    ];
    const fused = fuse(outputs.map(({ tensor }) => tensor));
    const placed = outputs.map(({ storage }, i) => ({ tensor: fused[i], storage }));
    return draft(this.memory, 'step', placed, extra, this.lowering);
  }

  #shared({ models, stack }: Group): Shared {
    const { memory } = this;
    const arena = (category: 'gradients' | 'statistics', label: string, variables: readonly Variable[]) =>
      new Arena(memory, category, label, variables.map((one) => models * sizeBytes(one)));
    const batchStatistics = this.#statistics.length > 0 ? arena('statistics', 'batch statistics', this.#statistics) : null;
    const owners = (part: Arena | null | undefined, label: string, items: number) =>
      part ? uploadOwners(memory, label, part, items, models) : [];
    return {
      gradients: arena('gradients', 'gradients', this.#parameters),
      batchStatistics,
      owners: owners(stack.arenas.parameters, 'parameters', this.#parameters.length),
      statisticOwners: owners(batchStatistics, 'statistics', this.#statistics.length),
    };
  }

  /** A whole step of a group. */
  #draftStep(traced: Traced, group: Group, { gradients, batchStatistics, owners, statisticOwners }: Shared): Draft {
    const { settings, flags, options, control } = this;
    const { first, models, loss, stack } = group;
    const statisticChecks = (batchStatistics?.segments ?? []).map((x, i) =>
      emit(checkFiniteStacked, {
        bindings: { x, owners: statisticOwners[i], flags },
        uniforms: { n: x.size / 16, first_model: first, bit: flagNonFiniteStatistics },
        grid: grid1d(x.size / 16, 64),
      }),
    );
    const launches = [
      emit(checkLossStacked, { bindings: { loss, flags }, uniforms: { n: models, first_model: first }, grid: [1, 1, 1] }),
      ...statisticChecks,
      ...stackedSgd({ stack, gradients, owners, settings, flags, first }, resolveSgdOptions(options.optimizer)),
      ...(batchStatistics ? this.#runningUpdates(traced.updates, group, batchStatistics, statisticOwners) : []),
      this.log.launch(group, control),
    ];
    const to: Destinations = {
      weights: stack.tensors(),
      loss,
      gradient: (i) => gradients.at(i),
      batchStatistic: (i) => batchStatistics!.at(i),
    };
    return this.#draftGraph(traced, to, launches);
  }

  /** One launch for all running statistics of a momentum that all share, else one each. */
  #runningUpdates(updates: readonly StatisticUpdate[], { first, stack }: Group, batch: Arena, owners: readonly Storage[]): Launch<Ref>[] {
    const running = stack.arenas.statistics!;
    const touched = new Set(updates.flatMap(({ runningMean, runningVar }) => [runningMean, runningVar]));
    const momenta = new Set(updates.map(({ momentum }) => momentum));
    const one = (to: Storage, from: Storage, of: Storage, momentum: number): Launch<Ref> => {
      const n = to.size / 16;
      return emit(updateRunningStacked, {
        bindings: { batch: from, owners: of, flags: this.flags, running: to },
        uniforms: { n, first_model: first, momentum },
        grid: grid1d(n, 64),
      });
    };
    if (touched.size === this.#statistics.length && momenta.size === 1)
      return running.segments.map((segment, i) => one(segment, batch.segments[i], owners[i], [...momenta][0]));
    return updates.flatMap(({ runningMean, runningVar, momentum }) =>
      [runningMean, runningVar].map((variable) => {
        const i = this.#statistics.indexOf(variable);
        const alone = uploadOwners(this.memory, variable.name, { segments: [running.at(i)], at: () => running.at(i) }, 1, stack.models);
        return one(running.at(i), batch.at(i), alone[0], momentum);
      }),
    );
  }

  async #build(traced: Traced): Promise<void> {
    const { memory, control, options, totals } = this;
    const shared = new Map<number, Shared>();
    const drafts = this.groups.map((group) => {
      const own = shared.get(group.models) ?? this.#shared(group);
      shared.set(group.models, own);
      return this.#draftStep(traced, group, own);
    });
    const evaluation = draftEvaluation(evaluationGraph(options.model, options.evaluation), {
      memory, control, totals, lowering: lowerContextOf(memory.device),
    });
    const all = [...drafts, evaluation];
    const placement = placeDrafts(memory.device, all);
    const slots = allocateSlots(memory, placement);
    await compileKernels(memory.device, all, options.onCompile);
    const built = await Promise.all(all.map((one, i) => buildPlan(memory, one, { slots, places: placement.places[i] })));
    this.steps = built.slice(0, -1);
    this.evaluation = built[built.length - 1];
  }
}
