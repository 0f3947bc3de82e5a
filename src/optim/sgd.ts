/** SGD, in two halves so that trials can look along the direction before the step is made: first the direction, then the step. */
import { AttrError } from '../gpu/errors.ts';
import type { Word } from '../graph/control.ts';
import { emit, type Ref } from '../graph/lower/context.ts';
import { Arena, type Memory } from '../graph/memory.ts';
import { externalTensor, externalWords, op } from '../graph/ops.ts';
import { sizeBytes, type Storage, type Tensor } from '../graph/tensor.ts';
import type { VariableStore } from '../graph/variables.ts';
import { grid1d, type Launch } from '../kernels/contract.ts';
import {
  sgdCheck,
  sgdDecay,
  sgdDecayTried,
  sgdDirectionInPlace,
  sgdMomentum,
  sgdMomentumTried,
  sgdStep,
  sgdStepKeeping,
} from '../kernels/sgd.ts';

/** PyTorch's `optim.SGD`, but for the learning rate, which a schedule sets. */
export interface SgdOptions {
  /** In [0, 1). @default 0 */
  readonly momentum?: number;
  /** @default 0 */
  readonly dampening?: number;
  /** λ in g + λ·w, on every parameter, ≥ 0. @default 0 */
  readonly weightDecay?: number;
  /** Needs momentum, and dampening 0. @default false */
  readonly nesterov?: boolean;
}

/** @throws AttrError for the first option that is wrong */
export function resolveSgdOptions(options: SgdOptions = {}): Required<SgdOptions> {
  const resolved = { momentum: 0, dampening: 0, weightDecay: 0, nesterov: false, ...options };
  const known = ['momentum', 'dampening', 'weightDecay', 'nesterov'];
  const unknown = Object.keys(resolved).find((name) => !known.includes(name));
  if (unknown)
    throw new AttrError({
      op: 'sgd',
      arg: unknown,
      rule: 'must be an option',
      got: unknown,
      fix: `options are ${known.join(', ')}; a schedule sets the learning rate`,
    });
  const { momentum, dampening, weightDecay, nesterov } = resolved;
  if (!(momentum >= 0 && momentum < 1))
    throw new AttrError({ op: 'sgd', arg: 'momentum', rule: 'must be in [0, 1)', got: momentum, fix: '0.9 is usual' });
  if (!Number.isFinite(dampening))
    throw new AttrError({ op: 'sgd', arg: 'dampening', rule: 'must be finite', got: dampening, fix: '0 is usual' });
  if (!(weightDecay >= 0 && Number.isFinite(weightDecay)))
    throw new AttrError({ op: 'sgd', arg: 'weightDecay', rule: 'must be ≥ 0', got: weightDecay, fix: '5e-4 is usual' });
  if (typeof nesterov !== 'boolean')
    throw new AttrError({ op: 'sgd', arg: 'nesterov', rule: 'must be true or false', got: nesterov, fix: 'pass a boolean' });
  if (nesterov && (momentum === 0 || dampening !== 0)) {
    throw new AttrError({
      op: 'sgd',
      arg: 'nesterov',
      rule: 'must go with momentum > 0 and dampening 0',
      got: `momentum ${momentum}, dampening ${dampening}`,
      fix: 'as in PyTorch',
    });
  }
  return resolved;
}

/** What a step is made with. */
export interface StepPoint {
  readonly lr: number;
  readonly momentum: number;
  readonly weightDecay: number;
  /** The optimizer's first. */
  readonly isFirst: boolean;
}

/**
 * The whole step as a move of the weights, before the direction is made: w ← w + decay·w + ofBuffer·b + ofGradient·∇L, b the momentum
 * buffer as the step before has left it. So steps with other momenta and weight decays are trials along b and ∇L with scaled weights.
 */
export function stepAsMove(
  { momentum: own, dampening, nesterov }: Required<SgdOptions>,
  { lr, momentum, weightDecay, isFirst }: StepPoint,
) {
  const ofGradient = nesterov ? 1 + momentum : isFirst || own === 0 ? 1 : 1 - dampening;
  const ofBuffer = isFirst ? 0 : nesterov ? momentum * momentum : momentum;
  return { decay: -lr * ofGradient * weightDecay, ofBuffer: -lr * ofBuffer, ofGradient: -lr * ofGradient };
}

/**
 * SGD over the parameters of a store.   g = ∇L + λ·w;  b ← g at first, then μ·b + (1 − dampening)·g;
 * direction = b, or g + μ·b with nesterov, or g without momentum;  w ← w − η·direction
 *
 * The direction lies where training holds memory anyway: in the momentum buffer, or in the gradient's own memory. There it is too where it
 * is `formed` in the gradient's graph: the gradient itself is then nowhere, and the buffer takes the direction over when the step is made.
 */
