import { readFileSync, statSync } from 'node:fs';
import path from 'node:path';
import { DataError } from '../gpu/errors.ts';
import { parseCifar10, parseCifar100 } from './cifar.ts';
import type { CifarFile } from './cifar.ts';
import type { ImageDataset } from './dataset.ts';

export type CifarName = 'cifar10' | 'cifar100';

/** Where a set's files lie: the folder of the official archive and the names in it. */
export interface CifarLayout {
  title: string;
  /** Folder within the official archive. */
  folder: string;
  train: readonly string[];
  test: readonly string[];
}

export const CIFAR_LAYOUTS: Record<CifarName, CifarLayout> = {
  cifar10: {
    title: 'CIFAR-10',
    folder: 'cifar-10-batches-bin',
    train: [1, 2, 3, 4, 5].map((n) => `data_batch_${n}.bin`),
    test: ['test_batch.bin'],
  },
  cifar100: { title: 'CIFAR-100', folder: 'cifar-100-binary', train: ['train.bin'], test: ['test.bin'] },
};

/**
 * CIFAR-10 from `dir/cifar-10-batches-bin/`, `dir/` itself, `dir/cifar10/` or `dir/cifar10/cifar-10-batches-bin/`: the first
 * of these that has any of the files.
 * @throws DataError if files are missing (with what was looked for), truncated or of another format (with file and offset)
 */
export function readCifar10(dir: string): ImageDataset {
  return parseCifar10(readFiles('cifar10', dir));
}

/**
 * CIFAR-100, fine labels, from `dir/cifar-100-binary/`, `dir/` itself, `dir/cifar100/` or `dir/cifar100/cifar-100-binary/`:
 * the first of these that has any of the files. Any whole number of records is taken, so a part of the set is welcome.
 * @throws DataError if files are missing (with what was looked for), truncated or of another format (with file and offset)
 */
export function readCifar100(dir: string): ImageDataset {
  return parseCifar100(readFiles('cifar100', dir));
}

/** The folder that `readCifar10` or `readCifar100` would read for `dir`: the first that has any of the files; null if none has. */
export function findCifarFolder(name: CifarName, dir: string): string | null {
  const { train, test } = CIFAR_LAYOUTS[name];
  return candidates(name, dir).find((folder) => [...train, ...test].some((file) => isFile(path.join(folder, file)))) ?? null;
}

function candidates(name: CifarName, dir: string): string[] {
  const { folder } = CIFAR_LAYOUTS[name];
  return [path.join(dir, folder), dir, path.join(dir, name), path.join(dir, name, folder)];
}

function readFiles(name: CifarName, dir: string): { train: CifarFile[]; test: CifarFile[] } {
  const { train, test } = CIFAR_LAYOUTS[name];
  const files = [...train, ...test];
  const folder = findCifarFolder(name, dir);
  if (folder === null) throw missingError(name, dir, `${files.join(', ')} in ${candidates(name, dir).join(', ')}`, 'none of them');
  const missing = files.filter((file) => !isFile(path.join(folder, file)));
  if (missing.length > 0) throw missingError(name, dir, `${files.join(', ')} in ${folder}`, `no ${missing.join(', ')}`);
  const read = (file: string): CifarFile => {
    const full = path.join(folder, file);
    return { file: full, bytes: readFileSync(full) };
  };
  return { train: train.map(read), test: test.map(read) };
}

function isFile(file: string): boolean {
  return statSync(file, { throwIfNoEntry: false })?.isFile() ?? false;
}

function missingError(name: CifarName, dir: string, lookedFor: string, got: string): DataError {
  return new DataError({
    op: name,
    arg: `data directory ${dir}`,
    rule: `must hold the binary version of ${CIFAR_LAYOUTS[name].title}: looked for ${lookedFor}`,
    got,
    fix: `get it with: forkstep data fetch ${name} --data ${dir}`,
  });
}
