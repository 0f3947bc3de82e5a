/** `npm run bench -- trials` from end to end at its smallest, and what docs/fused-trials.md makes of a report. */
import { execFile } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { ROOT } from '../../scripts/build.mjs';
import { markedTable } from '../../scripts/readmeTable.mjs';
import { trialsFigure, trialsTable } from '../../scripts/trialsFigure.mjs';
import { resnet18 } from '../../src/nn/resnet.ts';

const folder = mkdtempSync(join(tmpdir(), 'forkstep-bench-'));
afterAll(() => rmSync(folder, { recursive: true }));

function bench(...args: string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  return new Promise((done) =>
    execFile(process.execPath, [join(ROOT, 'scripts/bench.mjs'), 'trials', ...args], { cwd: ROOT }, (error, stdout, stderr) =>
      done({ code: error ? Number(error.code) : 0, stdout, stderr }),
    ),
  );
}

interface Row {
  trials: number;
  method: string;
  dispatches: number;
  extraBytes: number;
  maxRelativeError: number | null;
  changedWeights: number;
}

describe('bench trials', () => {
  it('measures every method, checked, in the documented form', { timeout: 240_000 }, async () => {
    const file = join(folder, 'trials.json');
    const methods = ['fused', 'forward', 'inPlace', 'copies', 'stacked', 'asPrinted'];
    const size = ['--width', '8', '--batch', '4', '--trials', '1,3', '--samples', '2', ...methods];
    const { code, stderr } = await bench(...size, '--json', file);
    expect(code, stderr).toBe(0);
    const report = JSON.parse(readFileSync(file, 'utf8')) as { rows: Row[] };
    expect(report).toMatchObject({ bench: 'trials', adapter: expect.any(String), driver: expect.any(String), commit: expect.any(String) });
    expect(report).toMatchObject({ command: `npm run bench -- trials ${size.join(' ')}` });
    expect(report.rows.map(({ trials, method }) => `${trials} ${method}`)).toEqual(
      [1, 3].flatMap((n) => methods.map((name) => `${n} ${name}`)),
    );
    const weights = resnet18({ width: 8 })
      .parameters()
      .reduce((sum, { data }) => sum + data.length, 0);
    const of = (n: number, name: string): Row => report.rows.find(({ trials, method }) => trials === n && method === name)!;
    for (const row of report.rows) {
      const ms = expect.any(Number);
      expect(row).toMatchObject({
        stem: 'cifar',
        width: 8,
        batch: 4,
        wallMs: ms,
        wallIqrMs: ms,
        cpuMs: ms,
        cpuIqrMs: ms,
        submits: 1,
        samples: 2,
      });
      for (const what of ['gpuMs', 'gpuIqrMs', 'gpuTimesForward']) expect(row).toHaveProperty(what);
      if (row.method === 'forward') expect(row).toMatchObject({ wallTimesForward: 1, cpuTimesForward: 1 });
      if (row.method === 'fused') expect(row).toMatchObject({ wallTimesFused: 1, cpuTimesFused: 1 });
      if (row.method === 'forward') expect(row.maxRelativeError).toBeNull();
      else expect(row.maxRelativeError).toBeLessThanOrEqual(1e-4);
      if (row.method !== 'inPlace') expect(row.changedWeights).toBe(0);
    }
    for (const n of [1, 3]) {
      expect(of(n, 'fused').extraBytes).toBeLessThanOrEqual(64 * 1024);
      expect(of(n, 'copies').extraBytes).toBeGreaterThanOrEqual(4 * weights);
      expect(of(n, 'copies').extraBytes).toBeLessThan(1.1 * 4 * weights);
      expect(of(n, 'stacked').extraBytes).toBeGreaterThanOrEqual(n * 4 * weights);
    }
    // One pass for all trials, however many; one by one it is as many passes.
    expect(of(3, 'fused').dispatches).toBeLessThan(1.1 * of(3, 'forward').dispatches);
    expect(of(3, 'copies').dispatches).toBe(3 * of(1, 'copies').dispatches);
    expect(of(3, 'asPrinted').dispatches).toBe(3 * of(1, 'asPrinted').dispatches);
  });

  it.each([
    [['fused', 'none'], /no method has "none" in its name; there is fused; .*; jaxVmap/],
    [['--trials', '1,0'], /--trials must be an integer ≥ 1, got "0"/],
  ])('refuses %j', async (args, message) => {
    const { code, stderr } = await bench(...args);
    expect(code).toBe(2);
    expect(stderr).toMatch(message);
  });
});

