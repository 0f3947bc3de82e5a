/**
 * The ways to find the losses of N trials W − η_t·D, each as good as the same kernels allow: plans are prebuilt, lie in the slots that
 * training holds anyway, and an event of any of them is one compute pass and one submit.
 */
import { crossEntropy, mean } from '../../src/graph/functional.ts';
import { fuse } from '../../src/graph/fuse/index.ts';
import { emit, type Ref } from '../../src/graph/lower/context.ts';
import { Arena, bindingAlignment, type Memory } from '../../src/graph/memory.ts';
import { externalTensor } from '../../src/graph/ops.ts';
import { draft, type Draft, type Plan } from '../../src/graph/plan.ts';
import { sizeBytes, type Node, type Storage, type Tensor, type Variable } from '../../src/graph/tensor.ts';
import { topologicalOrder, withInputs } from '../../src/graph/traverse.ts';
import { grid1d, type Launch } from '../../src/kernels/contract.ts';
import { copyKernel, perturb } from '../../src/kernels/elementwise.ts';
import { sgdStep } from '../../src/kernels/sgd.ts';
import { trainingContext } from '../../src/nn/module.ts';
import type { ResNet } from '../../src/nn/resnet.ts';
import type { ImageFeed } from '../../src/train/feed.ts';
import type { Batch, StepPlans } from '../../src/train/stepPlans.ts';
import { stackParameters } from './stack.ts';

export const methodNames = ['fused', 'forward', 'inPlace', 'copies', 'stacked', 'asPrinted'] as const;
export type MethodName = (typeof methodNames)[number];

/** What a method is built from. */
export interface Parts {
  readonly memory: Memory;
  readonly model: ResNet;
  readonly plans: StepPlans;
  readonly input: Batch;
  readonly feed: ImageFeed | null;
  /** Learning rates of the trials. */
  readonly rates: readonly number[];
}

/** A method's own plans, in what order an event runs them and the trainer's, and where it leaves each trial's loss. */
export interface Method {
  readonly drafts: readonly Draft[];
  event(built: readonly Plan[]): readonly Plan[];
  /** None where the losses are not those of the trials. */
  losses(): readonly Storage[];
}

const scalarBytes = 16;

/** One scalar a trial, each where a binding may begin. */
class Scalars {
  readonly #storage: Storage;

  constructor(
    memory: Memory,
    label: string,
    readonly count: number,
  ) {
    this.#storage = memory.storage('trials', label, (count - 1) * bindingAlignment + scalarBytes);
  }

