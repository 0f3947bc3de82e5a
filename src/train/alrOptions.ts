/** What an ALR training is made with and what it tells: types and checks. */
import { AttrError } from '../gpu/errors.ts';
import type { AlrEvent, AlrOptions } from '../sched/index.ts';
import type { AlrCheckpoint } from './checkpoint.ts';
import type { LoggedStep } from './stepLog.ts';
import { checkCheckpoints, checkTrainingOptions, type CheckpointCadence, type Evaluation, type TrainingOptions } from './trainerOptions.ts';

/** Where `maxSteps` cuts an epoch short, it is judged by what it had. */
export interface AlrTrainerOptions extends AlrOptions, TrainingOptions {
  /**
   * Bytes of GPU memory that activations and their gradients of branches side by side may take: where more would be needed they run in
   * groups, one after another, with the same results. A single branch is always taken. Weights, momentum and statistics of all branches,
   * and the gradients of a group, come on top. @default 1 GiB
   */
  readonly memoryBudget?: number;
  /** Goes on where another trainer of the same options has left off. @default from the model's own weights */
  readonly resume?: AlrCheckpoint;
}

const ownNames: Record<Exclude<keyof AlrTrainerOptions, keyof TrainingOptions>, true> = {
  lr: true, beam: true, factors: true, memoryBudget: true, resume: true,
};

/** The end of an epoch. */
export interface AlrEpoch extends AlrEvent {
  /** Steps before it: updates of each branch that has come so far. */
  readonly step: number;
  /** Cost of the run so far in forward passes of a batch: three a step and branch. */
  readonly forwards: number;
}

export interface AlrProgress {
  readonly step: number;
  /** Of each branch; not finite where it has diverged. */
  readonly losses: readonly number[];
}

/** Epochs, an integer ≥ 1, or minutes > 0 of the clock: it is made at the next end of an epoch. */
export type AlrCheckpointCadence = Exclude<CheckpointCadence, { readonly steps: number }>;

export interface AlrCallbacks {
  /** Losses and rates of the branch that is the best, at the end of each epoch. */
  readonly onSteps?: (steps: readonly LoggedStep[]) => void;
  readonly onEvent?: (event: AlrEpoch) => void;
  readonly onEvaluation?: (evaluation: Evaluation) => void;
  /** The present losses of all branches, every `logEvery` steps. */
  readonly onProgress?: (progress: AlrProgress) => void;
  /** ≥ 1, @default 10 */
  readonly logEvery?: number;
  /**
   * Takes a checkpoint, which the run waits for: where one is due at the end of an epoch, at the end of the run, and where an epoch is cut
   * short, of its beginning, as a run that goes on makes it anew. All before it has been told, and nothing after it.
   */
  readonly onCheckpoint?: (checkpoint: AlrCheckpoint) => void | Promise<void>;
  /** How often one is due; needs onCheckpoint. @default { epochs: 1 } */
  readonly checkpointEvery?: AlrCheckpointCadence;
  /** Evaluate the best branch after every epoch and at the end. @default true */
  readonly evaluate?: boolean;
  /** Ends the run after the step in progress; the epoch is judged by what it had. */
  readonly signal?: AbortSignal;
}

export interface AlrResult {
  readonly steps: number;
  readonly forwards: number;
  /** True when the signal ended the run. */
  readonly aborted: boolean;
  readonly evaluation: Evaluation | null;
}

/** Those of the tree itself are checked where it is made. @throws AttrError for the first option that is wrong */
export const checkAlrOptions = (options: AlrTrainerOptions): void => checkTrainingOptions('AlrTrainer', options, ownNames);

/** @throws AttrError unless the log is asked for often enough, and for checkpoints within epochs */
export function checkAlrRun(callbacks: AlrCallbacks): void {
  const op = 'AlrTrainer.run';
  checkCheckpoints(op, callbacks, ['epochs', 'minutes']);
  const { logEvery = 10 } = callbacks;
  if (Number.isInteger(logEvery) && logEvery >= 1) return;
  throw new AttrError({ op, arg: 'logEvery', rule: 'must be an integer ≥ 1', got: logEvery, fix: 'use 10' });
}
