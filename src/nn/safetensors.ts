/**
 * The safetensors container, read and written: `u64 header length | JSON header | tensor bytes`, all little-endian.
 * Header: `{name: {dtype, shape, data_offsets: [begin, end]}, …, "__metadata__": {string: string}}`; offsets count from the
 * end of the header, cover the tensor bytes without hole or overlap, and end where the file ends.
 *
 * @source the format description of huggingface/safetensors; differences: dtypes are only the four that a float32 state dict uses
 */
import { DataError, DtypeError, ShapeError } from '../gpu/errors.ts';

interface ArrayOf {
  F64: Float64Array;
  I64: BigInt64Array;
  F32: Float32Array;
  U8: Uint8Array;
}
export type SafetensorsDtype = keyof ArrayOf;

/** One tensor: row-major, `data.length` = product of `shape` (1 for shape `[]`). */
export type SafetensorsTensor = {
  [D in SafetensorsDtype]: { dtype: D; shape: readonly number[]; data: ArrayOf[D] };
}[SafetensorsDtype];

export interface SafetensorsFile {
  /** In the order of the header. */
  tensors: Map<string, SafetensorsTensor>;
  metadata: Record<string, string>;
}

const arrays = { F64: Float64Array, I64: BigInt64Array, F32: Float32Array, U8: Uint8Array } satisfies Record<SafetensorsDtype, unknown>;
const metadataKey = '__metadata__';
/** Bound of the reference implementation: a longer header is a foreign file. */
const maxHeaderBytes = 100_000_000;

/**
 * Serialises tensors. The header keeps the map's order; the bytes lie widest dtype first, so that every tensor is aligned to its
 * element size, and the header is padded with spaces to 8 bytes. Same input, same bytes.
 * @throws DtypeError if `data` is not the array type of `dtype`; ShapeError if its length is not the product of `shape`
 * @example encodeSafetensors(new Map([['w', { dtype: 'F32', shape: [2], data: Float32Array.of(1, 2) }]])).length // 72
 */
export function encodeSafetensors(tensors: ReadonlyMap<string, SafetensorsTensor>, metadata: Record<string, string> = {}): Uint8Array {
  for (const [name, tensor] of tensors) checkTensor(name, tensor);
  const placed = [...tensors].sort(([, a], [, b]) => b.data.BYTES_PER_ELEMENT - a.data.BYTES_PER_ELEMENT);
  const offsets = new Map<string, [number, number]>();
  let end = 0;
  for (const [name, { data }] of placed) offsets.set(name, [end, (end += data.byteLength)]);

  const entries: [string, unknown][] = [];
  if (Object.keys(metadata).length > 0) entries.push([metadataKey, metadata]);
  for (const [name, { dtype, shape }] of tensors) entries.push([name, { dtype, shape, data_offsets: offsets.get(name) }]);
  // Joined by hand: an object would reorder integer-like names and swallow `__proto__`.
  const json = `{${entries.map(([key, value]) => `${JSON.stringify(key)}:${JSON.stringify(value)}`).join(',')}}`;
  const text = new TextEncoder().encode(json);
  const headerBytes = Math.ceil(text.length / 8) * 8;

  const bytes = new Uint8Array(8 + headerBytes + end);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(headerBytes), true);
  bytes.fill(0x20, 8, 8 + headerBytes);
  bytes.set(text, 8);
  for (const [name, { data }] of placed) {
    bytes.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength), 8 + headerBytes + offsets.get(name)![0]);
  }
  return bytes;
}

/**
 * Parses a whole safetensors file; every tensor is a copy, independent of `bytes` and of its alignment.
 * @throws DataError, and nothing else, on bytes that are not a well-formed file of F64, I64, F32 and U8 tensors
 */
export function decodeSafetensors(bytes: Uint8Array): SafetensorsFile {
  const { header, dataStart } = readHeader(bytes);
  const dataBytes = bytes.length - dataStart;
  const infos: TensorInfo[] = [];
  let metadata: Record<string, string> = {};
  for (const [name, value] of Object.entries(header)) {
    if (name === metadataKey) metadata = checkMetadata(value);
    else infos.push(checkInfo(name, value, dataBytes));
  }
  checkCover(infos, dataBytes);
  const tensors = new Map<string, SafetensorsTensor>();
  for (const { name, dtype, shape, begin, end } of infos) {
    // Node's Buffer is a Uint8Array whose own slice() does not copy.
    const copy = new Uint8Array(bytes.subarray(dataStart + begin, dataStart + end)).buffer;
    tensors.set(name, { dtype, shape, data: new arrays[dtype](copy) } as SafetensorsTensor);
  }
  return { tensors, metadata };
}

interface TensorInfo {
  name: string;
  dtype: SafetensorsDtype;
  shape: number[];
  begin: number;
  end: number;
}

function fail(arg: string, rule: string, got: unknown, fix = 'the file is damaged or not safetensors'): never {
  throw new DataError({ op: 'decodeSafetensors', arg, rule, got: describe(got), fix });
}

