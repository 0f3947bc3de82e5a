/** jax-js: all of a case under one `jit`, NCHW and OIHW as its convolution takes them, batch norm written out (it has none). */
import type { OpCase, Operation } from './cases.ts';
import type { Offered } from './navigator.ts';
import { blocks, imageSize, numClasses, permute4, sgd, type OpProblem, type Peer, type StepProblem } from './problem.ts';

/** Its arrays are used up by whatever reads them; `.ref` keeps one for another reader. */
export interface Arr {
  readonly ref: Arr;
  readonly shape: number[];
  add(other: Arr | number): Arr;
  sub(other: Arr | number): Arr;
  mul(other: Arr | number): Arr;
  sum(): Arr;
  reshape(shape: readonly number[]): Arr;
  jsAsync(): Promise<number>;
  data(): Promise<Float32Array>;
  dispose(): void;
}
export type Params = Record<string, Arr>;

export interface Jax {
  init(backend: string): Promise<unknown>;
  defaultDevice(backend: string): void;
  blockUntilReady(tree: unknown): Promise<void>;
  jit<F>(f: F): F;
  vjp(f: (...inputs: Arr[]) => Arr, inputs: readonly Arr[]): [Arr, (dy: Arr) => Arr[]];
  vmap<A extends unknown[]>(f: (...args: A) => Arr, inAxes: readonly (number | null)[]): (...args: A) => Arr;
  valueAndGrad(f: (params: Params, x: Arr, y: Arr) => Arr): (params: Params, x: Arr, y: Arr) => [Arr, Params];
  tree: { ref(params: Params): Params };
  lax: { convGeneralDilated(x: Arr, w: Arr, strides: number[], padding: number[][]): Arr };
  nn: { relu(x: Arr): Arr; logSoftmax(x: Arr): Arr; oneHot(y: Arr, classes: number): Arr };
  numpy: {
    array(data: Float32Array | Int32Array, options?: { dtype: unknown }): Arr;
    zeros(shape: readonly number[]): Arr;
    mean(x: Arr, axes: number[], options?: { keepdims: boolean }): Arr;
    reciprocal(x: Arr): Arr;
    sqrt(x: Arr): Arr;
    matmul(a: Arr, b: Arr): Arr;
    transpose(x: Arr): Arr;
    int32: unknown;
  };
}

function conv2d({ lax }: Jax, x: Arr, weight: Arr, stride: number, padding: number): Arr {
  return lax.convGeneralDilated(x, weight, [stride, stride], [[padding, padding], [padding, padding]]);
}

function batchNorm({ numpy: np }: Jax, x: Arr, weight: Arr, bias: Arr): Arr {
  const channels = [1, x.shape[1], 1, 1];
  const centred = x.ref.sub(np.mean(x, [0, 2, 3], { keepdims: true }));
  const variance = np.mean(centred.ref.mul(centred.ref), [0, 2, 3], { keepdims: true });
  return centred.mul(np.reciprocal(np.sqrt(variance.add(1e-5)))).mul(weight.reshape(channels)).add(bias.reshape(channels));
}

function network(jax: Jax, take: (params: Params, name: string) => Arr) {
  const { numpy: np, nn } = jax;
  const convNorm = (p: Params, x: Arr, conv: string, norm: string, stride: number, padding: number): Arr => {
    const y = conv2d(jax, x, take(p, `${conv}.weight`), stride, padding);
    return batchNorm(jax, y, take(p, `${norm}.weight`), take(p, `${norm}.bias`));
  };
  return (p: Params, image: Arr): Arr => {
    let x = nn.relu(convNorm(p, image, 'conv1', 'bn1', 1, 1));
    for (const { name, stride, hasDownsample } of blocks) {
      const first = nn.relu(convNorm(p, x.ref, `${name}.conv1`, `${name}.bn1`, stride, 1));
      const second = convNorm(p, first, `${name}.conv2`, `${name}.bn2`, 1, 1);
      const shortcut = hasDownsample ? convNorm(p, x, `${name}.downsample.0`, `${name}.downsample.1`, stride, 0) : x;
      x = nn.relu(second.add(shortcut));
    }
    return np.matmul(np.mean(x, [2, 3]), np.transpose(take(p, 'fc.weight'))).add(take(p, 'fc.bias'));
  };
}

/** Mean cross entropy of the network. */
export function meanLoss(jax: Jax, batch: number): (params: Params, x: Arr, y: Arr) => Arr {
  const { nn } = jax;
  const forward = network(jax, (params, name) => params[name]);
  return (params, x, y) => nn.logSoftmax(forward(params, x)).mul(nn.oneHot(y, numClasses)).sum().mul(-1 / batch);
}

export async function loadJax(): Promise<Jax> {
  const jax = (await import(String('@jax-js/jax'))) as Jax;
  await jax.init('webgpu');
  jax.defaultDevice('webgpu');
  return jax;
}

