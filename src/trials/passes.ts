/** How many trials go into one pass. */
import type { Draft } from '../graph/plan.ts';
import { peakBytes } from '../graph/placement.ts';

/** Sizes of the passes that `count` trials are cut into: as even as can be, the smaller ones first. */
export function chunkTrials(count: number, most: number): number[] {
  const passes = Math.ceil(count / most);
  const small = Math.floor(count / passes);
  return Array.from({ length: passes }, (_, i) => (i < passes - (count % passes) ? small : small + 1));
}

export interface PassLimits {
  /** Bytes of one intermediate. */
  readonly bindingBytes: number;
  /** Bytes of all that live at once. */
  readonly budgetBytes: number;
}

export const fitsBinding = ({ items }: Draft, { bindingBytes }: PassLimits): boolean =>
  items.every(({ sizeBytes }) => sizeBytes <= bindingBytes);

/** The largest number of trials, 1 … most, whose pass fits; 1 where none does. `draftOf` must need no less for more trials. */
export function largestPass(most: number, draftOf: (trials: number) => Draft, limits: PassLimits): number {
  const fits = (trials: number): boolean => {
    const one = draftOf(trials);
    return fitsBinding(one, limits) && peakBytes(one.items) <= limits.budgetBytes;
  };
  if (most === 1 || fits(most)) return most;
  let [known, beyond] = [1, most];
  while (beyond - known > 1) {
    const middle = (known + beyond) >> 1;
    if (fits(middle)) known = middle;
    else beyond = middle;
  }
  return known;
}
