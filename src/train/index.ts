/** The training loop. */
export { StepPlans, type Batch, type StepPlanOptions, type TrialPlanOptions } from './stepPlans.ts';
export type { Divergence, LoggedStep } from './stepLog.ts';
export { Trainer, type Evaluation, type RunCallbacks, type RunResult, type TrainerOptions } from './trainer.ts';
