/** TensorFlow.js on its WebGPU backend: NHWC, `tf.moments` + `tf.batchNorm`, momentum optimizer; weight decay by hand (it has none). */
import { createRequire } from 'node:module';
import type { OpCase, Operation } from './cases.ts';
import type { Offered } from './navigator.ts';
import { blocks, imageSize, numClasses, permute4, sgd, type OpProblem, type Peer, type StepProblem } from './problem.ts';

interface Tensor {
  readonly shape: number[];
  data(): Promise<Float32Array>;
  dispose(): void;
}
interface Variable extends Tensor {
  readonly name: string;
}
interface WebGpuBackend {
  ensureCommandEncoderReady(): void;
  endComputePassEncoder(): void;
  submitQueue(): void;
  readonly device: GPUDevice;
}

interface Tf {
  setBackend(name: string): Promise<boolean>;
  ready(): Promise<void>;
  backend(): WebGpuBackend;
  tensor(data: Float32Array, shape: readonly number[]): Tensor;
  tensor1d(data: Int32Array, dtype: string): Tensor;
  variable(value: Tensor): Variable;
  oneHot(labels: Tensor, classes: number): Tensor;
  conv2d(x: Tensor, w: Tensor, stride: number, padding: number): Tensor;
  moments(x: Tensor, axes: number[]): { mean: Tensor; variance: Tensor };
  batchNorm(x: Tensor, mean: Tensor, variance: Tensor, offset: Tensor, scale: Tensor, eps: number): Tensor;
  relu(x: Tensor): Tensor;
  add(a: Tensor, b: Tensor): Tensor;
  mul(a: Tensor, b: number): Tensor;
  mean(x: Tensor, axes: number[]): Tensor;
  matMul(a: Tensor, b: Tensor, transposeA?: boolean, transposeB?: boolean): Tensor;
  tidy<T>(f: () => T): T;
  valueAndGrads(f: (...inputs: Tensor[]) => Tensor): (inputs: Tensor[], dy: Tensor) => { value: Tensor; grads: Tensor[] };
  variableGrads(f: () => Tensor, variables: Variable[]): { value: Tensor; grads: Record<string, Tensor> };
  losses: { softmaxCrossEntropy(labels: Tensor, logits: Tensor): Tensor };
  train: { momentum(lr: number, momentum: number): { applyGradients(grads: Record<string, Tensor>): void } };
}

function batchNorm(tf: Tf, x: Tensor, weight: Tensor, bias: Tensor): Tensor {
  const { mean, variance } = tf.moments(x, [0, 1, 2]);
  return tf.batchNorm(x, mean, variance, bias, weight, 1e-5);
}

function network(tf: Tf, weights: ReadonlyMap<string, Variable>) {
  const take = (name: string): Variable => weights.get(name)!;
  const convNorm = (x: Tensor, conv: string, norm: string, stride: number, padding: number): Tensor => {
    const y = tf.conv2d(x, take(`${conv}.weight`), stride, padding);
    return batchNorm(tf, y, take(`${norm}.weight`), take(`${norm}.bias`));
  };
  return (image: Tensor): Tensor => {
    let x = tf.relu(convNorm(image, 'conv1', 'bn1', 1, 1));
    for (const { name, stride, hasDownsample } of blocks) {
      const first = tf.relu(convNorm(x, `${name}.conv1`, `${name}.bn1`, stride, 1));
      const second = convNorm(first, `${name}.conv2`, `${name}.bn2`, 1, 1);
      x = tf.relu(tf.add(second, hasDownsample ? convNorm(x, `${name}.downsample.0`, `${name}.downsample.1`, stride, 0) : x));
    }
    return tf.add(tf.matMul(tf.mean(x, [1, 2]), take('fc.weight'), false, true), take('fc.bias'));
  };
}

async function loadTf(): Promise<Tf> {
  // Its CommonJS builds: the whole package, because the core alone registers no gradients.
  const require = createRequire(import.meta.url);
  const tf = require('@tensorflow/tfjs') as Tf;
  require('@tensorflow/tfjs-backend-webgpu');
  await tf.setBackend('webgpu');
  await tf.ready();
  return tf;
}

/** Submits what it has encoded and waits for it. */
async function finish(tf: Tf): Promise<void> {
  const backend = tf.backend();
  backend.ensureCommandEncoderReady();
  // Without this its open pass makes the command buffer invalid, and the work would take no time at all.
  backend.endComputePassEncoder();
  backend.submitQueue();
  await backend.device.queue.onSubmittedWorkDone();
}

export async function openStep({ batch, weights, x: image, labels }: StepProblem, { adapter }: Offered): Promise<Peer> {
  const tf = await loadTf();
  const variables = new Map<string, Variable>();
  for (const [name, { shape, data }] of weights) {
    const isConv = shape.length === 4;
    const [o, i, h, w] = shape;
    const value = isConv ? tf.tensor(permute4(data, shape, [2, 3, 1, 0]), [h, w, i, o]) : tf.tensor(data, shape);
    variables.set(name, tf.variable(value));
  }
  const forward = network(tf, variables);
  const trained = [...variables.values()];
  const optimizer = tf.train.momentum(sgd.lr, sgd.momentum);
  const x = tf.tensor(image, [batch, imageSize, imageSize, 3]);
  const y = tf.oneHot(tf.tensor1d(Int32Array.from(labels), 'int32'), numClasses);
  let last: Tensor | null = null;
  return {
    adapter,
    run: async () => {
      last?.dispose();
      last = tf.tidy(() => {
        const { value, grads } = tf.variableGrads(() => tf.losses.softmaxCrossEntropy(y, forward(x)), trained);
        const decayed = Object.fromEntries(trained.map((one) => [one.name, tf.add(grads[one.name], tf.mul(one, sgd.weightDecay))]));
        optimizer.applyGradients(decayed);
        return value;
      });
      await finish(tf);
    },
    results: async () => [await last!.data()],
  };
}

type Forward<O> = (tf: Tf, inputs: readonly Tensor[], operation: Extract<Operation, { op: O }>) => Tensor;

const forwards: { readonly [O in Operation['op']]: Forward<O> } = {
  conv2d: (tf, [x, weight], { stride, padding }) => tf.conv2d(x, weight, stride, padding),
  batchNorm: (tf, [x, weight, bias]) => batchNorm(tf, x, weight, bias),
  relu: (tf, [x]) => tf.relu(x),
  matmul: (tf, [a, b]) => tf.matMul(a, b),
};

export async function openOp(
  { operation, isBackward, inputs: shapes, output }: OpCase,
  problem: OpProblem,
  { adapter }: Offered,
): Promise<Peer> {
  const tf = await loadTf();
  const forward = (...inputs: Tensor[]): Tensor =>
    (forwards[operation.op] as (tf: Tf, inputs: Tensor[], operation: Operation) => Tensor)(tf, inputs, operation);
  const withGradients = tf.valueAndGrads(forward);
  const inputs = problem.inputs.map((data, i) => tf.tensor(data, shapes[i]));
  const dy = tf.tensor(problem.dy, output);
  let last: Tensor[] = [];
  return {
    adapter,
    run: async () => {
      for (const one of last) one.dispose();
      last = tf.tidy(() => {
        if (!isBackward) return [forward(...inputs)];
        const { value, grads } = withGradients(inputs, dy);
        return [value, ...grads];
      });
      await finish(tf);
    },
    results: async () => {
      const read: Float32Array[] = [];
      for (const one of last) read.push(await one.data());
      return read;
    },
  };
}
