/**
 * weightStep: sgdDirection(conv2dBackwardWeight(…), …)  →  the convolution's gradient becomes the direction as it is written: weight decay and momentum
 * cost no pass over it. Rounds the same.
 */
import { op } from '../ops.ts';
import { onBehalfOf, type Node, type Tensor } from '../tensor.ts';
import { rewrite, viewOf } from './rewrite.ts';

const isWeightGradient = (node: Node): node is Node<'conv2dBackwardWeight'> => node.op === 'conv2dBackwardWeight';

export function weightStep(outputs: readonly Tensor[]): Tensor[] {
  const { order, isSingle } = viewOf(outputs);
  return rewrite(outputs, order, (node, renew) => {
    if (node.op !== 'sgdDirection') return null;
    const [gradient, ...rest] = node.inputs;
    const source = gradient.node;
    if (!isWeightGradient(source) || !isSingle(gradient)) return null;
    const attrs = { ...source.attrs, step: (node as Node<'sgdDirection'>).attrs };
    return onBehalfOf(source, () => op('conv2dBackwardWeight', [...source.inputs, ...rest].map(renew), attrs));
  });
}
