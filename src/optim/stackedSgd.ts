/** SGD of several models side by side, each with a learning rate and divergence flags of its own; `sgd.ts` has that of one. */
import { emit, type Ref } from '../graph/lower/context.ts';
import type { Arena } from '../graph/memory.ts';
import type { ModelStack } from '../graph/modelStack.ts';
import type { Storage } from '../graph/tensor.ts';
import { grid1d, type Launch } from '../kernels/contract.ts';
import { sgdCheckStacked, sgdStepStacked } from '../kernels/sgdStacked.ts';
import type { SgdOptions } from './sgd.ts';

export interface StackedSgdMemory {
  readonly stack: ModelStack;
  /** Laid out as the stack's parameters. */
  readonly gradients: Arena;
  /** Of each segment of the parameters. */
  readonly owners: readonly Storage[];
  /** f32 (learning rate, 1 before the first step, 0, 0) of each model. */
  readonly settings: Storage;
  /** u32 of each model. */
  readonly flags: Storage;
  /** Number of the stack's first model in settings and flags. */
  readonly first: number;
}

/**
 * Of every model w ← w − lr·direction, the direction as PyTorch's `optim.SGD` makes it; where a gradient or a weight to be is not finite
 * the model's flag is set. Models with a flag stay as they are, momentum too.
 */
export function stackedSgd(memory: StackedSgdMemory, options: Required<SgdOptions>): Launch<Ref>[] {
  const { stack, gradients, owners, settings, flags, first } = memory;
  const { momentum, dampening, weightDecay, nesterov } = options;
  const hasMomentum = momentum > 0;
  const of = (kernel: typeof sgdCheckStacked): Launch<Ref>[] =>
    gradients.segments.map((gradient, i) => {
      const n = gradient.size / 16;
      const buffer: Record<string, Ref> = hasMomentum ? { buffer: stack.arenas.momentum!.segments[i] } : {};
      return emit(kernel(hasMomentum), {
        bindings: { gradient, weight: stack.arenas.parameters!.segments[i], ...buffer, settings, owners: owners[i], flags },
        uniforms: { n, first_model: first, weight_decay: weightDecay, momentum, dampening, nesterov: Number(nesterov) },
        grid: grid1d(n, 64),
      });
    });
  return [...of(sgdCheckStacked), ...of(sgdStepStacked)];
}
