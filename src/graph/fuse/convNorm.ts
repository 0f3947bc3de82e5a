/**
 *   normOnLoad   conv2d(relu(batchNorm(x)), …)  →  the convolution normalises and clips x while it loads it, and so does its weight gradient; the
 *                activation is never written, and the mask of its gradient comes from x again
 *   convMoments  batchNorm(conv2d(x, …))  →  the convolution writes the moments of its output tile by tile as well: the norm does not read it for them
 * Both merge moments in another order than a norm by itself does, so they round otherwise.
 */
import { op } from '../ops.ts';
import type { Node, Tensor } from '../tensor.ts';
import { rewrite, viewOf, type GraphView } from './rewrite.ts';

const isConv = (node: Node): node is Node<'conv2d'> => node.op === 'conv2d';

/** Most directions of a perturbed weight beside which a convolution still has bindings left for the affine map. */
const mostDirections = 2;

/** Whether a kernel can form its input while it reads it. */
function canForm(node: Node, input: number): boolean {
  if (input !== 0) return false;
  if (node.op === 'conv2dBackwardWeight') return true;
  if (!isConv(node)) return false;
  const weight = node.inputs[1].node;
  return weight.op !== 'perturbed' || weight.inputs.length - 2 <= mostDirections;
}

/** Whether a gradient takes its mask from the output of `norm`, which it can have from the norm's input as well. */
const masksBy = (norm: Node, node: Node, input: number): boolean =>
  node.op === 'batchNormBackward' && input === 5 && node.inputs[1] === norm.inputs[0] && node.inputs[2] === norm.outputs[1];

/** Whether all that read the output of a norm can form it themselves, and some convolution does. */
function isFormed(norm: Node<'batchNorm'>, { consumers, kept }: GraphView): boolean {
  const [y] = norm.outputs;
  const readers = consumers.get(y) ?? [];
  if (norm.attrs.residual || kept.has(y) || !readers.some(({ node, input }) => isConv(node) && input === 0)) return false;
  return readers.every(({ node, input }) => canForm(node, input) || masksBy(norm, node, input));
}

/** A norm in its two halves: y, mean, invStd, variance. */
function split(norm: Node<'batchNorm'>, inputs: readonly Tensor[], lazy: boolean, moments: Tensor | null): Tensor[] {
  const { training, eps, relu, residual } = norm.attrs;
  const own = residual ? inputs.slice(0, -1) : inputs;
  const [affine, ...statistics] = op('normAffine', [...own, ...(moments ? [moments] : [])], { training, eps, moments: moments !== null });
  const rest = residual ? [inputs[inputs.length - 1]] : [];
  return [op('normalize', [inputs[0], affine, ...rest], { relu, residual, lazy })[0], ...statistics];
}

export function normOnLoad(outputs: readonly Tensor[]): Tensor[] {
  const view = viewOf(outputs);
  const formed = new Set(view.order.filter((node) => node.op === 'batchNorm' && isFormed(node as Node<'batchNorm'>, view)));
  const maskedBy = (node: Node): boolean => node.op === 'batchNormBackward' && node.inputs.length > 5 && formed.has(node.inputs[5].node);
  return rewrite(outputs, view.order, (node, renew) => {
    if (formed.has(node)) return split(node as Node<'batchNorm'>, node.inputs.map(renew), true, null);
    if (!maskedBy(node)) return null;
    const [dy, x, mean, invStd, weight, y] = node.inputs.map(renew);
    const [, affine] = y.node.inputs;
    return op('batchNormBackward', [dy, x, mean, invStd, weight, affine], { ...(node as Node<'batchNormBackward'>).attrs, mask: 'affine' });
  });
}

export function convMoments(outputs: readonly Tensor[]): Tensor[] {
  const { order } = viewOf(outputs);
  /** The norm, or the half of one, that can have its moments from the convolution before it. */
  const isFed = (node: Node): boolean => {
    if (node.op === 'batchNorm') return (node as Node<'batchNorm'>).attrs.training && isConv(node.inputs[0].node);
    return node.op === 'normAffine' && (node as Node<'normAffine'>).attrs.training && isConv(node.inputs[0].node);
  };
  const feeding = new Set(order.filter(isFed).map((node) => node.inputs[0].node));
  return rewrite(outputs, order, (node, renew, outputsOf) => {
    if (feeding.has(node)) return op('conv2d', node.inputs.map(renew), { ...(node as Node<'conv2d'>).attrs, moments: true });
    if (!isFed(node)) return null;
    const [, moments] = outputsOf(node.inputs[0].node);
    const inputs = node.inputs.map(renew);
    if (node.op === 'batchNorm') return split(node as Node<'batchNorm'>, inputs, false, moments);
    return op('normAffine', [...inputs, moments], { ...(node as Node<'normAffine'>).attrs, moments: true });
  });
}
