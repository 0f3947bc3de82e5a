/** Worker processes that die, are not there, or refuse. They are scripts of a few lines, which train nothing. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { makeStudy } from '../../src/study/studies.ts';
import { WorkerExecutor } from '../../src/study/workers.node.ts';

const folder = mkdtempSync(join(tmpdir(), 'forkstep-workers-'));
afterAll(() => rmSync(folder, { recursive: true }));

const [{ recipe, id }] = makeStudy('factors', 'smoke', 1).runs;
/** A worker that does this with a request. */
function executor(name: string, body: string, tell: (line: string) => void = () => {}, env?: Record<string, string>): WorkerExecutor {
  const script = join(folder, `${name}.cjs`);
  writeFileSync(script, `process.on('message', (request) => { ${body} });\n`);
  return new WorkerExecutor({ script, args: [], env }, '1.2.3', tell);
}
const run = (one: WorkerExecutor, signal = new AbortController().signal) => one.run(recipe, signal, () => {});
/** Answers with its number in the place of an error, and ends once the answer is on its way. */
const answerAndEnd = "process.send({ result: { status: 'failed', error: String(process.pid) } }, () => process.exit(0))";
const pause = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));

describe('a worker process', () => {
  it('that ends while it has nothing to do is started anew by the next run, and closing finds it gone', async () => {
    const one = executor('idle', answerAndEnd);
    const first = await run(one);
    await pause(200);
    const second = await run(one);
    expect(first).toMatchObject({ status: 'failed', error: expect.stringMatching(/^\d+$/) as string });
    expect(second).not.toEqual(first);
    await pause(200);
    await one.close();
  });

  it('that leaves its channel and stays is left, too', async () => {
    const one = executor('leaves', "process.send({ result: null }, () => { process.disconnect(); setTimeout(() => {}, 300); })");
    expect(await run(one)).toBeNull();
    await pause(100);
    expect(await run(one)).toBeNull();
    await one.close();
  });

  it('tells lines on the way', async () => {
    const lines: string[] = [];
    const one = executor('tells', "process.send({ told: 'begins anew' }); process.send({ result: null })", (line) => lines.push(line));
    expect([await run(one), lines]).toEqual([null, ['begins anew']]);
    await one.close();
  });

  it('has what its command adds to the environment, where that does not say otherwise', async () => {
    const lines: string[] = [];
    const body = 'process.send({ told: `${process.env.FORKSTEP_A} ${process.env.PATH}` }); process.send({ result: null })';
    const one = executor('env', body, (line) => lines.push(line), { FORKSTEP_A: '1', PATH: 'another' });
    expect([await run(one), lines]).toEqual([null, [`1 ${process.env.PATH}`]]);
    await one.close();
  });

  it('that ends in a run makes it a failed one, with what it last said', async () => {
    const one = executor('dies', "console.error('no luck'); process.exitCode = 3; process.disconnect()");
    expect(await run(one)).toMatchObject({ id, status: 'failed', version: '1.2.3', error: 'the worker process ended with code 3: no luck' });
    await one.close();
  });

  it('is told to stop though it is gone, without a stack', async () => {
    const stopping = new AbortController();
    const one = executor('stopped', 'process.disconnect(); setTimeout(() => process.exit(0), 200)');
    const running = run(one, stopping.signal);
    await pause(150);
    stopping.abort();
    expect(await running).toBeNull();
    await one.close();
  });

  it('that refuses ends the study with what it said', async () => {
    const one = executor('refuses', "process.send({ refused: 'forkstep: /x must be a file that can be written, got ENOSPC; free some space' })");
    await expect(run(one)).rejects.toThrow(/^study: worker must be able to make runs, got forkstep: \/x .* free some space; mend what it tells/);
    await one.close();
  });

  it('that cannot be started ends the study in one line', async () => {
    const { execPath } = process;
    const one = executor('none', answerAndEnd);
    process.execPath = join(folder, 'no-node');
    try {
      await expect(run(one)).rejects.toThrow(/^study: worker must be a process that can be started, got spawn .* ENOENT; try fewer --jobs$/);
    } finally {
      process.execPath = execPath;
    }
    await one.close();
  });
});
