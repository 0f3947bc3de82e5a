/**
 * Decay envelopes: progress through the run, or epochs where the run's length need not be known → factor on the learning rate. The trials
 * find the scale, the envelope anneals it.
 */
import { AttrError } from '../gpu/errors.ts';
import { checkName } from './scores.ts';

export type EnvelopeName = 'none' | 'cosine' | 'linear' | 'inverseSqrt';

/** p = step / totalSteps in [0, 1], of inverseSqrt epochs ≥ 0 → factor. At 0, 1/2, 1: none 1 1 1, cosine 1 0.5 0, linear 1 0.5 0. */
export const envelopes: Record<EnvelopeName, (progress: number) => number> = {
  /** 1 */
  none: () => 1,
  /** ½ (1 + cos πp) */
  cosine: (progress) => 0.5 * (1 + Math.cos(Math.PI * progress)),
  /** 1 − p */
  linear: (progress) => 1 - progress,
  /** 1 / √(1 + epochs): at 0, 3, 15 epochs 1, ½, ¼ */
  inverseSqrt: (epochs) => 1 / Math.sqrt(1 + epochs),
};

/**
 * Factor on the learning rate of update `step` (from 0) in a run of `totalSteps`.
 * 'none' needs no total, and 'inverseSqrt' the steps of an epoch instead. The others: 1 at step 0, and a last update (totalSteps − 1) that
 * is still > 0, as in PyTorch's CosineAnnealingLR(T_max = totalSteps) and LinearLR(1, 0, totalSteps) stepped once an update.
 * @throws AttrError for an unknown name, a total or steps of an epoch that are unknown or < 1 where they are needed, a step outside 0 …
 * totalSteps
 */
export function envelopeAt(name: EnvelopeName, step: number, totalSteps?: number, stepsPerEpoch?: number): number {
  const op = 'envelopeAt';
  checkName(op, 'envelope', name, envelopes);
  if (!(Number.isFinite(step) && step >= 0)) {
    throw new AttrError({ op, arg: 'step', rule: 'must be ≥ 0', got: step, fix: 'steps count from 0' });
  }
  if (name === 'none') return 1;
  if (name === 'inverseSqrt') {
    if (stepsPerEpoch !== undefined && Number.isFinite(stepsPerEpoch) && stepsPerEpoch >= 1) return envelopes[name](step / stepsPerEpoch);
    const rule = `must be known and ≥ 1 for envelope '${name}'`;
    throw new AttrError({ op, arg: 'stepsPerEpoch', rule, got: stepsPerEpoch, fix: "pass the steps of an epoch, or envelope 'none'" });
  }
  if (totalSteps === undefined || !(Number.isFinite(totalSteps) && totalSteps >= 1)) {
    throw new AttrError({
      op, arg: 'totalSteps', rule: `must be known and ≥ 1 for envelope '${name}'`, got: totalSteps,
      fix: "pass the run's length, or envelope 'none'",
    });
  }
  if (step > totalSteps) {
    throw new AttrError({ op, arg: 'step', rule: `must be ≤ totalSteps (${totalSteps})`, got: step, fix: "give the run's whole length" });
  }
  return envelopes[name](step / totalSteps);
}
