/**
 * The array that the float64 references compute with: row-major data of a logical shape.
 * Images are NHWC, convolution weights [kH][kW][Cin][Cout]; a scalar has the shape [] and one element.
 */
export interface Nd {
  shape: number[];
  data: Float64Array;
}

/** Number of elements of a shape; 1 for []. */
export function sizeOf(shape: readonly number[]): number {
  return shape.reduce((product, length) => product * length, 1);
}

/**
 * An Nd that owns a float64 copy of `data`.
 * @throws RangeError if `data` has not exactly the shape's number of elements
 */
export function nd(shape: readonly number[], data: ArrayLike<number>): Nd {
  if (data.length !== sizeOf(shape)) {
    throw new RangeError(`nd: data.length must equal the size of shape [${shape}], got ${data.length} vs ${sizeOf(shape)}`);
  }
  return { shape: [...shape], data: Float64Array.from(data) };
}

/** An Nd of zeros. */
export function zeros(shape: readonly number[]): Nd {
  return { shape: [...shape], data: new Float64Array(sizeOf(shape)) };
}

/** An Nd of shape []. */
export function scalar(value: number): Nd {
  return nd([], [value]);
}

/** y[i] = f(x[i], i), of x's shape. */
export function map(x: Nd, f: (value: number, i: number) => number): Nd {
  return { shape: [...x.shape], data: x.data.map(f) };
}

/** @throws RangeError if `a` is not of the given shape; `what` is `<op>: <arg>` */
export function requireShape(what: string, a: Nd, shape: readonly number[]): void {
  if (a.shape.length !== shape.length || a.shape.some((length, axis) => length !== shape[axis])) {
    throw new RangeError(`${what} must have the shape [${shape}], got [${a.shape}]`);
  }
}

/** @throws RangeError if `a` has not `rank` axes; `what` is `<op>: <arg>` */
export function requireRank(what: string, a: Nd, rank: number): void {
  if (a.shape.length !== rank) throw new RangeError(`${what} must have ${rank} axes, got [${a.shape}]`);
}

/** floor((size + 2·padding − kernel) / stride) + 1: the windows that fit along one axis. @throws RangeError if none does */
export function windowsAlong(op: string, size: number, kernel: number, stride: number, padding: number): number {
  const n = Math.floor((size + 2 * padding - kernel) / stride) + 1;
  if (!(n >= 1)) throw new RangeError(`${op}: kernel must fit the padded axis, got ${kernel} vs ${size} + 2·${padding}`);
  return n;
}
