/** Lowering of the convolutions: what each is and what it reads. `convChoice.ts` has how it is computed, `convLaunch.ts` the launches. */
import type { Launch } from '../../kernels/contract.ts';
import { maxDirections } from '../../kernels/conv2d.ts';
import type { ConvInput } from '../../kernels/convInput.ts';
import { lastDim, type Node, type Shape, type Tensor } from '../tensor.ts';
import type { SgdStep } from '../ops.ts';
import type { LowerContext, LowerRule, Ref } from './context.ts';
import { chooseConv } from './convChoice.ts';
import { convLaunches } from './convLaunch.ts';
import { chunksOfChoice, type Chunks, type ConvChoice, type ConvProblem } from './convProblem.ts';

/** Sizes of a convolution; a matrix product is a 1 × 1 convolution of 1 × 1 images. */
function sizes(x: Shape, weight: Shape, y: Shape, { stride, padding }: { stride: number; padding: number }) {
  const channels = { cin: lastDim(x), cout: lastDim(y) };
  if (x.length === 2) return { images: x[0], h: 1, w: 1, hOut: 1, wOut: 1, kH: 1, kW: 1, stride, padding, ...channels };
  return { images: x[0], h: x[1], w: x[2], hOut: y[1], wOut: y[2], kH: weight[0], kW: weight[1], stride, padding, ...channels };
}

/** Gradients read weights that are there. */
const written = { directions: 0, scaled: false } as const;

/** What a convolution reads for its input: a norm that is lazy it forms itself. */
function inputOf(x: Tensor): { x: Tensor; input: ConvInput; operands: Record<string, Ref>; isAffineShared: boolean } {
  const { attrs, inputs } = x.node as Node<'normalize'>;
  if (!isLazy(x)) return { x, input: 'plain', operands: { x }, isAffineShared: true };
  const [own, affine] = inputs;
  return { x: own, input: attrs.relu ? 'affineRelu' : 'affine', operands: { x: own, x_affine: affine }, isAffineShared: affine.trials === 1 };
}

/** Whether a tensor is a norm's output that its readers form themselves. */
export const isLazy = (x: Tensor): boolean => x.node.op === 'normalize' && (x.node as Node<'normalize'>).attrs.lazy;

export interface Perturbation {
  readonly base: Tensor;
  readonly directions: readonly Tensor[];
  readonly coefficients: Tensor;
  readonly scaled: boolean;
}

/** What a perturbed parameter is made of, when it has as few directions as a kernel can form itself. */
export function perturbation(weight: Tensor): Perturbation | null {
  if (weight.node.op !== 'perturbed' || weight.node.inputs.length - 2 > maxDirections) return null;
  const { inputs, attrs } = weight.node as Node<'perturbed'>;
  return { base: inputs[0], directions: inputs.slice(1, -1), coefficients: inputs[inputs.length - 1], scaled: attrs.scaled };
}

/** What a forward convolution reads of a perturbed weight. */
const perturbedOperands = ({ base, directions, coefficients }: Perturbation): Record<string, Ref> => ({
  weight: base,
  ...Object.fromEntries(directions.map((d, j) => [`d${j}`, d])),
  coefficients,
});

/** A convolution, and its launches by each way to compute it. */
interface Planned {
  readonly problem: ConvProblem;
  readonly launches: (choice: ConvChoice) => Launch<Ref>[];
}

function forward(node: Node<'conv2d'>, context: LowerContext): Planned {
  const [x, weight] = node.inputs;
  const [y, sums] = node.outputs;
  const perturbed = perturbation(weight);
  const { x: own, input, operands, isAffineShared } = inputOf(x);
  const problem: ConvProblem = {
    kind: 'forward',
    ...sizes(x.shape, weight.shape, y.shape, node.attrs),
    isHalf: x.dtype === 'f16',
    trials: y.trials,
    eventTrials: context.trials ?? y.trials,
    isXShared: own.trials === 1,
    isWeightShared: perturbed !== null || weight.trials === 1,
    directions: perturbed?.directions.length ?? 0,
    scaled: perturbed?.scaled ?? false,
    input,
    isAffineShared,
    after: node.attrs.moments ? { by: 'moments' } : null,
  };
  const all = { ...operands, ...(perturbed ? perturbedOperands(perturbed) : { weight }) };
  return { problem, launches: (choice) => convLaunches(problem, choice, all, y, node.attrs.moments ? { bindings: { sums } } : {}) };
}

