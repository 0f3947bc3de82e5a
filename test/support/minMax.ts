/** The published score under a decay, with events at `every` from the first step on: a rule that tests can foresee from the losses alone. */
import { robust, type TrialOptions } from '../../src/sched/index.ts';
import { minMaxOptions } from '../../src/study/methods.ts';

export const minMax = (overrides: Partial<TrialOptions> = {}): TrialOptions =>
  robust({ ...minMaxOptions, ...overrides });
