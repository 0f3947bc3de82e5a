/** What all benches stand on: choosing by words, comparing results, processes that fail, GPU errors that end them. */
import { execFile } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { build } from 'esbuild';
import { afterAll, describe, expect, it } from 'vitest';
import { distance, farthest } from '../../bench/support/compare.ts';
import { matching } from '../../bench/support/filter.ts';
import { MeasuredProcess } from '../../bench/support/process.ts';
import { ROOT } from '../../scripts/build.mjs';

mkdirSync(join(ROOT, '.cache'), { recursive: true });
const folder = mkdtempSync(join(ROOT, '.cache/bench-test-'));
afterAll(() => rmSync(folder, { recursive: true }));

/** Bundles a program that imports from the repository as from its root. */
async function program(name: string, contents: string): Promise<string> {
  const outfile = join(folder, `${name}.mjs`);
  const options = { bundle: true, format: 'esm', platform: 'node', target: 'es2022', logLevel: 'error' } as const;
  await build({ ...options, external: ['webgpu'], stdin: { contents, resolveDir: ROOT, loader: 'ts' }, outfile });
  return outfile;
}

function run(...args: string[]): Promise<{ code: number | string; stdout: string; stderr: string }> {
  return new Promise((done) =>
    execFile(process.execPath, args, { cwd: ROOT }, (error, stdout, stderr) =>
      done({ code: error ? (error.code ?? 'killed') : 0, stdout, stderr }),
    ),
  );
}

describe('matching', () => {
  const names = ['conv b8 f', 'conv b8 f+b', 'conv b32 f', 'relu f'];
  const of = (...words: string[]): string[] => matching('case', names, (name) => name, words);

  it('takes what contains any of the words, in order; all without words', () => {
    expect(of()).toEqual(names);
    expect(of('f+b')).toEqual(['conv b8 f+b']);
    expect(of('conv b8 f')).toEqual(['conv b8 f']);
    expect(of('relu', 'b8')).toEqual(['conv b8 f', 'conv b8 f+b', 'relu f']);
  });

  it('refuses a word that no name contains, beside others that some do', () => {
    expect(() => of('relu', 'b16')).toThrow('no case has "b16" in its name; there is conv b8 f; conv b8 f+b; conv b32 f; relu f');
  });
});

describe('how far results are apart', () => {
  const right = Float32Array.from({ length: 1000 }, (_, i) => Math.sin(i + 1));

  it('is 0 for the same and shows one wrong element among many', () => {
    expect([distance(right, right), farthest(right, right)]).toEqual([0, 0]);
    const wrong = right.slice();
    wrong[999] = 0;
    expect(farthest(wrong, right)).toBeCloseTo(Math.abs(right[999]), 3);
    expect(distance(wrong, right)).toBeGreaterThan(0.01);
  });

  it.each([
    ['a NaN', right.map((value, i) => (i === 500 ? NaN : value)), NaN],
    ['an infinity', right.map((value, i) => (i === 500 ? Infinity : value)), Infinity],
    ['a missing element', right.slice(1), Infinity],
    ['an additional element', Float32Array.of(...right, 0), Infinity],
  ])('is never small with %s', (_, wrong, expected) => {
    expect(farthest(wrong, right)).toBe(expected);
  });
});

describe('a measured process', () => {
  const start = async (name: string, answer: string): Promise<MeasuredProcess<unknown, unknown>> => {
    const script = await program(name, `import { serve } from './bench/support/process.ts';\nserve(async (question) => ${answer});`);
    return MeasuredProcess.start(name, script, [], folder);
  };

  it('answers, arrays of numbers as they are, until it is stopped', async () => {
    const child = await start('echo', '({ twice: question.map((value) => 2 * value) })');
    expect(await child.ask(Float32Array.of(1, 2))).toEqual({ twice: Float32Array.of(2, 4) });
    expect(await child.ask([3])).toEqual({ twice: [6] });
    await child.stop();
  });

  it('rejects the question that it throws at, exits at or is killed at', async () => {
    const thrown = await start('throws', '{ process.stderr.write = () => true; throw new Error(question) }');
    await expect(thrown.ask('no')).rejects.toThrow('throws ended with code 1');
    const left = await start('exits', 'process.exit(7)');
    await expect(left.ask(0)).rejects.toThrow('exits ended with code 7');
    const killed = await start('killed', "process.kill(process.pid, 'SIGKILL')");
    await expect(killed.ask(0)).rejects.toThrow('killed ended with SIGKILL');
  });

  it('rejects whatever comes next when it ended after an answer', async () => {
    for (const next of ['ask', 'stop'] as const) {
      const child = await start(`${next}Late`, '{ setTimeout(() => process.exit(1), 50); return 1; }');
      expect(await child.ask(0)).toBe(1);
      await new Promise((done) => child.child.once('exit', done));
      await expect(child[next](0)).rejects.toThrow('ended with code 1');
    }
  });

  it('does not start where its script ends at once', async () => {
    const script = await program('silent', 'process.exit(4);');
    await expect(MeasuredProcess.start('silent', script, [], folder)).rejects.toThrow('silent ended with code 4');
  });
});

describe('a GPU error', () => {
  it('ends what is measured with code 1 and its message, though the work "ran"', async () => {
    const script = await program(
      'invalid',
      `import { countGpu } from './bench/support/gpuCounts.ts';
      import { create } from 'webgpu';
      await countGpu();
      const gpu = create([]);
      const device = await (await gpu.requestAdapter()).requestDevice();
      const encoder = device.createCommandEncoder();
      encoder.beginComputePass();
      device.queue.submit([encoder.finish()]); // its pass is still open
      await device.queue.onSubmittedWorkDone();
      console.log('took no time at all');
      setTimeout(() => process.exit(0), 2000);`,
    );
    const { code, stderr } = await run(script);
    expect(stderr).toMatch(/GPU error: .*ComputePass/);
    expect(code).toBe(1);
  });
});

describe('the command line of the benches', () => {
  it.each([
    [['peers', 'no such case'], /no case has "no such case" in its name; there is step width 16, batch 32; /],
    [['peers', '--rounds', '0'], /--rounds must be an integer ≥ 1, got "0"/],
    [['peers', '--only', 'tfjs'], /Unknown option '--only'/],
    [['ops', '5→5'], /no shape has "5→5" in its name; there is b8 3×3 64→64, 32²; /],
    [['trialConv', '5→5'], /no layer has "5→5" in its name/],
    [['step', 'backwards'], /no part has "backwards" in its name; there is step; forward; forward \+ backward/],
    [['cold', 'warm'], /Unexpected argument 'warm'/],
  ])('refuses %j', async (args, message) => {
    const { code, stderr } = await run(join(ROOT, 'scripts/bench.mjs'), ...args);
    expect(stderr).toMatch(message);
    expect(code).toBe(2);
  });

  it('lists the benches without a name', async () => {
    const { code, stdout } = await run(join(ROOT, 'scripts/bench.mjs'));
    expect(code).toBe(0);
    for (const name of ['cold', 'ops', 'peers', 'step', 'trials']) expect(stdout).toMatch(new RegExp(`^  ${name} +\\S`, 'm'));
  });
});
