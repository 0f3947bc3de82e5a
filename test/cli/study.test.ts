/** `forkstep study` and `forkstep report` as a person runs them. */
import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ROOT } from '../../scripts/build.mjs';
import { resultLine, studyLine, StudyProgress } from '../../src/cli/studyProgress.ts';
import { parseResult, type StudyResult } from '../../src/study/result.ts';
import { makeStudy } from '../../src/study/studies.ts';
import { buildCli, forkstep } from '../support/builtCli.ts';
import { madeRun } from '../study/made.ts';

const folder = mkdtempSync(join(tmpdir(), 'forkstep-study-cli-'));
beforeAll(buildCli);
afterAll(() => rmSync(folder, { recursive: true }));

const filesOf = (out: string): string[] => readdirSync(join(out, 'runs')).sort();
const resultsOf = (out: string): StudyResult[] =>
  filesOf(out).filter((name) => name.endsWith('.json')).map((name) => parseResult(readFileSync(join(out, 'runs', name), 'utf8'), name));
const json = (stdout: string): Record<string, unknown> => JSON.parse(stdout.trim().split('\n').at(-1)!) as Record<string, unknown>;
/** Four runs that compile a step alone: what trials do is tested run by run. */
const args = ['study', 'initial-lr', '--seeds', '2', '--only', 'constant-'];
const runs = makeStudy('initial-lr', 'smoke', 2).runs.filter(({ id }) => id.includes('constant-'));
const ids = runs.map(({ id }) => id).sort();
const cli = join(ROOT, 'dist/cli.js');

