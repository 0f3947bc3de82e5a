/** What an ALR training is made with and what it tells: types and checks. */
import type { ImageDataset } from '../data/dataset.ts';
import type { Device } from '../gpu/device.ts';
import { AttrError } from '../gpu/errors.ts';
import type { OnCompile } from '../graph/plan.ts';
import type { Module } from '../nn/module.ts';
import type { SgdOptions } from '../optim/sgd.ts';
import { ConstantSchedule, type AlrEvent, type AlrOptions } from '../sched/index.ts';
import type { AlrCheckpoint } from './checkpoint.ts';
import type { LoggedStep } from './stepLog.ts';
import { checkCheckpoints, checkTrainerOptions, type CheckpointCadence, type Evaluation } from './trainerOptions.ts';

/** Options that are not explained here are those of `TrainerOptions`. */
export interface AlrTrainerOptions extends AlrOptions {
  readonly model: Module;
  readonly dataset: ImageDataset;
  readonly device?: Device;
  readonly batchSize?: number;
  readonly epochs?: number;
  /** Ends the run sooner; the epoch that is cut short is judged by what it had. @default none */
  readonly maxSteps?: number;
  readonly optimizer?: SgdOptions;
  readonly labelSmoothing?: number;
  readonly augment?: 'none' | 'crop-flip';
  readonly shuffle?: boolean;
  readonly seed?: number;
  /**
   * Bytes of GPU memory that activations and their gradients of branches side by side may take: where more would be needed they run in
   * groups, one after another, with the same results. A single branch is always taken. Weights, momentum and statistics of all branches,
   * and the gradients of a group, come on top. @default 1 GiB
   */
  readonly memoryBudget?: number;
  /** Goes on where another trainer of the same options has left off. @default from the model's own weights */
  readonly resume?: AlrCheckpoint;
  readonly onCompile?: OnCompile;
}

const optionNames: Record<keyof AlrTrainerOptions, true> = {
  model: true, dataset: true, lr: true, beam: true, factors: true, device: true, batchSize: true, epochs: true, maxSteps: true,
  optimizer: true, labelSmoothing: true, augment: true, shuffle: true, seed: true, memoryBudget: true, resume: true, onCompile: true,
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

/** @throws AttrError for the first option that is wrong */
export function checkAlrOptions(options: AlrTrainerOptions): void {
  const refuse = (arg: string, rule: string, got: unknown, fix: string): never => {
    throw new AttrError({ op: 'AlrTrainer', arg, rule, got, fix });
  };
  const unknown = Object.keys(options).find((name) => !Object.hasOwn(optionNames, name));
  if (unknown !== undefined) refuse(unknown, 'must be an option', unknown, `options are ${Object.keys(optionNames).join(', ')}`);
  const { lr: _lr, beam: _beam, factors: _factors, resume: _resume, memoryBudget = 0, ...others } = options;
  if (!Number.isInteger(memoryBudget) || memoryBudget < 0) refuse('memoryBudget', 'must be an integer ≥ 0', memoryBudget, 'count bytes');
  checkTrainerOptions({ ...others, schedule: new ConstantSchedule({ lr: 1 }) });
}

/** @throws AttrError unless the log is asked for often enough, and for checkpoints within epochs */
export function checkAlrRun(callbacks: AlrCallbacks): void {
  const op = 'AlrTrainer.run';
  checkCheckpoints(op, callbacks, ['epochs', 'minutes']);
  const { logEvery = 10 } = callbacks;
  if (Number.isInteger(logEvery) && logEvery >= 1) return;
  throw new AttrError({ op, arg: 'logEvery', rule: 'must be an integer ≥ 1', got: logEvery, fix: 'use 10' });
}
