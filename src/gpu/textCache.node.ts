/**
 * Texts that outlive the process, by name (`#text-cache`): files below the user's cache folder. Browsers get `textCache.browser.ts`; both
 * export the same names.
 */
import { randomUUID } from 'node:crypto';
import { mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { dirname, isAbsolute, join } from 'node:path';

/** Where a text lies, for messages: `$XDG_CACHE_HOME/forkstep/NAME`, which is ~/.cache/forkstep/NAME where that is not set. */
export function cachePlace(name: string): string {
  const { XDG_CACHE_HOME } = process.env;
  // The specification has a relative one ignored.
  const folder = XDG_CACHE_HOME && isAbsolute(XDG_CACHE_HOME) ? XDG_CACHE_HOME : join(homedir(), '.cache');
  return join(folder, 'forkstep', name);
}

/** The text of a name, null where there is none. @throws where there is one that cannot be read */
export async function readCached(name: string): Promise<string | null> {
  try {
    return await readFile(cachePlace(name), 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw error;
  }
}

/** Keeps a text, whole or not at all. @throws where it cannot be written */
export async function writeCached(name: string, text: string): Promise<void> {
  const file = cachePlace(name);
  const unfinished = `${file}.${randomUUID()}`;
  await mkdir(dirname(file), { recursive: true });
  try {
    await writeFile(unfinished, text);
    await rename(unfinished, file);
  } catch (error) {
    await rm(unfinished, { force: true });
    throw error;
  }
}
