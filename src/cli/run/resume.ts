/** What `--resume` goes on with: the run in --out and its options, where they are not given again. */
import type { ImageDataset } from '../../data/dataset.ts';
import { AttrError, DataError, ForkstepError } from '../../gpu/errors.ts';
import { AlrTree } from '../../sched/index.ts';
import { isOfAlr, type AlrCheckpoint, type Checkpoint, type Json } from '../../train/index.ts';
import { findRun, readResult, type FoundRun } from '../../train/runFolder.node.ts';
import { flagOf, UsageError, type Option, type Parsed } from '../args.ts';
import { checkTrain, trainOptions, trialOptions, type CompareValues, type TrainValues } from '../options.ts';
import { trainParameters } from '../ruleOptions.ts';
import { trainSchedule } from './setup.ts';

export type RunValues = TrainValues | CompareValues;
type TrainKey = keyof typeof trainOptions;
type ParsedTrain = Pick<Parsed<typeof trainOptions>, 'values' | 'given'>;

const command = 'forkstep train';
/** Options of one start alone. */
const ofStart: ReadonlySet<TrainKey> = new Set<TrainKey>(['out', 'resume', 'json']);
/** Those that no loss, rate or weight depends on, so that another start may have others. Data are known by their checksums. */
const free: ReadonlySet<TrainKey> = new Set<TrainKey>([...ofStart, 'checkpointEvery', 'logEvery', 'tensorboard', 'memoryBudget', 'data']);
/** Options that the trainer judges: the run may be longer than it was to be where its rates do not depend on that. */
const lengths: ReadonlySet<TrainKey> = new Set<TrainKey>(['epochs', 'maxSteps']);

/** What a checkpoint notes of the command line that made it. */
export function notesOf({ values, given }: ParsedTrain): Json {
  return JSON.parse(JSON.stringify({ values, given: [...given] })) as Json;
}

type NotedValues = Record<string, Json | undefined>;

/** @throws DataError for the checkpoint of a run that something else than this command keeps */
function notedOf(notes: Json): { values: NotedValues; given: TrainKey[] } {
  const noted = notes as { values?: unknown; given?: unknown } | null;
  const refuse = (got: string): never => {
    const rule = `must be of a run that this version of ${command} began`;
    throw new DataError({ op: command, arg: 'checkpoint', rule, got, fix: 'go on with it in the program that began it' });
  };
  const isNoted = typeof noted?.values === 'object' && noted.values !== null && Array.isArray(noted.given);
  if (!isNoted) return refuse('one that does not note its options');
  const values = noted.values as NotedValues;
  for (const [key, { words }] of Object.entries(trainOptions) as [string, Option<unknown>][]) {
    const value = values[key];
    if (words && value !== undefined && !words.includes(value as string)) refuse(`${flagOf(key)} ${JSON.stringify(value)}`);
  }
  return { values, given: noted.given as TrainKey[] };
}

const units: Record<string, (n: Json) => string> = {
  steps: (n) => `${n}steps`, epochs: (n) => `${n}epochs`, percent: (n) => `${n}%`, perEpoch: (n) => `${n}/epoch`, minutes: (n) => `${n}min`,
};

/** A value as the command line writes it. */
function asText(value: Json): string {
  if (Array.isArray(value)) return value.map(asText).join(',');
  if (typeof value !== 'object' || value === null) return String(value);
  if ('events' in value) return `${asText(value.events)}x${asText(value.every)}`;
  const [[unit, n] = ['', null]] = Object.entries(value);
  return units[unit]?.(n) ?? JSON.stringify(value);
}

/** Options that make the schedule, whose defaults a preset or the schedule has. */
const ofSchedule: ReadonlySet<string> = new Set([...Object.keys({ ...trialOptions, ...trainParameters }), 'scheduler', 'schedule', 'beam']);

/** What sets the learning rate, whole. */
function scheduleState(values: TrainValues): string {
  const { lr, beam, factors } = values;
  return JSON.stringify(values.scheduler === 'alr' ? new AlrTree({ lr, beam, factors }).state() : trainSchedule(values).schedule.state());
}

/** Whether an option is what it was: the same value, or one that makes the same schedule. */
function isSame(key: TrainKey, was: NotedValues, now: TrainValues): boolean {
  if (JSON.stringify(was[key]) === JSON.stringify(now[key])) return true;
  const then = was as unknown as TrainValues;
  if (key === 'scoreBatch') return (then.scoreBatch ?? then.batch) === now.scoreBatch;
  if (!ofSchedule.has(key)) return false;
  try {
    return scheduleState(then) === scheduleState({ ...then, [key]: now[key] });
  } catch (error) {
    // One that the schedule has not, or that does not go with the others.
    if (error instanceof ForkstepError) return false;
    throw error;
  }
}