export async function openStep({ batch, weights, x: image, labels }: StepProblem, { fence, adapter }: Offered): Promise<Peer> {
  const jax = await loadJax();
  const { numpy: np, tree } = jax;
  const loss = meanLoss(jax, batch);
  const step = jax.jit((params: Params, momentum: Params, x: Arr, y: Arr): [Arr, Params, Params] => {
    const [value, gradients] = jax.valueAndGrad(loss)(tree.ref(params), x, y);
    const nextParams: Params = {};
    const nextMomentum: Params = {};
    for (const name of Object.keys(params)) {
      nextMomentum[name] = momentum[name].mul(sgd.momentum).add(gradients[name].add(params[name].ref.mul(sgd.weightDecay)));
      nextParams[name] = params[name].sub(nextMomentum[name].ref.mul(sgd.lr));
    }
    return [value, nextParams, nextMomentum];
  });
  let params: Params = {};
  let momentum: Params = {};
  for (const [name, { shape, data }] of weights) {
    params[name] = np.array(data).reshape(shape);
    momentum[name] = np.zeros(shape);
  }
  const x = np.array(permute4(image, [batch, imageSize, imageSize, 3], [0, 3, 1, 2])).reshape([batch, 3, imageSize, imageSize]);
  const y = np.array(Int32Array.from(labels), { dtype: np.int32 });
  let last: Arr | null = null;
  return {
    adapter,
    run: async () => {
      last?.dispose();
      const out = step(params, momentum, x.ref, y.ref);
      [last, params, momentum] = out;
      await jax.blockUntilReady(out);
      await fence();
    },
    results: async () => {
      const loss = last!;
      last = null;
      return [Float32Array.of(await loss.jsAsync())];
    },
  };
}

type Forward<O> = (jax: Jax, inputs: readonly Arr[], operation: Extract<Operation, { op: O }>) => Arr;

const forwards: { readonly [O in Operation['op']]: Forward<O> } = {
  conv2d: (jax, [x, weight], { stride, padding }) => conv2d(jax, x, weight, stride, padding),
  batchNorm: (jax, [x, weight, bias]) => batchNorm(jax, x, weight, bias),
  relu: ({ nn }, [x]) => nn.relu(x),
  matmul: ({ numpy }, [a, b]) => numpy.matmul(a, b),
};

type Axes = readonly [number, number, number, number];
/** Where each axis here is there, and back; null where layouts are the same. */
type Layout = { readonly to: Axes; readonly from: Axes } | null;
const nchw: Layout = { to: [0, 3, 1, 2], from: [0, 2, 3, 1] };
const oihw: Layout = { to: [3, 2, 0, 1], from: [2, 3, 1, 0] };

/** Of the inputs; outputs are laid out as the first. */
const layouts: Readonly<Record<Operation['op'], readonly Layout[]>> = {
  conv2d: [nchw, oihw],
  batchNorm: [nchw, null, null],
  relu: [null],
  matmul: [null, null],
};

export async function openOp(
  { operation, isBackward, inputs: shapes, output }: OpCase,
  problem: OpProblem,
  { fence, adapter }: Offered,
): Promise<Peer> {
  const jax = await loadJax();
  const permuted = (shape: readonly number[], layout: Layout): readonly number[] => (layout ? layout.to.map((axis) => shape[axis]) : shape);
  const upload = (data: Float32Array, shape: readonly number[], layout: Layout): Arr =>
    jax.numpy.array(layout ? permute4(data, shape, layout.to) : data).reshape(permuted(shape, layout));
  const forward = (...inputs: Arr[]): Arr =>
    (forwards[operation.op] as (jax: Jax, inputs: Arr[], operation: Operation) => Arr)(jax, inputs, operation);
  const run = jax.jit((inputs: Arr[], dy: Arr[]): Arr[] => {
    if (!isBackward) return [forward(...inputs)];
    const [y, pull] = jax.vjp(forward, inputs);
    return [y, ...pull(dy[0])];
  });
  const inputLayouts = layouts[operation.op];
  const [x] = inputLayouts;
  const inputs = problem.inputs.map((data, i) => upload(data, shapes[i], inputLayouts[i]));
  const dy = isBackward ? [upload(problem.dy, output, x)] : [];
  let last: Arr[] = [];
  return {
    adapter,
    run: async () => {
      for (const one of last) one.dispose();
      last = run(inputs.map((one) => one.ref), dy.map((one) => one.ref));
      await jax.blockUntilReady(last);
      await fence();
    },
    results: async () => {
      const read: Float32Array[] = [];
      for (const [i, one] of last.entries()) {
        const layout = i === 0 ? x : inputLayouts[i - 1];
        const { shape } = one;
        const data = await one.data();
        read.push(layout ? permute4(data, shape, layout.from) : data);
      }
      last = [];
      return read;
    },
  };
}
