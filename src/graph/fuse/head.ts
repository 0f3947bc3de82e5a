/**
 * classifierHead: crossEntropy(linear(globalAvgPool2d(x)), labels), and the gradient of its logits  →  one kernel. The linear layer adds in
 * another order, so it rounds otherwise.
 */
import { mostHeadChannels, mostHeadClasses } from '../../kernels/classifierHead.ts';
import { op } from '../ops.ts';
import type { Node, Tensor } from '../tensor.ts';
import { rewrite, viewOf, type GraphView } from './rewrite.ts';

interface Head {
  readonly loss: Node<'crossEntropy'>;
  readonly pool: Node;
  readonly weight: Tensor;
  readonly bias: Tensor;
  readonly gradient: Node<'crossEntropyBackward'> | null;
}

/** Images are a dimension of the grid. */
const mostImages = 65535;

function match(loss: Node<'crossEntropy'>, { order, consumers, kept, isSingle, dependsOn }: GraphView): Head | null {
  const [logits, labels] = loss.inputs;
  if (logits.node.op !== 'addBias' || kept.has(logits)) return null;
  const [product, bias] = logits.node.inputs;
  if (product.node.op !== 'conv2d' || product.shape.length !== 2 || !isSingle(product)) return null;
  const [pooled, weight] = product.node.inputs;
  if (pooled.node.op !== 'globalAvgPool2d' || kept.has(pooled)) return null;
  if (pooled.shape[1] > mostHeadChannels || logits.shape[1] > mostHeadClasses || logits.shape[0] > mostImages) return null;
  const readsPooled = consumers.get(pooled)!.filter(({ node }) => node !== product.node);
  if (!readsPooled.every(({ node, input }) => node.op === 'conv2dBackwardWeight' && input === 0)) return null;
  const readsLogits = consumers.get(logits)!.filter(({ node }) => node !== loss);
  if (readsLogits.length > 1 || (readsLogits.length === 0 && readsPooled.length > 0)) return null;
  const [reader] = readsLogits;
  if (!reader) return { loss, pool: pooled.node, weight, bias, gradient: null };
  const gradient = reader.node as Node<'crossEntropyBackward'>;
  const isOwn =
    gradient.op === 'crossEntropyBackward' &&
    gradient.inputs[2] === labels &&
    gradient.attrs.labelSmoothing === loss.attrs.labelSmoothing &&
    // Two heads whose losses weigh one another would wait for each other.
    !order.some((node) => (node.op === 'crossEntropy' || node === pooled.node) && dependsOn(gradient.inputs[0], node));
  return isOwn ? { loss, pool: pooled.node, weight, bias, gradient } : null;
}

export function head(outputs: readonly Tensor[]): Tensor[] {
  const view = viewOf(outputs);
  const heads = view.order.flatMap((node) => (node.op === 'crossEntropy' ? (match(node as Node<'crossEntropy'>, view) ?? []) : []));
  /** For each node that the kernel stands for, the head, and which of its outputs is the node's. */
  const parts = new Map<Node, { head: Head; output: number }>();
  for (const one of heads) {
    parts.set(one.loss, { head: one, output: 0 });
    if (!one.gradient) continue;
    parts.set(one.pool, { head: one, output: 1 });
    parts.set(one.gradient, { head: one, output: 2 });
  }
  const made = new Map<Head, readonly Tensor[]>();
  return rewrite(outputs, view.order, (node, renew) => {
    const part = parts.get(node);
    if (!part) return null;
    const { loss, pool, weight, bias, gradient } = part.head;
    let all = made.get(part.head);
    if (!all) {
      const inputs = [pool.inputs[0], weight, bias, loss.inputs[1], ...(gradient ? [gradient.inputs[0]] : [])].map(renew);
      all = op('classifierHead', inputs, { ...loss.attrs, gradient: gradient !== null });
      made.set(part.head, all);
    }
    return [all[part.output]];
  });
}
