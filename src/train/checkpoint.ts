/**
 * A checkpoint, all that a run needs to go on bit for bit, and its file: one safetensors container, so that weights and state cannot be of
 * two moments. Tensors: `model.NAME` and `momentum.NAME` in PyTorch's names and layouts; `state` and `notes`, JSON in UTF-8. Its metadata begin
 * with the CRC-32C of the whole file, the checksum's own digits taken as 0.
 */
import { DataError, ForkstepError } from '../gpu/errors.ts';
import { decodeSafetensors, encodeSafetensors, type SafetensorsTensor } from '../nn/safetensors.ts';
import type { AlrState, ScheduleState } from '../sched/index.ts';
import { crc32c } from './crc32c.ts';

/** What is read from JSON or goes there. */
export type Json = string | number | boolean | null | readonly Json[] | { readonly [name: string]: Json };

export interface TrainerState {
  /** Steps made, those included that were skipped. */
  readonly step: number;
  /** Where the next step is: its epoch, and batches of that epoch before it. */
  readonly epoch: number;
  readonly batch: number;
  /** Updates made, and steps of which nothing was made as gradients overflowed. */
  readonly updates: number;
  readonly skipped: number;
  /** Of the run, as it was to be when the checkpoint was made. */
  readonly totalSteps: number;
  readonly schedule: ScheduleState;
  /** In mixed precision: the loss scale, and steps made since it changed. */
  readonly lossScaler: { readonly scale: number; readonly steps: number } | null;
  /** Bits are those of this adapter. */
  readonly adapter: string;
  /** The options that the losses depend on. Random numbers are functions of its seed and of the step. */
  readonly recipe: { readonly [option: string]: Json };
}

/** Of a run by the ALR technique, between two epochs. */
export interface AlrTrainerState {
  readonly kind: 'alr';
  /** Steps made by each branch that has come so far. */
  readonly step: number;
  /** Cost so far in forward passes of a batch. */
  readonly forwards: number;
  readonly tree: AlrState;
  readonly adapter: string;
  readonly recipe: TrainerState['recipe'];
}

interface CheckpointOf<State> {
  readonly tensors: ReadonlyMap<string, SafetensorsTensor>;
  readonly state: State;
}

/** What a `Trainer` goes on from. */
export type Checkpoint = CheckpointOf<TrainerState>;
/** What an `AlrTrainer` goes on from. Tensors: `BEAM.PART.NAME`, the part `parameters`, `momentum` or `statistics`, in the engine's layout. */
export type AlrCheckpoint = CheckpointOf<AlrTrainerState>;
export type AnyCheckpoint = Checkpoint | AlrCheckpoint;

/** Whether a checkpoint is an `AlrTrainer`'s. */
export const isOfAlr = (checkpoint: AnyCheckpoint): checkpoint is AlrCheckpoint => 'kind' in checkpoint.state;

const format = 'forkstep checkpoint';
const version = '1';
const noChecksum = '00000000';
/** The file's beginning behind the header's length, up to the checksum's 8 digits. */
const start = '{"__metadata__":{"crc32c":"';
const checksumAt = 8 + start.length;

const utf8 = new TextEncoder();
const json = (value: unknown): SafetensorsTensor => {
  const data = utf8.encode(JSON.stringify(value));
  return { dtype: 'U8', shape: [data.length], data };
};
const checksumOf = (bytes: Uint8Array): string => {
  const rest = crc32c(bytes.subarray(checksumAt + 8), crc32c(utf8.encode(noChecksum), crc32c(bytes.subarray(0, checksumAt))));
  return rest.toString(16).padStart(8, '0');
};

/**
 * The bytes of a checkpoint's file.
 * @param notes of the caller's own, in JSON: `decodeCheckpoint` gives them back
 */
export function encodeCheckpoint({ tensors, state }: AnyCheckpoint, notes: Json = null): Uint8Array {
  const all = new Map([...tensors, ['state', json(state)], ['notes', json(notes)]]);
  const bytes = encodeSafetensors(all, { crc32c: noChecksum, format, version, step: String(state.step) });
  bytes.set(utf8.encode(checksumOf(bytes)), checksumAt);
  return bytes;
}

/** @throws DataError for the checkpoint of another kind of trainer */
function refuseOther(op: string, trainer: string, others: string, fix: string): never {
  throw new DataError({ op, arg: 'file', rule: `must be a checkpoint of ${trainer}`, got: `one of ${others}`, fix });
}

/**
 * The checkpoint of a `Trainer` that the bytes of a file hold, and the notes beside it.
 * @throws DataError, and nothing else, for files that are not checkpoints, not whole, changed or another trainer's
 */
export function decodeCheckpoint(bytes: Uint8Array): { checkpoint: Checkpoint; notes: Json } {
  const { checkpoint, notes } = decodeAnyCheckpoint(bytes);
  return isOfAlr(checkpoint) ? refuseOther('decodeCheckpoint', 'Trainer', 'AlrTrainer', 'use decodeAlrCheckpoint') : { checkpoint, notes };
}

/** As `decodeCheckpoint`, of an `AlrTrainer`. @throws DataError as that does */
export function decodeAlrCheckpoint(bytes: Uint8Array): { checkpoint: AlrCheckpoint; notes: Json } {
  const { checkpoint, notes } = decodeAnyCheckpoint(bytes);
  return isOfAlr(checkpoint) ? { checkpoint, notes } : refuseOther('decodeAlrCheckpoint', 'AlrTrainer', 'Trainer', 'use decodeCheckpoint');
}

/** Of either trainer. @throws DataError as `decodeCheckpoint` does */
export function decodeAnyCheckpoint(bytes: Uint8Array): { checkpoint: AnyCheckpoint; notes: Json } {
  const refuse = (rule: string, got: string, fix: string, cause?: unknown): never => {
    throw new DataError({ op: 'decodeCheckpoint', arg: 'file', rule, got, fix }, { cause });
  };
  const text = (from: number, to: number) => new TextDecoder().decode(bytes.subarray(from, to));
  const got = `${bytes.length} bytes of something else`;
  if (text(8, checksumAt) !== start) refuse('must be a checkpoint of forkstep', got, 'name another file');
  const [noted, found] = [text(checksumAt, checksumAt + 8), checksumOf(bytes)];
  if (noted !== found) refuse(`must have the checksum ${noted} that it names`, found, 'it is cut off or damaged: take an earlier copy');
  try {
    const { tensors, metadata } = decodeSafetensors(bytes);
    if (metadata.format !== format || metadata.version !== version) {
      const got = `${metadata.format} ${metadata.version}`;
      refuse(`must be a ${format} of version ${version}`, got, 'resume with the forkstep that wrote it');
    }
    const parse = (name: string): unknown => JSON.parse(new TextDecoder().decode(tensors.get(name)!.data as Uint8Array));
    const [state, notes] = [parse('state') as AnyCheckpoint['state'], parse('notes') as Json];
    tensors.delete('state');
    tensors.delete('notes');
    return { checkpoint: { tensors, state } as AnyCheckpoint, notes };
  } catch (error) {
    if (error instanceof ForkstepError) throw error;
    return refuse('must hold its state in JSON', String(error), 'resume with the forkstep that wrote it', error);
  }
}
