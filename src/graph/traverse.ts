/** Walking and rebuilding graphs. */
import { op, type OpName } from './ops.ts';
import { onBehalfOf, type Node, type Tensor } from './tensor.ts';

/** Nodes that the outputs need, inputs before users. */
export function topologicalOrder(outputs: readonly Tensor[]): Node[] {
  const order: Node[] = [];
  const seen = new Set<Node>();
  const stack: [Node, number][] = [];
  for (const { node: root } of outputs) {
    if (seen.has(root)) continue;
    seen.add(root);
    stack.push([root, 0]);
    while (stack.length > 0) {
      const top = stack[stack.length - 1];
      const [node, next] = top;
      if (next === node.inputs.length) {
        order.push(node);
        stack.pop();
        continue;
      }
      top[1] = next + 1;
      const child = node.inputs[next].node;
      if (!seen.has(child)) {
        seen.add(child);
        stack.push([child, 0]);
      }
    }
  }
  return order;
}

/** The node with other inputs; itself when nothing changes. */
export function withInputs(node: Node, inputs: readonly Tensor[]): readonly Tensor[] {
  if (inputs.every((input, i) => input === node.inputs[i])) return node.outputs;
  return onBehalfOf(node, () => op(node.op as OpName, inputs, node.attrs));
}

/** Who reads each tensor, and at which input. */
export function consumersOf(order: readonly Node[]): Map<Tensor, { node: Node; input: number }[]> {
  const consumers = new Map<Tensor, { node: Node; input: number }[]>();
  for (const node of order) {
    node.inputs.forEach((tensor, input) => {
      const list = consumers.get(tensor);
      if (list) list.push({ node, input });
      else consumers.set(tensor, [{ node, input }]);
    });
  }
  return consumers;
}
