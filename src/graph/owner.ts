/** Whose work a node is, for profiles: the layer, by the path of its parameters, and the direction. */
import type { Owner } from '../kernels/contract.ts';
import type { Node, Tensor, Variable } from './tensor.ts';

/** `layer1.0.conv1` of `layer1.0.conv1.weight`; a variable of no module keeps its name. */
const layerOf = ({ name }: Variable): string => (name.includes('.') ? name.slice(0, name.lastIndexOf('.')) : name);

function variableOf(tensor: Tensor): Variable | null {
  if (tensor.node.op === 'perturbed') return variableOf(tensor.node.inputs[0]);
  return tensor.node.op === 'variable' ? (tensor.node as Node<'variable'>).attrs.variable : null;
}

/** The layer whose parameters a node reads. */
function ownLayer({ op, inputs, outputs }: Node): string | null {
  const variable = op === 'perturbed' ? variableOf(outputs[0]) : inputs.map(variableOf).find((found) => found !== null);
  return variable ? layerOf(variable) : null;
}

/** The layer that a node's first operand comes of. */
function layerBefore(node: Node): string | null {
  for (let before = node.inputs[0]?.node; before; before = before.inputs[0]?.node) {
    const traced = before.origin?.node ?? before;
    const layer = ownLayer(traced);
    if (layer !== null) return layer;
  }
  return null;
}

/**
 * `layer1.0.conv1` of what reads its parameters; `crossEntropy after fc` of what has none, `assembleBatch` of what follows no layer either.
 * A node that a transform made is the work of the one that it was made for.
 */
export function ownerOf(node: Node): Owner {
  const traced = node.origin?.node ?? node;
  const direction = node.origin?.isGradient ? 'backward' : 'forward';
  const own = ownLayer(traced);
  if (own !== null) return { layer: own, direction };
  const before = layerBefore(traced);
  return before === null ? { layer: traced.op, direction: null } : { layer: `${traced.op} after ${before}`, direction };
}
