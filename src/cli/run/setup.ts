/** From option values to the parts of a run: data, model, schedule. */
import { accessSync, constants, existsSync, mkdirSync, readFileSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { readCifar10, readCifar100 } from '../../data/cifar.node.ts';
import { limitSet, type ImageDataset, type ImageSet } from '../../data/dataset.ts';
import { proceduralDataset } from '../../data/procedural.ts';
import { DataError, ShapeError } from '../../gpu/errors.ts';
import { loadSafetensors, resnet18, type ResNet } from '../../nn/index.ts';
import { ConstantSchedule, PureSchedule, TrialScheduler, type Schedule } from '../../sched/index.ts';
import { checkPlan, lengthOf } from '../../train/trainerOptions.ts';
import { UsageError } from '../args.ts';
import type { CompareValues, TrainValues } from '../options.ts';
import { buildRule, isRule } from '../ruleOptions.ts';
import { asUsage, buildSchedule, scheduleOptions } from '../scheduleOptions.ts';
import { trialOptionsOf } from '../trialChoices.ts';

type DataValues = Pick<TrainValues, 'dataset' | 'data' | 'seed' | 'testLimit'> & { trainLimit?: number };

/** @throws UsageError where an option asks for more images than there are */
export function checkCount(flag: string, asked: number | undefined, { count, name }: ImageSet): void {
  if (asked === undefined || asked <= count) return;
  const rule = `must be ≤ ${count}, the images of ${name}`;
  throw new UsageError({ op: 'forkstep', arg: flag, rule, got: String(asked), fix: 'ask for fewer' });
}

/** @throws DataError for files that are missing, damaged or foreign, UsageError for limits beyond the set */
export function loadDataset(values: DataValues): ImageDataset {
  const { dataset, data, seed, trainLimit, testLimit } = values;
  const full = dataset === 'procedural' ? proceduralDataset({ seed }) : dataset === 'cifar10' ? readCifar10(data!) : readCifar100(data!);
  checkCount('--train-limit', trainLimit, full.train);
  checkCount('--test-limit', testLimit, full.test);
  return {
    ...full,
    train: trainLimit === undefined ? full.train : limitSet(full.train, trainLimit),
    test: testLimit === undefined ? full.test : limitSet(full.test, testLimit),
  };
}

/** @throws UsageError for batches larger than the training set */
export function checkBatches({ batch, scoreBatch }: Pick<TrainValues, 'batch' | 'scoreBatch'>, { train }: ImageDataset): void {
  checkCount('--batch', batch, train);
  checkCount('--score-batch', scoreBatch, train);
}

/** Makes the folder of an option where it is missing, before anything is computed for it. @throws UsageError where it cannot be written */
export function makeOutputFolder(folder: string, arg = '--out'): void {
  try {
    // One by one: Node's recursive mkdir does not return where a folder that is there refuses one as if it were not (/proc).
    const missing: string[] = [];
    for (let at = resolve(folder); !existsSync(at); at = dirname(at)) missing.unshift(at);
    for (const at of missing) mkdirSync(at);
    // The trailing dot: a file of that name is no folder.
    accessSync(`${folder}/.`, constants.W_OK);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    const got = `${JSON.stringify(folder)} (${code})`;
    const rule = 'must be a folder that can be written';
    throw new UsageError({ op: 'forkstep', arg, rule, got, fix: 'name another' }, { cause: error });
  }
}

/** Reads a file the user named. @throws DataError when it cannot be read */
function readNamed(op: string, arg: string, file: string): Uint8Array {
  if (!existsSync(file)) throw new DataError({ op, arg, rule: 'must be a file', got: file, fix: 'check the path' });
  return readFileSync(file);
}

export function buildModel(
  values: Pick<TrainValues, 'stem' | 'width' | 'seed'>,
  classes: number,
  checkpoint?: { arg: string; file: string },
): ResNet {
  const model = resnet18({ stem: values.stem, width: values.width, numClasses: classes, seed: values.seed });
  if (!checkpoint) return model;
  const bytes = readNamed('forkstep', checkpoint.arg, checkpoint.file);
  try {
    loadSafetensors(model, bytes);
  } catch (error) {
    if (!(error instanceof ShapeError || error instanceof DataError)) throw error;
    const isOtherNetwork = error instanceof ShapeError;
    throw new DataError(
      {
        op: 'forkstep',
        arg: `${checkpoint.arg} ${checkpoint.file}: ${error.arg}`,
        rule: error.expected,
        got: error.got,
        fix: isOtherNetwork
          ? 'give the --stem, --width and --dataset that it was trained with'
          : 'give a whole checkpoint of this network in float32',
      },
      { cause: error },
    );
  }
  return model;
}

/** What sets the learning rate of `forkstep train`, and its name. */
export function trainSchedule(values: TrainValues): { name: string; schedule: Schedule } {
  const { schedule: name } = values;
  // ALR is no schedule: `runAlr` trains by it.
  const scheduler = values.scheduler === 'alr' ? undefined : values.scheduler;
  if (name === undefined) return { name: scheduler ?? 'trial', schedule: scheduleOf(scheduler ?? 'trial', values) };
  if (isRule(name)) return { name, schedule: buildRule(name, values) };
  const made = buildSchedule(name, values);
  if (scheduler !== 'trial' || !(made instanceof PureSchedule)) return { name, schedule: made };
  return { name: `trial on ${name}`, schedule: new TrialScheduler(trialOptionsOf(values, made)) };
}

/** @throws UsageError where the schedule has no rate for a step of the run */
export function checkFits(schedule: Schedule, values: TrainValues, dataset: ImageDataset): void {
  const { batch, epochs, maxSteps } = values;
  const run = lengthOf({ dataset, batchSize: batch, epochs, maxSteps });
  const flag = run.totalSteps === maxSteps ? '--max-steps' : '--epochs';
  asUsage('forkstep train', () => checkPlan(schedule, run), scheduleOptions, { flag, text: `a run of ${run.totalSteps} steps`, values });
}

export function scheduleOf(scheduler: 'trial' | 'constant', values: CompareValues | TrainValues): Schedule {
  return scheduler === 'trial' ? new TrialScheduler(trialOptionsOf(values)) : new ConstantSchedule({ lr: values.lr });
}
