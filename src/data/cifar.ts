import { DataError } from '../gpu/errors.ts';
import type { ImageDataset, ImageSet } from './dataset.ts';

/**
 * The binary version of CIFAR-10 and CIFAR-100 (https://www.cs.toronto.edu/~kriz/cifar.html). A record is
 * CIFAR-10: label u8 0…9, then 3,072 pixel bytes; CIFAR-100: coarse label u8 0…19, fine label u8 0…99, then 3,072 pixel bytes:
 * 1,024 red, 1,024 green, 1,024 blue, each 32 rows of 32. A file is records and nothing else.
 */

const IMAGE_BYTES = 3 * 32 * 32;

export const CIFAR10_CLASSES: readonly string[] = 'airplane automobile bird cat deer dog frog horse ship truck'.split(' ');

export const CIFAR100_CLASSES: readonly string[] = (
  'apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle caterpillar ' +
  'cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant flatfish forest fox girl ' +
  'hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain mouse mushroom ' +
  'oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray road ' +
  'rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank ' +
  'telephone television tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm'
).split(' ');

/** One file's name, for messages, and its content. */
export interface CifarFile {
  file: string;
  bytes: Uint8Array;
}

interface CifarFormat {
  name: 'cifar10' | 'cifar100';
  title: string;
  /** What each byte before the pixels must be below; the last of them is the label used. */
  labels: readonly { name: string; count: number }[];
  /** Records a file must have; null: any whole number of at least 1. */
  recordsPerFile: number | null;
  classes: readonly string[];
  mean: readonly number[];
  std: readonly number[];
}

const CIFAR10: CifarFormat = {
  name: 'cifar10',
  title: 'CIFAR-10',
  labels: [{ name: 'label', count: 10 }],
  recordsPerFile: 10_000,
  classes: CIFAR10_CLASSES,
  mean: [0.4914, 0.4822, 0.4465],
  std: [0.247, 0.2435, 0.2616],
};

const CIFAR100: CifarFormat = {
  name: 'cifar100',
  title: 'CIFAR-100',
  labels: [
    { name: 'coarse label', count: 20 },
    { name: 'fine label', count: 100 },
  ],
  recordsPerFile: null,
  classes: CIFAR100_CLASSES,
  mean: [0.5071, 0.4866, 0.4409],
  std: [0.2673, 0.2564, 0.2762],
};

/**
 * CIFAR-10 from the bytes of its files (`data_batch_1.bin` … `data_batch_5.bin` and `test_batch.bin`, in this order).
 * @throws DataError naming file and byte offset, if a file has not 10,000 records or a label is not 0…9
 */
export function parseCifar10(files: { train: readonly CifarFile[]; test: readonly CifarFile[] }): ImageDataset {
  return parseDataset(CIFAR10, files);
}

/**
 * CIFAR-100 from the bytes of its files (`train.bin`, `test.bin`), with the fine labels. A part of the set is welcome: any
 * whole number of records.
 * @throws DataError naming file and byte offset, if a file ends within a record or a label is out of range
 */
export function parseCifar100(files: { train: readonly CifarFile[]; test: readonly CifarFile[] }): ImageDataset {
  return parseDataset(CIFAR100, files);
}

function parseDataset(format: CifarFormat, files: { train: readonly CifarFile[]; test: readonly CifarFile[] }): ImageDataset {
  return {
    name: format.name,
    train: parseFiles(format, `${format.name} train`, files.train),
    test: parseFiles(format, `${format.name} test`, files.test),
    mean: [...format.mean],
    std: [...format.std],
  };
}

function parseFiles(format: CifarFormat, name: string, files: readonly CifarFile[]): ImageSet {
  const counts = files.map((file) => countRecords(format, file));
  const count = counts.reduce((sum, n) => sum + n, 0);
  const images = new Uint8Array(count * IMAGE_BYTES);
  const labels = new Uint8Array(count);
  let done = 0;
  files.forEach((file, f) => {
    copyRecords(format, file, images.subarray(done * IMAGE_BYTES), labels.subarray(done, done + counts[f]));
    done += counts[f];
  });
  return { name, images, labels, count, channels: 3, height: 32, width: 32, classes: [...format.classes] };
}

/** Records in a file; throws where the size cannot be that of a whole file of this format. */
function countRecords(format: CifarFormat, { file, bytes }: CifarFile): number {
  const recordBytes = format.labels.length + IMAGE_BYTES;
  const count = Math.floor(bytes.length / recordBytes);
  const wanted = format.recordsPerFile;
  const isWhole = bytes.length % recordBytes === 0 && count >= 1;
  if (isWhole && (wanted === null || count === wanted)) return count;
  const size =
    wanted === null
      ? `one or more whole records of ${recordBytes} bytes`
      : `${wanted} records of ${recordBytes} bytes (${wanted * recordBytes} bytes)`;
  throw new DataError({
    op: format.name,
    arg: file,
    rule: `must be ${size}`,
    got: `${bytes.length} bytes, ${describeEnd(bytes, count, recordBytes, wanted)}`,
    fix: `take the binary version of ${format.title} again: forkstep data fetch ${format.name} --data DIR`,
  });
}

/** What is wrong with a size, with the byte offset at which it goes wrong. */
function describeEnd(bytes: Uint8Array, count: number, recordBytes: number, wanted: number | null): string {
  if (bytes.length >= 2 && bytes[0] === 0x1f && bytes[1] === 0x8b) return 'a gzip archive by its first bytes (offset 0)';
  if (bytes.length >= 2 && bytes[0] === 0x80 && bytes[1] <= 5) return 'a Python pickle by its first bytes (offset 0)';
  if (wanted !== null && bytes.length > wanted * recordBytes) return `too much from byte offset ${wanted * recordBytes} on`;
  return `ending at byte offset ${bytes.length}, ${bytes.length - count * recordBytes} bytes into record ${count}`;
}

function copyRecords(format: CifarFormat, { file, bytes }: CifarFile, images: Uint8Array, labels: Uint8Array): void {
  const nLabels = format.labels.length;
  const recordBytes = nLabels + IMAGE_BYTES;
  for (let r = 0; r < labels.length; r++) {
    const start = r * recordBytes;
    format.labels.forEach((label, l) => {
      const value = bytes[start + l];
      if (value >= label.count) throw labelError(format, file, { offset: start + l, record: r, value }, label);
    });
    labels[r] = bytes[start + nLabels - 1];
    images.set(bytes.subarray(start + nLabels, start + recordBytes), r * IMAGE_BYTES);
  }
}

function labelError(
  format: CifarFormat,
  file: string,
  at: { offset: number; record: number; value: number },
  label: { name: string; count: number },
): DataError {
  return new DataError({
    op: format.name,
    arg: file,
    rule: `must hold a ${label.name} 0…${label.count - 1} at byte offset ${at.offset} (record ${at.record})`,
    got: at.value,
    fix: `damaged or another format; take the binary version of ${format.title}: forkstep data fetch ${format.name} --data DIR`,
  });
}
