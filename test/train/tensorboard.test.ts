/** TensorBoard's event files: bytes as Google's protocol buffers write them, checksums, and what a resumed run adds. */
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { crc32c } from '../../src/train/crc32c.ts';
import { TensorboardWriter } from '../../src/train/tensorboard.node.ts';
import { encodeRecord, type TensorboardEvent } from '../../src/train/tensorboard.ts';
import { pointsOf, recordsOf } from '../support/tfevents.ts';

interface Golden {
  readonly events: readonly { readonly event: TensorboardEvent; readonly wallSeconds: number; readonly record: string }[];
  readonly checksums: readonly { readonly hex: string; readonly crc32c: number }[];
}
const golden = JSON.parse(readFileSync(new URL('../goldens/tfevents.json', import.meta.url), 'utf8')) as Golden;
const folder = mkdtempSync(join(tmpdir(), 'forkstep-board-'));
afterAll(() => rmSync(folder, { recursive: true }));

describe('crc32c', () => {
  /** RFC 3720, B.4. */
  const known: [string, Uint8Array, number][] = [
    ['32 bytes of 0', new Uint8Array(32), 0x8a9136aa],
    ['32 bytes of 0xff', new Uint8Array(32).fill(255), 0x62a8ab43],
    ['0 … 31', Uint8Array.from({ length: 32 }, (_, i) => i), 0x46dd794e],
    ['31 … 0', Uint8Array.from({ length: 32 }, (_, i) => 31 - i), 0x113fdb5c],
    ['123456789', new TextEncoder().encode('123456789'), 0xe3069283],
  ];
  test.each(known)('of %s is as published', (_, bytes, sum) => expect(crc32c(bytes)).toBe(sum));

  test('is as computed bit by bit, in one go and in two, at any offset', () => {
    for (const { hex, crc32c: sum } of golden.checksums) {
      const bytes = Uint8Array.from(Buffer.from(hex, 'hex'));
      for (let cut = 0; cut <= bytes.length; cut++) expect(crc32c(bytes.subarray(cut), crc32c(bytes.subarray(0, cut)))).toBe(sum);
    }
  });
});

describe('a record', () => {
  test.each(golden.events.map((one) => [JSON.stringify(one.event).slice(0, 60), one] as const))('%s has the bytes of protocol buffers', (_, one) => {
    expect(Buffer.from(encodeRecord(one.event, one.wallSeconds)).toString('hex')).toBe(one.record);
  });

  test('is read back by a decoder, which finds a turned bit', () => {
    const bytes = Buffer.concat(golden.events.map(({ event, wallSeconds }) => encodeRecord(event, wallSeconds)));
    expect(recordsOf(bytes)).toHaveLength(golden.events.length);
    expect(pointsOf(bytes).filter(({ step }) => step === 127)).toEqual([
      { step: 127, tag: 'train/loss', value: 1.5 }, { step: 127, tag: 'train/lr', value: Math.fround(0.005) },
    ]);
    const one = encodeRecord(golden.events[4].event, golden.events[4].wallSeconds);
    for (let i = 0; i < one.length; i++) {
      const damaged = one.slice();
      damaged[i] ^= 1;
      expect(() => recordsOf(damaged)).toThrow();
    }
  });

  test('carries losses that are no numbers', () => {
    const values = [NaN, Infinity, -Infinity];
    const bytes = Buffer.concat(values.map((value, step) => encodeRecord({ step, scalars: { loss: value } }, 0)));
    expect(pointsOf(bytes).map(({ value }) => value)).toEqual(values);
  });
});

test('a run that goes on begins a later file, which voids the points of its own steps', () => {
  writeFileSync(join(folder, 'events.out.tfevents.99999999999.forkstep'), 'of an old run');
  writeFileSync(join(folder, 'events.out.tfevents.1.other'), "another program's");
  const point = (step: number, value: number) => ({ step, scalars: { loss: value } });
  new TensorboardWriter(folder, 0).add([point(0, 5), point(1, 4), point(2, 3)]);
  new TensorboardWriter(folder, 2).add([point(2, 2)]);
  new TensorboardWriter(folder, 3).add([point(3, 1)]);
  const files = readdirSync(folder).filter((name) => name.endsWith('.forkstep')).sort();
  expect(files).toHaveLength(3);
  expect(readdirSync(folder)).toContain('events.out.tfevents.1.other');
  const bytes = files.map((name) => readFileSync(join(folder, name)));
  expect(bytes.map((one) => recordsOf(one).length)).toEqual([4, 3, 3]);
  expect(pointsOf(Buffer.concat(bytes))).toEqual([5, 4, 2, 1].map((value, step) => ({ step, tag: 'loss', value })));
});