describe('docs/fused-trials.md', () => {
  const report = JSON.parse(readFileSync(join(ROOT, 'bench/results/trials.json'), 'utf8')) as { rows: Row[] };

  it('has the figure and the table that scripts/trialsFigure.mjs makes of bench/results', () => {
    expect(readFileSync(join(ROOT, 'docs/fused-trials.svg'), 'utf8')).toBe(trialsFigure(report));
    expect(markedTable(readFileSync(join(ROOT, 'docs/fused-trials.md'), 'utf8'), 'trials-table')).toBe(trialsTable(report));
  });

  const row = (trials: number, method: string, cpuMs: number, cpuTimesForward: number | null, extraBytes: number) => ({
    stem: 'cifar',
    width: 16,
    batch: 32,
    trials,
    method,
    cpuMs,
    cpuTimesForward,
    wallMs: 1,
    wallTimesForward: 1,
    gpuMs: null as number | null,
    gpuTimesForward: null as number | null,
    extraBytes,
    dispatches: 1087,
    submits: 1,
    maxRelativeError: method === 'forward' ? null : 2.51e-7,
    changedWeights: 0,
  });
  const small = {
    software: true,
    driver: 'llvmpipe',
    command: 'npm run bench -- trials',
    commit: 'abc',
    rows: [
      row(1, 'forward', 10, 1, 9),
      row(1, 'fused', 12, 1.19, 4096),
      row(5, 'forward', 40, 1, 9),
      row(5, 'fused', 42, 1.049, 3 * 2 ** 20),
    ],
  };

  it('has times as multiples of the forward pass', () => {
    expect(trialsTable(small).split('\n').slice(2)).toEqual([
      '| fused (ours) | 42 | 1.05 | 1,087 | 1 | 3 MiB | 2.5e-7 | 0 |',
      '| plain forward of N·B images | 40 | 1.00 | 1,087 | 1 | 9 B | – | 0 |',
    ]);
    const figure = trialsFigure(small);
    // Memory is drawn of methods for trials alone, time of all.
    expect([...figure.matchAll(/<circle/g)]).toHaveLength(2 + 4);
    expect(figure).toContain('1 MiB');
    expect(figure).toContain('CPU time');
  });

  it('has the time of the GPU where there is one, and wall time where that was not taken', () => {
    const rows = small.rows.map((one) => (one.method === 'fused' ? { ...one, gpuMs: 7, gpuTimesForward: 1.5 } : one));
    expect(
      trialsTable({ ...small, rows, software: false })
        .split('\n')
        .slice(2),
    ).toEqual([
      '| fused (ours) | 7 | 1.50 | 1,087 | 1 | 3 MiB | 2.5e-7 | 0 |',
      '| plain forward of N·B images | 1 | 1.00 | 1,087 | 1 | 9 B | – | 0 |',
    ]);
    expect(trialsFigure({ ...small, rows, software: false })).toContain('GPU time');
  });

  it.each([
    ['two nets', { ...small, rows: [...small.rows, { ...row(1, 'fused', 1, 1, 1), width: 8 }] }, /one net/],
    ['no forward pass', { ...small, rows: [row(5, 'fused', 1, null, 1)] }, /forward pass/],
  ])('is not drawn of %s', (_, given, message) => expect(() => trialsFigure(given)).toThrow(message));
});
