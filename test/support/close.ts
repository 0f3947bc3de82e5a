/** Numbers with a shape, or without one: then only their count is compared. */
export type Numbers = ArrayLike<number> | { shape: readonly number[]; data: ArrayLike<number> };

/** Both ≥ 0 and finite; a pair that accepted everything would be no test. */
export interface Tolerance {
  atol: number;
  rtol: number;
}

interface View {
  shape: readonly number[] | null;
  data: ArrayLike<number>;
}

function view(numbers: Numbers): View {
  return 'data' in numbers ? numbers : { shape: null, data: numbers };
}

function describe({ shape, data }: View): string {
  return shape ? `[${shape.join(', ')}]` : `${data.length} values`;
}

/** The two must have the same shape (where both have one) and the same, positive number of values. */
function checkSizes(op: string, actual: View, expected: View): void {
  const sameShape = !actual.shape || !expected.shape || actual.shape.join() === expected.shape.join();
  if (!sameShape || actual.data.length !== expected.data.length) {
    const sides = `got ${describe(actual)} of ${actual.data.length} vs expected ${describe(expected)} of ${expected.data.length}`;
    throw new Error(`${op}: shapes differ, ${sides}`);
  }
  if (expected.data.length === 0) throw new Error(`${op}: nothing to compare, got ${describe(actual)}`);
}

/** `(1, 0, 2)` for a flat index into a shape; the flat index itself without one. */
function place(index: number, shape: readonly number[] | null): string {
  if (!shape) return String(index);
  const indices: number[] = [];
  for (let axis = shape.length - 1, rest = index; axis >= 0; axis--) {
    indices.unshift(rest % shape[axis]);
    rest = Math.floor(rest / shape[axis]);
  }
  return `(${indices.join(', ')})`;
}

/** |a − b| ≤ atol + rtol·|b|; NaN is close to nothing, an infinity only to itself. */
function isClose(a: number, b: number, { atol, rtol }: Tolerance): boolean {
  if (!Number.isFinite(a) || !Number.isFinite(b)) return a === b;
  return Math.abs(a - b) <= atol + rtol * Math.abs(b);
}

/** How wrong one value is: NaN and a lone infinity are infinitely wrong. */
function errorOf(a: number, b: number): number {
  if (a === b) return 0;
  const error = Math.abs(a - b);
  return Number.isNaN(error) ? Infinity : error;
}

/**
 * Asserts |actual − expected| ≤ atol + rtol·|expected| for every value. NaN always fails, on either side; an infinity passes only
 * against the same infinity.
 * @throws Error with the shape, the first bad index, the worst one, both values there, the error beside what was allowed, how
 *   many values are bad and how many are NaN; also if shapes or counts differ, if there is nothing to compare, or if a tolerance
 *   is no finite number ≥ 0
 */
export function expectClose(actual: Numbers, expected: Numbers, tolerance: Tolerance): void {
  for (const name of ['atol', 'rtol'] as const) {
    const value = tolerance[name];
    if (!(value >= 0 && Number.isFinite(value))) throw new Error(`expectClose: ${name} must be finite and >= 0, got ${value}`);
  }
  const a = view(actual);
  const b = view(expected);
  checkSizes('expectClose', a, b);
  const shape = b.shape ?? a.shape;
  let nBad = 0;
  let nNan = 0;
  let first = -1;
  let worst = -1;
  for (let i = 0; i < b.data.length; i++) {
    if (Number.isNaN(a.data[i])) nNan++;
    if (isClose(a.data[i], b.data[i], tolerance)) continue;
    nBad++;
    if (first < 0) first = i;
    if (worst < 0 || errorOf(a.data[i], b.data[i]) > errorOf(a.data[worst], b.data[worst])) worst = i;
  }
  if (nBad === 0) return;
  const line = (name: string, i: number) => `  ${name} at ${place(i, shape)}: got ${a.data[i]}, expected ${b.data[i]}, `
    + `error ${errorOf(a.data[i], b.data[i])}, allowed ${tolerance.atol + tolerance.rtol * Math.abs(b.data[i])}`;
  throw new Error([
    `expectClose: ${nBad} of ${b.data.length} values differ (atol ${tolerance.atol}, rtol ${tolerance.rtol}), `
      + `shape ${describe({ shape, data: b.data })}, NaN in got: ${nNan}`,
    line('first', first),
    line('worst', worst),
  ].join('\n'));
}

/**
 * ‖a − b‖ / ‖b‖ in the Euclidean norm; Infinity where any value of either is not finite, or where b is 0 and a is not; 0 where both are 0.
 * @throws Error if shapes or counts differ, or if there is nothing to compare
 */
export function relativeDistance(a: Numbers, b: Numbers): number {
  const x = view(a);
  const y = view(b);
  checkSizes('relativeDistance', x, y);
  const expected = Float64Array.from(y.data);
  const difference = expected.map((value, i) => x.data[i] - value);
  if (!difference.every(Number.isFinite)) return Infinity;
  return difference.every((value) => value === 0) ? 0 : norm(difference) / norm(expected);
}

/** Euclidean norm; the greatest magnitude is taken out first, so no square under- or overflows. */
function norm(values: Float64Array): number {
  const top = values.reduce((greatest, value) => Math.max(greatest, Math.abs(value)), 0);
  return top === 0 ? 0 : top * Math.sqrt(values.reduce((total, value) => total + (value / top) ** 2, 0));
}
