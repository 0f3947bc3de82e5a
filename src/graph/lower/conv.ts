/** Lowering of the convolutions: what each is and what it reads. `convChoice.ts` has how it is computed, `convLaunch.ts` the launches. */
import { maxDirections } from '../../kernels/conv2d.ts';
import { lastDim, type Node, type Shape, type Tensor } from '../tensor.ts';
import type { LowerRule, Ref } from './context.ts';
import { chosenLaunches } from './convChoice.ts';
import { convLaunches } from './convLaunch.ts';
import type { ConvProblem } from './convProblem.ts';

/** Sizes of a convolution; a matrix product is a 1 × 1 convolution of 1 × 1 images. */
function sizes(x: Shape, weight: Shape, y: Shape, { stride, padding }: { stride: number; padding: number }) {
  const channels = { cin: lastDim(x), cout: lastDim(y) };
  if (x.length === 2) return { images: x[0], h: 1, w: 1, hOut: 1, wOut: 1, kH: 1, kW: 1, stride, padding, ...channels };
  return { images: x[0], h: x[1], w: x[2], hOut: y[1], wOut: y[2], kH: weight[0], kW: weight[1], stride, padding, ...channels };
}

/** Gradients have no trials. */
const alone = { trials: 1, eventTrials: 1, isXShared: true, isWeightShared: true, directions: 0, scaled: false } as const;

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

export const lowerConv2d: LowerRule<'conv2d'> = (node, context) => {
  const [x, weight] = node.inputs;
  const [y] = node.outputs;
  const perturbed = perturbation(weight);
  const problem: ConvProblem = {
    kind: 'forward',
    ...sizes(x.shape, weight.shape, y.shape, node.attrs),
    trials: y.trials,
    eventTrials: context.trials ?? y.trials,
    isXShared: x.trials === 1,
    isWeightShared: perturbed !== null || weight.trials === 1,
    directions: perturbed?.directions.length ?? 0,
    scaled: perturbed?.scaled ?? false,
  };
  const operands = perturbed ? perturbedOperands(perturbed) : { weight };
  return chosenLaunches(problem, context, (choice) => convLaunches(problem, choice, { x, ...operands }, y));
};

export const lowerConv2dBackwardInput: LowerRule<'conv2dBackwardInput'> = (node, context) => {
  const [dy, weight] = node.inputs;
  const [dx] = node.outputs;
  const problem: ConvProblem = { kind: 'backwardInput', ...sizes(dx.shape, weight.shape, dy.shape, node.attrs), ...alone };
  return chosenLaunches(problem, context, (choice) => convLaunches(problem, choice, { dy, weight }, dx));
};

export const lowerConv2dBackwardWeight: LowerRule<'conv2dBackwardWeight'> = (node, context) => {
  const [x, dy] = node.inputs;
  const [dw] = node.outputs;
  const problem: ConvProblem = { kind: 'backwardWeight', ...sizes(x.shape, dw.shape, dy.shape, node.attrs), ...alone };
  return chosenLaunches(problem, context, (choice) => convLaunches(problem, choice, { x, dy }, dw));
};
