/** Reverse-mode differentiation as a graph-to-graph transform. */
import { AttrError, ShapeError } from '../gpu/errors.ts';
import { op, type ForwardOp } from '../graph/ops.ts';
import { topologicalOrder } from '../graph/traverse.ts';
import { onBehalfOf, type Node, type Tensor } from '../graph/tensor.ts';
import { gradRules, type GradRule } from './rules.ts';

const isDifferentiable = (name: string): name is ForwardOp => name in gradRules;

/** A scalar of each of so many trials, the same for all. */
const scalars = (value: number, trials: number): Tensor =>
  op('constant', [], { data: new Float32Array(trials).fill(value), shape: [], trials })[0];

/** @throws ShapeError unless the loss is a scalar, one a trial of `wrt` */
function checkLoss(loss: Tensor, wrt: readonly Tensor[]): void {
  const refuse = (rule: string, got: unknown, fix: string): never => {
    throw new ShapeError({ op: 'grad', arg: 'loss', rule, got: String(got), fix });
  };
  if (loss.shape.length !== 0) refuse('must be one scalar', loss, 'take its mean() or sum()');
  const shared = wrt.find(({ trials }) => trials !== loss.trials);
  if (shared) refuse(`must have as many trials as ${shared}`, loss, 'differentiate before trials(), or give each trial its own');
}

/**
 * The gradients of a scalar with respect to tensors of its graph. A tensor used several times gets the sum over its uses. With a trial axis
 * each trial's loss is differentiated with respect to the trial's own.
 * @param loss f32 [], of as many trials as each of `wrt`
 * @param wrt parameters or any other tensors of the graph
 * @returns one tensor for each of `wrt`, of its shape and trials; zeros where the loss does not depend on it
 * @throws ShapeError if `loss` is no scalar or is that of other trials, AttrError if the path leads through an operation that has no
 * gradient
 */
export function grad(loss: Tensor, wrt: readonly Tensor[]): Tensor[] {
  checkLoss(loss, wrt);
  const order = topologicalOrder([loss]);
  const targets = new Set(wrt);
  const active = new Set<Node>();
  for (const node of order) {
    if (node.outputs.some((output) => targets.has(output)) || node.inputs.some((input) => targets.has(input) || active.has(input.node)))
      active.add(node);
  }
  const gradients = new Map<Tensor, Tensor>([[loss, scalars(1, loss.trials)]]);
  for (const node of [...order].reverse()) {
    const dOutputs = node.outputs.map((output) => gradients.get(output) ?? null);
    if (!active.has(node) || node.inputs.length === 0 || dOutputs.every((d) => d === null)) continue;
    if (!isDifferentiable(node.op)) {
      throw new AttrError({
        op: 'grad',
        arg: 'loss',
        rule: 'must depend on wrt through differentiable operations',
        got: node.op,
        fix: 'second derivatives are not offered',
      });
    }
    if (dOutputs.slice(1).some((d) => d !== null)) {
      throw new AttrError({
        op: 'grad',
        arg: 'loss',
        rule: `must depend on the first output of ${node.op} only`,
        got: 'a loss of its statistics',
        fix: 'compute what the loss needs from y',
      });
    }
    const rule = gradRules[node.op] as GradRule<ForwardOp>;
    const dInputs = onBehalfOf(node, () => rule(node as Node<ForwardOp>, dOutputs), true);
    node.inputs.forEach((input, i) => {
      const d = dInputs[i];
      if (d === null || !(targets.has(input) || active.has(input.node))) return;
      const sofar = gradients.get(input);
      gradients.set(input, sofar ? onBehalfOf(input.node, () => op('add', [sofar, d], {})[0], true) : d);
    });
  }
  const zeros = ({ shape, dtype, trials }: Tensor): Tensor =>
    op('broadcast', [scalars(0, trials)], { shape, factor: 1, dtype: dtype === 'f16' ? 'f16' : 'f32' })[0];
  return wrt.map((target) => gradients.get(target) ?? zeros(target));
}
