/** The training loop. */
export { StepPlans, type Batch, type StepPlanOptions, type TrialPlanOptions } from './stepPlans.ts';
export { profiledParts, profileStep, type DispatchProfile, type ProfiledPart, type ProfileOptions, type StepProfile } from './profile.ts';
export { timingMethods, type TimingMethod } from '../graph/timing.ts';
export { measurePeaks, type Peaks } from '../graph/peaks.ts';
export {
  decodeAlrCheckpoint, decodeCheckpoint, encodeCheckpoint, isOfAlr, type AlrCheckpoint, type AlrTrainerState, type AnyCheckpoint, type Checkpoint,
  type Json, type TrainerState,
} from './checkpoint.ts';
export type { LossScaling } from './lossScaler.ts';
export type { Divergence, LoggedStep, RuleLine } from './stepLog.ts';
export { Trainer } from './trainer.ts';
export type { CheckpointCadence, Evaluation, RunCallbacks, RunResult, TrainerOptions, TrainingOptions } from './trainerOptions.ts';
export { AlrTrainer } from './alrTrainer.ts';
export type { AlrCallbacks, AlrCheckpointCadence, AlrEpoch, AlrProgress, AlrResult, AlrTrainerOptions } from './alrOptions.ts';
