/**
 * Graph passes that save launches, memory traffic and arithmetic. Each can be switched off. All leave the values as they are, but `sharedInput`
 * rounds otherwise.
 *
 *   normRelu          relu(batchNorm(x)), relu(batchNorm(x) + r)  →  one batchNorm that adds r and clips as it writes
 *   normReluBackward  batchNormBackward(reluBackward(dy, y), …)    →  one batchNormBackward that masks as it reads
 *   sharedInput       conv2d(x, W + Σ c_k·D_k) of an x that all trials share  →  conv2d(x, W) + Σ c_k·conv2d(x, D_k): a network's first layer is
 *                     convolved once for the weight and once a direction instead of once a trial, where there are more trials than that
 */
import { op } from './ops.ts';
import { onBehalfOf, type Node, type Tensor } from './tensor.ts';
import { consumersOf, topologicalOrder, withInputs } from './traverse.ts';

export const fusions = ['normRelu', 'normReluBackward', 'sharedInput'] as const;
export type Fusion = (typeof fusions)[number];

interface ForwardMatch {
  readonly norm: Node<'batchNorm'>;
  readonly residual: Tensor | null;
}

type Consumers = ReturnType<typeof consumersOf>;
type DependsOn = (tensor: Tensor, node: Node) => boolean;

/** Whether a tensor is computed from a node: one launch could not then take the tensor in and do the node's work. */
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

/** The batchNorm that `relu` can be part of, with the residual in between. */
function matchForward(relu: Node, consumers: Consumers, kept: ReadonlySet<Tensor>, dependsOn: DependsOn): ForwardMatch | null {
  const single = (tensor: Tensor) => consumers.get(tensor)!.length === 1 && !kept.has(tensor);
  const plainNorm = (tensor: Tensor): Node<'batchNorm'> | null => {
    const node = tensor.node as Node<'batchNorm'>;
    return node.op === 'batchNorm' && tensor.output === 0 && single(tensor) && !node.attrs.relu && !node.attrs.residual ? node : null;
  };
  const [x] = relu.inputs;
  const direct = plainNorm(x);
  if (direct) return { norm: direct, residual: null };
  if (x.node.op !== 'add' || !single(x)) return null;
  const [a, b] = x.node.inputs;
  for (const [candidate, other] of [
    [a, b],
    [b, a],
  ]) {
    const norm = plainNorm(candidate);
    // The fused kernel writes one block a trial of the statistics; a residual with more trials than them would not fit.
    if (norm && a !== b && (other.trials === 1 || other.trials === candidate.trials) && !dependsOn(other, norm))
      return { norm, residual: other };
  }
  return null;
}

/** For each reluBackward, the batchNormBackward that can apply its mask. */
function matchBackward(mask: Node, consumers: Consumers, dependsOn: DependsOn): Node<'batchNormBackward'> | null {
  const fits = (node: Node) =>
    node.op === 'batchNormBackward' &&
    !(node as Node<'batchNormBackward'>).attrs.relu &&
    !node.inputs.slice(1).some((input) => dependsOn(input, mask));
  const user = consumers.get(mask.outputs[0])?.find(({ node, input }) => input === 0 && fits(node));
  return user ? (user.node as Node<'batchNormBackward'>) : null;
}

/** Nodes whose values differ from trial to trial. */
function trialNodes(order: readonly Node[]): Set<Node> {
  const found = new Set<Node>();
  const isOf = (node: Node): boolean => node.op === 'perturbed' || node.outputs.some(({ trials }) => trials > 1);
  for (const node of order) if (isOf(node) || node.inputs.some((input) => found.has(input.node))) found.add(node);
  return found;
}

/** The weight of a convolution that trials can share, given how many there are of them in all passes. */
function matchShared(node: Node, differing: ReadonlySet<Node>, trials: number | undefined): Node<'perturbed'> | null {
  if (node.op !== 'conv2d') return null;
  const [x, weight] = node.inputs;
  if (weight.node.op !== 'perturbed' || differing.has(x.node)) return null;
  const perturbed = weight.node as Node<'perturbed'>;
  return (trials ?? perturbed.attrs.trials) >= perturbed.inputs.length ? perturbed : null;
}

/**
 * Rewrites the graph of `outputs`.
 * @param trials those of the event in all its passes, so that each pass is rewritten alike; else those of the graph
 * @returns for every old output the tensor that holds its value now
 */
export function fuse(outputs: readonly Tensor[], enabled: readonly Fusion[] = fusions, trials?: number): Tensor[] {
  const order = topologicalOrder(outputs);
  const differing = enabled.includes('sharedInput') ? trialNodes(order) : null;
  const consumers = consumersOf(order);
  const kept = new Set(outputs);
  const dependsOn = dependencies(order);
  const forward = new Map<Node, ForwardMatch>();
  const absorbedNorm = new Map<Node, Node>();
  const backward = new Map<Node, Node>();
  const absorbedMask = new Map<Node, Node<'batchNormBackward'>>();
  for (const node of order) {
    if (node.op === 'relu' && enabled.includes('normRelu')) {
      const match = matchForward(node, consumers, kept, dependsOn);
      if (match && !absorbedNorm.has(match.norm)) {
        forward.set(node, match);
        absorbedNorm.set(match.norm, node);
      }
    }
    if (node.op === 'reluBackward' && enabled.includes('normReluBackward')) {
      const match = matchBackward(node, consumers, dependsOn);
      if (match) {
        backward.set(match, node);
        absorbedMask.set(node, match);
      }
    }
  }

  const rebuilt = new Map<Node, readonly Tensor[]>();
  const renew = (tensor: Tensor): Tensor => outputsOf(tensor.node)[tensor.output];
  const outputsOf = (node: Node): readonly Tensor[] => {
    let result = rebuilt.get(node);
    if (!result) {
      result = onBehalfOf(node, () => rebuild(node));
      rebuilt.set(node, result);
    }
    return result;
  };
  const rebuild = (node: Node): readonly Tensor[] => {
    const match = forward.get(node);
    if (match) return [outputsOf(match.norm)[0]];
    const relu = absorbedNorm.get(node);
    if (relu) {
      const { residual } = forward.get(relu)!;
      const inputs = [...node.inputs, ...(residual ? [residual] : [])].map(renew);
      return op('batchNorm', inputs, { ...(node as Node<'batchNorm'>).attrs, relu: true, residual: residual !== null });
    }
    const mask = backward.get(node);
    if (mask) {
      const shared = consumers.get(mask.outputs[0])!.length > 1 || kept.has(mask.outputs[0]);
      const inputs = [mask.inputs[0], ...node.inputs.slice(1), mask.inputs[1]].map(renew);
      return op('batchNormBackward', inputs, { ...(node as Node<'batchNormBackward'>).attrs, relu: true, residual: shared });
    }
    const weight = differing && matchShared(node, differing, trials);
    if (weight) {
      const x = renew(node.inputs[0]);
      const operands = weight.inputs.slice(0, -1).map((operand) => op('conv2d', [x, renew(operand)], (node as Node<'conv2d'>).attrs)[0]);
      return op('perturbed', [...operands, renew(weight.inputs[weight.inputs.length - 1])], weight.attrs);
    }
    const user = absorbedMask.get(node);
    if (user) return [outputsOf(user)[3]];
    return withInputs(node, node.inputs.map(renew));
  };
  for (const node of order) outputsOf(node);
  return outputs.map(renew);
}
