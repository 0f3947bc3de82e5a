import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { DataError, DtypeError, ShapeError } from '../../src/gpu/errors.ts';
import { decodeSafetensors, encodeSafetensors, type SafetensorsTensor } from '../../src/nn/safetensors.ts';

const fixture = new Uint8Array(readFileSync(new URL('./fixture.safetensors', import.meta.url)));

const tensors = new Map<string, SafetensorsTensor>([
  ['bytes', { dtype: 'U8', shape: [3], data: Uint8Array.of(0, 7, 255) }],
  ['weight', { dtype: 'F32', shape: [2, 3], data: Float32Array.of(0, -1.5, 3.25, 1e-45, 3.4028234663852886e38, -Infinity) }],
  ['num_batches_tracked', { dtype: 'I64', shape: [], data: BigInt64Array.of(-(2n ** 62n) - 1n) }],
  ['double', { dtype: 'F64', shape: [1, 2], data: Float64Array.of(0.1, -5e-324) }],
  ['empty', { dtype: 'F32', shape: [0, 4], data: new Float32Array(0) }],
  ['naïve "name"', { dtype: 'F32', shape: [1], data: Float32Array.of(0.5) }],
]);
const metadata = { format: 'pt', note: 'hé' };

/** A file of this header text (or these bytes) and this many zero bytes of data. */
function fileOf(header: string | Uint8Array, dataBytes = 0, headerBytes?: bigint): Uint8Array {
  const text = typeof header === 'string' ? new TextEncoder().encode(header) : header;
  const bytes = new Uint8Array(8 + text.length + dataBytes);
  new DataView(bytes.buffer).setBigUint64(0, headerBytes ?? BigInt(text.length), true);
  bytes.set(text, 8);
  return bytes;
}

function thrownBy(act: () => unknown): unknown {
  try {
    act();
  } catch (error) {
    return error;
  }
  throw new Error('nothing was thrown');
}

describe('round trip', () => {
  test("Node's Buffer, whose slice() shares memory, decodes like any Uint8Array", () => {
    const bytes = encodeSafetensors(tensors, metadata);
    const pooled = Buffer.from(Buffer.concat([Buffer.alloc(24), bytes]).subarray(24));
    expect([...decodeSafetensors(pooled).tensors]).toEqual([...tensors]);
  });

  test('values, shapes, order and metadata survive', () => {
    const file = decodeSafetensors(encodeSafetensors(tensors, metadata));
    expect([...file.tensors]).toEqual([...tensors]);
    expect(file.metadata).toEqual(metadata);
  });

  test('the header is padded to 8 bytes, wide dtypes come first, the bytes repeat', () => {
    const bytes = encodeSafetensors(tensors, metadata);
    const headerBytes = Number(new DataView(bytes.buffer).getBigUint64(0, true));
    expect(headerBytes % 8).toBe(0);
    const header = JSON.parse(new TextDecoder().decode(bytes.subarray(8, 8 + headerBytes)));
    expect(header.num_batches_tracked.data_offsets).toEqual([0, 8]);
    expect(header.double.data_offsets).toEqual([8, 24]);
    expect(header.weight.data_offsets).toEqual([24, 48]);
    expect(header.bytes.data_offsets).toEqual([52, 55]);
    expect(encodeSafetensors(tensors, metadata)).toEqual(bytes);
  });

  test('names that objects treat specially stay names', () => {
    const one = { dtype: 'U8', shape: [1], data: Uint8Array.of(1) } as const;
    const names = ['__proto__', 'constructor', '10', '9', ''];
    const decoded = decodeSafetensors(encodeSafetensors(new Map(names.map((name) => [name, one]))));
    expect([...decoded.tensors.keys()].sort()).toEqual([...names].sort());
    expect(decoded.tensors.get('__proto__')).toEqual(one);
  });

  test('no tensors at all', () => {
    expect(decodeSafetensors(encodeSafetensors(new Map()))).toEqual({ tensors: new Map(), metadata: {} });
  });

  test('a view into a larger array, and bytes at an odd offset', () => {
    const view = Float32Array.of(9, 1, 2, 9).subarray(1, 3);
    const bytes = encodeSafetensors(new Map([['v', { dtype: 'F32', shape: [2], data: view }]]));
    const shifted = new Uint8Array(bytes.length + 1);
    shifted.set(bytes, 1);
    const decoded = decodeSafetensors(shifted.subarray(1)).tensors.get('v')!;
    expect(decoded.data).toEqual(Float32Array.of(1, 2));
    shifted.fill(0);
    expect(decoded.data).toEqual(Float32Array.of(1, 2));
  });
});

test('a file written by Python (struct and json) reads identically, though its header and tensors are unaligned', () => {
  const file = decodeSafetensors(fixture);
  expect([...file.tensors]).toEqual([...tensors]);
  expect(file.metadata).toEqual(metadata);
});

const entry = (over: object) => JSON.stringify({ w: { dtype: 'F32', shape: [2], data_offsets: [0, 8], ...over } });
const pair = (second: [number, number]) => JSON.stringify({
  a: { dtype: 'F32', shape: [1], data_offsets: [0, 4] },
  b: { dtype: 'F32', shape: [(second[1] - second[0]) / 4], data_offsets: second },
});

