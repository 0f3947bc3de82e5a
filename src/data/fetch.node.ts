import { createHash } from 'node:crypto';
import { createReadStream, statSync } from 'node:fs';
import { mkdir, mkdtemp, open, readdir, rename, rm } from 'node:fs/promises';
import path from 'node:path';
import { pipeline, Readable } from 'node:stream';
import type { ReadableStream as NodeWebStream } from 'node:stream/web';
import { createGunzip } from 'node:zlib';
import { DataError, ForkstepError } from '../gpu/errors.ts';
import { CIFAR_LAYOUTS, findCifarFolder, readCifar10, readCifar100 } from './cifar.node.ts';
import type { CifarName } from './cifar.node.ts';
import { extractTar } from './tar.node.ts';
import type { TarLimits } from './tar.node.ts';

/** An archive as its authors publish it. */
export interface ArchiveInfo {
  /** File name below `baseUrl`. */
  file: string;
  /** MD5 of the archive, lower-case hex. */
  md5: string;
  limits: TarLimits;
}

/** Names and MD5 sums from https://www.cs.toronto.edu/~kriz/cifar.html; the limits are about 1.3 × what the archives hold. */
export const ARCHIVES: Record<CifarName, ArchiveInfo> = {
  cifar10: {
    file: 'cifar-10-binary.tar.gz',
    md5: 'c32a1d4ab5d03f1284b67883e8d87530',
    limits: { totalBytes: 240_000_000, entries: 32 },
  },
  cifar100: {
    file: 'cifar-100-binary.tar.gz',
    md5: '03b5dce01913d631647c71ecec9e9cb8',
    limits: { totalBytes: 240_000_000, entries: 32 },
  },
};

export interface FetchProgress {
  phase: 'download' | 'check' | 'extract';
  /** Bytes of the archive that are done in this phase. */
  doneBytes: number;
  /** Bytes of the whole archive; null where the server does not say. */
  totalBytes: number | null;
}

export interface FetchOptions {
  /** Where the set goes: `dir/cifar-10-batches-bin/` or `dir/cifar-100-binary/`. Made where missing. */
  dir: string;
  /** Folder of the archives. @default 'https://www.cs.toronto.edu/~kriz' */
  baseUrl?: string;
  /** What to expect. @default ARCHIVES */
  archives?: Record<CifarName, ArchiveInfo>;
  /** Further connections to try in one call after one has failed; each goes on where the last one stopped. @default 3 */
  retries?: number;
  onProgress?: (progress: FetchProgress) => void;
}

/**
 * Downloads, checks and unpacks a set. The archive grows in `dir/<archive>.part`; a call after a broken one goes on from there
 * (HTTP Range; a server without it sends the whole again). Nothing is put in its place before the MD5 sum is right and the
 * reader has taken every file; each file is then moved by one rename. A set that is there already is left alone.
 * @returns whether it was downloaded, and the folder the files lie in
 * @throws DataError if the server does not answer with the file, the MD5 sum is another (the .part file is then deleted), or the
 * archive holds anything but the set
 */
export async function fetchDataset(name: CifarName, options: FetchOptions): Promise<{ downloaded: boolean; folder: string }> {
  const { dir, baseUrl = 'https://www.cs.toronto.edu/~kriz', archives = ARCHIVES, retries = 3, onProgress = () => undefined } = options;
  const archive = archives[name];
  const present = readableFolder(name, dir);
  if (present !== null) return { downloaded: false, folder: present };
  await mkdir(dir, { recursive: true });
  const part = path.join(dir, `${archive.file}.part`);
  const url = `${baseUrl.replace(/\/+$/, '')}/${archive.file}`;
  await download(url, part, retries, onProgress);
  await checkMd5(url, part, archive.md5, onProgress);
  await install(name, part, dir, archive, onProgress);
  await rm(part);
  return { downloaded: true, folder: path.join(dir, CIFAR_LAYOUTS[name].folder) };
}

const READERS = { cifar10: readCifar10, cifar100: readCifar100 } satisfies Record<CifarName, unknown>;

/** The folder the set already lies in, whole; null where it does not. */
function readableFolder(name: CifarName, dir: string): string | null {
  const folder = findCifarFolder(name, dir);
  if (folder === null) return null;
  try {
    READERS[name](folder);
    return folder;
  } catch (error) {
    if (error instanceof DataError) return null;
    throw error;
  }
}

function sizeOf(file: string): number {
  return statSync(file, { throwIfNoEntry: false })?.size ?? 0;
}

async function download(url: string, part: string, retries: number, onProgress: (progress: FetchProgress) => void): Promise<void> {
  for (let attempt = 0; ; attempt++) {
    try {
      return await downloadOnce(url, part, onProgress);
    } catch (error) {
      // Our own errors are answers of the server; they do not get better by asking again.
      if (error instanceof ForkstepError) throw error;
      if (attempt < retries) continue;
      const { message, cause } = error as Error;
      const reason = cause instanceof Error ? `${message}: ${cause.message}` : message;
      throw new DataError(
        {
          op: 'fetchDataset',
          arg: url,
          rule: 'must come whole',
          got: `${sizeOf(part)} bytes, then '${reason}' (connection ${attempt + 1} of ${retries + 1})`,
          fix: 'check the network and run the command again, it goes on from there',
        },
        { cause: error },
      );
    }
  }
}

