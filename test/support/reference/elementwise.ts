import type { Nd } from '../nd.ts';
import { map, requireShape, scalar } from '../nd.ts';

/** y = max(x, 0); relu(NaN) = NaN, as in PyTorch. */
export function relu(x: Nd): Nd {
  return map(x, (value) => Math.max(value, 0));
}

/** dx = dy · [y > 0].  @param y the forward's output; x itself gives the same mask */
export function reluVjp(y: Nd, dy: Nd): { dx: Nd } {
  requireShape('reluVjp: dy', dy, y.shape);
  return { dx: map(dy, (g, i) => (y.data[i] > 0 ? g : 0)) };
}

/** y = a + b, of one shape. */
export function add(a: Nd, b: Nd): Nd {
  requireShape('add: b', b, a.shape);
  return map(a, (value, i) => value + b.data[i]);
}

/** da = db = dy */
export function addVjp(a: Nd, b: Nd, dy: Nd): { da: Nd; db: Nd } {
  requireShape('addVjp: b', b, a.shape);
  requireShape('addVjp: dy', dy, a.shape);
  return { da: map(dy, (g) => g), db: map(dy, (g) => g) };
}

/** y = a · b, element by element, of one shape. */
export function mul(a: Nd, b: Nd): Nd {
  requireShape('mul: b', b, a.shape);
  return map(a, (value, i) => value * b.data[i]);
}

/** da = dy·b, db = dy·a */
export function mulVjp(a: Nd, b: Nd, dy: Nd): { da: Nd; db: Nd } {
  requireShape('mulVjp: b', b, a.shape);
  requireShape('mulVjp: dy', dy, a.shape);
  return { da: map(dy, (g, i) => g * b.data[i]), db: map(dy, (g, i) => g * a.data[i]) };
}

/** y = factor · x */
export function scale(x: Nd, factor: number): Nd {
  return map(x, (value) => factor * value);
}

/** dx = factor · dy */
export function scaleVjp(x: Nd, factor: number, dy: Nd): { dx: Nd } {
  requireShape('scaleVjp: dy', dy, x.shape);
  return { dx: map(dy, (g) => factor * g) };
}

/** y = Σ x over all elements.  @returns shape [] */
export function sum(x: Nd): Nd {
  return scalar(x.data.reduce((total, value) => total + value, 0));
}

/** dx = dy everywhere.  @param dy shape [] */
export function sumVjp(x: Nd, dy: Nd): { dx: Nd } {
  requireShape('sumVjp: dy', dy, []);
  return { dx: map(x, () => dy.data[0]) };
}

/** y = Σ x / size over all elements.  @returns shape [] */
export function mean(x: Nd): Nd {
  return scalar(sum(x).data[0] / x.data.length);
}

/** dx = dy / size everywhere.  @param dy shape [] */
export function meanVjp(x: Nd, dy: Nd): { dx: Nd } {
  requireShape('meanVjp: dy', dy, []);
  return { dx: map(x, () => dy.data[0] / x.data.length) };
}
