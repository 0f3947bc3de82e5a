/** Lines whose losses are known in float64. */
import type { Line } from '../../src/probes/line.ts';

export interface KnownLine extends Line {
  /** The steps of each call. */
  readonly calls: readonly (readonly number[])[];
}

/** A line of a function φ; its losses are rounded to float32, as a GPU's are, where `isRounded`. */
export function knownLine(phi: (step: number) => number, slope: number, { squaredNorm = 1, isRounded = false } = {}): KnownLine {
  const calls: (readonly number[])[] = [];
  const losses = (steps: readonly number[]) => {
    calls.push(steps);
    return Promise.resolve(steps.map((step) => (isRounded ? Math.fround(phi(step)) : phi(step))));
  };
  return { losses, loss: phi(0), slope, squaredNorm, calls };
}

/** φ(η) = loss + slope·η + ½·k·η², least at −slope / k */
export const quadratic = (loss: number, slope: number, k: number, options?: Parameters<typeof knownLine>[2]): KnownLine =>
  knownLine((step) => loss + slope * step + (k * step * step) / 2, slope, options);
