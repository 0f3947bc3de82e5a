/** The published score under a decay, with events at `every` from the first step on: a rule that tests can foresee from the losses alone. */
import { robust, type TrialOptions } from '../../src/sched/index.ts';

export const minMax = (overrides: Partial<TrialOptions> = {}): TrialOptions =>
  robust({ score: 'exp', direction: 'optimizer', search: null, bounds: [1e-8, 10], ...overrides });
