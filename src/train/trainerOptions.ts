/** What a trainer is made with and what a run tells: types and checks. */
import type { ImageDataset } from '../data/dataset.ts';
import type { Device } from '../gpu/device.ts';
import type { OnCompile } from '../graph/plan.ts';
import { AttrError } from '../gpu/errors.ts';
import type { Module } from '../nn/module.ts';
import type { SgdOptions } from '../optim/sgd.ts';
import { AdaptiveSchedule, ConstantSchedule, PureSchedule, TrialScheduler, type RunLength, type Schedule, type TrialEvent } from '../sched/index.ts';
import type { Checkpoint } from './checkpoint.ts';
import { resolveLossScaling, type LossScaling } from './lossScaler.ts';
import { logCapacity, type Divergence, type LoggedStep } from './stepLog.ts';

/** What every training is of, whatever sets its learning rate. */
export interface TrainingOptions {
  readonly model: Module;
  readonly dataset: ImageDataset;
  /** @default the shared device */
  readonly device?: Device;
  /** Images a step. @default 32 */
  readonly batchSize?: number;
  /** Passes over the training images; a batch that would be smaller than the others is left out. @default 1 */
  readonly epochs?: number;
  /** Ends the run sooner. @default none */
  readonly maxSteps?: number;
  readonly optimizer?: SgdOptions;
  /** @default 0 */
  readonly labelSmoothing?: number;
  /** 'crop-flip': a random crop of the image with a black border of 4 pixels, and a flip half of the time. @default 'none' */
  readonly augment?: 'none' | 'crop-flip';
  /** A new order every epoch. @default true */
  readonly shuffle?: boolean;
  /** Of order and augmentation, a u32. @default 0 */
  readonly seed?: number;
  /** Called while kernels compile. */
  readonly onCompile?: OnCompile;
}

export interface TrainerOptions extends TrainingOptions {
  /**
   * Sets the learning rate: `new TrialScheduler(robust())`, `new ConstantSchedule({ lr })`, `cosineAnnealingLr({ lr, tMax: percent(100)
   * })`, `sps()`, … A TrialScheduler serves one run; a schedule that listens to metrics is told that of every epoch by `run`.
   */
  readonly schedule: Schedule;
  /**
   * Bytes of GPU memory that trials may add so that an event runs them in fewer passes, ≥ 0; needs a schedule with trials. With 0 they make
   * do with the memory that a step has anyway, one trial a pass at worst, and add a few KiB of coefficients, losses and log. @default 0
   */
  readonly memoryBudget?: number;
  /**
   * 'mixed': activations, their gradients and what enters a product are f16, in training, trials and evaluation; sums, weights, gradients of
   * weights, optimizer, norm statistics and losses f32. Takes about half the memory of activations. Needs `shader-f16` of the adapter.
   * @default 'f32'
   */
  readonly precision?: 'f32' | 'mixed';
  /** Of 'mixed': a step whose gradients overflow makes nothing and halves the scale. @default initScale 2^16, growthInterval 2000 */
  readonly lossScaling?: LossScaling;
  /**
   * Goes on from here, bit for bit: what `checkpoint()` of a trainer with the same options gave. `epochs` and `maxSteps` may differ where
   * the rates of the steps that were made do not depend on the run's length; `memoryBudget` always. @default none
   */
  readonly resume?: Checkpoint;
  /**
   * Measures the ways to compute each convolution on this adapter and takes the fastest; what was measured is kept for later runs, in the
   * user's cache folder or IndexedDB. Sums may be added in another order than without. @default false
   */
  readonly tune?: boolean;
  /** Called while ways are measured. */
  readonly onTune?: (done: number, total: number) => void;
}

const trainingNames: Record<keyof TrainingOptions, true> = {
  model: true, dataset: true, device: true, batchSize: true, epochs: true, maxSteps: true, optimizer: true, labelSmoothing: true, augment: true,
  shuffle: true, seed: true, onCompile: true,
};

const ownNames: Record<Exclude<keyof TrainerOptions, keyof TrainingOptions>, true> = {
  schedule: true, memoryBudget: true, precision: true, lossScaling: true, resume: true, tune: true, onTune: true,
};

export interface Evaluation {
  readonly step: number;
  readonly testLoss: number;
  /** 0…1 */
  readonly testAccuracy: number;
}

/** An integer ≥ 1 of steps or epochs, or minutes > 0 of the clock. */
export type CheckpointCadence = { readonly steps: number } | { readonly epochs: number } | { readonly minutes: number };

