/** The training loop. */
export { StepPlans, type Batch, type StepPlanOptions, type TrialPlanOptions } from './stepPlans.ts';
export type { Divergence, LoggedStep } from './stepLog.ts';
export { Trainer } from './trainer.ts';
export type { Evaluation, RunCallbacks, RunResult, TrainerOptions } from './trainerOptions.ts';
