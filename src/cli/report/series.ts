/** From logged values to what a chart can show: gaps, smoothing, thinning, ranges. */
import type { Point } from './chart.ts';

/** Mean over `window` neighbours (odd, centred, cut at the ends), within stretches of finite values; gaps stay gaps. */
export function smooth(points: readonly Point[], window: number): Point[] {
  const half = Math.floor(window / 2);
  const result: Point[] = [];
  for (const stretch of stretches(points)) {
    if (!Number.isFinite(stretch[0][1])) {
      result.push(stretch[0]);
      continue;
    }
    const sums = [0];
    for (const [, y] of stretch) sums.push(sums[sums.length - 1] + y);
    stretch.forEach(([x], i) => {
      const [from, to] = [Math.max(0, i - half), Math.min(stretch.length, i + half + 1)];
      result.push([x, (sums[to] - sums[from]) / (to - from)]);
    });
  }
  return result;
}

/** Consecutive points, cut where values turn finite or stop being so. */
export function stretches(points: readonly Point[]): Point[][] {
  const result: Point[][] = [];
  for (const point of points) {
    const last = result.at(-1);
    if (last !== undefined && Number.isFinite(last[0][1]) === Number.isFinite(point[1])) last.push(point);
    else result.push([point]);
  }
  return result;
}

/** Where each stretch of values that are not finite begins. */
export const nonFiniteStretches = (points: readonly Point[]): number[] =>
  stretches(points).filter(([first]) => !Number.isFinite(first[1])).map(([first]) => first[0]);

/** At most about `most` points: of each bucket the lowest, the highest and one that is not finite, in their order. Spikes and gaps stay. */
export function thin(points: readonly Point[], most: number): Point[] {
  if (points.length <= most) return [...points];
  const size = Math.ceil((2 * points.length) / most);
  const kept = new Set([0, points.length - 1]);
  for (let start = 0; start < points.length; start += size) {
    let [low, high, bad] = [-1, -1, -1];
    for (let i = start; i < Math.min(points.length, start + size); i += 1) {
      const y = points[i][1];
      if (!Number.isFinite(y)) bad = i;
      else {
        if (low < 0 || y < points[low][1]) low = i;
        if (high < 0 || y > points[high][1]) high = i;
      }
    }
    for (const i of [low, high, bad]) if (i >= 0) kept.add(i);
  }
  return [...kept].sort((a, b) => a - b).map((i) => points[i]);
}

/** Lowest and highest finite value, or null; with `cut`, that share of the values is left out at each end. */
export function rangeOf(values: readonly number[], cut = 0): [number, number] | null {
  const sorted = values.filter(Number.isFinite).sort((a, b) => a - b);
  if (sorted.length === 0) return null;
  const skip = Math.floor(cut * (sorted.length - 1));
  return [sorted[skip], sorted[sorted.length - 1 - skip]];
}
