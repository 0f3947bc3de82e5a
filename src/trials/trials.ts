/**
 * The trial transform: a graph becomes the graph of N trials, in which every parameter w is a[t]·w + Σ_k c[t, k]·D_k for trial t. Nodes
 * that depend on a perturbed parameter get a trial axis; the others stay shared. No parameter is copied: convolutions and norms form the
 * perturbed values while they load them. `stackModels` is the same for models whose parameters are there, each with values of its own.
 */
import { AttrError, DtypeError, ShapeError } from '../gpu/errors.ts';
import { op, type ForwardOp } from '../graph/ops.ts';
import type { Node, Tensor, Variable } from '../graph/tensor.ts';
import { topologicalOrder, withInputs } from '../graph/traverse.ts';

export interface TrialSpec {
  /** Number of trials. */
  readonly count: number;
  /** For each perturbed parameter its directions D_1 … D_K, all of the parameter's shape. Parameters left out stay as they are. */
  readonly directions: ReadonlyMap<Variable, readonly Tensor[]>;
  /** f32 [count · K], trial by trial; where trials are `scaled`, f32 [count · (1 + K)], each trial's a − 1 before its own. */
  readonly coefficients: Tensor;
  /**
   * The parameters above are taken a times. Given as a − 1, so that the decay 1 − ηλ keeps the digits of ηλ, and a = 1 gives the bits of
   * unscaled trials. Without it kernels do not multiply. @default false
   */
  readonly scaled?: boolean;
}

/** How a forward op is carried over to trials: given its node and its transformed inputs, the outputs. */
type TrialRule = (node: Node, inputs: readonly Tensor[]) => readonly Tensor[];

/**
 * The same op over one more axis: its kernels take the trial from the grid's z, with statistics, losses and sums kept apart a trial.
 */
const batched: TrialRule = withInputs;

export const trialRules: Record<ForwardOp, TrialRule> = {
  conv2d: batched,
  addBias: batched,
  batchNorm: batched,
  relu: batched,
  add: batched,
  sub: batched,
  mul: batched,
  scale: batched,
  reshape: batched,
  maxPool2d: batched,
  globalAvgPool2d: batched,
  crossEntropy: batched,
  sum: batched,
  cast: batched,
};

/** One coefficient a trial and direction, and as many directions for every parameter: kernels take them as [count][K], scales first. */
function checkCoefficients({ count, directions, coefficients, scaled = false }: TrialSpec): void {
  let perTrial: number | null = null;
  for (const [variable, { length }] of directions) {
    if (length < 1 || length !== (perTrial ??= length)) {
      throw new AttrError({
        op: 'trials',
        arg: `directions of ${variable.name}`,
        rule: `must be ${perTrial || 'at least 1'}, as many as every parameter's`,
        got: length,
        fix: 'pass zeros where a direction leaves a parameter alone',
      });
    }
  }
  const size = count * ((perTrial ?? 0) + Number(scaled));
  if (perTrial !== null && (coefficients.dtype !== 'f32' || coefficients.trials !== 1 || String(coefficients.shape) !== String([size]))) {
    throw new ShapeError({
      op: 'trials',
      arg: 'coefficients',
      rule: `must be f32[${size}], count · ${scaled ? '(1 + directions)' : 'directions'}`,
      got: String(coefficients),
      fix: 'pass them trial by trial, in one dimension',
    });
  }
}

/**
 * @param outputs tensors of one graph, usually the loss
 * @returns the same tensors for all trials: `trials` = `count` where a perturbed parameter reaches them
 * @throws DtypeError if a direction is not f32; ShapeError if it does not have its parameter's shape, or the coefficients are not one a
 *   trial and direction; AttrError if parameters have different numbers of directions, or the graph holds gradients
 */
export function trials(outputs: readonly Tensor[], spec: TrialSpec): Tensor[] {
  if (!Number.isInteger(spec.count) || spec.count < 1) {
    throw new AttrError({ op: 'trials', arg: 'count', rule: 'must be an integer ≥ 1', got: spec.count, fix: 'ask for at least one trial' });
  }
  checkCoefficients(spec);
  for (const [variable, directions] of spec.directions) {
    for (const direction of directions) {
      if (String(direction.shape) !== String(variable.shape)) {
        throw new ShapeError({
          op: 'trials',
          arg: `direction of ${variable.name}`,
          rule: `must be ${variable}`,
          got: String(direction),
          fix: "pass a direction of the parameter's own shape",
        });
      }
      if (direction.dtype !== 'f32' || direction.trials !== 1) {
        throw new DtypeError({
          op: 'trials',
          arg: `direction of ${variable.name}`,
          rule: 'must be f32, the same for all trials',
          got: String(direction),
          fix: 'give each trial its own coefficients instead',
        });
      }
    }
  }
  return withVariables('trials', outputs, (variable) => {
    const directions = spec.directions.get(variable);
    if (!directions) return null;
    return op('perturbed', [variable, ...directions, spec.coefficients], { trials: spec.count, scaled: spec.scaled ?? false })[0];
  });
}

/**
 * A graph becomes that of as many models side by side: whatever depends on a variable that is given gets the trial axis, what does not (the
 * input batch) stays shared. Its gradients are `grad` of the losses with respect to the tensors given.
 * @param outputs tensors of one graph, usually a loss and what it says of the batch
 * @param own for each variable a tensor of its shape with the models' values as trials, of all as many
 * @throws ShapeError if a tensor does not have its variable's shape, DtypeError if it is not f32, AttrError if the graph holds gradients
 */
export function stackModels(outputs: readonly Tensor[], own: ReadonlyMap<Variable, Tensor>): Tensor[] {
  for (const [variable, { shape, dtype }] of own) {
    const [arg, got] = [`values of ${variable.name}`, String(own.get(variable))];
    if (dtype !== 'f32') throw new DtypeError({ op: 'stackModels', arg, rule: 'must be f32', got, fix: 'parameters are' });
    if (String(shape) === String(variable.shape)) continue;
    const fix = 'models differ in their values, not in their shapes';
    throw new ShapeError({ op: 'stackModels', arg, rule: `must be ${variable}`, got, fix });
  }
  return withVariables('stackModels', outputs, (variable) => own.get(variable) ?? null);
}

/** The graph with other tensors in the place of variables; null leaves one. */
function withVariables(
  transform: 'trials' | 'stackModels',
  outputs: readonly Tensor[],
  insteadOf: (variable: Variable) => Tensor | null,
): Tensor[] {
  const rebuilt = new Map<Node, readonly Tensor[]>();
  for (const node of topologicalOrder(outputs)) {
    const instead = node.op === 'variable' ? insteadOf(node.outputs[0] as Variable) : null;
    if (instead) {
      rebuilt.set(node, [instead]);
      continue;
    }
    const inputs = node.inputs.map((input) => rebuilt.get(input.node)![input.output]);
    if (inputs.every((input, i) => input === node.inputs[i])) {
      rebuilt.set(node, node.outputs);
      continue;
    }
    const rule = trialRules[node.op as ForwardOp] as TrialRule | undefined;
    if (!rule)
      throw new AttrError({
        op: transform,
        arg: 'outputs',
        rule: 'must be a forward graph',
        got: node.op,
        fix: 'transform the loss, not its gradients',
      });
    rebuilt.set(node, rule(node, inputs));
  }
  return outputs.map((output) => rebuilt.get(output.node)![output.output]);
}
