/**
 * One gradient rule an op: from the node and the gradients of its outputs to the gradients of its inputs (null: none flows there).
 * Each rule states its equation; what it names beside dy, the graph keeps alive for it.
 */
import { op, type FloatDtype, type ForwardOp } from '../graph/ops.ts';
import type { Node, Tensor } from '../graph/tensor.ts';

export type GradRule<O extends ForwardOp> = (node: Node<O>, dOutputs: readonly (Tensor | null)[]) => (Tensor | null)[];

const first = (outputs: readonly Tensor[]): Tensor => outputs[0];
const floatOf = ({ dtype }: Tensor): FloatDtype => (dtype === 'f16' ? 'f16' : 'f32');

export const gradRules: { [O in ForwardOp]: GradRule<O> } = {
  /** dx = dy ⋆ weightᵀ, dWeight = xᵀ ⋆ dy */
  conv2d: ({ inputs: [x, weight], attrs: { stride, padding } }, [dy]) => [
    first(op('conv2dBackwardInput', [dy!, weight], { stride, padding, xShape: x.shape })),
    first(op('conv2dBackwardWeight', [x, dy!], { stride, padding, weightShape: weight.shape })),
  ],
  /** dx = dy, dBias = Σ_rows dy */
  addBias: (_, [dy]) => [dy, first(op('columnSum', [dy!], {}))],
  /** dx = weight·invStd·(dz − mean(dz) − x̂·mean(dz·x̂)), dWeight = Σ dz·x̂, dBias = Σ dz, dResidual = dz; dz = dy·[y > 0] with relu */
  batchNorm: (node, [dy]) => {
    const { training, relu, residual } = node.attrs;
    const [x, weight] = node.inputs;
    const [y, mean, invStd] = node.outputs;
    const inputs = [dy!, x, mean, invStd, weight, ...(relu ? [y] : [])];
    const [dx, dWeight, dBias, dz] = op('batchNormBackward', inputs, { training, mask: relu ? 'output' : 'none', residual, sums: false });
    return [dx, dWeight, dBias, ...(training ? [] : [null, null]), ...(residual ? [dz] : [])];
  },
  /** dx = dy · [y > 0] */
  relu: ({ outputs: [y] }, [dy]) => [first(op('reluBackward', [dy!, y], {}))],
  /** da = dy, db = dy */
  add: (_, [dy]) => [dy, dy],
  /** da = dy, db = −dy */
  sub: (_, [dy]) => [dy, first(op('scale', [dy!], { factor: -1 }))],
  /** da = dy · b, db = dy · a */
  mul: ({ inputs: [a, b] }, [dy]) => [first(op('mul', [dy!, b], {})), first(op('mul', [dy!, a], {}))],
  /** dx = dy · factor */
  scale: ({ attrs: { factor } }, [dy]) => [first(op('scale', [dy!], { factor }))],
  /** dx = dy, under x's shape */
  reshape: ({ inputs: [x] }, [dy]) => [first(op('reshape', [dy!], { shape: x.shape }))],
  /** dx = Σ of dy over the windows whose first maximum is here */
  maxPool2d: ({ inputs: [x], outputs: [, position], attrs }, [dy]) => [
    first(op('maxPool2dBackward', [dy!, position], { ...attrs, xShape: x.shape })),
  ],
  /** dx = dy / (H·W) */
  globalAvgPool2d: ({ inputs: [x] }, [dy]) => [first(op('globalAvgPool2dBackward', [dy!], { xShape: x.shape }))],
  /** dLogits = dLosses · (softmax(logits) − target) */
  crossEntropy: ({ inputs: [logits, labels], attrs }, [dy]) => [first(op('crossEntropyBackward', [dy!, logits, labels], attrs)), null],
  /** dx = dy · factor, everywhere */
  sum: ({ inputs: [x], attrs: { factor } }, [dy]) => [first(op('broadcast', [dy!], { shape: x.shape, factor, dtype: floatOf(x) }))],
  /** dx = dy, of x's own element type */
  cast: ({ inputs: [x] }, [dy]) => [first(op('cast', [dy!], { dtype: floatOf(x) }))],
};
