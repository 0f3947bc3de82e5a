/** What the libraries are given to do: whole training steps of ResNet18, and its ops one by one. */
import { windowOut } from '../../src/graph/opShapes.ts';
import type { Shape } from '../../src/graph/tensor.ts';
import { convName, convShapes, type ConvShape } from '../support/convShapes.ts';

export const methods = ['forkstep', 'jax-js', 'tfjs'] as const;
export type Method = (typeof methods)[number];

/** Forward, cross-entropy, backward, SGD with momentum and weight decay of ResNet18 with the CIFAR stem. */
export interface StepCase {
  readonly kind: 'step';
  readonly name: string;
  readonly width: number;
  readonly batch: number;
  /** However many rounds are asked for. */
  readonly mostRounds: number;
  /**
   * How far losses of the first steps may be from ours, relative: the first shows the forward pass, the second gradients and their step,
   * the third momentum. Roundings grow from step to step, by more the faster the loss falls.
   */
  readonly tolerances: readonly number[];
}

export type Operation =
  | { readonly op: 'conv2d'; readonly stride: number; readonly padding: number }
  | { readonly op: 'batchNorm' | 'relu' | 'matmul' };

/** y of the inputs; with `isBackward` the gradients of all inputs too, for a given dy. */
export interface OpCase {
  readonly kind: 'op';
  readonly name: string;
  readonly operation: Operation;
  readonly isBackward: boolean;
  /** Images NHWC, convolution weights HWIO; batch norm's are x, weight, bias. */
  readonly inputs: readonly Shape[];
  readonly output: Shape;
}

export type PeerCase = StepCase | OpCase;

const step = (width: number, batch: number, rest: Pick<StepCase, 'mostRounds' | 'tolerances'>): StepCase => ({
  kind: 'step', name: `step width ${width}, batch ${batch}`, width, batch, ...rest,
});

export const opName = (of: string, isBackward: boolean): string => `${of} ${isBackward ? 'f+b' : 'f'}`;

/** Forward, and forward with gradients. */
const both = (of: string, rest: Omit<OpCase, 'kind' | 'name' | 'isBackward'>): OpCase[] =>
  [false, true].map((isBackward) => ({ kind: 'op', name: opName(of, isBackward), isBackward, ...rest }));

export const convCase = (shape: ConvShape): string => `conv ${convName(shape)}`;

function conv(shape: ConvShape): OpCase[] {
  const { batch, size, cin, cout, kernel, stride } = shape;
  const padding = (kernel - 1) / 2;
  const out = windowOut('conv2d', size, kernel, stride, padding);
  return both(convCase(shape), {
    operation: { op: 'conv2d', stride, padding },
    inputs: [[batch, size, size, cin], [kernel, kernel, cin, cout]], output: [batch, out, out, cout],
  });
}

function batchNorm(batch: number, channels: number): OpCase[] {
  const x: Shape = [batch, 32, 32, channels];
  return both(`batch norm b${batch} ${channels}, 32²`, { operation: { op: 'batchNorm' }, inputs: [x, [channels], [channels]], output: x });
}

const images: Shape = [8, 32, 32, 64];

export const wholeStep = step(16, 32, { mostRounds: 100, tolerances: [1e-5, 1e-4, 1e-3] });
/** A step of the peers takes many seconds here, so it gets few rounds: it is there for its memory. Its loss falls to a third at once. */
export const wideStep = step(64, 8, { mostRounds: 3, tolerances: [1e-5, 1e-3] });
export const batchNorms: readonly OpCase[] = [...batchNorm(8, 64), ...batchNorm(32, 16)];

export const cases: readonly PeerCase[] = [
  wholeStep,
  wideStep,
  ...convShapes.flatMap(conv),
  ...batchNorms,
  { kind: 'op', name: 'relu b8 64, 32² f', operation: { op: 'relu' }, isBackward: false, inputs: [images], output: images },
  {
    kind: 'op', name: 'matmul 512³ f', operation: { op: 'matmul' }, isBackward: false,
    inputs: [[512, 512], [512, 512]], output: [512, 512],
  },
];
