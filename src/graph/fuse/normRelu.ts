/**
 *   normRelu          relu(batchNorm(x)), relu(batchNorm(x) + r)  →  one batchNorm that adds r and clips as it writes
 *   normReluBackward  batchNormBackward(reluBackward(dy, y), …)    →  one batchNormBackward that masks as it reads
 * Both leave every value as it is, but that in f16 what is fused is rounded once.
 */
import { op } from '../ops.ts';
import type { Node, Tensor } from '../tensor.ts';
import { rewrite, viewOf, type GraphView } from './rewrite.ts';

interface ForwardMatch {
  readonly norm: Node<'batchNorm'>;
  readonly residual: Tensor | null;
}

/** The batchNorm that `relu` can be part of, with the residual in between. */
function matchForward(relu: Node, { isSingle, dependsOn }: GraphView): ForwardMatch | null {
  const plainNorm = (tensor: Tensor): Node<'batchNorm'> | null => {
    const node = tensor.node as Node<'batchNorm'>;
    return node.op === 'batchNorm' && tensor.output === 0 && isSingle(tensor) && !node.attrs.relu && !node.attrs.residual ? node : null;
  };
  const [x] = relu.inputs;
  const direct = plainNorm(x);
  if (direct) return { norm: direct, residual: null };
  if (x.node.op !== 'add' || !isSingle(x)) return null;
  const [a, b] = x.node.inputs;
  for (const [candidate, other] of [
    [a, b],
    [b, a],
  ]) {
    const norm = plainNorm(candidate);
    // The fused kernel writes one block a trial of the statistics; a residual with more trials than them would not fit.
    if (norm && a !== b && (other.trials === 1 || other.trials === candidate.trials) && !dependsOn(other, norm))
      return { norm, residual: other };
  }
  return null;
}

export function normRelu(outputs: readonly Tensor[]): Tensor[] {
  const view = viewOf(outputs);
  const matches = new Map<Node, ForwardMatch>();
  const absorbed = new Map<Node, Node>();
  for (const node of view.order) {
    const match = node.op === 'relu' ? matchForward(node, view) : null;
    if (!match || absorbed.has(match.norm)) continue;
    matches.set(node, match);
    absorbed.set(match.norm, node);
  }
  return rewrite(outputs, view.order, (node, renew, outputsOf) => {
    const match = matches.get(node);
    if (match) return [outputsOf(match.norm)[0]];
    const relu = absorbed.get(node);
    if (!relu) return null;
    const { residual } = matches.get(relu)!;
    const inputs = [...node.inputs, ...(residual ? [residual] : [])].map(renew);
    return op('batchNorm', inputs, { ...(node as Node<'batchNorm'>).attrs, relu: true, residual: residual !== null });
  });
}

/** For each reluBackward, the batchNormBackward that can apply its mask. */
function matchBackward(mask: Node, { consumers, dependsOn }: GraphView): Node<'batchNormBackward'> | null {
  const fits = (node: Node) =>
    node.op === 'batchNormBackward' &&
    (node as Node<'batchNormBackward'>).attrs.mask === 'none' &&
    !node.inputs.slice(1).some((input) => dependsOn(input, mask));
  const user = consumers.get(mask.outputs[0])?.find(({ node, input }) => input === 0 && fits(node));
  return user ? (user.node as Node<'batchNormBackward'>) : null;
}

export function normReluBackward(outputs: readonly Tensor[]): Tensor[] {
  const view = viewOf(outputs);
  const masks = new Map<Node, Node>();
  const absorbed = new Map<Node, Node<'batchNormBackward'>>();
  for (const node of view.order) {
    const match = node.op === 'reluBackward' ? matchBackward(node, view) : null;
    if (!match) continue;
    masks.set(match, node);
    absorbed.set(node, match);
  }
  return rewrite(outputs, view.order, (node, renew, outputsOf) => {
    const mask = masks.get(node);
    if (mask) {
      const residual = !view.isSingle(mask.outputs[0]);
      const inputs = [mask.inputs[0], ...node.inputs.slice(1), mask.inputs[1]].map(renew);
      return op('batchNormBackward', inputs, { ...(node as Node<'batchNormBackward'>).attrs, mask: 'output', residual });
    }
    const user = absorbed.get(node);
    return user ? [outputsOf(user)[3]] : null;
  });
}