/** Values from a hostile header may be deep, huge or define `toString`: objects are named, not printed. */
function describe(value: unknown): unknown {
  if (Array.isArray(value) && value.length <= 8 && value.every((item) => typeof item !== 'object')) return JSON.stringify(value);
  if (Array.isArray(value)) return `an array of ${value.length}`;
  return isRecord(value) ? 'an object' : value;
}

function readHeader(bytes: Uint8Array): { header: Record<string, unknown>; dataStart: number } {
  if (bytes.length < 8) fail('file', 'must be at least 8 bytes long', bytes.length, 'the file is truncated');
  const length = new DataView(bytes.buffer, bytes.byteOffset, 8).getBigUint64(0, true);
  if (length > maxHeaderBytes) fail('header length', `must be at most ${maxHeaderBytes}`, length);
  const dataStart = 8 + Number(length);
  if (dataStart > bytes.length) {
    fail('header', `of ${length} bytes must lie inside the file`, `a file of ${bytes.length} bytes`, 'the file is truncated');
  }
  let header: unknown;
  try {
    header = JSON.parse(new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes.subarray(8, dataStart)));
  } catch (error) {
    fail('header', 'must be UTF-8 JSON', (error as Error).message);
  }
  if (!isRecord(header)) fail('header', 'must be a JSON object', header);
  return { header, dataStart };
}

function checkMetadata(value: unknown): Record<string, string> {
  if (!isRecord(value)) fail(metadataKey, 'must be an object of strings', value);
  for (const [key, text] of Object.entries(value)) {
    if (typeof text !== 'string') fail(`${metadataKey}.${key}`, 'must be a string', text);
  }
  return value as Record<string, string>;
}

function checkInfo(name: string, value: unknown, dataBytes: number): TensorInfo {
  if (!isRecord(value)) fail(`tensor ${name}`, 'must be an object with dtype, shape and data_offsets', value);
  const { dtype, shape, data_offsets: offsets } = value;
  if (typeof dtype !== 'string' || !Object.hasOwn(arrays, dtype)) {
    fail(`${name}.dtype`, `must be one of ${Object.keys(arrays).join(', ')}`, dtype, 'convert the checkpoint to float32 first');
  }
  if (!isSizes(shape)) fail(`${name}.shape`, 'must be an array of integers >= 0', shape);
  if (!isSizes(offsets) || offsets.length !== 2) fail(`${name}.data_offsets`, 'must be two integers >= 0', offsets);
  const [begin, end] = offsets;
  if (begin > end || end > dataBytes) {
    fail(`${name}.data_offsets`, `must be begin <= end <= ${dataBytes}, the bytes after the header`, offsets, 'the file is truncated');
  }
  const sizeBytes = product(shape) * arrays[dtype as SafetensorsDtype].BYTES_PER_ELEMENT;
  if (end - begin !== sizeBytes) fail(`${name}.data_offsets`, `must span ${sizeBytes} bytes for ${dtype} [${shape}]`, end - begin);
  return { name, dtype: dtype as SafetensorsDtype, shape, begin, end };
}

/** The tensors must tile the bytes after the header: no hole, no overlap, nothing left over. */
function checkCover(infos: readonly TensorInfo[], dataBytes: number): void {
  let position = 0;
  for (const { name, begin, end } of [...infos].sort((a, b) => a.begin - b.begin || a.end - b.end)) {
    if (begin !== position) fail(`${name}.data_offsets[0]`, `must be ${position}, the end of the tensor before it`, begin);
    position = end;
  }
  if (position !== dataBytes) fail('file', `must end with its last tensor, ${position} bytes after the header`, dataBytes);
}

function checkTensor(name: string, { dtype, shape, data }: SafetensorsTensor): void {
  const op = 'encodeSafetensors';
  if (name === metadataKey) {
    const fix = 'pass metadata as the second argument';
    throw new DataError({ op, arg: 'tensor name', rule: 'must not be the reserved one', got: name, fix });
  }
  if (!Object.hasOwn(arrays, dtype) || !(data instanceof arrays[dtype])) {
    const pairs = Object.entries(arrays).map(([key, array]) => `${key}: ${array.name}`).join(', ');
    const got = `${Object.prototype.toString.call(data)} for dtype ${String(dtype)}`;
    throw new DtypeError({ op, arg: `${name}.data`, rule: `must be the array type of its dtype (${pairs})`, got, fix: 'convert it' });
  }
  if (!isSizes(shape) || product(shape) !== data.length) {
    const got = `${data.length} for shape [${String(shape)}]`;
    const fix = 'pass the whole tensor, contiguous';
    throw new ShapeError({ op, arg: `${name}.data.length`, rule: 'must be the product of shape', got, fix });
  }
}

function product(shape: readonly number[]): number {
  // A zero anywhere makes the tensor empty, whatever the other sizes multiply to.
  return shape.includes(0) ? 0 : shape.reduce((size, n) => size * n, 1);
}

function isSizes(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((n) => Number.isSafeInteger(n) && n >= 0);
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
