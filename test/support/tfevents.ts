/** Reads TensorBoard's event files as TensorBoard does, from their description. */
import { crc32c } from '../../src/train/crc32c.ts';

const unmask = (masked: number): number => {
  const turned = (masked - 0xa282ead8) >>> 0;
  return ((turned >>> 17) | (turned << 15)) >>> 0;
};

/** The data of each record. @throws Error where a checksum is wrong or bytes are missing */
export function recordsOf(bytes: Uint8Array): Uint8Array[] {
  const records: Uint8Array[] = [];
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const check = (from: number, to: number): Uint8Array => {
    const part = bytes.subarray(from, to);
    if (crc32c(part) !== unmask(view.getUint32(to, true))) throw new Error(`wrong checksum of bytes ${from} … ${to}`);
    return part;
  };
  for (let at = 0; at < bytes.length; ) {
    check(at, at + 8);
    const end = at + 12 + Number(view.getBigUint64(at, true));
    records.push(check(at + 12, end));
    at = end + 4;
  }
  return records;
}

type Field = { readonly number: number; readonly value: number | Uint8Array };

/** The fields of a protocol buffer: numbers of wire types 0, 1 and 5, bytes of type 2. */
function fieldsOf(bytes: Uint8Array): Field[] {
  const fields: Field[] = [];
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  let at = 0;
  const varint = (): number => {
    let value = 0;
    for (let place = 1; ; place *= 128) {
      const digit = bytes[at++];
      value += (digit & 127) * place;
      if (digit < 128) return value;
    }
  };
  const take = <T>(size: number, value: T): T => {
    at += size;
    return value;
  };
  while (at < bytes.length) {
    const key = varint();
    const number = key >> 3;
    if ((key & 7) === 0) fields.push({ number, value: varint() });
    else if ((key & 7) === 1) fields.push({ number, value: take(8, view.getFloat64(at, true)) });
    else if ((key & 7) === 5) fields.push({ number, value: take(4, view.getFloat32(at, true)) });
    else {
      const size = varint();
      fields.push({ number, value: take(size, bytes.subarray(at, at + size)) });
    }
  }
  return fields;
}

export interface Point {
  readonly step: number;
  readonly tag: string;
  readonly value: number;
}

/** The scalars of event files, one file behind the other: a start voids what was there of its step and later ones. */
export function pointsOf(bytes: Uint8Array): Point[] {
  let points: Point[] = [];
  for (const record of recordsOf(bytes)) {
    const event = new Map(fieldsOf(record).map(({ number, value }) => [number, value]));
    const step = (event.get(2) as number | undefined) ?? 0;
    const session = event.get(7);
    if (session && fieldsOf(session as Uint8Array).some(({ number, value }) => number === 1 && value === 1)) {
      points = points.filter((point) => point.step < step);
    }
    for (const { value: summary } of fieldsOf((event.get(5) as Uint8Array | undefined) ?? new Uint8Array(0))) {
      const value = new Map(fieldsOf(summary as Uint8Array).map((field) => [field.number, field.value]));
      points.push({ step, tag: new TextDecoder().decode(value.get(1) as Uint8Array), value: (value.get(2) as number | undefined) ?? 0 });
    }
  }
  return points;
}
