/**
 * Tensors are nodes of a traced graph: making one costs nothing on the GPU; shapes are checked when it is made.
 *
 * Layout of every tensor in GPU memory: the last dimension is padded with zeros to a multiple of 4, so that every kernel loads vec4s
 * whatever the channel count; `trials` blocks of that size lie one behind the other.
 */
import { ShapeError } from '../gpu/errors.ts';
import type { OpAttrs, OpName } from './ops.ts';

/** f16 holds activations and their gradients only: everything is computed in f32, and kept in it between steps. */
export type Dtype = 'f32' | 'f16' | 'u32';
export type Shape = readonly number[];

export interface TensorSpec {
  readonly shape: Shape;
  readonly dtype: Dtype;
  /** Length of the trial axis: how many independent versions of the tensor are held; 1 when no trial makes a difference. */
  readonly trials: number;
}

export interface Node<O extends OpName = OpName> {
  readonly op: O;
  readonly inputs: readonly Tensor[];
  readonly attrs: OpAttrs[O];
  readonly outputs: readonly Tensor[];
  /** Null for a node that was traced as it is. */
  readonly origin: Origin | null;
}

/** Where a node comes from that a transform made: names in profiles are those of the traced node. */
export interface Origin {
  readonly node: Node;
  /** Made by a gradient rule of that node, not in its place. */
  readonly isGradient: boolean;
}

let madeFor: Origin | null = null;

/** Nodes that `make` makes stand in the place of `node`, or are its gradients. */
export function onBehalfOf<T>(node: Node, make: () => T, isGradient = false): T {
  const outer = madeFor;
  madeFor = { node: node.origin?.node ?? node, isGradient: isGradient || (node.origin?.isGradient ?? false) };
  try {
    return make();
  } finally {
    madeFor = outer;
  }
}

/** A range of a GPUBuffer, in bytes. */
export interface Storage {
  readonly buffer: GPUBuffer;
  readonly offset: number;
  readonly size: number;
}

let nextId = 0;

let reader: (tensor: Tensor) => Promise<Float32Array | Uint32Array> = () =>
  Promise.reject(new Error('Tensor.read: import forkstep from its entry point'));
/** `run.ts` puts the execution in: tensors themselves know nothing of plans. */
export function setReader(read: typeof reader): void {
  reader = read;
}

export class Tensor implements TensorSpec {
  readonly id = nextId++;
  readonly shape: Shape;
  readonly dtype: Dtype;
  readonly trials: number;
  /** Set once, by `makeNode`. */
  node!: Node;

  constructor(
    spec: TensorSpec,
    /** Which output of its node this is. */
    readonly output: number,
  ) {
    this.shape = spec.shape;
    this.dtype = spec.dtype;
    this.trials = spec.trials;
  }

  /**
   * Compiles and runs what the tensor needs, on the default device, and returns its values in row-major order; with a trial axis, trial by trial.
   * Those of f16 come as a Float32Array. For exploring and testing: a training step never reads anything back.
   */
  read(): Promise<Float32Array | Uint32Array> {
    return reader(this);
  }

  /** `f32[2, 3]`, as error messages print it. */
  toString(): string {
    return `${this.dtype}[${this.shape.join(', ')}]${this.trials > 1 ? ` × ${this.trials} trials` : ''}`;
  }
}

/** Makes a node and its output tensors. Shapes come from the op table, not from the caller. */
export function makeNode<O extends OpName>(op: O, inputs: readonly Tensor[], attrs: OpAttrs[O], outputs: readonly TensorSpec[]): Tensor[] {
  const tensors = outputs.map((spec, index) => new Tensor(spec, index));
  const node: Node<O> = { op, inputs, attrs, outputs: tensors, origin: madeFor };
  for (const tensor of tensors) tensor.node = node as unknown as Node;
  return tensors;
}

/** A tensor with memory of its own that outlives a plan: a learnable parameter, or a statistic that training keeps. */
export class Variable extends Tensor {
  storage: Storage | null = null;

  constructor(
    readonly kind: 'parameter' | 'statistic',
    /** PyTorch's state-dict name; modules fill in the path. */
    public name: string,
    shape: Shape,
    /** Values in logical layout, until the variable is placed on a device; afterwards the values it was placed with. */
    public data: Float32Array,
  ) {
    super({ shape, dtype: 'f32', trials: 1 }, 0);
    const size = elements(shape);
    if (data.length !== size) {
      throw new ShapeError({
        op: 'Variable',
        arg: `data of ${name}`,
        rule: `must hold ${size} values (${this})`,
        got: data.length,
        fix: 'pass one value an element',
      });
    }
    this.node = { op: 'variable', inputs: [], attrs: { variable: this }, outputs: [this], origin: null } as Node<'variable'> as unknown as Node;
  }
}

export const elements = (shape: Shape): number => shape.reduce((product, size) => product * size, 1);
export const ceil4 = (n: number): number => Math.ceil(n / 4) * 4;

/** Size of the last dimension; a scalar counts as one element. */
export const lastDim = (shape: Shape): number => (shape.length === 0 ? 1 : shape[shape.length - 1]);
/** Number of rows: the product of all dimensions but the last. */
export const rowCount = (shape: Shape): number => elements(shape.slice(0, -1));
/** vec4s in one row. */
export const rowVec4s = (shape: Shape): number => ceil4(lastDim(shape)) / 4;
/** vec4s in one trial's block. */
export const blockVec4s = (shape: Shape): number => rowCount(shape) * rowVec4s(shape);
const vec4Bytes: Record<Dtype, number> = { f32: 16, f16: 8, u32: 16 };
/** Bytes of the whole tensor in GPU memory. */
export const sizeBytes = (spec: TensorSpec): number => spec.trials * blockVec4s(spec.shape) * vec4Bytes[spec.dtype];

type Values = Float32Array | Uint32Array;

/** Logical values → padded GPU layout. */
export function pack<A extends Values>(spec: TensorSpec, values: A): A {
  const width = lastDim(spec.shape);
  const stride = ceil4(width);
  if (width === stride) return values.slice() as A;
  const packed = new (values.constructor as new (n: number) => A)(spec.trials * blockVec4s(spec.shape) * 4);
  const rows = rowCount(spec.shape) * spec.trials;
  for (let row = 0; row < rows; row++) packed.set(values.subarray(row * width, (row + 1) * width) as A & ArrayLike<number>, row * stride);
  return packed;
}

/** Padded GPU layout → logical values, trial blocks one behind the other. */
export function unpack<A extends Values>(spec: TensorSpec, packed: A): A {
  const width = lastDim(spec.shape);
  const stride = ceil4(width);
  const rows = rowCount(spec.shape) * spec.trials;
  if (width === stride) return packed.slice(0, rows * width) as A;
  const values = new (packed.constructor as new (n: number) => A)(rows * width);
  for (let row = 0; row < rows; row++)
    values.set(packed.subarray(row * stride, row * stride + width) as A & ArrayLike<number>, row * width);
  return values;
}

/** The number whose f16 bits these are. */
export function fromHalf(bits: number): number {
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  const sign = bits & 0x8000 ? -1 : 1;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -24 * fraction);
}

/** Numbers of a tensor as they lie in GPU memory: padded, f16 widened. */
export function numbersOf(dtype: Dtype, bytes: ArrayBuffer): Values {
  if (dtype === 'u32') return new Uint32Array(bytes);
  return dtype === 'f16' ? Float32Array.from(new Uint16Array(bytes), fromHalf) : new Float32Array(bytes);
}