/**
 * The options of the run that goes on: those given must be its own.
 * @throws UsageError for the first that differs
 */
function joined(now: ParsedTrain, notes: Json): ParsedTrain {
  const then = notedOf(notes);
  const values: Record<string, unknown> = { ...now.values };
  for (const key of Object.keys(trainOptions) as TrainKey[]) {
    if (ofStart.has(key)) continue;
    if (now.given.has(key) && !free.has(key) && !lengths.has(key) && !isSame(key, then.values, now.values)) {
      const [was, is] = [then.values[key], now.values[key] as Json | undefined];
      const rule = was === undefined || is === true ? 'must be left out' : `must be ${asText(was)}`;
      throw new UsageError({
        op: command, arg: flagOf(key), rule: `${rule}, as in the run that --resume goes on with`, got: asText(is ?? null), fix: `leave ${flagOf(key)} out`,
      });
    }
    // As it was written then, where it comes to the same.
    if (!now.given.has(key)) values[key] = then.values[key] ?? now.values[key];
    else if (!free.has(key) && !lengths.has(key)) values[key] = then.values[key];
  }
  const given = new Set<TrainKey>([...then.given.filter((key) => !ofStart.has(key)), ...now.given]);
  return { values: values as TrainValues, given };
}

export interface Continued extends ParsedTrain {
  /** Null where the run begins. */
  readonly from: FoundRun | null;
  /** What the run left when it came to its end, where nothing is left of it to do. */
  readonly result: Json;
}

/**
 * The run that a command line is of.
 * @throws UsageError for options that differ from those of the run, for a folder without a run where nothing says what to train, and
 * without --resume for a folder whose run is not over; DataError for a checkpoint that is damaged or foreign
 */
export function continued(now: ParsedTrain): Continued {
  const { out, resume } = now.values;
  const refuse = (rule: string, got: string, fix: string): never => {
    throw new UsageError({ op: command, arg: `--out ${out}`, rule, got, fix });
  };
  const result = readResult(out);
  if (!resume) {
    const step = result === null ? (findRun(out)?.checkpoint.state.step ?? 0) : 0;
    if (step > 0) refuse('must not hold a run that is not over', `one at step ${step}`, 'add --resume to go on with it, or name another folder');
    return { ...now, from: null, result: null };
  }
  const from = findRun(out);
  if (!from) {
    const says = [...now.given].some((key) => !free.has(key));
    if (!says) refuse('must hold a checkpoint', 'none', 'check the path, or say what to train');
    checkTrain(command, now as Parsed<typeof trainOptions>);
    process.stderr.write(`no checkpoint in ${out} yet: the run begins\n`);
    return { ...now, from, result: null };
  }
  const all = joined(now, from.notes);
  checkTrain(command, all as Parsed<typeof trainOptions>);
  const { values: then } = notedOf(from.notes);
  const isOver = then.epochs === all.values.epochs && then.maxSteps === all.values.maxSteps;
  return { ...all, from, result: isOver ? result : null };
}

/**
 * The run that goes on, by whose trainer it goes on: its options are those of now, so its checkpoint is of the same.
 * @throws DataError for a checkpoint of the other trainer
 */
export function runOf(from: FoundRun | null, isAlr: false): FoundRun<Checkpoint> | null;
export function runOf(from: FoundRun | null, isAlr: true): FoundRun<AlrCheckpoint> | null;
export function runOf(from: FoundRun | null, isAlr: boolean): FoundRun | null {
  if (!from || isOfAlr(from.checkpoint) === isAlr) return from;
  const [rule, got] = [`must be of a run ${isAlr ? 'by' : 'without'} ALR`, 'of another'];
  throw new DataError({ op: command, arg: 'checkpoint', rule, got, fix: 'put the checkpoint of that run back' });
}

/** What a trainer refuses of a checkpoint, in words of the command line. */
export async function asFlags<T>(making: Promise<T>, { name }: ImageDataset): Promise<T> {
  try {
    return await making;
  } catch (cause) {
    if (!(cause instanceof AttrError)) throw cause;
    const { arg, expected: rule, got } = cause;
    if (lengths.has(arg as TrainKey)) {
      throw new UsageError({ op: command, arg: flagOf(arg), rule, got, fix: `leave ${flagOf(arg)} out` }, { cause });
    }
    if (!arg.startsWith('dataset.')) throw cause;
    const details = { arg: `images of ${name}`, rule: 'must be those of the run that --resume goes on with', got: 'others' };
    throw new DataError({ op: command, ...details, fix: 'name the folder of that run by --data' }, { cause });
  }
}
