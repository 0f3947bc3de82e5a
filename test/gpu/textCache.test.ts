/** Texts that outlive the process: files in Node, IndexedDB in a browser. */
import { spawn, spawnSync } from 'node:child_process';
import { chmodSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { homedir, tmpdir } from 'node:os';
import { join } from 'node:path';
import { build } from 'esbuild';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { ROOT } from '../../scripts/build.mjs';
import { cachePlace, readCached, writeCached } from '../../src/gpu/textCache.node.ts';

let folder = '';
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'forkstep-cache-'));
});
afterEach(() => {
  vi.unstubAllEnvs();
  rmSync(folder, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 });
});

describe('in Node', () => {
  beforeEach(() => void vi.stubEnv('XDG_CACHE_HOME', folder));

  test('a text comes back, the last one written, each name its own', async () => {
    expect(await readCached('a')).toBeNull();
    await writeCached('a', 'eins');
    await writeCached('a', 'zwei ü');
    await writeCached('b', '');
    expect([await readCached('a'), await readCached('b'), await readCached('c')]).toEqual(['zwei ü', '', null]);
    expect(readdirSync(join(folder, 'forkstep')).sort()).toEqual(['a', 'b']);
  });

  test('writers at the same time leave a whole text of one of them', async () => {
    const texts = Array.from({ length: 20 }, (_, i) => String(i).repeat(50_000));
    await Promise.all(texts.map((text) => writeCached('a', text)));
    expect(texts).toContain(await readCached('a'));
    expect(readdirSync(join(folder, 'forkstep'))).toEqual(['a']);
  });

  test.each([
    ['as XDG_CACHE_HOME says', () => folder, () => join(folder, 'forkstep', 'a')],
    ['in ~/.cache without it', () => '', () => join(homedir(), '.cache', 'forkstep', 'a')],
    ['there too where it is relative', () => 'cache', () => join(homedir(), '.cache', 'forkstep', 'a')],
  ])('lies %s', (_, value, place) => {
    vi.stubEnv('XDG_CACHE_HOME', value());
    expect(cachePlace('a')).toBe(place());
  });

  test('what cannot be written or read throws, and leaves what was there', async () => {
    writeFileSync(join(folder, 'forkstep'), 'in the way');
    await expect(writeCached('a', 'eins')).rejects.toThrow();
    await expect(readCached('a')).rejects.toThrow();
    rmSync(join(folder, 'forkstep'));
    mkdirSync(join(folder, 'forkstep', 'a'), { recursive: true });
    await expect(writeCached('a', 'eins')).rejects.toThrow();
    await expect(readCached('a')).rejects.toThrow();
    expect(readdirSync(join(folder, 'forkstep'))).toEqual(['a']);
  });

  test('a folder without leave to write is refused', async ({ skip }) => {
    skip(process.getuid?.() === 0, 'root may write everywhere');
    mkdirSync(join(folder, 'forkstep'));
    chmodSync(join(folder, 'forkstep'), 0o500);
    await expect(writeCached('a', 'eins')).rejects.toThrow(/EACCES/);
    chmodSync(join(folder, 'forkstep'), 0o700);
  });
});

const chromium = ['chromium', 'chromium-browser', 'google-chrome'].find((name) => spawnSync(name, ['--version']).status === 0);

describe('in a browser', () => {
  let server: Server | undefined;
  let page = '';
  let told: (result: unknown) => void = () => {};

  beforeEach(async ({ skip }) => {
    skip(!chromium, 'no Chromium at hand');
    server = createServer((request, response) => {
      let body = '';
      request.on('data', (part: Buffer) => (body += part.toString()));
      request.on('end', () => {
        response.setHeader('content-type', 'text/html').end(request.url === '/' ? page : '');
        if (request.url === '/told') told(JSON.parse(body));
      });
    });
    await new Promise<void>((resolve) => server!.listen(0, '127.0.0.1', resolve));
  });
  afterEach(() => void server?.close());

  /** What a page of its own browser process makes of the cache; the profile stays. */
  async function inPage(script: string): Promise<unknown> {
    const bundled = await build({
      stdin: { contents: `import { cachePlace, readCached, writeCached } from '#text-cache'; ${script}`, resolveDir: ROOT },
      bundle: true, write: false, format: 'esm', platform: 'browser', target: 'es2022',
    });
    page = `<!doctype html><script type="module">${bundled.outputFiles[0].text}</script>`;
    const result = new Promise((resolve) => (told = resolve));
    const url = `http://127.0.0.1:${(server!.address() as AddressInfo).port}/`;
    const flags = ['--headless', '--no-sandbox', '--disable-gpu', `--user-data-dir=${join(folder, 'profile')}`];
    const browser = spawn(chromium!, [...flags, '--remote-debugging-port=0', url], { stdio: 'ignore' });
    const ended = new Promise((resolve) => browser.on('close', resolve));
    try {
      return await result;
    } finally {
      browser.kill();
      await ended;
    }
  }
  const tell = (expression: string): string =>
    `const tell = (value) => fetch('/told', { method: 'POST', body: JSON.stringify(value) });
    try { tell(${expression}); } catch (error) { tell(String(error)); }`;

  test('a text comes back in the page and in the next process', async () => {
    const first = await inPage(tell(`[await readCached('a'), await writeCached('a', 'eins') ?? null, await writeCached('a', 'zwei ü') ?? null,
      await readCached('a'), await readCached('b'), cachePlace('a')]`));
    expect(first).toEqual([null, null, null, 'zwei ü', null, 'IndexedDB forkstep/texts/a']);
    expect(await inPage(tell("await readCached('a')"))).toBe('zwei ü');
  });

  test('where IndexedDB refuses, reading and writing throw', async () => {
    const refused = `IDBFactory.prototype.open = () => { throw new DOMException('no', 'SecurityError'); };
      const told = (promise) => promise.then(() => 'done', (error) => error.name);`;
    expect(await inPage(`${refused} ${tell("[await told(readCached('a')), await told(writeCached('a', 'eins'))]")}`)).toEqual(['SecurityError', 'SecurityError']);
  });
});
