/** TensorFlow.js on its WebGPU backend: NHWC, `tf.moments` + `tf.batchNorm`, momentum optimizer, weight decay added by hand (it has none). */
import { createRequire } from 'node:module';
import { blocks, imageSize, numClasses, permute4, sgd, type Peer, type Problem } from './problem.ts';

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
  matMul(a: Tensor, b: Tensor, transposeA: boolean, transposeB: boolean): Tensor;
  tidy<T>(f: () => T): T;
  variableGrads(f: () => Tensor, variables: Variable[]): { value: Tensor; grads: Record<string, Tensor> };
  losses: { softmaxCrossEntropy(labels: Tensor, logits: Tensor): Tensor };
  train: { momentum(lr: number, momentum: number): { applyGradients(grads: Record<string, Tensor>): void } };
}

function network(tf: Tf, weights: ReadonlyMap<string, Variable>) {
  const take = (name: string): Variable => weights.get(name)!;
  const convNorm = (x: Tensor, conv: string, norm: string, stride: number, padding: number): Tensor => {
    const y = tf.conv2d(x, take(`${conv}.weight`), stride, padding);
    const { mean, variance } = tf.moments(y, [0, 1, 2]);
    return tf.batchNorm(y, mean, variance, take(`${norm}.bias`), take(`${norm}.weight`), 1e-5);
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

export async function openTfjs({ batch, weights, x: image, labels }: Problem, version: string): Promise<Peer> {
  // Its CommonJS builds: the whole package, because the core alone registers no gradients.
  const require = createRequire(import.meta.url);
  const tf = require('@tensorflow/tfjs') as Tf;
  require('@tensorflow/tfjs-backend-webgpu');
  await tf.setBackend('webgpu');
  await tf.ready();
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
  const finish = async (): Promise<void> => {
    const backend = tf.backend();
    backend.ensureCommandEncoderReady();
    // Without this its open pass makes the command buffer invalid, and the step would take no time at all.
    backend.endComputePassEncoder();
    backend.submitQueue();
    await backend.device.queue.onSubmittedWorkDone();
  };
  return {
    name: 'tfjs-webgpu', version,
    step: async () => {
      const loss = tf.tidy(() => {
        const { value, grads } = tf.variableGrads(() => tf.losses.softmaxCrossEntropy(y, forward(x)), trained);
        const decayed = Object.fromEntries(trained.map((one) => [one.name, tf.add(grads[one.name], tf.mul(one, sgd.weightDecay))]));
        optimizer.applyGradients(decayed);
        return value;
      });
      await finish();
      const [value] = await loss.data();
      loss.dispose();
      return value;
    },
  };
}
