/** How far results are apart. */

/** ‖a − b‖ / ‖b‖; NaN where either has one. */
export function distance(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let [apart, norm] = [0, 0];
  for (let i = 0; i < b.length; i++) {
    apart += (a[i] - b[i]) ** 2;
    norm += b[i] ** 2;
  }
  return Math.sqrt(apart / norm);
}

/** max |a − b| / max |b|: one wrong element shows however many are right. NaN where either has one, infinite where sizes differ. */
export function farthest(a: ArrayLike<number>, b: ArrayLike<number>): number {
  if (a.length !== b.length) return Infinity;
  let [apart, largest] = [0, 0];
  for (let i = 0; i < b.length; i++) {
    // Math.max keeps NaN.
    apart = Math.max(apart, Math.abs(a[i] - b[i]));
    largest = Math.max(largest, Math.abs(b[i]));
  }
  return apart / largest;
}
