/**
 * Controls: runs in which the losses cannot be what helps. A rule is worth its trials only where it does better than both.
 * A set of factors may drift by itself (factor5: ×0.87 an event), and any rule that moves a first rate that was wrong may gain by moving it
 * at all.
 */
import { hash32, STREAM } from '../nn/random.ts';

/**
 * 'blindDrift': the rule is fed equal losses, and no trial is run: what its factors and its anchor do by themselves.
 * 'shuffledLosses': trials are run, and their losses handed out among the factors at random: steps as large, without their direction.
 */
export type ControlName = 'blindDrift' | 'shuffledLosses';

export const controlNames: Record<ControlName, true> = { blindDrift: true, shuffledLosses: true };

/**
 * By whose loss each of n factors is scored in an event of 'shuffledLosses': a permutation of 0 … n−1, uniform over seeds, steps and `nth`,
 * the number of the event among those of its step. It depends on nothing else, so a resumed run has those of an unbroken one.
 *
 * Fisher and Yates: order = 0 … n−1; for i = n−1 … 1 swap order[i] with order[j], j = ⌊h·(i + 1)/2³²⌋,
 * h = hash32(e, i, STREAM.trials), e = hash32(seed, step, STREAM.trials), or for nth > 0 hash32(e, n + nth, STREAM.trials) in its place.
 */
export function shuffledTrials(seed: number, step: number, n: number, nth = 0): number[] {
  const order = Array.from({ length: n }, (_, i) => i);
  const ofStep = hash32(seed, step, STREAM.trials);
  const ofEvent = nth === 0 ? ofStep : hash32(ofStep, n + nth, STREAM.trials);
  for (let i = n - 1; i > 0; i--) {
    const j = Math.floor((hash32(ofEvent, i, STREAM.trials) * (i + 1)) / 2 ** 32);
    [order[i], order[j]] = [order[j], order[i]];
  }
  return order;
}
