/** Files that are whole or not there, and errors that say what to do. */
import { closeSync, fsyncSync, openSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { DataError, FileError } from '../gpu/errors.ts';

/** Writes. @throws FileError for what the system refuses */
export function writing(file: string, write: () => void): void {
  try {
    write();
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (code === undefined) throw error;
    const fix = code === 'ENOSPC' || code === 'EDQUOT' ? 'free some space' : 'check the path and its permissions';
    const rule = 'must be a file that can be written';
    throw new FileError({ op: 'forkstep', arg: file, rule, got: message.split(',')[0], fix }, { cause: error });
  }
}

/** The bytes of a file, or null where there is none. @throws DataError for one that cannot be read */
export function readIfThere(file: string): Uint8Array | null {
  try {
    return readFileSync(file);
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    // A path that leads through a file leads to none.
    if (code === 'ENOENT' || code === 'ENOTDIR') return null;
    const details = { arg: file, rule: 'must be a file that can be read', got: message.split(',')[0] };
    throw new DataError({ op: 'forkstep', ...details, fix: 'check the path and its permissions' }, { cause: error });
  }
}

/** Brings what was written to the disk. */
export function sync(path: string): void {
  const descriptor = openSync(path, 'r');
  try {
    fsyncSync(descriptor);
  } finally {
    closeSync(descriptor);
  }
}

/**
 * Writes a file whole or not at all: beside the old one, to the disk, then in its place.
 * @throws FileError where that fails; the old file is then as it was
 */
export function writeWhole(file: string, content: string | Uint8Array): void {
  const part = `${file}.part`;
  writing(file, () => {
    try {
      writeFileSync(part, content, { flush: true });
      renameSync(part, file);
    } catch (error) {
      rmSync(part, { force: true });
      throw error;
    }
    // The new name is in the folder's own data, which Windows has no way to ask for.
    if (process.platform !== 'win32') sync(dirname(file));
  });
}