describe('forkstep study', () => {
  const out = join(folder, 'gone-on');

  it('lists what it would make, and makes nothing', () => {
    const { code, stdout } = forkstep([...args, '--dry-run', '--out', join(folder, 'none')]);
    expect(code).toBe(0);
    for (const id of ids) expect(stdout).toMatch(new RegExp(`^constant@\\S+ +${id} .*to be made$`, 'm'));
    expect(stdout).toMatch(/The first rate, smoke: 4 runs, 4 to be made: .* forwards of one image, .* on 2 cores without a GPU, roughly\n$/);
    expect(existsSync(join(folder, 'none'))).toBe(false);
  });

  it('lists the same as JSON', () => {
    const { code, stdout } = forkstep([...args, '--dry-run', '--json', '--out', join(folder, 'none')]);
    expect(code).toBe(0);
    const { runs: listed, ...all } = JSON.parse(stdout) as { runs: { row: string; id: string; forwards: number; seconds: number; state: string }[] };
    expect(listed.map(({ id, state }) => [id, state]).sort()).toEqual(ids.map((id) => [id, 'to be made']));
    expect(listed.map(({ row }) => row).sort()).toEqual(runs.map(({ row }) => row).sort());
    expect(listed.map(({ forwards }) => forwards)).toEqual(Array(4).fill(768));
    const seconds = listed.reduce((sum, run) => sum + run.seconds, 0);
    expect(all).toEqual({ study: 'initial-lr', scale: 'smoke', left: 4, forwards: 3072, seconds, isMeasured: false });
    expect(existsSync(join(folder, 'none'))).toBe(false);
  });

  it('makes some by the name of their row, where others have the same method', () => {
    const listed = (only: string) => {
      const { stdout } = forkstep(['study', 'scores', '--seeds', '2', '--only', only, '--dry-run', '--json', '--out', join(folder, 'none')]);
      return (JSON.parse(stdout) as { runs: { row: string }[] }).runs.map(({ row }) => row);
    };
    expect(listed('exp, zScore, anchored')).toEqual(['exp, zScore, anchored', 'exp, zScore, anchored']);
    expect(new Set(listed('rank'))).toEqual(new Set(['rank', 'rank, anchored']));
  });

  it('killed at any moment it leaves whole results, and goes on where it was', async () => {
    const child = spawn(process.execPath, [cli, ...args, '--out', out], { stdio: 'ignore' });
    const ended = new Promise((resolve) => child.on('close', resolve));
    while (!(existsSync(join(out, 'runs')) && filesOf(out).some((name) => name.endsWith('.json')))) {
      expect(child.exitCode).toBeNull();
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    child.kill('SIGKILL');
    await ended;
    const kept = resultsOf(out).map(({ id }) => join(out, 'runs', `${id}.json`));
    expect(kept.length).toBeGreaterThan(0);
    const before = kept.map((file) => readFileSync(file, 'utf8'));

    const { code, stdout, stderr } = forkstep([...args, '--out', out, '--json']);
    expect([code, stderr.includes('failed')]).toEqual([0, false]);
    expect(json(stdout)).toMatchObject({ made: 4 - kept.length, failed: 0, left: 0, done: 4, total: makeStudy('initial-lr', 'smoke', 2).runs.length });
    expect(kept.map((file) => readFileSync(file, 'utf8'))).toEqual(before);
    expect(resultsOf(out).map(({ id }) => id)).toEqual(ids);
    expect(existsSync(join(out, '.lock'))).toBe(false);
  });

  it('makes nothing again, and tells its table', () => {
    const times = () => filesOf(out).map((name) => statSync(join(out, 'runs', name)).mtimeMs);
    const before = times();
    const { code, stdout } = forkstep([...args, '--out', out]);
    expect([code, times()]).toEqual([0, before]);
    expect(stdout).toMatch(/^method +0\.0001 +1 +worst .*\nconstant +\d+\.\d ± \d+\.\d +\d.*\ncosine +– +–.*\n[\s\S]*\nreport: .*report\.html\n$/);
  });

  it('with --jobs makes the same runs in processes of their own', () => {
    const other = join(folder, 'jobs');
    const { code, stderr } = forkstep([...args, '--jobs', '2', '--out', other]);
    expect([code, stderr.includes('failed')]).toEqual([0, false]);
    const bare = (result: StudyResult) => ({ ...result, trainMs: 0, evaluationMs: 0 });
    expect(resultsOf(other).map(bare)).toEqual(resultsOf(out).map(bare));
  });

  it('records a run whose process dies, goes on with the others, ends with 1, and makes it the next time', async () => {
    const failing = join(folder, 'failing');
    const child = spawn(process.execPath, [cli, ...args, '--jobs', '2', '--out', failing, '--json'], { stdio: ['ignore', 'pipe', 'ignore'] });
    let stdout = '';
    child.stdout.on('data', (text: Buffer) => (stdout += text.toString()));
    const ended = new Promise((resolve) => child.on('close', resolve));
    const workers = (): number[] =>
      readFileSync(`/proc/${child.pid}/task/${child.pid}/children`, 'utf8').trim().split(' ').filter(Boolean).map(Number);
    while (workers().length < 2) await new Promise((resolve) => setTimeout(resolve, 5));
    process.kill(workers()[0], 'SIGKILL');
    expect(await ended).toBe(1);
    expect(json(stdout)).toMatchObject({ made: 4, failed: 1, left: 0, done: 3, total: makeStudy('initial-lr', 'smoke', 2).runs.length });
    const [failed, ...others] = resultsOf(failing).filter(({ status }) => status === 'failed');
    expect([failed, others]).toEqual([expect.objectContaining({ error: 'the worker process ended by SIGKILL' }), []]);
    const again = forkstep([...args, '--out', failing, '--json']);
    expect([again.code, json(again.stdout)]).toMatchObject([0, { made: 1, failed: 0, done: 4 }]);
  });

  it.each([1, 2])('without an adapter says so in one line and records nothing (--jobs %i)', (jobs) => {
    const none = join(folder, `none-${jobs}`);
    const env = { VK_DRIVER_FILES: join(folder, 'none.json') };
    const { code, stderr } = forkstep([...args, '--jobs', String(jobs), '--out', none], env);
    expect(code).toBe(1);
    expect(stderr).toMatch(/openDevice: adapter must exist, got no WebGPU adapter; install .*\n$/);
    expect([filesOf(none), existsSync(join(none, '.lock'))]).toEqual([[], false]);
  });

  it.each(['SIGINT', 'SIGTERM'] as const)('ends on %s to all its processes with what is done, and the runs in progress as they are', async (by) => {
    const stopped = join(folder, `stopped-${by}`);
    const all = ['study', 'robustness', '--out', stopped, '--jobs', '2'];
    const child = spawn(process.execPath, [cli, ...all], { stdio: ['ignore', 'pipe', 'pipe'], detached: true });
    let stderr = '';
    child.stderr.on('data', (text: Buffer) => (stderr += text.toString()));
    const ended = new Promise((resolve) => child.on('close', resolve));
    while (!/^1\//m.test(stderr)) {
      expect(child.exitCode, stderr).toBeNull();
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    process.kill(-child.pid!, by);
    expect(await ended).toBe(130);
    expect(stderr).toContain('stopping');
    expect(resultsOf(stopped).every(({ status }) => status === 'done')).toBe(true);
    expect(resultsOf(stopped).length).toBeLessThan(makeStudy('robustness', 'smoke', 3).runs.length);
    const kept = filesOf(stopped).filter((name) => !name.endsWith('.json'));
    for (const name of kept) expect(name).toMatch(/\.checkpoint$/);
    expect(kept.length).toBeGreaterThan(0);
    expect(existsSync(join(stopped, '.lock'))).toBe(false);
    expect(existsSync(join(stopped, 'report.html'))).toBe(true);
  });

  it('refuses a folder that another process writes, and damaged results, in one line', () => {
    writeFileSync(join(out, '.lock'), `${process.pid}\n`);
    const locked = forkstep([...args, '--out', out]);
    expect([locked.code, locked.stderr]).toEqual([2, expect.stringContaining(`got process ${process.pid}, which runs`)]);
    rmSync(join(out, '.lock'));
    const file = join(out, 'runs', `${ids[0]}.json`);
    const whole = readFileSync(file, 'utf8');
    writeFileSync(file, whole.slice(0, 100));
    const damaged = forkstep([...args, '--out', out]);
    expect([damaged.code, damaged.stdout]).toEqual([2, '']);
    expect(damaged.stderr).toContain(`study: ${file} must be JSON`);
    writeFileSync(file, whole);
  });
});

describe('forkstep report', () => {
  it('writes the page and the runs of a folder, wherever it is told', () => {
    const [out, elsewhere] = [join(folder, 'gone-on'), join(folder, 'elsewhere')];
    const { code, stdout } = forkstep(['report', out, '--out', elsewhere]);
    expect([code, stdout]).toEqual([0, `report: ${join(elsewhere, 'report.html')}\nruns: ${join(elsewhere, 'runs.csv')}\n`]);
    const page = readFileSync(join(elsewhere, 'report.html'), 'utf8');
    expect(page).toMatch(/^<!doctype html>[\s\S]*The first rate \(initial-lr, smoke\)[\s\S]*<\/html>\s*$/);
    expect(page).toContain('u-wrap');
    expect(readFileSync(join(elsewhere, 'runs.csv'), 'utf8').trim().split('\n')).toHaveLength(5);
  });
});

describe('the progress of a study', () => {
  const [first, second] = makeStudy('factors', 'smoke', 1).runs;
  const state = { total: 45, done: 12, failed: 1, running: [{ run: first, share: 0.409 }], secondsLeft: 4980 };

  it('is a line with what is made, what is left, and how long that may take', () => {
    expect(studyLine('table', state)).toBe('table: 12/45 runs  published3-lr0.005-s0 40 %  1:23:00 left  1 failed');
    expect(studyLine('table', { ...state, failed: 0, running: [], secondsLeft: NaN })).toBe('table: 12/45 runs  -:-- left');
  });

  it('is redrawn in a terminal, and a line a run in a pipe', () => {
    const written = (isTTY: boolean) => {
      let text = '';
      const progress = new StudyProgress({ isTTY, columns: 40, write: (some) => (text += some) }, 'table', () => 1000);
      progress.update(state);
      progress.update(state);
      progress.result(madeRun(first.id, first.recipe, 0.463));
      progress.done();
      return text;
    };
    expect(written(false)).toBe('13/45  published3, lr 0.005, seed 0: 46.3 %, test loss 0.5370, in 0:02  (1:23:00 left)\n');
    expect(written(true)).toBe(
      '\r\x1b[2Ktable: 12/45 runs  published3-lr0.005-s\r\x1b[2Kpublished3, lr 0.005, seed 0: 46.3 %, test loss 0.5370, in 0:02\n\r\x1b[2K',
    );
  });

  it('says what went wrong', () => {
    expect(resultLine(madeRun(second.id, second.recipe, null))).toBe('published5, lr 0.005, seed 0: diverged at step 7: the loss is not finite');
    const recipe = { ...first.recipe, options: { scoreBatch: 64 } };
    expect(resultLine({ format: 1, id: first.id, status: 'failed', recipe, version: '', adapter: '', error: 'no luck' })).toBe(
      'published3, scoreBatch 64, lr 0.005, seed 0: failed: no luck',
    );
  });
});
