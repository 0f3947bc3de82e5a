/** The runner and the folder: what is made, what is kept, what goes on. With executors that train nothing. */
import { existsSync, mkdtempSync, readFileSync, readdirSync, realpathSync, rmSync, writeFileSync, utimesSync } from 'node:fs';
import { hostname, tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { StudyFolder } from '../../src/study/folder.node.ts';
import { runId, type Recipe } from '../../src/study/recipe.ts';
import { evenly, parseResult, resultFormat, thinTrace, type StudyResult } from '../../src/study/result.ts';
import { missingRuns, runAll, type Executor, type Progress, type ShareListener } from '../../src/study/runner.ts';
import { makeStudy, type StudyRun } from '../../src/study/studies.ts';
import { madeRun } from './made.ts';

const { runs } = makeStudy('factors', 'smoke', 2);

const failedRun = (recipe: Recipe): StudyResult =>
  ({ format: resultFormat, id: runId(recipe), status: 'failed', recipe, version: '0', adapter: '', error: 'no luck' });

/** Makes runs at once, but for those that it is told to fail. */
class FakeExecutor implements Executor {
  readonly made: string[] = [];
  constructor(readonly fails: (recipe: Recipe) => boolean = () => false, readonly before: () => Promise<void> = async () => {},
    readonly kept?: number) {}

  async run(recipe: Recipe, signal: AbortSignal, onProgress: ShareListener): Promise<StudyResult | null> {
    await this.before();
    onProgress(0.5 + 0.5 * (this.kept ?? 0), this.kept);
    if (signal.aborted) return null;
    this.made.push(runId(recipe));
    return this.fails(recipe) ? failedRun(recipe) : madeRun(runId(recipe), recipe, 0.5);
  }

  async close(): Promise<void> {}
}

/** Runs all; results by id, and what came of it. */
async function make(executors: readonly Executor[], { some = runs, known = new Map<string, StudyResult>(), signal = new AbortController().signal } = {}) {
  const results = new Map(known);
  const progress: Progress[] = [];
  const outcome = await runAll({
    runs: some, known, executors, signal, onResult: (result) => results.set(result.id, result), onProgress: (one) => progress.push(one),
  });
  return { results, progress, outcome };
}

describe('the runner', () => {
  it('makes every run once, in order', async () => {
    const executor = new FakeExecutor();
    const { results, outcome } = await make([executor]);
    expect(executor.made).toEqual(runs.map(({ id }) => id));
    expect([...results.keys()]).toEqual(executor.made);
    expect(outcome).toEqual({ made: 8, failed: 0, left: 0 });
  });

  it('makes a run once that two rows share', async () => {
    const executor = new FakeExecutor();
    const twice: StudyRun[] = [...runs, { ...runs[3], row: 'another' }];
    const { progress } = await make([executor], { some: twice });
    expect(executor.made).toHaveLength(8);
    expect(progress[0].total).toBe(8);
  });

  it('goes on with the others where one fails, and makes that again the next time, and nothing else', async () => {
    const isBad = ({ method, seed }: Recipe) => method === 'published7' && seed === 0;
    const { results, outcome } = await make([new FakeExecutor(isBad)]);
    expect(outcome).toEqual({ made: 8, failed: 1, left: 0 });
    expect([...results.values()].filter(({ status }) => status === 'failed').map(({ recipe }) => recipe.method)).toEqual(['published7']);
    const again = new FakeExecutor();
    const second = await make([again], { known: results });
    expect(again.made).toEqual([...results.values()].filter(({ status }) => status === 'failed').map(({ id }) => id));
    expect(missingRuns(runs, second.results)).toEqual([]);
    const third = new FakeExecutor();
    await make([third], { known: second.results });
    expect(third.made).toEqual([]);
  });

  it('stops on a signal: the run in progress has no result, the rest is left', async () => {
    const controller = new AbortController();
    let begun = 0;
    const executor = new FakeExecutor(undefined, async () => void (++begun === 3 && controller.abort()));
    const { results, outcome } = await make([executor], { signal: controller.signal });
    expect(results.size).toBe(2);
    expect(outcome).toEqual({ made: 2, failed: 0, left: 6 });
  });

  it('deals runs to several executors, each one at a time', async () => {
    const pause = () => new Promise<void>((resolve) => setTimeout(resolve, 1));
    const executors = [new FakeExecutor(undefined, pause), new FakeExecutor(undefined, pause)];
    const { results } = await make(executors);
    expect(results.size).toBe(8);
    expect(executors.flatMap(({ made }) => made).sort()).toEqual(runs.map(({ id }) => id).sort());
    for (const { made } of executors) expect(made.length).toBeGreaterThan(0);
  });

  it('ends where a result cannot be kept', async () => {
    const executor = new FakeExecutor();
    const full = runAll({
      runs, known: new Map(), executors: [executor], signal: new AbortController().signal,
      onResult: () => { throw new Error('no space'); },
    });
    await expect(full).rejects.toThrow('no space');
    expect(executor.made).toHaveLength(1);
  });

  it('ends for all executors where one finds what every run lacks, and stops the runs in progress', async () => {
    const pause = () => new Promise<void>((resolve) => setTimeout(resolve, 5));
    const busy = new FakeExecutor(undefined, pause);
    const lost = new FakeExecutor(undefined, () => Promise.reject(new Error('no adapter')));
    await expect(make([lost, busy])).rejects.toThrow('no adapter');
    expect(busy.made).toEqual([]);
  });

  it('tells how much is left, by the pace so far', async () => {
    let now = 0;
    const progress: Progress[] = [];
    await runAll({
      runs: runs.slice(0, 4).filter(({ recipe }) => recipe.method !== 'published7'), known: new Map(),
      executors: [new FakeExecutor(undefined, async () => void (now += 1000))], signal: new AbortController().signal,
      onResult: () => {}, onProgress: (one) => progress.push(one), now: () => now,
    });
    expect(progress[0].secondsLeft).toBeNaN();
    expect(progress.at(-1)).toMatchObject({ total: 3, done: 3, failed: 0, running: [], secondsLeft: 0 });
    const afterFirst = progress.find(({ done }) => done === 1)!;
    // One second for the first; the two others weigh about as much.
    expect(afterFirst.secondsLeft).toBeGreaterThan(1.5);
    expect(afterFirst.secondsLeft).toBeLessThan(2.5);
  });

  it('tells how much is left of runs that go on, by what was made of them now', async () => {
    let now = 0;
    const progress: Progress[] = [];
    await runAll({
      runs: runs.slice(0, 4).filter(({ recipe }) => recipe.method !== 'published7'), known: new Map(),
      executors: [new FakeExecutor(undefined, async () => void (now += 1000), 0.9)], signal: new AbortController().signal,
      onResult: () => {}, onProgress: (one) => progress.push(one), now: () => now,
    });
    const left = (after: number) => progress.find(({ done }) => done === after)!.secondsLeft;
    // A second for a tenth of the first: ten for each of the others, of which nothing is known yet.
    expect(left(1)).toBeGreaterThan(15);
    expect(left(1)).toBeLessThan(25);
    expect(left(3)).toBe(0);
  });
});

describe('the folder', () => {
  let path = '';
  beforeEach(() => (path = mkdtempSync(join(tmpdir(), 'forkstep-study-'))));
  afterEach(() => rmSync(path, { recursive: true, force: true }));
  const result = madeRun(runs[0].id, runs[0].recipe, 0.5);

  it('keeps results and what was asked, for a fresh object', () => {
    const folder = new StudyFolder(join(path, 'new'));
    expect([folder.studies(), folder.results().size]).toEqual([[], 0]);
    folder.note({ name: 'factors', scale: 'smoke', seeds: 3 });
    folder.note({ name: 'table', scale: 'smoke', seeds: 1 });
    folder.note({ name: 'factors', scale: 'smoke', seeds: 2 });
    folder.write(result);
    const fresh = new StudyFolder(folder.path);
    expect(fresh.studies()).toEqual([{ name: 'factors', scale: 'smoke', seeds: 3 }, { name: 'table', scale: 'smoke', seeds: 1 }]);
    expect(fresh.results()).toEqual(new Map([[result.id, result]]));
    expect(readdirSync(join(folder.path, 'runs'))).toEqual([`${result.id}.json`]);
  });

  it('writes whole files: what broke off is no result, and a write that fails leaves the old one', () => {
    const folder = new StudyFolder(path);
    folder.note({ name: 'factors', scale: 'smoke', seeds: 1 });
    folder.write(result);
    writeFileSync(join(path, 'runs', `${runs[1].id}.json.123.part`), '{"format":');
    expect([...folder.results().keys()]).toEqual([result.id]);
    rmSync(join(path, 'runs'), { recursive: true });
    expect(() => folder.write(result)).toThrow(/ENOENT|must be a file that can be written/);
  });

  it('keeps the checkpoint of a run that was broken off until it has ended', () => {
    const folder = new StudyFolder(path);
    folder.note({ name: 'factors', scale: 'smoke', seeds: 1 });
    expect(folder.load(result.id)).toBeNull();
    folder.save(result.id, Uint8Array.of(1, 2, 3));
    expect([...new StudyFolder(path).load(result.id)!]).toEqual([1, 2, 3]);
    expect(folder.results().size).toBe(0);
    folder.write(failedRun(result.recipe));
    expect(folder.load(result.id)).not.toBeNull();
    folder.write(result);
    expect(folder.load(result.id)).toBeNull();
  });

  it.each([
    ['half of one', (text: string) => text.slice(0, 99), 'must be JSON'],
    ['another format', (text: string) => text.replace('"format":1', '"format":2'), 'must be a result of format 1'],
    ['another recipe than its name says', (text: string) => text.replace('"epochs":2', '"epochs":3'), "must bear its recipe's id"],
    ['a run that has not ended', (text: string) => text.replace('"status":"done"', '"status":"running"'), 'must be of a run that ended'],
    ['null', () => 'null', 'must be a result of format 1'],
    ['no recipe', (text: string) => JSON.stringify({ ...JSON.parse(text), recipe: null }), 'must hold its recipe'],
    ['no cost', (text: string) => JSON.stringify({ ...JSON.parse(text), cost: undefined }), 'must have its cost'],
    ['no rates', (text: string) => JSON.stringify({ ...JSON.parse(text), lr: {} }), 'must have a list of lr'],
  ])('refuses %s, naming the file', (_, change, rule) => {
    const folder = new StudyFolder(path);
    folder.note({ name: 'factors', scale: 'smoke', seeds: 1 });
    folder.write(result);
    const file = join(path, 'runs', `${result.id}.json`);
    writeFileSync(file, change(readFileSync(file, 'utf8')));
    expect(() => folder.results()).toThrow(expect.objectContaining({ arg: file, expected: expect.stringContaining(rule) as string }));
  });

  it('refuses a list of studies that is none', () => {
    for (const text of ['[', '[]', '{"studies": [{"name": "tables", "scale": "smoke", "seeds": 3}]}', 'null']) {
      writeFileSync(join(path, 'studies.json'), text);
      expect(() => new StudyFolder(path).studies(), text).toThrow(expect.objectContaining({ op: 'study' }));
    }
  });

  it('is written by one process at a time; one that died does not hold it', () => {
    const unlock = new StudyFolder(path).lock();
    expect(() => new StudyFolder(path).lock()).toThrow(/must be written by one process at a time, got process \d+/);
    unlock();
    expect(existsSync(join(path, '.lock'))).toBe(false);
    // No process has the first number; this one has the second, but does not hold the folder.
    for (const text of ['4194305\n', `4194305 ${hostname()}\n`, `${process.pid} ${hostname()}\n`]) {
      writeFileSync(join(path, '.lock'), text);
      new StudyFolder(path).lock()();
    }
    // An empty one is of a process that died before it wrote its number, once it is old enough.
    writeFileSync(join(path, '.lock'), '');
    utimesSync(join(path, '.lock'), new Date(), new Date(Date.now() - 60_000));
    const unlockAgain = new StudyFolder(path).lock();
    expect(readFileSync(join(path, '.lock'), 'utf8')).toBe(`${process.pid} ${hostname()}\n`);
    unlockAgain();
  });

  it.each([
    ['a process of another machine, of which nothing is known here', '4194305 another-host\n', 'process 4194305 of another-host'],
    ['one that has not written its number yet', '', 'a process that is just starting'],
  ])('is held by %s', (_, text, got) => {
    writeFileSync(join(path, '.lock'), text);
    const fix = expect.stringContaining(`remove ${realpathSync(path)}`) as string;
    expect(() => new StudyFolder(path).lock()).toThrow(expect.objectContaining({ arg: path, got, fix }));
    expect(readFileSync(join(path, '.lock'), 'utf8')).toBe(text);
  });
});

describe('what a result keeps', () => {
  it('of rates: corners, the ends, and evenly chosen ones of many', () => {
    const rates = [1, 1, 1, 2, 2, 3, 3, 3];
    expect(thinTrace(rates.map((lr, step) => ({ step, lr })), 100)).toEqual([[0, 1], [2, 1], [3, 2], [4, 2], [5, 3], [7, 3]]);
    const falling = thinTrace(Array.from({ length: 1000 }, (_, step) => ({ step, lr: 1000 - step })), 50);
    // 32 is the least power of two of which 1000 steps have at most 49.
    expect(falling).toEqual([...Array.from({ length: 32 }, (_, i) => [32 * i, 1000 - 32 * i]), [999, 1]]);
    const steps = (...all: number[]) => all.map((step) => ({ step }));
    expect(evenly(steps(1, 2, 3), 3)).toEqual(steps(1, 2, 3));
    expect(evenly(steps(...Array(100).keys()), 5)).toEqual(steps(0, 32, 64, 96, 99));
    expect(evenly(steps(5, 6, 7, 90, 91, 92), 4)).toEqual(steps(5, 90, 92));
  });

  it('survives JSON', () => {
    const one = madeRun(runs[0].id, runs[0].recipe, null);
    expect(parseResult(JSON.stringify(one), 'file')).toEqual(one);
  });
});
