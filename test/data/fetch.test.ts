import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import type { AddressInfo } from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { gzipSync } from 'node:zlib';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { readCifar100 } from '../../src/data/cifar.node.ts';
import { ARCHIVES, fetchDataset } from '../../src/data/fetch.node.ts';
import type { FetchOptions, FetchProgress } from '../../src/data/fetch.node.ts';
import { hash32 } from '../../src/nn/random.ts';
import { tarFile } from './tarFile.ts';
import type { TarEntry } from './tarFile.ts';

const FILE = 'cifar-100-binary.tar.gz';

/** CIFAR-100 records that do not compress, so that the archive comes in several pieces. */
function records(count: number, seed: number): Uint8Array {
  const bytes = Uint8Array.from({ length: count * 3074 }, (_, i) => hash32(seed, i, 97) & 255);
  for (let r = 0; r < count; r++) bytes.set([r % 20, r % 100], r * 3074);
  return bytes;
}

const GOOD: TarEntry[] = [
  { name: 'cifar-100-binary/', type: '5' },
  { name: 'cifar-100-binary/train.bin', content: records(200, 0) },
  { name: 'cifar-100-binary/test.bin', content: records(20, 1) },
  { name: 'cifar-100-binary/fine_label_names.txt', content: Buffer.from('apple\n') },
];
const good = gzipSync(tarFile(GOOD));

/** How the server treats one request; requests beyond the list are served in full. */
type Manner = 'cut' | 'cutAtOnce' | 'noRange' | 'noRangeCut' | 'notFound' | 'whole';

let root: string;
let server: http.Server;
let archive: Buffer;
let manners: Manner[];
let requests: { range: string | undefined; status: number }[];

function serve(request: http.IncomingMessage, response: http.ServerResponse): void {
  const manner = manners.shift() ?? 'whole';
  const range = request.headers.range;
  const hasRange = range !== undefined && !manner.startsWith('noRange');
  const start = hasRange ? Number(/^bytes=(\d+)-$/.exec(range)?.[1]) : 0;
  const status = manner === 'notFound' || request.url !== `/${FILE}` ? 404 : !hasRange ? 200 : start >= archive.length ? 416 : 206;
  requests.push({ range, status });
  if (manner === 'cutAtOnce') return void request.socket.destroy();
  const body = status >= 400 ? Buffer.alloc(0) : archive.subarray(start);
  response.writeHead(status, {
    'content-length': body.length,
    ...(status === 206 && { 'content-range': `bytes ${start}-${archive.length - 1}/${archive.length}` }),
  });
  if (manner !== 'cut' && manner !== 'noRangeCut') return void response.end(body);
  // Half of what was asked for arrives, is on disk, and then the line goes dead.
  const half = body.length >> 1;
  const arrived = (status === 206 ? start : 0) + half;
  const cutWhenWritten = (): void => {
    const part = statSync(path.join(root, 'data', `${FILE}.part`), { throwIfNoEntry: false });
    if (part?.size === arrived || request.socket.destroyed) request.socket.destroy();
    else setTimeout(cutWhenWritten, 5);
  };
  response.write(body.subarray(0, half), cutWhenWritten);
}

beforeEach(async () => {
  root = mkdtempSync(path.join(os.tmpdir(), 'forkstep-fetch-'));
  archive = good;
  manners = [];
  requests = [];
  server = http.createServer(serve);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
});
afterEach(async () => {
  server.closeAllConnections();
  await new Promise((resolve) => server.close(resolve));
  rmSync(root, { recursive: true });
});

const md5Of = (bytes: Uint8Array): string => createHash('md5').update(bytes).digest('hex');

const fetchIt = (options: Partial<FetchOptions> = {}, md5 = md5Of(archive)) =>
  fetchDataset('cifar100', {
    dir: path.join(root, 'data'),
    baseUrl: `http://127.0.0.1:${(server.address() as AddressInfo).port}/`,
    archives: { ...ARCHIVES, cifar100: { file: FILE, md5, limits: { totalBytes: 2_000_000, entries: 8 } } },
    ...options,
  });

const inData = (): string[] => readdirSync(path.join(root, 'data')).sort();

function expectInstalled(): void {
  expect(inData()).toEqual(['cifar-100-binary']);
  const { train, test } = readCifar100(path.join(root, 'data'));
  expect([train.count, test.count]).toEqual([200, 20]);
  expect(readFileSync(path.join(root, 'data/cifar-100-binary/train.bin')).equals(GOOD[1].content as Uint8Array)).toBe(true);
}