test.each<[string, Uint8Array, string]>([
  ['empty file', new Uint8Array(0), 'file'],
  ['header length beyond the bound', fileOf('{}', 0, 2n ** 63n), 'header length'],
  ['header longer than the file', fileOf('{}', 0, 3n), 'header'],
  ['not JSON', fileOf('{"w": '), 'header'],
  ['not UTF-8', fileOf(Uint8Array.of(0x7b, 0xff, 0x7d)), 'header'],
  ['a JSON array', fileOf('[]'), 'header'],
  ['metadata of numbers', fileOf('{"__metadata__": {"a": 1}}'), '__metadata__.a'],
  ['metadata a string', fileOf('{"__metadata__": "a"}'), '__metadata__'],
  ['tensor not an object', fileOf('{"w": 3}'), 'tensor w'],
  ['unknown dtype', fileOf(entry({ dtype: 'F16' }), 8), 'w.dtype'],
  ['dtype named like a method', fileOf(entry({ dtype: 'toString' }), 8), 'w.dtype'],
  ['dtype missing', fileOf(entry({ dtype: undefined }), 8), 'w.dtype'],
  ['negative size', fileOf(entry({ shape: [-2] }), 8), 'w.shape'],
  ['fractional size', fileOf(entry({ shape: [1.5] }), 8), 'w.shape'],
  ['shape an object with its own toString', fileOf(entry({ shape: { toString: 1, valueOf: 1 } }), 8), 'w.shape'],
  ['shape nested deeper than the stack', fileOf(`{"w":{"dtype":"F32","shape":${'['.repeat(1e5)}${']'.repeat(1e5)}}}`), 'w.shape'],
  ['shape a number', fileOf(entry({ shape: 2 }), 8), 'w.shape'],
  ['sizes whose product overflows', fileOf(entry({ shape: [2 ** 52, 2 ** 52, 2 ** 52] }), 8), 'w.data_offsets'],
  ['shape times dtype is not the span', fileOf(entry({ shape: [3] }), 8), 'w.data_offsets'],
  ['one offset', fileOf(entry({ data_offsets: [8] }), 8), 'w.data_offsets'],
  ['offsets reversed', fileOf(entry({ data_offsets: [8, 0] }), 8), 'w.data_offsets'],
  ['end past the file', fileOf(entry({}), 7), 'w.data_offsets'],
  ['hole', fileOf(pair([8, 12]), 12), 'b.data_offsets[0]'],
  ['overlap', fileOf(pair([0, 8]), 8), 'b.data_offsets[0]'],
  ['bytes left over', fileOf(entry({}), 9), 'file'],
])('decode refuses: %s', (_, bytes, arg) => {
  const error = thrownBy(() => decodeSafetensors(bytes));
  expect(error).toBeInstanceOf(DataError);
  expect((error as DataError).arg).toBe(arg);
});

test('a refusal names the field, the rule, the value and what to do', () => {
  expect(() => decodeSafetensors(fileOf(entry({ dtype: 'BF16' }), 8))).toThrow(
    'decodeSafetensors: w.dtype must be one of F64, I64, F32, U8, got BF16; convert the checkpoint to float32 first',
  );
});

test('encode refuses what it could not read back', () => {
  const data = new Float32Array(3);
  expect(() => encodeSafetensors(new Map([['w', { dtype: 'F32', shape: [2], data }]]))).toThrow(ShapeError);
  expect(() => encodeSafetensors(new Map([['w', { dtype: 'F32', shape: [-3], data }]]))).toThrow(ShapeError);
  // @ts-expect-error the array must be that of the dtype
  expect(() => encodeSafetensors(new Map([['w', { dtype: 'F64', shape: [3], data }]]))).toThrow(DtypeError);
  expect(() => encodeSafetensors(new Map([['__metadata__', { dtype: 'F32', shape: [3], data }]]))).toThrow(DataError);
});

test('4,000 random corruptions: a DataError or a readable file, nothing else', () => {
  const seed = Number(process.env.FUZZ_SEED ?? 20240607);
  let state = seed;
  const random = (n: number): number => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * n);
  };
  const sources = [fixture, encodeSafetensors(tensors, metadata)];
  let refused = 0;
  for (let round = 0; round < 4000; round++) {
    let bytes = sources[random(2)].slice();
    for (let edits = 1 + random(3); edits > 0; edits--) {
      const at = random(Math.min(bytes.length, random(2) === 0 ? 16 : bytes.length));
      const kind = random(4);
      if (kind === 0) bytes[at] = random(256);
      else if (kind === 1) bytes[at] ^= 1 << random(8);
      else if (kind === 2) bytes = bytes.slice(0, at + 1);
      else bytes.copyWithin(at, random(bytes.length));
    }
    try {
      decodeSafetensors(bytes);
    } catch (error) {
      if (!(error instanceof DataError)) throw new Error(`seed ${seed}, round ${round}: ${String(error)}`, { cause: error });
      refused++;
    }
  }
  expect(refused).toBeGreaterThan(1000);
});
