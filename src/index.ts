/**
 * forkstep: train on WebGPU from TypeScript, and let fused trial steps set the learning rate.
 * This entry runs in browsers and in Node; files are `forkstep/node`.
 */
export * from './gpu/errors.ts';
export { Device, defaultDevice, openDevice, setDefaultDevice, type AdapterSummary } from './gpu/device.ts';

export { Tensor, Variable, type Dtype, type Shape } from './graph/tensor.ts';
export type { FloatDtype } from './graph/ops.ts';
export { evaluate, type EvaluateOptions } from './graph/run.ts';
export * from './graph/functional.ts';
export { fusions, type Fusion } from './graph/fuse/index.ts';
export { Memory, memoryCategories, type MemoryCategory, type MemoryReport } from './graph/memory.ts';
export { grad } from './autograd/grad.ts';
export { trials, type TrialSpec } from './trials/trials.ts';
export { lossesAlong } from './trials/lossesAlong.ts';
export type { Direction, LossBatch, LossesAlongOptions } from './trials/alongOptions.ts';

export * as nn from './nn/index.ts';
export { Sgd, type SgdOptions } from './optim/sgd.ts';
export * from './sched/index.ts';
export * as probes from './probes/index.ts';
export * from './data/index.ts';
export {
  AlrTrainer, decodeAlrCheckpoint, decodeCheckpoint, encodeCheckpoint, isOfAlr, Trainer, type AlrCallbacks, type AlrCheckpoint,
  type AlrCheckpointCadence, type AlrEpoch, type AlrProgress, type AlrResult, type AlrTrainerOptions, type AlrTrainerState,
  type AnyCheckpoint, type Checkpoint, type CheckpointCadence, type Divergence, type Evaluation, type Json, type LoggedStep,
  type LossScaling, type RuleLine, type RunCallbacks, type RunResult, type TrainerOptions, type TrainerState, type TrainingOptions,
} from './train/index.ts';
export * as kernels from './kernels/index.ts';