describe('fetchDataset', () => {
  it('names the official archives', () => {
    expect(ARCHIVES.cifar10).toMatchObject({ file: 'cifar-10-binary.tar.gz', md5: 'c32a1d4ab5d03f1284b67883e8d87530' });
    expect(ARCHIVES.cifar100).toMatchObject({ file: 'cifar-100-binary.tar.gz', md5: '03b5dce01913d631647c71ecec9e9cb8' });
  });

  it('downloads, checks, unpacks, and tells how far it is', async () => {
    const seen: FetchProgress[] = [];
    const result = await fetchIt({ onProgress: (progress) => seen.push(progress) });
    expect(result).toEqual({ downloaded: true, folder: path.join(root, 'data', 'cifar-100-binary') });
    expectInstalled();
    expect([...new Set(seen.map(({ phase }) => phase))]).toEqual(['download', 'check', 'extract']);
    for (const phase of ['download', 'check', 'extract']) {
      const done = seen.filter((progress) => progress.phase === phase);
      expect(done.at(-1)).toEqual({ phase, doneBytes: good.length, totalBytes: good.length });
    }
  });

  it('leaves a set alone that is there, wherever its reader finds it', async () => {
    await fetchIt();
    expect(await fetchIt()).toMatchObject({ downloaded: false });
    expect(await fetchIt({ dir: path.join(root, 'data/cifar-100-binary') })).toEqual({
      downloaded: false,
      folder: path.join(root, 'data/cifar-100-binary'),
    });
    expect(requests).toHaveLength(1);
  });

  it('replaces a damaged set', async () => {
    mkdirSync(path.join(root, 'data/cifar-100-binary'), { recursive: true });
    writeFileSync(path.join(root, 'data/cifar-100-binary/train.bin'), 'cut');
    await fetchIt();
    expectInstalled();
  });

  it('goes on where a cut connection stopped, in the same call', async () => {
    manners = ['cut', 'cut'];
    const seen: FetchProgress[] = [];
    await fetchIt({ onProgress: (progress) => seen.push(progress) });
    expectInstalled();
    expect(requests.map(({ status }) => status)).toEqual([200, 206, 206]);
    const half = good.length >> 1;
    expect(requests[1].range).toBe(`bytes=${half}-`);
    expect(requests[2].range).toBe(`bytes=${half + ((good.length - half) >> 1)}-`);
    for (const { totalBytes } of seen) expect(totalBytes).toBe(good.length);
  });

  it('goes on in a later call, after saying what to do', async () => {
    manners = ['cut', 'cutAtOnce'];
    await expect(fetchIt({ retries: 1 })).rejects.toMatchObject({
      name: 'DataError',
      message: expect.stringMatching(
        new RegExp(`/${FILE} must come whole, got ${good.length >> 1} bytes, then '.+' \\(connection 2 of 2\\); check the network and run`),
      ),
    });
    expect(inData()).toEqual([`${FILE}.part`]);
    await fetchIt();
    expectInstalled();
    expect(requests.at(-1)).toEqual({ range: `bytes=${good.length >> 1}-`, status: 206 });
  });

  it('starts over where the server knows no ranges', async () => {
    manners = ['cut', 'noRangeCut', 'noRange'];
    await fetchIt();
    expectInstalled();
    expect(requests.map(({ status }) => status)).toEqual([200, 200, 200]);
  });

  it('takes a .part file that is whole already', async () => {
    mkdirSync(path.join(root, 'data'));
    writeFileSync(path.join(root, 'data', `${FILE}.part`), good);
    await fetchIt();
    expectInstalled();
    expect(requests.map(({ status }) => status)).toEqual([416]);
  });

  it('refuses another MD5 sum and deletes the download', async () => {
    const md5 = '0123456789abcdef0123456789abcdef';
    await expect(fetchIt({}, md5)).rejects.toMatchObject({
      name: 'DataError',
      message: expect.stringContaining(`must have the MD5 sum ${md5}, got ${md5Of(good)} (${good.length} bytes)`),
    });
    expect(inData()).toEqual([]);
  });

  it('does not ask again where the server says no', async () => {
    manners = ['notFound'];
    await expect(fetchIt()).rejects.toThrowError(/must be served whole or from .*, got HTTP 404 Not Found; check the address/);
    expect(requests).toHaveLength(1);
    expect(inData()).toEqual([]);
  });

  it('lets nothing out of its folder, and keeps the archive that has the right sum', async () => {
    archive = gzipSync(tarFile([...GOOD, { name: '../evil', content: Buffer.from('x') }]));
    await expect(fetchIt()).rejects.toThrowError(/must hold relative names without '\.\.'/);
    expect(existsSync(path.join(root, 'evil'))).toBe(false);
    expect(inData()).toEqual([`${FILE}.part`]);
    expect(statSync(path.join(root, 'data', `${FILE}.part`)).size).toBe(archive.length);
  });

  it.each<[string, () => Buffer, RegExp]>([
    ['not gzip', () => tarFile(GOOD), /must be gzip, got 'incorrect header check'/],
    ['cut gzip', () => good.subarray(0, 300_000), /must be gzip, got 'unexpected end of file'/],
    ['without the test set', () => gzipSync(tarFile(GOOD.slice(0, 2))), /must hold the binary version of CIFAR-100.*got no test\.bin/],
    ['of a damaged set', () => gzipSync(tarFile([GOOD[1], { ...GOOD[2], content: new Uint8Array(5) }])), /test\.bin must be one or more/],
    ['larger than it may be', () => gzipSync(tarFile([{ name: 'zeros', content: new Uint8Array(2_000_001) }])), /at most 2000000 bytes/],
  ])('installs nothing from an archive that is %s', async (_, make, says) => {
    archive = make();
    await expect(fetchIt()).rejects.toThrowError(says);
    expect(inData()).toEqual([`${FILE}.part`]);
  });
});
