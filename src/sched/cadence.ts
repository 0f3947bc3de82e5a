/** When scheduling events happen. */
import { AttrError } from '../gpu/errors.ts';

/** Every n epochs (at their start), every n steps, or n times an epoch (evenly, the first at the epoch's start). Step 0 is always due. */
export type Cadence = { epochs: number } | { steps: number } | { perEpoch: number };

/** Throws AttrError unless `every` is one of { epochs }, { steps }, { perEpoch } with an integer ≥ 1. */
export function checkCadence(op: string, every: Cadence): void {
  const entries = typeof every === 'object' && every !== null ? Object.entries(every) : [];
  const known = entries.length === 1 && ['epochs', 'steps', 'perEpoch'].includes(entries[0][0]);
  if (!known) {
    throw new AttrError({
      op, arg: 'every', rule: 'must be one of { epochs: n }, { steps: n }, { perEpoch: n }', got: JSON.stringify(every),
      fix: 'pass { epochs: 1 }',
    });
  }
  const [unit, n] = entries[0];
  if (!(Number.isInteger(n) && n >= 1)) {
    throw new AttrError({ op, arg: `every.${unit}`, rule: 'must be an integer ≥ 1', got: n, fix: 'parts of an epoch are { perEpoch: n }' });
  }
}

/**
 * Is an event due before update `step` (from 0)? perEpoch n: at the steps ⌊k · stepsPerEpoch / n⌋, k = 0 … n − 1, of each epoch; with fewer
 * steps than n in an epoch, before each of them.
 * @throws AttrError where stepsPerEpoch is needed (all but { steps }) and not an integer ≥ 1
 */
export function isDueAt(every: Cadence, step: number, stepsPerEpoch?: number): boolean {
  const op = 'isDue';
  if (!(Number.isInteger(step) && step >= 0)) {
    throw new AttrError({ op, arg: 'step', rule: 'must be an integer ≥ 0', got: step, fix: 'steps count from 0' });
  }
  if ('steps' in every) return step % every.steps === 0;
  if (stepsPerEpoch === undefined || !(Number.isInteger(stepsPerEpoch) && stepsPerEpoch >= 1)) {
    throw new AttrError({
      op, arg: 'stepsPerEpoch', rule: 'must be an integer ≥ 1', got: stepsPerEpoch, fix: 'or count events in steps: { steps: n }',
    });
  }
  if ('epochs' in every) return step % (every.epochs * stepsPerEpoch) === 0;
  const within = step % stepsPerEpoch;
  const k = Math.ceil((within * every.perEpoch) / stepsPerEpoch);
  return k < every.perEpoch && Math.floor((k * stepsPerEpoch) / every.perEpoch) === within;
}
