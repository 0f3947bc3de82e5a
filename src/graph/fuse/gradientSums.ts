/**
 * gradientSums: batchNormBackward(conv2dBackwardInput(…) [+ another gradient])  →  the input gradient of the convolution adds the other, applies
 * the activation's mask and sums what the norm's gradient needs, as it writes. Takes the sums over other chunks, so it rounds otherwise.
 */
import { op } from '../ops.ts';
import { elements, onBehalfOf, type Node, type Tensor } from '../tensor.ts';
import { rewrite, viewOf, type GraphView } from './rewrite.ts';

interface Match {
  readonly conv: Node<'conv2dBackwardInput'>;
  readonly addend: Tensor | null;
  /** x, affine[, y]: of the norm. */
  readonly norm: readonly Tensor[];
}

/** The convolution's gradient that dy is, or to which another is added to make it. */
function sourceOf(dy: Tensor, { isSingle }: GraphView): Pick<Match, 'conv' | 'addend'> | null {
  const asConv = (tensor: Tensor): Node<'conv2dBackwardInput'> | null => {
    const node = tensor.node as Node<'conv2dBackwardInput'>;
    return node.op === 'conv2dBackwardInput' && !node.attrs.addend && !node.attrs.sums && isSingle(tensor) ? node : null;
  };
  const conv = asConv(dy);
  if (conv) return { conv, addend: null };
  if (dy.node.op !== 'add' || !isSingle(dy)) return null;
  const [a, b] = dy.node.inputs;
  // Of two convolutions the one with more work does both.
  const options = [{ conv: asConv(a), addend: b }, { conv: asConv(b), addend: a }].filter(({ conv: one }) => one !== null);
  options.sort((p, q) => elements(q.conv!.inputs[1].shape) - elements(p.conv!.inputs[1].shape));
  return a !== b && options.length > 0 ? { conv: options[0].conv!, addend: options[0].addend } : null;
}

function match(node: Node<'batchNormBackward'>, view: GraphView): Match | null {
  const [dy, x, mean] = node.inputs;
  const { mask, sums } = node.attrs;
  if (sums || mean.node.op !== 'normAffine') return null;
  const source = sourceOf(dy, view);
  if (!source) return null;
  const norm = [x, mean.node.outputs[0], ...(mask === 'output' ? [node.inputs[5]] : [])];
  const extra = [...norm, ...(source.addend ? [source.addend] : [])];
  // One place of the output is one place of all these.
  const isAlike = extra.every(({ trials }) => trials === dy.trials);
  return !isAlike || extra.some((tensor) => view.dependsOn(tensor, source.conv)) ? null : { ...source, norm };
}

export function gradientSums(outputs: readonly Tensor[]): Tensor[] {
  const view = viewOf(outputs);
  const matches = new Map<Node, Match>();
  for (const node of view.order) {
    const found = node.op === 'batchNormBackward' ? match(node as Node<'batchNormBackward'>, view) : null;
    if (found) matches.set(node, found);
  }
  return rewrite(outputs, view.order, (node, renew) => {
    const found = matches.get(node);
    if (!found) return null;
    const { training, mask } = (node as Node<'batchNormBackward'>).attrs;
    const { conv, addend, norm } = found;
    const inputs = [...conv.inputs, ...(addend ? [addend] : []), ...norm].map(renew);
    const attrs = { ...conv.attrs, addend: addend !== null, sums: mask };
    const [dz, sums] = onBehalfOf(conv, () => op('conv2dBackwardInput', inputs, attrs));
    const [, x, mean, invStd, weight] = node.inputs.map(renew);
    const gradients = op('batchNormBackward', [dz, x, mean, invStd, weight, sums], { training, mask: 'none', residual: false, sums: true });
    return [...gradients, dz];
  });
}