function inputGradient(node: Node<'conv2dBackwardInput'>, context: LowerContext): Planned {
  const [dy, weight, ...rest] = node.inputs;
  const [dx, sums] = node.outputs;
  const { addend = false, sums: mask = null } = node.attrs;
  const problem: ConvProblem = {
    kind: 'backwardInput',
    ...sizes(dx.shape, weight.shape, dy.shape, node.attrs),
    isHalf: dy.dtype === 'f16',
    trials: dx.trials,
    eventTrials: context.trials ?? dx.trials,
    isXShared: true,
    isWeightShared: weight.trials === 1,
    ...written,
    input: 'plain',
    isAffineShared: true,
    after: addend || mask ? { by: 'gradient', addend, mask } : null,
  };
  const names = [...(addend ? ['addend'] : []), 'norm_x', 'norm_affine', 'norm_y'];
  const bindings = { ...Object.fromEntries(rest.map((tensor, i) => [names[i], tensor])), ...(mask ? { sums } : {}) };
  return { problem, launches: (choice) => convLaunches(problem, choice, { dy, weight }, dx, { bindings }) };
}

/** Uniforms of kernels that make SGD's direction. */
export const directionSizes = ({ momentum, weightDecay, firstWord }: SgdStep) => ({ momentum, weight_decay: weightDecay, first_word: firstWord });

function weightGradient(node: Node<'conv2dBackwardWeight'>, context: LowerContext): Planned {
  const [x, dy, weight, buffer, control] = node.inputs;
  const [dw] = node.outputs;
  const { step } = node.attrs;
  const { x: own, input, operands, isAffineShared } = inputOf(x);
  const problem: ConvProblem = {
    kind: 'backwardWeight',
    ...sizes(x.shape, dw.shape, dy.shape, node.attrs),
    isHalf: x.dtype === 'f16',
    trials: dw.trials,
    eventTrials: context.trials ?? dw.trials,
    isXShared: own.trials === 1,
    isWeightShared: true,
    ...written,
    input,
    isAffineShared,
    after: step ? { by: 'direction' } : null,
  };
  const after = step ? { bindings: { weight, buffer, control }, uniforms: directionSizes(step) } : {};
  return { problem, launches: (choice) => convLaunches(problem, choice, { ...operands, dy }, dw, after) };
}

const chosen = ({ problem, launches }: Planned, context: LowerContext): ConvChoice => chooseConv(problem, context, launches);
const lowered = (planned: Planned, context: LowerContext): Launch<Ref>[] => planned.launches(chosen(planned, context));

export const lowerConv2d: LowerRule<'conv2d'> = (node, context) => lowered(forward(node, context), context);
export const lowerConv2dBackwardInput: LowerRule<'conv2dBackwardInput'> = (node, context) => lowered(inputGradient(node, context), context);
export const lowerConv2dBackwardWeight: LowerRule<'conv2dBackwardWeight'> = (node, context) =>
  lowered(weightGradient(node, context), context);

/** How the rows of a convolution's output are cut into chunks, each with the pair of sums that its second output holds. */
export function chunksOf(node: Node, context: LowerContext): Chunks {
  const planned =
    node.op === 'conv2d' ? forward(node as Node<'conv2d'>, context) : inputGradient(node as Node<'conv2dBackwardInput'>, context);
  return chunksOfChoice(planned.problem, chosen(planned, context));
}