  at(i: number): Storage {
    return { buffer: this.#storage.buffer, offset: i * bindingAlignment, size: scalarBytes };
  }

  get all(): Storage[] {
    return Array.from({ length: this.count }, (_, i) => this.at(i));
  }
}

const writeFloats = ({ device }: Memory, { buffer, offset }: Storage, numbers: readonly number[]): void =>
  device.gpu.queue.writeBuffer(buffer, offset, Float32Array.from(numbers));

/** The graph with other tensors in the place of its parameters; where these have a trial axis, all that depends on them gets one. */
function withWeights(loss: Tensor, weights: ReadonlyMap<Variable, Tensor>): Tensor {
  const rebuilt = new Map<Node, readonly Tensor[]>();
  for (const node of topologicalOrder([loss])) {
    const weight = node.op === 'variable' ? weights.get(node.outputs[0] as Variable) : undefined;
    rebuilt.set(
      node,
      weight
        ? [weight]
        : withInputs(
            node,
            node.inputs.map((input) => rebuilt.get(input.node)![input.output]),
          ),
    );
  }
  return rebuilt.get(loss.node)![loss.output];
}

const lossOf = (model: ResNet, { x, labels }: Batch): Tensor => mean(crossEntropy(model.forward(x, trainingContext()), labels));

function draftLoss(memory: Memory, loss: Tensor, storage: Storage): Draft {
  return draft(
    memory,
    'forward',
    fuse([loss]).map((tensor) => ({ tensor, storage })),
  );
}

const launches = (memory: Memory, label: string, all: readonly Launch<Ref>[]): Draft => draft(memory, label, [], all);

const copy = (x: Storage, y: Storage): Launch<Ref> =>
  emit(copyKernel, { bindings: { x, y }, uniforms: { n: x.size / 16 }, grid: grid1d(x.size / 16, 64) });

/** w ← w − rate·D over all parameters. */
const step = ({ sgd, flags }: StepPlans, weights: Arena, rates: Storage): Launch<Ref>[] =>
  weights.segments.map((weight, i) =>
    emit(sgdStep, {
      bindings: { direction: sgd.gradients.segments[i], rates, flags, weight },
      uniforms: { n: weight.size / 16 },
      grid: grid1d(weight.size / 16, 64),
    }),
  );

/** Memory for one more set of parameters, and the forward pass that reads it. */
function copyOfParameters({ memory, model, plans, input }: Parts, loss: Storage): { weights: Arena; forward: Draft } {
  const { parameters, parameterOrder } = plans.store;
  const weights = new Arena(memory, 'trials', 'copy of the parameters', parameters.map(sizeBytes), parameterOrder);
  const places = new Map(parameters.map((variable, i) => [variable, externalTensor(weights.at(i), variable)]));
  return { weights, forward: draftLoss(memory, withWeights(lossOf(model, input), places), loss) };
}

/** The trainer's own event. */
function fused({ memory, plans, rates }: Parts): Method {
  return {
    drafts: [],
    event: () => {
      writeFloats(
        memory,
        plans.trials!.coefficients,
        rates.map((rate) => -rate),
      );
      return [plans.event!];
    },
    losses: () => {
      const { buffer, offset } = plans.trials!.losses;
      return rates.map((_, i) => ({ buffer, offset: offset + i * 4, size: 4 }));
    },
  };
}

/** One plain forward pass of N·B images, batch norm's statistics over all of them: the ceiling. */
function forward({ memory, model, feed, input, rates }: Parts): Method {
  const loss = memory.storage('trials', 'loss', scalarBytes);
  const wide = feed!.batch(input.x.shape[0] * rates.length, 'cursor', 'counter', false);
  return { drafts: [draftLoss(memory, lossOf(model, wide), loss)], event: (built) => built, losses: () => [] };
}

/** MeZO's way, and no step back between two trials: W − η_1·D, then on to W − η_2·D, …, and back to W at last. */
function inPlace(parts: Parts): Method {
  const { memory, model, plans, input, rates } = parts;
  const loss = memory.storage('trials', 'loss', scalarBytes);
  const losses = new Scalars(memory, 'trial losses', rates.length);
  const moves = new Scalars(memory, 'moves', rates.length + 1);
  [...rates, 0].forEach((rate, i) => writeFloats(memory, moves.at(i), [rate - (rates[i - 1] ?? 0)]));
  const move = (i: number): Launch<Ref>[] => step(plans, plans.store.parameterArena, moves.at(i));
  const keep = rates.map((_, i) => launches(memory, 'move', [copy(loss, losses.at(i)), ...move(i + 1)]));
  return {
    drafts: [draftLoss(memory, lossOf(model, input), loss), launches(memory, 'move', move(0)), ...keep],
    event: ([pass, first, ...after]) => [first, ...after.flatMap((one) => [pass, one])],
    losses: () => losses.all,
  };
}

/** The paper's way without its redundant backward: each trial's weights in one more set of parameters, then a forward pass. */
function copies(parts: Parts): Method {
  const { memory, plans, rates } = parts;
  const loss = memory.storage('trials', 'loss', scalarBytes);
  const losses = new Scalars(memory, 'trial losses', rates.length);
  const coefficients = new Scalars(memory, 'trial coefficients', rates.length);
  rates.forEach((rate, i) => writeFloats(memory, coefficients.at(i), [-rate]));
  const { weights, forward: pass } = copyOfParameters(parts, loss);
  const form = (i: number): Draft =>
    launches(
      memory,
      'form',
      weights.segments.map((y, k) =>
        emit(perturb(1), {
          bindings: {
            base: plans.store.parameterArena.segments[k],
            d0: plans.sgd.gradients.segments[k],
            coefficients: coefficients.at(i),
            y,
          },
          uniforms: { n: y.size / 16 },
          grid: grid1d(y.size / 16, 64),
        }),
      ),
    );
  const keep = (i: number): Draft => launches(memory, 'keep', [copy(loss, losses.at(i))]);
  return {
    drafts: [pass, ...rates.flatMap((_, i) => [form(i), keep(i)])],
    event: ([run, ...around]) => rates.flatMap((_, i) => [around[2 * i], run, around[2 * i + 1]]),
    losses: () => losses.all,
  };
}

/** What `vmap` does: all trials' weights written out by one launch, then one pass over all trials with weights of their own. */
function stacked({ memory, model, plans, input, rates }: Parts): Method {
  const losses = memory.storage('trials', 'trial losses', rates.length * scalarBytes);
  const coefficients = memory.storage('trials', 'trial coefficients', rates.length * 4);
  writeFloats(
    memory,
    coefficients,
    rates.map((rate) => -rate),
  );
  const { launches: form, weights } = stackParameters(memory, plans.store, plans.sgd.gradients, coefficients, rates.length);
  return {
    drafts: [launches(memory, 'form', form), draftLoss(memory, withWeights(lossOf(model, input), weights), losses)],
    event: (built) => built,
    losses: () => rates.map((_, i) => ({ buffer: losses.buffer, offset: i * scalarBytes, size: scalarBytes })),
  };
}

/** As the paper prints it: for every factor copy, forward, backward, step, forward. */
function asPrinted(parts: Parts): Method {
  const { memory, plans, rates } = parts;
  const loss = memory.storage('trials', 'loss', scalarBytes);
  const losses = new Scalars(memory, 'trial losses', rates.length);
  const each = new Scalars(memory, 'trial rates', rates.length);
  rates.forEach((rate, i) => writeFloats(memory, each.at(i), [rate]));
  const { weights, forward: pass } = copyOfParameters(parts, loss);
  const take = launches(
    memory,
    'copy',
    weights.segments.map((y, k) => copy(plans.store.parameterArena.segments[k], y)),
  );
  const around = rates.flatMap((_, i) => [
    launches(memory, 'step', step(plans, weights, each.at(i))),
    launches(memory, 'keep', [copy(loss, losses.at(i))]),
  ]);
  return {
    drafts: [pass, take, ...around],
    event: ([run, copied, ...rest]) => rates.flatMap((_, i) => [copied, plans.gradient, rest[2 * i], run, rest[2 * i + 1]]),
    losses: () => losses.all,
  };
}

export const trialMethods: Record<MethodName, (parts: Parts) => Method> = { fused, forward, inPlace, copies, stacked, asPrinted };
