/** The op table, part two: how every op becomes launches. Total over the op names. */
import type { Launch } from '../../kernels/contract.ts';
import type { OpName } from '../ops.ts';
import type { Node, Tensor } from '../tensor.ts';
import type { IsWanted, LowerContext, LowerRule, Ref } from './context.ts';
import { isLazy, lowerConv2d, lowerConv2dBackwardInput, lowerConv2dBackwardWeight, perturbation } from './conv.ts';
import { fusedPerturbation, lowerBatchNorm, lowerBatchNormBackward, lowerNormAffine, lowerNormalize } from './norm.ts';
import { headForms, lowerClassifierHead } from './head.ts';
import * as simple from './simple.ts';

/** Leaves have their memory already. */
const leaf = (): Launch<Ref>[] => [];

const lowerRules: { [O in OpName]: LowerRule<O> } = {
  variable: leaf,
  constant: leaf,
  external: leaf,
  conv2d: lowerConv2d,
  conv2dBackwardInput: lowerConv2dBackwardInput,
  conv2dBackwardWeight: lowerConv2dBackwardWeight,
  sgdDirection: simple.lowerSgdDirection,
  addBias: simple.lowerAddBias,
  columnSum: simple.lowerColumnSum,
  batchNorm: lowerBatchNorm,
  batchNormBackward: lowerBatchNormBackward,
  normAffine: lowerNormAffine,
  normalize: lowerNormalize,
  relu: simple.lowerRelu,
  reluBackward: simple.lowerReluBackward,
  add: simple.lowerAdd,
  sub: simple.lowerSub,
  mul: simple.lowerMul,
  scale: simple.lowerScale,
  reshape: simple.lowerReshape,
  maxPool2d: simple.lowerMaxPool2d,
  maxPool2dBackward: simple.lowerMaxPool2dBackward,
  globalAvgPool2d: simple.lowerGlobalAvgPool2d,
  globalAvgPool2dBackward: simple.lowerGlobalAvgPool2dBackward,
  crossEntropy: simple.lowerCrossEntropy,
  crossEntropyBackward: simple.lowerCrossEntropyBackward,
  classifierHead: lowerClassifierHead,
  sum: simple.lowerSum,
  broadcast: simple.lowerBroadcast,
  cast: simple.lowerCast,
  copy: simple.lowerCopy,
  perturbed: simple.lowerPerturbed,
  assembleBatch: simple.lowerAssembleBatch,
};

/** Whether a tensor is one that its readers may form while they read what it is made of, so that it need not be there. */
export const isFormable = (tensor: Tensor): boolean => tensor.node.op === 'perturbed' || isLazy(tensor);

/** Which formable inputs of which ops the op's own kernel forms; absence means none, which is always right: they are written out. */
const formed: Partial<{ [O in OpName]: (node: Node<O>, input: number, isWanted: IsWanted) => boolean }> = {
  conv2d: (node, input) => (input === 0 ? isLazy(node.inputs[0]) : perturbation(node.inputs[1]) !== null),
  conv2dBackwardWeight: (node, input) => input === 0 && isLazy(node.inputs[0]),
  batchNorm: (node, input, isWanted) => (input === 1 || input === 2) && fusedPerturbation(node, isWanted) !== null,
  classifierHead: headForms,
  normAffine: (node, input, isWanted) => (input === 1 || input === 2) && fusedPerturbation(node, isWanted) !== null,
};

export function lower(node: Node, context: LowerContext, isWanted: IsWanted): Launch<Ref>[] {
  return (lowerRules[node.op] as LowerRule<OpName>)(node, context, isWanted);
}

/** True when `node`'s kernel forms `node.inputs[input]`, which is formable, by itself. */
export function absorbs(node: Node, input: number, isWanted: IsWanted): boolean {
  const forms = formed[node.op] as ((node: Node, input: number, isWanted: IsWanted) => boolean) | undefined;
  return forms?.(node, input, isWanted) ?? false;
}
