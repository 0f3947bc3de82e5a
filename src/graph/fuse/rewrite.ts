/** What graph passes are made of: who reads what, and rebuilding a graph with some nodes replaced. */
import { onBehalfOf, type Node, type Tensor } from '../tensor.ts';
import { consumersOf, topologicalOrder, withInputs } from '../traverse.ts';

export type Consumers = ReturnType<typeof consumersOf>;
export type DependsOn = (tensor: Tensor, node: Node) => boolean;

/** A graph as a pass looks at it. */
export interface GraphView {
  readonly order: readonly Node[];
  readonly consumers: Consumers;
  /** Outputs of the graph: they must be there in the end. */
  readonly kept: ReadonlySet<Tensor>;
  /** Whether a tensor is computed from a node: one launch could not then take the tensor in and do the node's work. */
  readonly dependsOn: DependsOn;
  /** Whether one node reads a tensor, once, and nobody else wants it. */
  readonly isSingle: (tensor: Tensor) => boolean;
}

export function viewOf(outputs: readonly Tensor[]): GraphView {
  const order = topologicalOrder(outputs);
  const consumers = consumersOf(order);
  const kept = new Set(outputs);
  const isSingle = (tensor: Tensor) => consumers.get(tensor)?.length === 1 && !kept.has(tensor);
  return { order, consumers, kept, dependsOn: dependencies(order), isSingle };
}

function dependencies(order: readonly Node[]): DependsOn {
  const position = new Map(order.map((node, index) => [node, index]));
  return (tensor, node) => {
    const earliest = position.get(node)!;
    const seen = new Set<Node>();
    const stack = [tensor.node];
    for (let top = stack.pop(); top; top = stack.pop()) {
      if (top === node) return true;
      if (seen.has(top) || position.get(top)! < earliest) continue;
      seen.add(top);
      stack.push(...top.inputs.map((input) => input.node));
    }
    return false;
  };
}

/** A node's outputs in the new graph. */
export type OutputsOf = (node: Node) => readonly Tensor[];
/** A tensor of the old graph in the new one. */
export type Renew = (tensor: Tensor) => Tensor;

/**
 * Rebuilds the graph of `outputs`.
 * @param replace the new outputs of a node, one for each old one at least; null for a node that stays, with its inputs renewed
 * @returns for every old output the tensor that holds its value now
 */
export function rewrite(
  outputs: readonly Tensor[],
  order: readonly Node[],
  replace: (node: Node, renew: Renew, outputsOf: OutputsOf) => readonly Tensor[] | null,
): Tensor[] {
  const rebuilt = new Map<Node, readonly Tensor[]>();
  const renew: Renew = (tensor) => outputsOf(tensor.node)[tensor.output];
  const outputsOf: OutputsOf = (node) => {
    let result = rebuilt.get(node);
    if (!result) {
      result = onBehalfOf(node, () => replace(node, renew, outputsOf) ?? withInputs(node, node.inputs.map(renew)));
      rebuilt.set(node, result);
    }
    return result;
  };
  for (const node of order) outputsOf(node);
  return outputs.map(renew);
}
