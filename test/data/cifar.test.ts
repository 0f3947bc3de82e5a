import { mkdirSync, mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { CIFAR100_CLASSES, CIFAR10_CLASSES, parseCifar10, parseCifar100 } from '../../src/data/cifar.ts';
import { readCifar10, readCifar100 } from '../../src/data/cifar.node.ts';
import { limitSet } from '../../src/data/dataset.ts';
import type { ImageSet } from '../../src/data/dataset.ts';
import { hash32 } from '../../src/nn/random.ts';
import { AttrError, DataError } from '../../src/gpu/errors.ts';
import { realCifar100Dir, realCifar10Dir } from './realData.ts';

/** `count` CIFAR-100 records: coarse label r mod 20, fine label r mod 100, pixels from a hash. */
function records100(count: number, seed = 0): Uint8Array {
  const bytes = Uint8Array.from({ length: count * 3074 }, (_, i) => hash32(seed, i, 99) & 255);
  for (let r = 0; r < count; r++) bytes.set([r % 20, r % 100], r * 3074);
  return bytes;
}

/** A CIFAR-10 file of 10,000 records: label r mod 10, all pixels r mod 256. */
function file10(): Uint8Array {
  const bytes = new Uint8Array(10_000 * 3073);
  for (let r = 0; r < 10_000; r++) {
    bytes.fill(r & 255, r * 3073, (r + 1) * 3073);
    bytes[r * 3073] = r % 10;
  }
  return bytes;
}

const set100 = (bytes: Uint8Array): { train: { file: string; bytes: Uint8Array }[]; test: { file: string; bytes: Uint8Array }[] } => ({
  train: [{ file: 'train.bin', bytes }],
  test: [{ file: 'test.bin', bytes: records100(1) }],
});

describe('parseCifar100', () => {
  it('takes the fine label and the pixels of every record', () => {
    const bytes = records100(37);
    const { train, test, name, mean, std } = parseCifar100(set100(bytes));
    expect(name).toBe('cifar100');
    expect([train.count, train.channels, train.height, train.width, test.count]).toEqual([37, 3, 32, 32, 1]);
    expect([...train.labels]).toEqual(Array.from({ length: 37 }, (_, r) => r));
    for (const r of [0, 1, 36]) {
      expect(train.images.subarray(r * 3072, (r + 1) * 3072)).toEqual(bytes.subarray(r * 3074 + 2, (r + 1) * 3074));
    }
    expect(train.classes).toHaveLength(100);
    expect({ mean, std }).toEqual({ mean: [0.5071, 0.4866, 0.4409], std: [0.2673, 0.2564, 0.2762] });
  });

  const damaged = records100(3);
  damaged[2 * 3074 + 1] = 100;
  const coarse = records100(3);
  coarse[3074] = 20;
  it.each([
    ['cut within a record', records100(3).subarray(0, 3 * 3074 - 1), 'ending at byte offset 9221, 3073 bytes into record 2'],
    ['empty', new Uint8Array(0), 'ending at byte offset 0, 0 bytes into record 0'],
    ['a gzip archive', Uint8Array.of(0x1f, 0x8b, 8), 'a gzip archive by its first bytes (offset 0)'],
    ['a pickle', Uint8Array.of(0x80, 2, 0x7d), 'a Python pickle by its first bytes (offset 0)'],
    ['a CIFAR-10 file', file10(), 'ending at byte offset 30730000, 2296 bytes into record 9996'],
    ['a fine label of 100', damaged, 'must hold a fine label 0…99 at byte offset 6149 (record 2), got 100 (number)'],
    ['a coarse label of 20', coarse, 'must hold a coarse label 0…19 at byte offset 3074 (record 1), got 20 (number)'],
  ])('refuses a file that is %s, by name and offset', (_, bytes, says) => {
    expect(() => parseCifar100(set100(bytes))).toThrowError(expect.objectContaining({ name: 'DataError', arg: 'train.bin' }));
    expect(() => parseCifar100(set100(bytes))).toThrowError(says);
  });
});

describe('parseCifar10', () => {
  const good = file10();
  const files = (bytes: Uint8Array) => ({ train: [{ file: 'data_batch_1.bin', bytes }], test: [{ file: 'test_batch.bin', bytes: good }] });

  it('joins files in their order', () => {
    const { train, test, mean, std } = parseCifar10({
      train: [
        { file: 'data_batch_1.bin', bytes: good },
        { file: 'data_batch_2.bin', bytes: good },
      ],
      test: [{ file: 'test_batch.bin', bytes: good }],
    });
    expect([train.count, test.count]).toEqual([20_000, 10_000]);
    expect([...train.labels.subarray(9998, 10_002)]).toEqual([8, 9, 0, 1]);
    expect(train.images[10_003 * 3072 + 3071]).toBe(3);
    expect({ mean, std }).toEqual({ mean: [0.4914, 0.4822, 0.4465], std: [0.247, 0.2435, 0.2616] });
  });

  const wrongLabel = good.slice();
  wrongLabel[9_999 * 3073] = 10;
  it.each([
    ['a whole number of records, but too few', good.subarray(0, 5000 * 3073), 'ending at byte offset 15365000, 0 bytes into record 5000'],
    ['too long', new Uint8Array(30_730_001), 'too much from byte offset 30730000 on'],
    ['damaged in its last label', wrongLabel, 'must hold a label 0…9 at byte offset 30726927 (record 9999), got 10 (number)'],
  ])('refuses a file that is %s', (_, bytes, says) => {
    expect(() => parseCifar10(files(bytes))).toThrowError(says);
  });

  it('says what was wanted and how to get it', () => {
    expect(() => parseCifar10(files(good.subarray(0, 100)))).toThrowError(
      'cifar10: data_batch_1.bin must be 10000 records of 3073 bytes (30730000 bytes), got 100 bytes, ending at byte offset 100, ' +
        '100 bytes into record 0; take the binary version of CIFAR-10 again: forkstep data fetch cifar10 --data DIR',
    );
  });
});

describe('readCifar100', () => {
  let dir: string;
  beforeEach(() => (dir = mkdtempSync(path.join(os.tmpdir(), 'forkstep-read-'))));
  afterEach(() => rmSync(dir, { recursive: true }));

  const write = (folder: string): void => {
    mkdirSync(path.join(dir, folder), { recursive: true });
    writeFileSync(path.join(dir, folder, 'train.bin'), records100(5));
    writeFileSync(path.join(dir, folder, 'test.bin'), records100(2, 1));
  };

  it.each(['cifar-100-binary', '.', 'cifar100', 'cifar100/cifar-100-binary'])('finds the files in DIR/%s', (folder) => {
    write(folder);
    const { train, test } = readCifar100(dir);
    expect([train.count, test.count]).toEqual([5, 2]);
    expect(test.images.subarray(0, 3072)).toEqual(records100(2, 1).subarray(2, 3074));
  });

  it('lists what it looked for where there is nothing', () => {
    expect(() => readCifar10(dir)).toThrowError(
      `cifar10: data directory ${dir} must hold the binary version of CIFAR-10: looked for data_batch_1.bin, data_batch_2.bin, ` +
        `data_batch_3.bin, data_batch_4.bin, data_batch_5.bin, test_batch.bin in ${dir}/cifar-10-batches-bin, ${dir}, ${dir}/cifar10, ` +
        `${dir}/cifar10/cifar-10-batches-bin, got none of them; get it with: forkstep data fetch cifar10 --data ${dir}`,
    );
    expect(() => readCifar100(path.join(dir, 'nowhere'))).toThrowError(DataError);
  });

  it('names the files that are missing from a folder, and the one that is cut', () => {
    write('cifar-100-binary');
    const test = path.join(dir, 'cifar-100-binary', 'test.bin');
    truncateSync(test, 3075);
    expect(() => readCifar100(dir)).toThrowError(`cifar100: ${test} must be one or more whole records of 3074 bytes, got 3075 bytes`);
    rmSync(test);
    expect(() => readCifar100(dir)).toThrowError(/test\.bin in .*cifar-100-binary, got no test\.bin; get it with/);
  });
});

describe('limitSet', () => {
  const { train } = parseCifar100(set100(records100(5)));
  it('keeps the first n images', () => {
    const two = limitSet(train, 2);
    expect([two.count, two.labels.length, two.images.length]).toEqual([2, 2, 2 * 3072]);
    expect(two.images).toEqual(train.images.subarray(0, 2 * 3072));
    expect(limitSet(train, 5)).toEqual(train);
  });
  it.each([0, -1, 6, 1.5, Number.NaN])('refuses %s of 5', (n) => expect(() => limitSet(train, n)).toThrowError(AttrError));
});

/** Mean and standard deviation of each channel, on 0…1. */
function statistics(set: ImageSet): { mean: number[]; std: number[] } {
  const plane = set.height * set.width;
  const sums = new Float64Array(set.channels);
  const squares = new Float64Array(set.channels);
  set.images.forEach((byte, i) => {
    const c = Math.floor(i / plane) % set.channels;
    sums[c] += byte / 255;
    squares[c] += (byte / 255) ** 2;
  });
  const n = set.count * plane;
  return { mean: [...sums].map((sum) => sum / n), std: [...squares].map((sum, c) => Math.sqrt(sum / n - (sums[c] / n) ** 2)) };
}

describe('the real sets', () => {
  const dir10 = realCifar10Dir();
  it.skipIf(dir10 === null)('CIFAR-10: 50,000 and 10,000 images, 5,000 and 1,000 a class, with the usual mean and deviation', () => {
    const { train, test, mean, std } = readCifar10(dir10 as string);
    expect([train.count, test.count]).toEqual([50_000, 10_000]);
    const perClass = (set: ImageSet): number[] => CIFAR10_CLASSES.map((_, label) => set.labels.filter((l) => l === label).length);
    expect(perClass(train)).toEqual(Array.from({ length: 10 }, () => 5000));
    expect(perClass(test)).toEqual(Array.from({ length: 10 }, () => 1000));
    // The first training image is the well-known frog, the first test image a cat.
    expect([train.classes[train.labels[0]], test.classes[test.labels[0]]]).toEqual(['frog', 'cat']);
    const actual = statistics(train);
    mean.forEach((value, c) => expect(Math.abs(value - actual.mean[c])).toBeLessThan(1e-4));
    std.forEach((value, c) => expect(Math.abs(value - actual.std[c])).toBeLessThan(1e-4));
  });

  const dir100 = realCifar100Dir();
  it.skipIf(dir100 === null)('CIFAR-100: every class as often as every other, statistics near the usual ones', () => {
    const { train, mean, std } = readCifar100(dir100 as string);
    const perClass = CIFAR100_CLASSES.map((_, label) => train.labels.filter((l) => l === label).length);
    expect(new Set(perClass)).toEqual(new Set([train.count / 100]));
    const actual = statistics(train);
    mean.forEach((value, c) => expect(Math.abs(value - actual.mean[c])).toBeLessThan(2e-3));
    std.forEach((value, c) => expect(Math.abs(value - actual.std[c])).toBeLessThan(2e-3));
  });
});
