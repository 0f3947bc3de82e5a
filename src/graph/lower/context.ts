/** What lowering works with: tensors, scratch memory and storage stand for buffers until a plan places them. */
import { launch, type Kernel, type Launch, type LaunchArgs } from '../../kernels/contract.ts';
import type { Tile } from '../../kernels/igemm.ts';
import type { OpName } from '../ops.ts';
import type { Node, Storage, Tensor } from '../tensor.ts';
import type { ConvChoice, ConvProblem } from './convProblem.ts';

/** Memory that lives only between the launches of one node. */
export class Scratch {
  constructor(readonly sizeBytes: number) {}
}

export type Ref = Tensor | Scratch | Storage;

export interface LowerContext {
  /** Workgroups that fill the adapter: K is split to reach it. */
  readonly wantedWorkgroups: number;
  /** Tiles to choose from on this adapter. */
  readonly tiles: readonly Tile[];
  /** Subgroup size of an adapter that is served better by lanes than by tiles (a software one). @default tiles */
  readonly lanes?: number;
  /**
   * Trials that an event has in all its passes: K is split as for a pass of them all, so that the losses have the same bits however the trials
   * are cut into passes. @default those of the tensor at hand
   */
  readonly trials?: number;
  /** Picks one of the ways to compute a convolution. Must go by what is the same for all passes of an event. @default the first */
  readonly choose?: (problem: ConvProblem, choices: readonly ConvChoice[]) => ConvChoice;
}

/** Whether anything reads a tensor: an output that nobody wants need not be written. */
export type IsWanted = (tensor: Tensor) => boolean;

export type LowerRule<O extends OpName> = (node: Node<O>, context: LowerContext, isWanted: IsWanted) => Launch<Ref>[];

/** vec4s between the trial blocks of an operand; 0 when all trials share it. */
export const trialStride = (tensor: Tensor, block: number): number => (tensor.trials > 1 ? block : 0);

/** `launch` for lowering rules: what is bound are tensors, scratch memory and storage. */
export function emit<B extends string, U extends string>(
  kernel: Kernel<B, U>,
  args: LaunchArgs<Ref, NoInfer<B>, NoInfer<U>>,
): Launch<Ref> {
  return launch<Ref, B, U>(kernel, args);
}