export interface RunCallbacks {
  /** Losses and rates of the steps since the last call, at most every `logEvery` steps. */
  readonly onSteps?: (steps: readonly LoggedStep[]) => void;
  /** Each scheduling event, once the log with it is read: after the steps before it and before its own. */
  readonly onEvent?: (event: TrialEvent) => void;
  readonly onEvaluation?: (evaluation: Evaluation) => void;
  /** Steps between reads of the losses. 1 … 256, @default 10 */
  readonly logEvery?: number;
  /**
   * Takes a checkpoint, which the run waits for: when one is due, and where the run ends but by divergence. All before it has been told.
   */
  readonly onCheckpoint?: (checkpoint: Checkpoint) => void | Promise<void>;
  /** How often one is due; needs onCheckpoint. @default { epochs: 1 } */
  readonly checkpointEvery?: CheckpointCadence;
  /** Evaluate after every epoch and at the end. @default true */
  readonly evaluate?: boolean;
  /** Ends the run after the step in progress. */
  readonly signal?: AbortSignal;
}

export interface RunResult {
  readonly steps: number;
  readonly divergence: Divergence | null;
  /** True when the signal ended the run. */
  readonly aborted: boolean;
  /** The last evaluation, if there was one. */
  readonly evaluation: Evaluation | null;
}

type Refuse = (arg: string, rule: string, got: unknown, fix: string) => never;

const refuseAs = (op: string): Refuse => (arg, rule, got, fix) => {
  throw new AttrError({ op, arg, rule, got, fix });
};

/**
 * Checks what every training has, that no option is unknown, and the memory budget, which each trainer explains itself.
 * @throws AttrError for the first option that is wrong
 */
export function checkTrainingOptions(
  op: string,
  options: TrainingOptions & { readonly memoryBudget?: number },
  ownNames: Readonly<Record<string, true>>,
): void {
  const refuse: Refuse = refuseAs(op);
  const { epochs = 1, maxSteps = 1, batchSize = 32, shuffle = true, augment = 'none', memoryBudget = 0 } = options;
  const names = Object.keys({ ...trainingNames, ...ownNames });
  const unknown = Object.keys(options).find((name) => !names.includes(name));
  if (unknown !== undefined) refuse(unknown, 'must be an option', unknown, `options are ${names.join(', ')}`);
  for (const [arg, value] of Object.entries({ epochs, maxSteps, batchSize })) {
    if (!Number.isInteger(value) || value < 1) refuse(arg, 'must be an integer ≥ 1', value, 'pass 1 or more');
  }
  if (augment !== 'none' && augment !== 'crop-flip') refuse('augment', "must be 'none' or 'crop-flip'", augment, 'pick one');
  if (typeof shuffle !== 'boolean') refuse('shuffle', 'must be true or false', shuffle, 'leave it out for true');
  if (!Number.isInteger(memoryBudget) || memoryBudget < 0) refuse('memoryBudget', 'must be an integer ≥ 0', memoryBudget, 'count bytes');
}

/** @throws AttrError for the first option that is wrong */
export function checkTrainerOptions(options: TrainerOptions): void {
  const op = 'Trainer';
  const refuse: Refuse = refuseAs(op);
  checkTrainingOptions(op, options, ownNames);
  const { dataset, batchSize = 32, schedule, memoryBudget, precision = 'f32', lossScaling, tune = false, onTune } = options;
  if (precision !== 'f32' && precision !== 'mixed') refuse('precision', "must be 'f32' or 'mixed'", precision, 'pick one');
  if (lossScaling && precision !== 'mixed') refuse('lossScaling', "must go with precision 'mixed'", precision, 'leave it out');
  resolveLossScaling(lossScaling);
  if (typeof tune !== 'boolean') refuse('tune', 'must be true or false', tune, 'leave it out for false');
  if (onTune && !tune) refuse('onTune', 'must go with tune', `tune ${tune}`, 'pass tune: true, or leave it out');
  const scheduler = schedule instanceof TrialScheduler ? schedule : null;
  if (memoryBudget !== undefined) {
    const hasTrials = scheduler ? scheduler.options.control !== 'blindDrift' : schedule instanceof AdaptiveSchedule && schedule.isDue();
    if (!hasTrials) refuse('memoryBudget', 'must go with a schedule that makes trials', memoryBudget, 'leave it out: nothing is tried');
  }
  const { count } = dataset.train;
  const scoreBatch = scheduler?.options.scoreBatch ?? 1;
  if (scheduler?.options.score === 'pairedNoise' && scheduler.options.batch !== 'both' && (scheduler.options.scoreBatch ?? batchSize) < 2) {
    refuse('scoreBatch', "must be ≥ 2 with score 'pairedNoise'", batchSize, 'one sample has no standard error: score on more images');
  }
  if (scoreBatch > count) refuse('scoreBatch', `must be ≤ ${count} (the training images)`, scoreBatch, 'score on fewer images');
  checkPlan(schedule, lengthOf(options));
}

