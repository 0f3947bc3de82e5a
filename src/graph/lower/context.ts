/** What lowering works with: tensors, scratch memory and storage stand for buffers until a plan places them. */
import { KernelError } from '../../gpu/errors.ts';
import { launch, withHalves, type Kernel, type Launch, type LaunchArgs } from '../../kernels/contract.ts';
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
  /** Tiles to choose from on this adapter by estimate. */
  readonly tiles: readonly Tile[];
  /** Tiles that may be better there, which only measuring can tell. @default none */
  readonly otherTiles?: readonly Tile[];
  /** Tiles of its matrix units, for convolutions in f16. @default none */
  readonly matrixTiles?: readonly Tile[];
  /** Subgroup size of an adapter that is served better by lanes than by tiles (a software one). @default tiles */
  readonly lanes?: number;
  /**
   * Trials that an event has in all its passes: K is split as for a pass of them all, so that the losses have the same bits however the
   * trials are cut into passes. @default those of the tensor at hand
   */
  readonly trials?: number;
  /**
   * Picks one of the ways to compute a convolution, given the launches that each comes to. Must go by the problem's name: what differs from
   * pass to pass of an event may not decide. @default the first
   */
  readonly choose?: (problem: ConvProblem, choices: readonly ConvChoice[], launches: (choice: ConvChoice) => Launch<Ref>[]) => ConvChoice;
}

/** Whether anything reads a tensor: an output that nobody wants need not be written. */
export type IsWanted = (tensor: Tensor) => boolean;

export type LowerRule<O extends OpName> = (node: Node<O>, context: LowerContext, isWanted: IsWanted) => Launch<Ref>[];

/** vec4s between the trial blocks of an operand; 0 when all trials share it. */
export const trialStride = (tensor: Tensor, block: number): number => (tensor.trials > 1 ? block : 0);

/** Bindings whose tensors are f16. @throws KernelError where the kernel would take their bits for f32 */
function halvesOf<B extends string>({ name: op, bindings: declared }: Kernel<B>, bindings: Record<B, Ref>): B[] {
  const names = Object.keys(declared) as B[];
  const halves = names.filter((name) => (bindings[name] as Partial<Tensor>).dtype === 'f16');
  const wrong = halves.find((name) => !declared[name].isFloats);
  if (wrong !== undefined) {
    const fix = 'declare the binding by readFloats or writeFloats';
    throw new KernelError({ op, arg: wrong, rule: `must be ${declared[wrong].type}`, got: String(bindings[wrong]), fix });
  }
  return halves;
}

/**
 * `launch` for lowering rules: what is bound are tensors, scratch memory and storage. The kernel's variant is the one that stores as f16 what is bound to
 * f16 tensors; scratch memory and storage hold f32.
 */
export function emit<B extends string, U extends string>(
  kernel: Kernel<B, U>,
  args: LaunchArgs<Ref, NoInfer<B>, NoInfer<U>>,
): Launch<Ref> {
  return launch<Ref, B, U>(withHalves(kernel, halvesOf(kernel, args.bindings)), args);
}
