import { describe, expect, it, vi } from 'vitest';
import { formatBytes, formatDuration, formatLoss, formatNumber } from '../../src/cli/format.ts';
import { Progress, progressLine } from '../../src/cli/progress.ts';
import type { ProgressOptions } from '../../src/cli/progress.ts';

const clear = '\r\x1b[2K';
const update = (step: number, extra = {}) => ({ step, loss: 2.30258, lr: 0.005, imagesPerSecond: 812.34, secondsLeft: 75, ...extra });
const plain = (text: string): string => text.replace(/\x1b\[[0-9;]*m/g, '');

function make(options: Partial<ProgressOptions> = {}): { progress: Progress; written: string[] } {
  const written: string[] = [];
  const stream = { write: (text: string) => written.push(text) };
  let ms = 0;
  const progress = new Progress({ stream, total: 400, isTTY: true, columns: 100, color: false, now: () => (ms += 60), ...options });
  return { progress, written };
}

describe('on a TTY', () => {
  it('redraws one line', () => {
    const { progress, written } = make();
    progress.update(update(100));
    progress.update(update(101));
    expect(written).toEqual([100, 101].map((n) => expect.stringContaining(`${n}/400  loss 2.3026  lr 0.005  812 images/s  1:15 left`)));
    expect(written.every((text) => text.startsWith(clear) && !text.includes('\n'))).toBe(true);
    expect([...written[0]].filter((c) => c === '█')).toHaveLength(7);
  });

  it('redraws at most 20 times a second, but the last update always', () => {
    let ms = 0;
    const { progress, written } = make({ now: () => ms });
    for (let step = 1; step < 400; step += 1) {
      ms = step;
      progress.update(update(step));
    }
    expect(written).toHaveLength(8);
    progress.update(update(400));
    expect(written[8]).toContain('400/400');
  });

  it.each([200, 100, 80, 60, 40, 30, 20, 10, 3, 1])('fits %i columns', (columns) => {
    const line = progressLine(update(100), 400, columns, false);
    expect(line.length).toBeLessThanOrEqual(Math.max(1, columns - 1));
    expect(line.length).toBeGreaterThan(0);
    expect(plain(progressLine(update(100), 400, columns, true))).toBe(line);
  });

  it('gives up the bar first, then speed, lr and loss', () => {
    const at = (columns: number): string => progressLine(update(100), 400, columns, false);
    expect(at(80)).toMatch(/^█+[▏▎▍▌▋▊▉]?░+ {2}100\/400 {2}loss/);
    expect(at(58)).toBe('100/400  loss 2.3026  lr 0.005  812 images/s  1:15 left');
    expect(at(50)).toBe('100/400  loss 2.3026  lr 0.005  1:15 left');
    expect(at(36)).toBe('100/400  loss 2.3026  1:15 left');
    expect(at(22)).toBe('100/400  1:15 left');
    expect(at(12)).toBe('100/400');
  });

  it('follows the width of the stream', () => {
    const written: string[] = [];
    const stream = { write: (text: string) => written.push(text), isTTY: true, columns: 100 };
    const progress = new Progress({ stream, total: 400, color: false, now: () => performance.now() + written.length * 1000 });
    progress.update(update(1));
    stream.columns = 30;
    progress.update(update(2));
    expect(written.map((text) => text.slice(clear.length).length <= 99)).toEqual([true, true]);
    expect(written[1].slice(clear.length).length).toBeLessThanOrEqual(29);
  });

  it('prints events above the bar and draws the bar again', () => {
    const { progress, written } = make();
    progress.event('before anything');
    progress.update(update(7));
    progress.event('lr 0.005 → 0.0063');
    expect(written[0]).toBe(`${clear}before anything\n`);
    expect(written[2]).toBe(`${clear}lr 0.005 → 0.0063\n`);
    expect(written[3]).toBe(written[1]);
  });

  it('done draws the last update, ends the line once, and is then silent', () => {
    let ms = 0;
    const { progress, written } = make({ now: () => ms });
    ms = 100;
    progress.update(update(5));
    progress.update(update(6));
    progress.done();
    progress.done();
    progress.update(update(7));
    expect(written).toHaveLength(3);
    expect(written[1]).toContain('  6/400');
    expect(written[2]).toBe('\n');
    const fresh = make();
    fresh.progress.done();
    expect(fresh.written).toEqual([]);
  });

  it('colours unless NO_COLOR or a dumb terminal', () => {
    const isColored = (env: { NO_COLOR?: string; TERM?: string }): boolean => {
      vi.stubEnv('NO_COLOR', env.NO_COLOR ?? '');
      vi.stubEnv('TERM', env.TERM ?? 'xterm');
      const { progress, written } = make({ color: undefined });
      progress.update(update(1));
      progress.event('x');
      vi.unstubAllEnvs();
      return written.some((text) => /\x1b\[3\dm/.test(text));
    };
    expect([{}, { NO_COLOR: '1' }, { TERM: 'dumb' }, { NO_COLOR: '' }].map((env) => isColored(env))).toEqual([true, false, false, true]);
  });
});

describe('elsewhere', () => {
  it('prints a plain line every so many updates, the last one, and events', () => {
    const { progress, written } = make({ isTTY: false, total: 25, every: 10, color: true });
    for (let step = 1; step <= 25; step += 1) progress.update(update(step));
    progress.event('saved');
    progress.done();
    expect(written).toEqual([
      '10/25  loss 2.3026  lr 0.005  812 images/s  1:15 left\n', '20/25  loss 2.3026  lr 0.005  812 images/s  1:15 left\n',
      '25/25  loss 2.3026  lr 0.005  812 images/s  1:15 left\n', 'saved\n',
    ]);
  });

  it('done prints where a run was cut short', () => {
    const { progress, written } = make({ isTTY: false, total: 25, every: 10 });
    for (let step = 1; step <= 13; step += 1) progress.update(update(step));
    progress.done();
    expect(written.map((text) => text.slice(0, 5))).toEqual(['10/25', '13/25']);
  });

  it('is the default, at a twentieth of the run', () => {
    const written: string[] = [];
    const progress = new Progress({ stream: { write: (text) => written.push(text) }, total: 100 });
    for (let step = 1; step <= 100; step += 1) progress.update(update(step));
    expect(written).toHaveLength(20);
  });
});

it('shows diverged and unknown values', () => {
  const line = progressLine({ step: 3, loss: NaN, lr: 1.23456e-7, imagesPerSecond: NaN, secondsLeft: Infinity }, 400, 45, false);
  expect(line).toBe('  3/400  loss NaN  lr 1.23e-7  -:-- left');
});

it.each([['total', { total: 0 }], ['every', { every: 0.5 }], ['total', { total: NaN, every: 1 }]])('refuses a bad %s', (arg, options) => {
  expect(() => make(options)).toThrow(expect.objectContaining({ op: 'Progress', arg }));
});

describe('format', () => {
  it.each([
    [0, '0'], [0.005, '0.005'], [0.00512345, '0.005123'], [1.5e-7, '1.5e-7'], [123456.7, '123457'], [2.5e6, '2.5e6'], [-0.25, '-0.25'],
    [NaN, 'NaN'], [Infinity, '∞'], [-Infinity, '−∞'],
  ])('number %f', (x, text) => expect(formatNumber(x)).toBe(text));
  it.each([[2.3, '2.3000'], [12.3456, '12.35'], [NaN, 'NaN'], [1e9, '1e9']])('loss %f', (x, text) => expect(formatLoss(x)).toBe(text));
  it.each([[0, '0:00'], [59.6, '1:00'], [3599, '59:59'], [3725, '1:02:05'], [NaN, '-:--'], [-1, '-:--'], [Infinity, '-:--']])(
    '%f seconds', (s, text) => expect(formatDuration(s)).toBe(text));
  it.each([[0, '0 B'], [512, '512 B'], [44695848, '42.6 MiB'], [1536, '1.5 KiB'], [3 * 2 ** 40, '3072 GiB']])(
    '%i bytes', (n, text) => expect(formatBytes(n)).toBe(text));
});
