/**
 * Logarithm and sine from +, −, *, / alone. ECMAScript leaves the last bits of `Math.log`, `Math.sin` and `Math.cos` to the
 * engine; what must be the same bytes on every machine (images, weights) is made with these instead.
 */

const LN2 = 0.6931471805599453;
const SQRT_HALF = 0.7071067811865476;
const TAU = 6.283185307179586;

/**
 * ln x by x = m·2^e, √½ ≤ m < √2, ln m = 2 Σ s^(2k+1)/(2k+1), s = (m − 1)/(m + 1).
 * @param x 2⁻⁵³ ≤ x ≤ 2⁵³ (others are not asked for)
 * @numerics within 4e-16 + 4e-16·|ln x|
 */
export function exactLog(x: number): number {
  let m = x;
  let e = 0;
  while (m < SQRT_HALF) {
    m *= 2;
    e--;
  }
  while (m >= 2 * SQRT_HALF) {
    m /= 2;
    e++;
  }
  const s = (m - 1) / (m + 1);
  const s2 = s * s;
  let sum = 0;
  for (let k = 23; k >= 1; k -= 2) sum = sum * s2 + 1 / k;
  return e * LN2 + 2 * s * sum;
}

/**
 * cos 2πt and sin 2πt: t is folded into an eighth of a turn (exact), then Taylor's series.
 * @param t in turns, 0 ≤ t < 1
 * @numerics within 4e-16
 */
export function exactCosSinTurns(t: number): { cos: number; sin: number } {
  const quarter = Math.floor(t * 4 + 0.5);
  const x = (t - quarter / 4) * TAU;
  const x2 = x * x;
  let c = 0;
  let s = 0;
  for (let k = 16; k >= 2; k -= 2) {
    c = (1 - c) * (x2 / (k * (k - 1)));
    s = (1 - s) * (x2 / (k * (k + 1)));
  }
  const cos = 1 - c;
  const sin = x * (1 - s);
  switch (quarter & 3) {
    case 0:
      return { cos, sin };
    case 1:
      return { cos: -sin, sin: cos };
    case 2:
      return { cos: -cos, sin: -sin };
    default:
      return { cos: sin, sin: -cos };
  }
}
