/** Ours: plans that are made beforehand, each run one submit. */
import { gradRules, type GradRule } from '../../src/autograd/rules.ts';
import { openDevice } from '../../src/gpu/device.ts';
import { batchNorm, conv2d, linear, relu, tensor } from '../../src/graph/functional.ts';
import { Memory } from '../../src/graph/memory.ts';
import type { ForwardOp } from '../../src/graph/ops.ts';
import { readStorage } from '../../src/graph/run.ts';
import type { Node, Tensor } from '../../src/graph/tensor.ts';
import { replay, soloPlan } from '../support/plans.ts';
import { Training } from '../support/training.ts';
import type { OpCase, Operation } from './cases.ts';
import { imageSize, sgd, type OpProblem, type Peer, type StepProblem } from './problem.ts';

export async function openStep({ model, batch, x, labels }: StepProblem): Promise<Peer> {
  const device = await openDevice();
  const input = { x: tensor(x, [batch, imageSize, imageSize, 3]), labels: tensor(Uint32Array.from(labels)) };
  const training = await Training.create(device, { model, batchSize: batch, batch: input });
  return {
    adapter: () => device.adapter,
    run: () => training.step(sgd.lr),
    results: async () => [Float32Array.of((await training.losses()).at(-1)!)],
  };
}

function forward(operation: Operation, [x, ...rest]: readonly Tensor[]): Tensor {
  switch (operation.op) {
    case 'conv2d':
      return conv2d(x, rest[0], operation);
    case 'batchNorm':
      return batchNorm(x, rest[0], rest[1]).y;
    case 'relu':
      return relu(x);
    case 'matmul':
      return linear(x, rest[0]);
  }
}

export async function openOp({ operation, isBackward, inputs: shapes, output }: OpCase, { inputs: values, dy }: OpProblem): Promise<Peer> {
  const device = await openDevice();
  const y = forward(operation, values.map((data, i) => tensor(data, shapes[i])));
  const outputs = [y];
  if (isBackward) {
    const { node } = y;
    const dOutputs = node.outputs.map((one) => (one === y ? tensor(dy, output) : null));
    const gradients = (gradRules[node.op as ForwardOp] as GradRule<ForwardOp>)(node as Node<ForwardOp>, dOutputs);
    outputs.push(...gradients.map((gradient) => gradient!));
  }
  const { plan, values: storages } = await soloPlan(new Memory(device), outputs);
  return {
    adapter: () => device.adapter,
    run: () => replay(device, [plan]),
    results: async () => {
      const read: Float32Array[] = [];
      for (const [i, one] of outputs.entries()) read.push((await readStorage(device, one, storages[i])) as Float32Array);
      return read;
    },
  };
}
