/** From option values to the parts of a run: data, model, schedule. */
import { existsSync, readFileSync } from 'node:fs';
import { readCifar10, readCifar100 } from '../../data/cifar.node.ts';
import { limitSet, type ImageDataset } from '../../data/dataset.ts';
import { proceduralDataset } from '../../data/procedural.ts';
import { DataError, ShapeError } from '../../gpu/errors.ts';
import { loadSafetensors, resnet18, type ResNet } from '../../nn/index.ts';
import { asPublished, ConstantSchedule, robust, TrialScheduler, type Schedule, type TrialOptions } from '../../sched/index.ts';
import type { CompareValues, TrainValues } from '../options.ts';

type DataValues = Pick<TrainValues, 'dataset' | 'data' | 'seed' | 'testLimit'> & { trainLimit?: number };

/** @throws DataError for files that are missing, damaged or foreign, AttrError for limits beyond the set */
export function loadDataset(values: DataValues): ImageDataset {
  const { dataset, data, seed, trainLimit, testLimit } = values;
  const full = dataset === 'procedural' ? proceduralDataset({ seed }) : dataset === 'cifar10' ? readCifar10(data!) : readCifar100(data!);
  return {
    ...full,
    train: trainLimit === undefined ? full.train : limitSet(full.train, trainLimit),
    test: testLimit === undefined ? full.test : limitSet(full.test, testLimit),
  };
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
  try {
    loadSafetensors(model, readNamed('forkstep', checkpoint.arg, checkpoint.file));
  } catch (error) {
    if (!(error instanceof ShapeError)) throw error;
    throw new DataError(
      {
        op: 'forkstep',
        arg: `${checkpoint.arg} ${checkpoint.file}: ${error.arg}`,
        rule: error.expected,
        got: error.got,
        fix: 'give the --stem, --width and --dataset that it was trained with',
      },
      { cause: error },
    );
  }
  return model;
}

/** The options of the trial scheduler: a preset, and what the user set himself. */
export function trialOptionsOf(
  values: Pick<CompareValues, 'preset' | 'lr' | 'factors' | 'every' | 'envelope' | 'scoreBatch'>,
): TrialOptions {
  const given = { factors: values.factors, every: values.every, envelope: values.envelope, scoreBatch: values.scoreBatch };
  const overrides = Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined)) as Partial<TrialOptions>;
  const preset = values.preset === 'robust' ? robust() : asPublished();
  return { ...preset, ...overrides, lr: values.lr };
}

export function scheduleOf(scheduler: 'trial' | 'constant', values: CompareValues | TrainValues): Schedule {
  return scheduler === 'trial' ? new TrialScheduler(trialOptionsOf(values)) : new ConstantSchedule({ lr: values.lr });
}
