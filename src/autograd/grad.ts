/** Reverse-mode differentiation as a graph-to-graph transform. */
import { AttrError, ShapeError } from '../gpu/errors.ts';
import { op, type ForwardOp } from '../graph/ops.ts';
import { tensor as constant } from '../graph/functional.ts';
import { topologicalOrder } from '../graph/traverse.ts';
import { onBehalfOf, type Node, type Tensor } from '../graph/tensor.ts';
import { gradRules, type GradRule } from './rules.ts';

const isDifferentiable = (name: string): name is ForwardOp => name in gradRules;

/**
 * The gradients of a scalar with respect to tensors of its graph. A tensor used several times gets the sum over its uses.
 * @param loss f32 [], not a trial's
 * @param wrt parameters or any other tensors of the graph
 * @returns one tensor for each of `wrt`, of its shape; zeros where the loss does not depend on it
 * @throws ShapeError if `loss` is no scalar, AttrError if the path leads through an operation that has no gradient
 */
export function grad(loss: Tensor, wrt: readonly Tensor[]): Tensor[] {
  if (loss.shape.length !== 0 || loss.trials !== 1) {
    throw new ShapeError({ op: 'grad', arg: 'loss', rule: 'must be one scalar', got: String(loss), fix: 'take its mean() or sum()' });
  }
  const order = topologicalOrder([loss]);
  const targets = new Set(wrt);
  const active = new Set<Node>();
  for (const node of order) {
    if (node.outputs.some((output) => targets.has(output)) || node.inputs.some((input) => targets.has(input) || active.has(input.node)))
      active.add(node);
  }
  const gradients = new Map<Tensor, Tensor>([[loss, constant([1], [])]]);
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
  return wrt.map((target) => gradients.get(target) ?? op('broadcast', [constant([0], [])], { shape: target.shape, factor: 1, dtype: target.dtype === 'f16' ? 'f16' : 'f32' })[0]);
}
