/** Axes: tidy ticks, and positions in [0, 1]. */
import { formatNumber } from '../format.ts';

export interface Scale {
  /** value → 0 (low end) … 1 (high end); NaN for values the scale cannot place; outside the ends it goes on */
  at(value: number): number;
  ticks: { value: number; label: string }[];
}

export interface AxisOptions {
  /** keep the ends as given instead of rounding them out */
  fixed?: boolean;
  /** smallest distance of ticks: 1 for counts */
  minStep?: number;
  label?: (value: number) => string;
}

/** Linear axis over [low, high] with about `count` steps of 1, 2 or 5 · 10^k. */
export function linearScale(low: number, high: number, count: number, options: AxisOptions = {}): Scale {
  const { fixed = false, minStep = 0 } = options;
  if (!(high > low)) {
    const around = (Math.abs(low) || 1) / 2;
    return linearScale(low - around, low + around, count, { ...options, fixed: false });
  }
  const rough = (high - low) / count;
  const base = 10 ** Math.floor(Math.log10(rough));
  const step = Math.max(minStep, base * [1, 2, 5, 10].find((m) => m * base >= rough * 0.999)!);
  const inner = [Math.ceil(low / step - 1e-9), Math.floor(high / step + 1e-9)];
  const outer = [Math.floor(low / step + 1e-9), Math.ceil(high / step - 1e-9)];
  const [first, last] = fixed ? inner : outer;
  const [start, end] = fixed ? [low, high] : [first * step, last * step];
  // Neighbours must differ, also where values are much larger than their distances.
  const digits = Math.max(4, Math.ceil(Math.log10(Math.max(Math.abs(start), Math.abs(end)) / step)) + 1);
  const { label = (v: number) => formatNumber(v, digits) } = options;
  const ticks = Array.from({ length: last - first + 1 }, (_, i) => Number(((first + i) * step).toPrecision(12)));
  return { at: (v) => (v - start) / (end - start), ticks: ticks.map((value) => ({ value, label: label(value) })) };
}

/** The least and the largest of the finite values; null where none is. A loop, as a call takes no more than some 100,000 arguments. */
export function finiteRange(values: readonly number[]): readonly [low: number, high: number] | null {
  let [low, high] = [Infinity, -Infinity];
  for (const value of values) {
    if (!Number.isFinite(value)) continue;
    if (value < low) low = value;
    if (value > high) high = value;
  }
  return low <= high ? [low, high] : null;
}

/** Log axis over [low, high], both > 0: ticks at the decades, with 2 and 5 (or 2 … 9) between them where few decades show. */
export function logScale(low: number, high: number): Scale {
  const widened = high / low < 4 ? Math.sqrt(4 / (high / low)) : 1.08;
  const [start, end] = [Math.log10(low / widened), Math.log10(high * widened)];
  const decades = end - start;
  const every = Math.max(1, Math.ceil(decades / 7));
  const marks = decades > 3 ? [1] : decades > 1.2 ? [1, 2, 5] : [1, 1.5, 2, 3, 4, 5, 7];
  const ticks: number[] = [];
  for (let k = Math.floor(start); k <= Math.ceil(end); k += 1) {
    if (k % every !== 0) continue;
    for (const m of marks) {
      const value = Number(`${m}e${k}`);
      if (Math.log10(value) >= start - 1e-9 && Math.log10(value) <= end + 1e-9) ticks.push(value);
    }
  }
  const at = (v: number): number => (v > 0 ? (Math.log10(v) - start) / (end - start) : NaN);
  return { at, ticks: ticks.map((value) => ({ value, label: formatNumber(value) })) };
}
