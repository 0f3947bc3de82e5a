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
 * By whose loss each of n factors is scored in an event of 'shuffledLosses': a permutation of 0 … n−1, uniform over seeds and steps. It
 * depends on nothing else, so a resumed run has those of an unbroken one.
 *
 * Fisher and Yates: order = 0 … n−1; for i = n−1 … 1 swap order[i] with order[j], j = ⌊h·(i + 1)/2³²⌋,
 * h = hash32(hash32(seed, step, STREAM.trials), i, STREAM.trials).
 */
export function shuffledTrials(seed: number, step: number, n: number): number[] {
  const order = Array.from({ length: n }, (_, i) => i);
  const ofStep = hash32(seed, step, STREAM.trials);
  for (let i = n - 1; i > 0; i--) {
    const j = Math.floor((hash32(ofStep, i, STREAM.trials) * (i + 1)) / 2 ** 32);
    [order[i], order[j]] = [order[j], order[i]];
  }
  return order;
}
