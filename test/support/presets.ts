/** What tests of the rule's arithmetic go by: every loss counts in it, and the step is the optimizer's own. */
import { robust, type TrialOptions } from '../../src/sched/trialOptions.ts';

/** Min-max and e^−x as published, four events an epoch along the optimizer's direction under a cosine; anchored, held where losses are equal; another score takes its own defaults. */
export const minMaxed = (overrides: Partial<TrialOptions> = {}): TrialOptions => robust({ score: 'exp', direction: 'optimizer', c: null, ...overrides });