/** One connection: appends what it brings to `part`, or starts over where the server ignores the range. */
async function downloadOnce(url: string, part: string, onProgress: (progress: FetchProgress) => void): Promise<void> {
  const have = sizeOf(part);
  const response = await fetch(url, { headers: { 'accept-encoding': 'identity', ...(have > 0 && { range: `bytes=${have}-` }) } });
  // Nothing lies beyond what is here: it is whole, or it is wrong, and its MD5 sum will tell.
  if (response.status === 416 && have > 0) {
    await response.body?.cancel();
    return;
  }
  const start = response.status === 206 ? rangeStart(response.headers.get('content-range')) : 0;
  if (!response.ok || response.body === null || (start !== 0 && start !== have)) {
    await response.body?.cancel();
    throw new DataError({
      op: 'fetchDataset',
      arg: url,
      rule: 'must be served whole or from the byte asked for',
      got: `HTTP ${response.status} ${response.statusText}`.trim(),
      fix: 'check the address (baseUrl)',
    });
  }
  const lengthBytes = response.headers.get('content-length');
  const totalBytes = lengthBytes === null ? null : start + Number(lengthBytes);
  const file = await open(part, start === 0 ? 'w' : 'a');
  try {
    let doneBytes = start;
    for await (const chunk of Readable.fromWeb(response.body as NodeWebStream)) {
      await file.writeFile(chunk);
      doneBytes += chunk.length;
      onProgress({ phase: 'download', doneBytes, totalBytes });
    }
  } finally {
    await file.close();
  }
}

/** First byte of `bytes 100-199/200`; NaN where it is not given. */
function rangeStart(contentRange: string | null): number {
  return Number(/^bytes (\d+)-/.exec(contentRange ?? '')?.[1] ?? Number.NaN);
}

/** Passes a file's bytes on, with progress. */
async function* readWithProgress(file: string, phase: FetchProgress['phase'], onProgress: (progress: FetchProgress) => void) {
  const totalBytes = sizeOf(file);
  let doneBytes = 0;
  for await (const chunk of createReadStream(file, { highWaterMark: 1 << 20 })) {
    doneBytes += (chunk as Buffer).length;
    yield chunk as Buffer;
    onProgress({ phase, doneBytes, totalBytes });
  }
}

async function checkMd5(url: string, part: string, md5: string, onProgress: (progress: FetchProgress) => void): Promise<void> {
  const hash = createHash('md5');
  for await (const chunk of readWithProgress(part, 'check', onProgress)) hash.update(chunk);
  const got = hash.digest('hex');
  if (got === md5) return;
  const sizeBytes = sizeOf(part);
  await rm(part);
  throw new DataError({
    op: 'fetchDataset',
    arg: url,
    rule: `must have the MD5 sum ${md5}`,
    got: `${got} (${sizeBytes} bytes)`,
    fix: 'the download was deleted; run the command again to start afresh',
  });
}

/** Unpacks into a folder of its own beside the final one, has the reader take it, and moves the files over. */
async function install(
  name: CifarName,
  part: string,
  dir: string,
  archive: ArchiveInfo,
  onProgress: (progress: FetchProgress) => void,
): Promise<void> {
  const staging = await mkdtemp(path.join(dir, `.${name}-`));
  try {
    await extractTar(gunzip(part, archive.file, onProgress), staging, archive.file, archive.limits);
    READERS[name](staging);
    const unpacked = findCifarFolder(name, staging) ?? staging;
    const destination = path.join(dir, CIFAR_LAYOUTS[name].folder);
    await mkdir(destination, { recursive: true });
    for (const file of await readdir(unpacked)) await rename(path.join(unpacked, file), path.join(destination, file));
  } finally {
    await rm(staging, { recursive: true, force: true });
  }
}

async function* gunzip(part: string, archive: string, onProgress: (progress: FetchProgress) => void): AsyncGenerator<Uint8Array> {
  const unzipped = createGunzip({ chunkSize: 1 << 20 });
  // Failures reach the loop below through `unzipped`, which pipeline destroys with them.
  pipeline(Readable.from(readWithProgress(part, 'extract', onProgress)), unzipped, () => undefined);
  try {
    for await (const chunk of unzipped) yield chunk as Buffer;
  } catch (error) {
    if (!(error as NodeJS.ErrnoException).code?.startsWith('Z_')) throw error;
    const got = `'${(error as Error).message}'`;
    const fix = 'do not use this archive; fetch the official one';
    throw new DataError({ op: 'fetchDataset', arg: archive, rule: 'must be gzip', got, fix }, { cause: error });
  }
}
