import { mkdir, open } from 'node:fs/promises';
import path from 'node:path';
import { DataError } from '../gpu/errors.ts';

/** What an archive may hold at most. */
export interface TarLimits {
  /** Sum of the files' sizes. */
  totalBytes: number;
  /** Headers: files, folders and metadata. */
  entries: number;
}

const BLOCK = 512;
/** Metadata records (pax) longer than this are refused. */
const MAX_METADATA_BYTES = 65_536;

interface Entry {
  name: string;
  sizeBytes: number;
  /** POSIX typeflag. */
  type: string;
}

/**
 * Unpacks the regular files of a tar stream (POSIX ustar; GNU and pax archives that need none of their extensions) under `dir`.
 * Refused: links and devices, absolute names, names with `..`, a backslash or a NUL, pax records that rename or resize,
 * sizes over 8 GiB, a file twice, more than `limits`, a wrong header sum, a cut archive. What was written until then stays in
 * `dir`: give a folder of its own, and take from it once this has returned.
 * @param source chunks of the uncompressed archive
 * @param archive its name, for messages
 * @returns the names of the files written, as in the archive
 * @throws DataError naming the archive, the entry and the byte offset in the uncompressed archive
 */
export async function extractTar(source: AsyncIterable<Uint8Array>, dir: string, archive: string, limits: TarLimits): Promise<string[]> {
  const reader = new BlockReader(source, archive);
  const names: string[] = [];
  let totalBytes = 0;
  for (let entries = 0; ; entries++) {
    const offset = reader.offset;
    const header = await reader.take(BLOCK);
    if (header.every((byte) => byte === 0)) return names;
    const refuse = (rule: string, got: unknown): DataError => tarError(archive, offset, rule, got);
    if (entries >= limits.entries) throw refuse(`must hold at most ${limits.entries} entries`, 'more');
    const entry = parseHeader(header, refuse);
    if (entry.type === 'x' || entry.type === 'g') {
      await checkMetadata(reader, entry, refuse);
      continue;
    }
    const parts = safeParts(entry.name, refuse);
    if (entry.type === '5') continue;
    if (entry.type !== '0') throw refuse('must hold regular files only', `an entry of type '${entry.type}' (${entry.name})`);
    if (names.includes(entry.name)) throw refuse('must hold each file once', entry.name);
    totalBytes += entry.sizeBytes;
    if (totalBytes > limits.totalBytes) {
      throw refuse(`must unpack to at most ${limits.totalBytes} bytes`, `${totalBytes} with ${entry.name}`);
    }
    await writeEntry(reader, path.join(dir, ...parts), entry.sizeBytes);
    names.push(entry.name);
  }
}

function parseHeader(header: Uint8Array, refuse: (rule: string, got: unknown) => DataError): Entry {
  const sum = octal(header, 148, 8);
  let actual = 0;
  header.forEach((byte, i) => (actual += i >= 148 && i < 156 ? 32 : byte));
  if (sum !== actual) throw refuse('must have headers with the right sum', `${sum} in the header, ${actual} by its bytes`);
  const sizeBytes = octal(header, 124, 12);
  if (sizeBytes === null) throw refuse('must give sizes as octal numbers', 'another notation');
  const isUstar = text(header, 257, 6) === 'ustar';
  const prefix = isUstar ? text(header, 345, 155) : '';
  const name = text(header, 0, 100);
  const type = header[156] === 0 ? '0' : String.fromCharCode(header[156]);
  return { name: prefix === '' ? name : `${prefix}/${name}`, sizeBytes, type };
}

/** A field up to its first NUL. */
function text(header: Uint8Array, start: number, length: number): string {
  const field = header.subarray(start, start + length);
  const end = field.indexOf(0);
  return new TextDecoder().decode(end < 0 ? field : field.subarray(0, end));
}

/** An octal field; null where it is not one. */
function octal(header: Uint8Array, start: number, length: number): number | null {
  const digits = text(header, start, length).trim();
  return /^[0-7]+$/.test(digits) ? Number.parseInt(digits, 8) : null;
}

/** The parts of a name that stays below its folder. */
function safeParts(name: string, refuse: (rule: string, got: unknown) => DataError): string[] {
  const parts = name.split('/').filter((part) => part !== '' && part !== '.');
  const isSafe = !name.startsWith('/') && !/[\\\0:]/.test(name) && !parts.includes('..');
  if (!isSafe || name === '') throw refuse("must hold relative names without '..', '\\' or ':'", JSON.stringify(name));
  return parts;
}

/** Reads past a pax record; throws where it would rename, resize or link the next entry. */
async function checkMetadata(reader: BlockReader, entry: Entry, refuse: (rule: string, got: unknown) => DataError): Promise<void> {
  if (entry.sizeBytes > MAX_METADATA_BYTES) throw refuse(`must hold metadata of at most ${MAX_METADATA_BYTES} bytes`, entry.sizeBytes);
  const record = new TextDecoder().decode(await reader.take(entry.sizeBytes));
  await reader.skipPadding(entry.sizeBytes);
  const key = /(?:^|\n)\d+ (path|linkpath|size|GNU\.sparse[^=]*)=/.exec(record)?.[1];
  if (key !== undefined) throw refuse('must not rename or resize entries by pax records', `'${key}'`);
}

async function writeEntry(reader: BlockReader, target: string, sizeBytes: number): Promise<void> {
  await mkdir(path.dirname(target), { recursive: true });
  const file = await open(target, 'wx');
  try {
    for (let left = sizeBytes; left > 0; ) {
      const piece = await reader.takeUpTo(left);
      await file.writeFile(piece);
      left -= piece.length;
    }
  } finally {
    await file.close();
  }
  await reader.skipPadding(sizeBytes);
}

function tarError(archive: string, offset: number, rule: string, got: unknown): DataError {
  return new DataError({
    op: 'extractTar',
    arg: `${archive} (entry at byte offset ${offset} of the uncompressed archive)`,
    rule,
    got,
    fix: 'do not use this archive; fetch the official one',
  });
}

/** Turns chunks of any size into the pieces that are asked for. */
class BlockReader {
  /** Bytes handed out so far. */
  offset = 0;
  readonly #chunks: AsyncIterator<Uint8Array>;
  readonly #archive: string;
  #rest: Uint8Array = new Uint8Array(0);

  constructor(source: AsyncIterable<Uint8Array>, archive: string) {
    this.#chunks = source[Symbol.asyncIterator]();
    this.#archive = archive;
  }

  /** 1 … n of the next bytes, n ≥ 1. */
  async takeUpTo(n: number): Promise<Uint8Array> {
    while (this.#rest.length === 0) {
      const { value, done } = await this.#chunks.next();
      if (done) throw tarError(this.#archive, this.offset, 'must be whole', `its end after ${this.offset} bytes`);
      this.#rest = value;
    }
    const piece = this.#rest.subarray(0, n);
    this.#rest = this.#rest.subarray(piece.length);
    this.offset += piece.length;
    return piece;
  }

  async take(n: number): Promise<Uint8Array> {
    const out = new Uint8Array(n);
    for (let done = 0; done < n; ) {
      const piece = await this.takeUpTo(n - done);
      out.set(piece, done);
      done += piece.length;
    }
    return out;
  }

  /** Reads past the zeros that fill an entry's last block. */
  async skipPadding(sizeBytes: number): Promise<void> {
    await this.take((BLOCK - (sizeBytes % BLOCK)) % BLOCK);
  }
}
