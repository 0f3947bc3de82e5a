import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { spawnSync } from 'node:child_process';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { extractTar } from '../../src/data/tar.node.ts';
import { hash32 } from '../../src/nn/random.ts';
import { tarFile } from './tarFile.ts';
import type { TarEntry } from './tarFile.ts';

const LIMITS = { totalBytes: 100_000, entries: 8 };
const bytes = (n: number): Uint8Array => Uint8Array.from({ length: n }, (_, i) => hash32(0, i, 98) & 255);

let root: string;
let dir: string;
beforeEach(() => {
  root = mkdtempSync(path.join(os.tmpdir(), 'forkstep-tar-'));
  dir = path.join(root, 'out');
});
afterEach(() => rmSync(root, { recursive: true }));

async function* chunks(archive: Uint8Array, size: number): AsyncGenerator<Uint8Array> {
  for (let i = 0; i < archive.length; i += size) yield archive.subarray(i, i + size);
}

const extract = (archive: Uint8Array, chunkSize = 1000): Promise<string[]> =>
  extractTar(chunks(archive, chunkSize), dir, 'a.tar.gz', LIMITS);

describe('extractTar', () => {
  // 0, one block, around one block, many chunks; chunk sizes that cut headers, contents and padding anywhere.
  const sizes = [0, 1, 511, 512, 513, 20_000];
  it.each([1, 7, 511, 512, 513, 1 << 20])('writes files of all sizes from chunks of %i bytes', async (chunkSize) => {
    const entries: TarEntry[] = [{ name: './set/', type: '5' }, ...sizes.map((n) => ({ name: `./set/f${n}`, content: bytes(n) }))];
    expect(await extract(tarFile(entries), chunkSize)).toEqual(sizes.map((n) => `./set/f${n}`));
    for (const n of sizes) expect(new Uint8Array(readFileSync(path.join(dir, 'set', `f${n}`)))).toEqual(bytes(n));
  });

  it.each(['ustar', 'gnu', 'pax'])('reads what tar --format=%s writes', async (format) => {
    const files = ['tar.test.ts', 'tarFile.ts'];
    const made = spawnSync('tar', [`--format=${format}`, '-cf', '-', '-C', import.meta.dirname, ...files], { maxBuffer: 1 << 24 });
    expect(made.status).toBe(0);
    expect(await extract(made.stdout)).toEqual(files);
    expect(readFileSync(path.join(dir, 'tarFile.ts'))).toEqual(readFileSync(path.join(import.meta.dirname, 'tarFile.ts')));
  });

  const content = bytes(10);
  const A: TarEntry = { name: 'a', content };
  const pax = (record: string): TarEntry => ({ name: 'PaxHeader', type: 'x', content: Buffer.from(`${record.length + 4} ${record}\n`) });
  it.each<[string, TarEntry[], string]>([
    ['a name that climbs out', [{ name: '../evil', content }], `must hold relative names without '..', '\\' or ':', got "../evil"`],
    ['a name that climbs out further in', [{ name: 'set/../../evil', content }], 'must hold relative names'],
    ['an absolute name', [{ name: '/evil', content }], 'must hold relative names'],
    ['a backslash', [{ name: '..\\evil', content }], 'must hold relative names'],
    ['a drive', [{ name: 'c:evil', content }], 'must hold relative names'],
    ['a folder that climbs out', [{ name: '../evil/', type: '5' }], 'must hold relative names'],
    ['a symbolic link', [{ name: 'evil', type: '2', linkName: '..' }], "must hold regular files only, got an entry of type '2' (evil)"],
    ['a hard link', [{ name: 'evil', type: '1', linkName: '../x' }], "got an entry of type '1'"],
    ['a device', [{ name: 'evil', type: '3' }], "got an entry of type '3'"],
    ['a GNU long name', [{ name: '././@LongLink', type: 'L', content }], "got an entry of type 'L'"],
    ['a file twice', [A, A], 'entry at byte offset 1024 of the uncompressed archive) must hold each file once, got a'],
    ['a pax record that renames', [pax('path=../evil'), A], "must not rename or resize entries by pax records, got 'path'"],
    ['a pax record that resizes', [pax('size=1'), A], "got 'size'"],
    ['too many bytes', ['a', 'b'].map((name) => ({ name, content: bytes(60_000) })), 'to at most 100000 bytes, got 120000 with b'],
    ['more entries than allowed', Array.from({ length: 9 }, (_, i) => ({ name: `f${i}` })), 'must hold at most 8 entries, got more'],
    ['a size in base 256', [{ name: 'a', content, size: `\x80${'\0'.repeat(10)}\x0a` }], 'must give sizes as octal numbers'],
  ])('refuses %s and writes nothing outside', async (_, entries, says) => {
    await expect(extract(tarFile(entries))).rejects.toMatchObject({ name: 'DataError', message: expect.stringContaining(says) });
    expect(readdirSync(root).filter((name) => name !== 'out')).toEqual([]);
    expect(existsSync(path.join(root, '..', 'evil'))).toBe(false);
  });

  it('refuses a damaged header and a cut archive, with the offset', async () => {
    const archive = tarFile([{ name: 'a', content: bytes(600) }, { name: 'b', content }]);
    await expect(extract(archive.subarray(0, 1000))).rejects.toThrowError('must be whole, got its end after 1000 bytes');
    rmSync(dir, { recursive: true });
    await expect(extract(archive.subarray(0, 512 + 1024))).rejects.toThrowError('must be whole, got its end after 1536 bytes');
    rmSync(dir, { recursive: true });
    archive[1536] ^= 1;
    await expect(extract(archive)).rejects.toThrowError(/^extractTar: a\.tar\.gz \(entry at byte offset 1536 .* with the right sum/);
  });
});
