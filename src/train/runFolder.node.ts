/**
 * What a run leaves in a folder, so that it can go on after a crash:
 *   events.jsonl             what happened, a JSON object a line, appended as it happens
 *   checkpoint.safetensors   the last checkpoint; how long events.jsonl was then, and its checksum
 *   result.json              written last: the run is over
 *   events.out.tfevents.*    on demand, the scalars for TensorBoard
 * A run that goes on cuts events.jsonl to what the checkpoint knows of, so that its readers get each step once.
 */
import { appendFileSync, mkdirSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { DataError, ForkstepError } from '../gpu/errors.ts';
import { alrEventToJson, eventFromJson, eventToJson, type AlrEventJson, type TrialEvent, type TrialEventJson } from '../sched/index.ts';
import type { AlrEpoch } from './alrOptions.ts';
import {
  decodeAlrCheckpoint,
  decodeAnyCheckpoint,
  decodeCheckpoint,
  encodeCheckpoint,
  type AlrCheckpoint,
  type AnyCheckpoint,
  type Checkpoint,
  type Json,
} from './checkpoint.ts';
import { crc32c } from './crc32c.ts';
import { readIfThere, sync, writeWhole, writing } from './files.node.ts';
import type { Divergence, LoggedStep } from './stepLog.ts';
import { TensorboardWriter } from './tensorboard.node.ts';
import type { Evaluation } from './trainerOptions.ts';

export const runFiles = { events: 'events.jsonl', checkpoint: 'checkpoint.safetensors', result: 'result.json' };

type Decoder<C> = (bytes: Uint8Array) => { checkpoint: C; notes: Json };

/**
 * The checkpoint of a `Trainer` from its file, and the notes beside it.
 * @throws DataError for a file that is missing, unreadable, cut off, damaged or foreign
 */
export const readCheckpoint = (file: string): { checkpoint: Checkpoint; notes: Json } => readAs(file, decodeCheckpoint);

/** As `readCheckpoint`, of an `AlrTrainer`. @throws DataError as that does */
export const readAlrCheckpoint = (file: string): { checkpoint: AlrCheckpoint; notes: Json } => readAs(file, decodeAlrCheckpoint);

function readAs<C>(file: string, decode: Decoder<C>): ReturnType<Decoder<C>> {
  const bytes = readIfThere(file);
  if (!bytes) throw new DataError({ op: 'readCheckpoint', arg: file, rule: 'must be a file', got: 'nothing', fix: 'check the path' });
  return decodeNamed(file, bytes, decode);
}

/** Writes a checkpoint whole or not at all. @throws FileError where that fails; an old file is then as it was */
export function writeCheckpoint(file: string, checkpoint: AnyCheckpoint, notes: Json = null): void {
  writeWhole(file, encodeCheckpoint(checkpoint, notes));
}

function decodeNamed<C>(file: string, bytes: Uint8Array, decode: Decoder<C>): ReturnType<Decoder<C>> {
  try {
    return decode(bytes);
  } catch (error) {
    if (!(error instanceof ForkstepError)) throw error;
    throw new DataError({ op: 'readCheckpoint', arg: file, rule: error.expected, got: error.got, fix: error.fix }, { cause: error });
  }
}

/** What happened in a run, in order. */
export interface RunLog {
  readonly steps: LoggedStep[];
  readonly events: TrialEvent[];
  readonly evals: Evaluation[];
}

type Line =
  | ({ type: 'step' } & LoggedStep)
  | ({ type: 'alr' } & AlrEventJson & Pick<AlrEpoch, 'step' | 'forwards'>)
  | ({ type: 'event' } & TrialEventJson)
  | ({ type: 'eval' } & Evaluation)
  | ({ type: 'divergence' } & Divergence);

/** JSON has no NaN, which a rule's trials may have. */
const stepFromJson = (step: LoggedStep): LoggedStep =>
  step.rule?.losses ? { ...step, rule: { ...step.rule, losses: step.rule.losses.map((loss) => loss ?? NaN) } } : step;

/** The log that some bytes of events.jsonl hold; a last line that was torn is none. @throws SyntaxError for lines that are not JSON */
export function parseRunLog(bytes: Uint8Array): RunLog {
  const log: RunLog = { steps: [], events: [], evals: [] };
  const lines = new TextDecoder().decode(bytes).split('\n').slice(0, -1);
  for (const line of lines) {
    const { type, ...rest } = JSON.parse(line) as Line;
    if (type === 'step') log.steps.push(stepFromJson(rest as LoggedStep));
    else if (type === 'event') log.events.push(eventFromJson(rest as TrialEventJson));
    // JSON has no NaN.
    else if (type === 'eval') log.evals.push({ ...(rest as Evaluation), testLoss: (rest as Evaluation).testLoss ?? NaN });
  }
  return log;
}

/** A run that can go on. */
export interface FoundRun<C extends AnyCheckpoint = AnyCheckpoint> {
  readonly checkpoint: C;
  readonly notes: Json;
  readonly log: RunLog;
  /** Of events.jsonl, when the checkpoint was made. */
  readonly mark: LogMark;
}

/** How much of events.jsonl there is, and its CRC-32C. */
interface LogMark {
  readonly bytes: number;
  readonly crc32c: number;
}

/**
 * The run that a folder's checkpoint is of, or null where there is none. Nothing is changed.
 * @throws DataError for a checkpoint that is unreadable, cut off, damaged or foreign, and for an events.jsonl that is not of the same run
 */
export function findRun(folder: string): FoundRun | null {
  const file = join(folder, runFiles.checkpoint);
  const bytes = readIfThere(file);
  if (!bytes) return null;
  const { checkpoint, notes: all } = decodeNamed(file, bytes, decodeAnyCheckpoint);
  const { mark, notes = null } = (all ?? {}) as { mark?: LogMark; notes?: Json };
  if (!mark) {
    const rule = 'must be of a run that has a folder';
    throw new DataError({ op: 'findRun', arg: file, rule, got: 'one by itself', fix: 'name another folder' });
  }
  const events = join(folder, runFiles.events);
  const whole = readIfThere(events) ?? new Uint8Array(0);
  const known = whole.subarray(0, mark.bytes);
  if (known.length < mark.bytes || crc32c(known) !== mark.crc32c) {
    const rule = `must begin with the ${mark.bytes} bytes of ${checkpoint.state.step} steps that ${runFiles.checkpoint} knows of`;
    const got = known.length < mark.bytes ? `${known.length} bytes` : 'others';
    throw new DataError({ op: 'findRun', arg: events, rule, got, fix: 'put the file of that run back' });
  }
  return { checkpoint, notes, log: parseRunLog(known), mark };
}

/** What `finish` has left in a folder, or null where no run has come to its end. @throws DataError for a file that is not JSON */
export function readResult(folder: string): Json {
  const file = join(folder, runFiles.result);
  const bytes = readIfThere(file);
  try {
    return bytes && (JSON.parse(new TextDecoder().decode(bytes)) as Json);
  } catch (error) {
    throw new DataError({ op: 'readResult', arg: file, rule: 'must be JSON', got: String(error), fix: 'remove it' }, { cause: error });
  }
}

export interface RunFolderOptions {
  /** Also write TensorBoard's event files. @default false */
  readonly tensorboard?: boolean;
}

export class RunFolder implements RunLog {
  readonly steps: LoggedStep[];
  readonly events: TrialEvent[];
  readonly evals: Evaluation[];
  readonly #board: TensorboardWriter | null;
  #mark: LogMark;

  private constructor(
    readonly folder: string,
    { steps, events, evals }: RunLog,
    mark: LogMark,
    { tensorboard = false }: RunFolderOptions,
  ) {
    [this.steps, this.events, this.evals] = [steps, events, evals];
    this.#mark = mark;
    this.#board = tensorboard ? new TensorboardWriter(folder, steps.length) : null;
  }

  /** A new run. The folder is made if need be; what an old run left in it goes, its checkpoint first. @throws FileError */
  static begin(folder: string, options: RunFolderOptions = {}): RunFolder {
    writing(folder, () => {
      mkdirSync(folder, { recursive: true });
      for (const name of [runFiles.checkpoint, runFiles.result]) rmSync(join(folder, name), { force: true });
      writeFileSync(join(folder, runFiles.events), '');
    });
    return new RunFolder(folder, { steps: [], events: [], evals: [] }, { bytes: 0, crc32c: 0 }, options);
  }

  /** Goes on with a run that `findRun` has found: what was logged after its checkpoint goes. @throws FileError */
  static resume(folder: string, { log, mark }: FoundRun, options: RunFolderOptions = {}): RunFolder {
    writing(folder, () => {
      rmSync(join(folder, runFiles.result), { force: true });
      truncateSync(join(folder, runFiles.events), mark.bytes);
    });
    return new RunFolder(folder, log, mark, options);
  }

  #append(lines: readonly Line[]): void {
    const bytes = Buffer.from(lines.map((line) => `${JSON.stringify(line)}\n`).join(''));
    const file = join(this.folder, runFiles.events);
    writing(file, () => appendFileSync(file, bytes));
    this.#mark = { bytes: this.#mark.bytes + bytes.length, crc32c: crc32c(bytes, this.#mark.crc32c) };
  }

  addSteps(steps: readonly LoggedStep[]): void {
    this.steps.push(...steps);
    this.#append(steps.map((step) => ({ type: 'step', ...step })));
    this.#board?.add(steps.map(({ step, loss, lr }) => ({ step, scalars: { 'train/loss': loss, 'train/lr': lr } })));
  }

  addEvent(event: TrialEvent): void {
    this.events.push(event);
    this.#append([{ type: 'event', ...eventToJson(event) }]);
    this.#board?.add([{ step: event.step, scalars: { 'trial/factor': event.lrAfter / event.lrBefore } }]);
  }

  /** The end of an epoch of ALR. */
  addEpoch(epoch: AlrEpoch): void {
    this.#append([{ type: 'alr', ...epoch, ...alrEventToJson(epoch) }]);
  }

  addEvaluation(evaluation: Evaluation): void {
    this.evals.push(evaluation);
    this.#append([{ type: 'eval', ...evaluation }]);
    // Beside the last step before it: a run that goes on from here voids the points of its own steps.
    const { step, testLoss, testAccuracy } = evaluation;
    this.#board?.add([{ step: step - 1, scalars: { 'test/loss': testLoss, 'test/accuracy': testAccuracy } }]);
  }

  addDivergence(divergence: Divergence): void {
    this.#append([{ type: 'divergence', ...divergence }]);
  }

  /**
   * Replaces the folder's checkpoint; all steps before it have been added. Notes are JSON of the caller's own.
   * @throws FileError where that fails; the old checkpoint is then as it was
   */
  keep(checkpoint: AnyCheckpoint, notes: Json = null): void {
    const events = join(this.folder, runFiles.events);
    // On the disk before the checkpoint that counts on it.
    writing(events, () => sync(events));
    writeCheckpoint(join(this.folder, runFiles.checkpoint), checkpoint, { mark: { ...this.#mark }, notes });
  }

  /** The run is over. @throws FileError */
  finish(result: Json): void {
    writeWhole(join(this.folder, runFiles.result), `${JSON.stringify(result)}\n`);
  }
}
