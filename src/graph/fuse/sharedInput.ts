/**
 * sharedInput: conv2d(x, W + Σ c_k·D_k) of an x that all trials share  →  conv2d(x, W) + Σ c_k·conv2d(x, D_k): a network's first layer is
 * convolved once for the weight and once a direction instead of once a trial, where there are more trials than that. Rounds otherwise.
 */
import { op } from '../ops.ts';
import type { Node, Tensor } from '../tensor.ts';
import { rewrite, viewOf } from './rewrite.ts';

/** Nodes whose values differ from trial to trial. */
function trialNodes(order: readonly Node[]): Set<Node> {
  const found = new Set<Node>();
  const isOf = (node: Node): boolean => node.op === 'perturbed' || node.outputs.some(({ trials }) => trials > 1);
  for (const node of order) if (isOf(node) || node.inputs.some((input) => found.has(input.node))) found.add(node);
  return found;
}

/** The weight of a convolution that trials can share, given how many there are of them in all passes. */
function matchShared(node: Node, differing: ReadonlySet<Node>, trials: number | undefined): Node<'perturbed'> | null {
  if (node.op !== 'conv2d') return null;
  const [x, weight] = node.inputs;
  // As an operand in f16 a direction may vanish, which W + c·D, formed in f32, does not.
  if (weight.node.op !== 'perturbed' || x.dtype === 'f16' || differing.has(x.node)) return null;
  const perturbed = weight.node as Node<'perturbed'>;
  return (trials ?? perturbed.attrs.trials) >= perturbed.inputs.length ? perturbed : null;
}

export function sharedInput(outputs: readonly Tensor[], trials?: number): Tensor[] {
  const { order } = viewOf(outputs);
  const differing = trialNodes(order);
  return rewrite(outputs, order, (node, renew) => {
    const weight = matchShared(node, differing, trials);
    if (!weight) return null;
    const x = renew(node.inputs[0]);
    const operands = weight.inputs.slice(0, -1).map((operand) => op('conv2d', [x, renew(operand)], (node as Node<'conv2d'>).attrs)[0]);
    return op('perturbed', [...operands, renew(weight.inputs[weight.inputs.length - 1])], weight.attrs);
  });
}
