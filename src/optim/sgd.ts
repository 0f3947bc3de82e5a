/** SGD, in two halves so that trials can look along the direction before the step is made: first the direction, then the step. */
import { AttrError } from '../gpu/errors.ts';
import type { Word } from '../graph/control.ts';
import { emit, type Ref } from '../graph/lower/context.ts';
import { Arena, type Memory } from '../graph/memory.ts';
import type { Storage } from '../graph/tensor.ts';
import type { VariableStore } from '../graph/variables.ts';
import { sizeBytes } from '../graph/tensor.ts';
import { grid1d, type Launch } from '../kernels/contract.ts';
import { sgdCheck, sgdDecay, sgdDecayTried, sgdDirection, sgdDirectionTried, sgdStep } from '../kernels/sgd.ts';

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
 * The direction lies where training holds memory anyway: in the momentum buffer, or in the gradient's own memory.
 */
export class Sgd {
  readonly options: Required<SgdOptions>;
  readonly gradients: Arena;
  /** Momentum; null without. */
  readonly buffer: Arena | null;
  readonly #store: VariableStore;

  constructor(memory: Memory, store: VariableStore, options: SgdOptions) {
    this.options = resolveSgdOptions(options);
    this.#store = store;
    const sizes = store.parameters.map(sizeBytes);
    this.gradients = new Arena(memory, 'gradients', 'gradients', sizes);
    this.buffer = this.options.momentum > 0 ? new Arena(memory, 'optimizer', 'momentum', sizes) : null;
  }

  /** Where the direction lies once `direction` has run. */
  get directions(): Arena {
    return this.buffer && !this.options.nesterov ? this.buffer : this.gradients;
  }

  /**
   * Launches that turn gradients into the direction; none for plain SGD. `first` is 1 on the first step. Where momentum and weight decay are
   * tried, they are read from `tried`[2] and [3].
   */
  direction(first: Word, flags: Storage, tried: Storage | null = null): Launch<Ref>[] {
    const { momentum, dampening, weightDecay, nesterov } = this.options;
    return this.gradients.segments.flatMap((gradient, i) => {
      const n = gradient.size / 16;
      const grid = grid1d(n, 64);
      const weight = this.#store.parameterArena.segments[i];
      if (this.buffer) {
        const bindings = { weight, control: first.storage, flags, gradient, buffer: this.buffer.segments[i] };
        const uniforms = { n, dampening, nesterov: Number(nesterov), first_word: first.word };
        if (tried) return [emit(sgdDirectionTried, { bindings: { ...bindings, rates: tried }, uniforms, grid })];
        return [emit(sgdDirection, { bindings, uniforms: { ...uniforms, momentum, weight_decay: weightDecay }, grid })];
      }
      if (tried) return [emit(sgdDecayTried, { bindings: { weight, flags, rates: tried, gradient }, uniforms: { n }, grid })];
      if (weightDecay === 0) return [];
      return [emit(sgdDecay, { bindings: { weight, flags, gradient }, uniforms: { n, weight_decay: weightDecay }, grid })];
    });
  }

  /** w ← w − rates[0] · direction; where that would not be finite for some weight, a flag is set and all stay. */
  step(rates: Storage, flags: Storage): Launch<Ref>[] {
    const over = (kernel: typeof sgdCheck | typeof sgdStep): Launch<Ref>[] =>
      this.directions.segments.map((direction, i) =>
        emit(kernel, {
          bindings: { direction, rates, weight: this.#store.parameterArena.segments[i], flags },
          uniforms: { n: direction.size / 16 },
          grid: grid1d(direction.size / 16, 64),
        }),
      );
    return [...over(sgdCheck), ...over(sgdStep)];
  }
}