export class Sgd {
  readonly options: Required<SgdOptions>;
  readonly gradients: Arena;
  /** Momentum; null without. */
  readonly buffer: Arena | null;
  /** Weights of layers have their direction from the gradient's graph; see `formedDirection`. */
  readonly isFormed: boolean;
  readonly #store: VariableStore;

  /** @param wantsGradient whether anybody reads the gradients themselves, or tries other momenta */
  constructor(memory: Memory, store: VariableStore, options: SgdOptions, wantsGradient = true) {
    this.options = resolveSgdOptions(options);
    const { momentum, dampening, nesterov } = this.options;
    this.isFormed = !wantsGradient && momentum > 0 && dampening === 0 && !nesterov;
    this.#store = store;
    const arena = (category: 'gradients' | 'optimizer', label: string) =>
      new Arena(memory, category, label, store.parameters.map(sizeBytes), store.parameterOrder);
    this.gradients = arena('gradients', 'gradients');
    this.buffer = momentum > 0 ? arena('optimizer', 'momentum') : null;
  }

  /** Where the direction lies once `direction` has run. */
  get directions(): Arena {
    return this.buffer && !this.options.nesterov && !this.isFormed ? this.buffer : this.gradients;
  }

  /** Of a parameter, what its place in `gradients` is to hold: its gradient, or the direction made of it. */
  formedDirection(index: number, gradient: Tensor, first: Word): Tensor {
    if (!this.#isFormedOf(index)) return gradient;
    const { momentum, weightDecay } = this.options;
    const weight = this.#store.parameters[index];
    const inputs = [gradient, weight, externalTensor(this.buffer!.at(index), weight), externalWords(first.storage)];
    return op('sgdDirection', inputs, { momentum, weightDecay, firstWord: first.word })[0];
  }

  /** Vectors are so short that one launch for all of them costs less than work in many. */
  #isFormedOf(index: number): boolean {
    return this.isFormed && this.#store.parameters[index].shape.length > 1;
  }

  /**
   * Launches that turn gradients into the direction; none for plain SGD. `first` is 1 on the first step. Where momentum and weight decay are
   * tried, they are read from `tried`[2] and [3].
   */
  direction(first: Word, flags: Storage, tried: Storage | null = null): Launch<Ref>[] {
    const { momentum, dampening, weightDecay, nesterov } = this.options;
    if (this.isFormed) return this.#restOfDirection(first);
    return this.gradients.segments.flatMap((gradient, i) => {
      const n = gradient.size / 16;
      const grid = grid1d(n, 64);
      const weight = this.#store.parameterArena.segments[i];
      if (this.buffer) {
        const bindings = { weight, control: first.storage, flags, gradient, buffer: this.buffer.segments[i] };
        const uniforms = { n, dampening, nesterov: Number(nesterov), first_word: first.word };
        if (tried) return [emit(sgdMomentumTried, { bindings: { ...bindings, rates: tried }, uniforms, grid })];
        return [emit(sgdMomentum, { bindings, uniforms: { ...uniforms, momentum, weight_decay: weightDecay }, grid })];
      }
      if (tried) return [emit(sgdDecayTried, { bindings: { weight, flags, rates: tried, gradient }, uniforms: { n }, grid })];
      if (weightDecay === 0) return [];
      return [emit(sgdDecay, { bindings: { weight, flags, gradient }, uniforms: { n, weight_decay: weightDecay }, grid })];
    });
  }

  /** The direction of what the gradient's graph leaves. */
  #restOfDirection(first: Word): Launch<Ref>[] {
    const { momentum, weightDecay } = this.options;
    const rest = [...this.#store.parameters.keys()].filter((index) => !this.#isFormedOf(index));
    const [gradients, weights, buffers] = [this.gradients, this.#store.parameterArena, this.buffer!].map((arena) => arena.runs(rest));
    return gradients.map((gradient, i) => {
      const n = gradient.size / 16;
      const uniforms = { n, momentum, weight_decay: weightDecay, first_word: first.word };
      const bindings = { weight: weights[i], buffer: buffers[i], control: first.storage, gradient };
      return emit(sgdDirectionInPlace, { bindings, uniforms, grid: grid1d(n, 64) });
    });
  }

  /** w ← w − rates[0] · direction; where that would not be finite for some weight, a flag is set and all stay. */
  step(rates: Storage, flags: Storage): Launch<Ref>[] {
    const launches = this.directions.segments.map((direction, i) => {
      const bindings = { direction, rates, weight: this.#store.parameterArena.segments[i], flags };
      const n = direction.size / 16;
      const sizes = { uniforms: { n }, grid: grid1d(n, 64) };
      const step = this.isFormed
        ? emit(sgdStepKeeping, { bindings: { ...bindings, buffer: this.buffer!.segments[i] }, ...sizes })
        : emit(sgdStep, { bindings, ...sizes });
      return { check: emit(sgdCheck, { bindings, ...sizes }), step };
    });
    return [...launches.map(({ check }) => check), ...launches.map(({ step }) => step)];
  }
}
