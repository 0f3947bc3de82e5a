/**
 * TensorBoard's event files, as far as scalars need them: records `u64 length | masked CRC of it | bytes | masked CRC of them`,
 * little-endian, each the protocol buffer `Event`.
 * @source TensorFlow's descriptions of TFRecord and of event.proto, summary.proto; differences: only the fields that are written here
 */
import { crc32c } from './crc32c.ts';

/** Numbers by the tag that TensorBoard shows them under. */
export type Scalars = Readonly<Record<string, number>>;

export type TensorboardEvent =
  /** First of a file. */
  | { readonly fileVersion: string }
  /** The writer begins, or begins again: points of this step and later ones that an earlier file holds are void. */
  | { readonly start: number }
  | { readonly step: number; readonly scalars: Scalars };

const text = new TextEncoder();

/** Base 128, lowest digits first; n is an integer ≥ 0. */
function varint(n: number): number[] {
  const digits: number[] = [];
  for (; n >= 128; n = Math.floor(n / 128)) digits.push((n % 128) | 128);
  return [...digits, n];
}

const key = (field: number, wireType: number): number => (field << 3) | wireType;
const integer = (field: number, value: number): number[] => [key(field, 0), ...varint(value)];
const bytes = (field: number, value: ArrayLike<number>): number[] => [key(field, 2), ...varint(value.length), ...Array.from(value)];
const little = (size: 4 | 8, write: (view: DataView) => void): Uint8Array => {
  const view = new DataView(new ArrayBuffer(size));
  write(view);
  return new Uint8Array(view.buffer);
};
const double = (field: number, value: number): number[] => [key(field, 1), ...little(8, (view) => view.setFloat64(0, value, true))];
const float = (field: number, value: number): number[] => [key(field, 5), ...little(4, (view) => view.setFloat32(0, value, true))];

/** `Summary`: a `Value` for each, with tag = 1 and simple_value = 2. */
const summary = (scalars: Scalars): number[] =>
  Object.entries(scalars).flatMap(([tag, value]) => bytes(1, [...bytes(1, text.encode(tag)), ...float(2, value)]));

/** `Event`: wall_time = 1, step = 2 unless it is 0, and file_version = 3, summary = 5 or session_log = 7 with status START. */
function message(event: TensorboardEvent, wallSeconds: number): number[] {
  const step = 'start' in event ? event.start : 'step' in event ? event.step : 0;
  const head = [...double(1, wallSeconds), ...(step > 0 ? integer(2, step) : [])];
  if ('fileVersion' in event) return [...head, ...bytes(3, text.encode(event.fileVersion))];
  return [...head, ...('start' in event ? bytes(7, integer(1, 1)) : bytes(5, summary(event.scalars)))];
}

/** Records hold checksums turned by 15 bits and moved, as checksums of what holds checksums would be weak. */
const masked = (part: Uint8Array): Uint8Array => {
  const crc = crc32c(part);
  return little(4, (view) => view.setUint32(0, ((crc >>> 15) | (crc << 17)) + 0xa282ead8, true));
};

/** The version that TensorBoard's present readers ask for. */
export const fileVersion: TensorboardEvent = { fileVersion: 'brain.Event:2' };

/** An event as a record of an event file. @param wallSeconds since 1970 */
export function encodeRecord(event: TensorboardEvent, wallSeconds: number): Uint8Array {
  const data = Uint8Array.from(message(event, wallSeconds));
  const length = little(8, (view) => view.setBigUint64(0, BigInt(data.length), true));
  const record = new Uint8Array(16 + data.length);
  record.set(length);
  record.set(masked(length), 8);
  record.set(data, 12);
  record.set(masked(data), 12 + data.length);
  return record;
}