/** Steps an epoch, and in all. */
export function lengthOf(
  { dataset, batchSize = 32, epochs = 1, maxSteps = Infinity }: Pick<TrainingOptions, 'dataset' | 'batchSize' | 'epochs' | 'maxSteps'>,
): Required<RunLength> {
  const stepsPerEpoch = Math.floor(dataset.train.count / batchSize);
  return { stepsPerEpoch, totalSteps: Math.min(epochs * stepsPerEpoch, maxSteps) };
}

/** What of a rate depends on where the run is: of trials what m is multiplied by. */
export const plannedRate = (schedule: Schedule, update: number, { totalSteps, stepsPerEpoch }: Required<RunLength>): number =>
  schedule instanceof TrialScheduler ? schedule.envelopeAt(update, totalSteps, stepsPerEpoch) : schedule.lrAt(update, totalSteps, stepsPerEpoch);

/** Most updates whose rates are asked before a run; of a longer one so many, evenly. */
const mostAsked = 1_000_000;

/**
 * Asks for the rates of a whole run, before anything is made for it: a cycle that ends before the run does would end the run. Schedules that
 * move by what happens in the run, and those of other classes than ours, are not asked.
 * @throws AttrError of the schedule's own, for a length that it needs and that does not fit; and for a rate that is not finite and ≥ 0
 */
export function checkPlan(schedule: Schedule, run: Required<RunLength>): void {
  const isPlanned = [PureSchedule, ConstantSchedule, TrialScheduler].some((kind) => schedule instanceof kind);
  if (!isPlanned || run.totalSteps < 1) return;
  const stride = Math.ceil(run.totalSteps / mostAsked);
  const ask = (update: number): void => {
    const rate = plannedRate(schedule, update, run);
    if (rate >= 0 && Number.isFinite(rate)) return;
    const fix = 'change the schedule, or make the run shorter';
    throw new AttrError({ op: 'Trainer', arg: 'schedule', rule: 'must have rates that are finite and ≥ 0', got: `${rate} at update ${update}`, fix });
  };
  for (let update = 0; update < run.totalSteps; update += stride) ask(update);
  ask(run.totalSteps - 1);
}

/** @throws AttrError for a cadence that is none, or that nobody takes checkpoints by */
export function checkCheckpoints(
  op: string,
  { checkpointEvery, onCheckpoint }: { readonly checkpointEvery?: CheckpointCadence; readonly onCheckpoint?: unknown },
  units: readonly string[] = ['steps', 'epochs', 'minutes'],
): void {
  const arg = 'checkpointEvery';
  if (!checkpointEvery) return;
  const got = JSON.stringify(checkpointEvery);
  if (!onCheckpoint) throw new AttrError({ op, arg, rule: 'must go with onCheckpoint', got, fix: 'pass what takes checkpoints' });
  const [[unit, n], ...more] = Object.entries(checkpointEvery) as [string, number][];
  const isGood = units.includes(unit) && (unit === 'minutes' ? Number.isFinite(n) && n > 0 : Number.isInteger(n) && n >= 1);
  if (isGood && more.length === 0) return;
  const names = units.map((name) => `{ ${name} }`);
  const rule = `must be ${names.slice(0, -1).join(', ')} or ${names.at(-1)}`;
  throw new AttrError({ op, arg, rule, got, fix: 'pass { epochs: 1 }' });
}

/** @throws AttrError unless the callbacks ask for a log that can be had, and for the evaluations that the schedule listens to */
export function checkRun(callbacks: RunCallbacks, schedule: Schedule): void {
  checkCheckpoints('Trainer.run', callbacks);
  const { logEvery = 10, evaluate = true } = callbacks;
  if (!evaluate && schedule.step) {
    const fix = 'leave it out, or make steps by trainStep() and tell the schedule metrics by its step()';
    throw new AttrError({ op: 'Trainer.run', arg: 'evaluate', rule: 'must be true for a schedule that listens to metrics', got: evaluate, fix });
  }
  if (Number.isInteger(logEvery) && logEvery >= 1 && logEvery <= logCapacity) return;
  const rule = `must be an integer in 1…${logCapacity}`;
  throw new AttrError({ op: 'Trainer.run', arg: 'logEvery', rule, got: logEvery, fix: 'use 10' });
}
