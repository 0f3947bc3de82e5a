/** Runs made in a process of their own: one at a time, told and answered by messages. */
import { fork, type ChildProcess } from 'node:child_process';
import { DeviceError } from '../gpu/errors.ts';
import { Datasets, LocalExecutor } from './local.node.ts';
import { runId, type Recipe } from './recipe.ts';
import { resultFormat, type StudyResult } from './result.ts';
import type { Executor, ShareListener } from './runner.ts';
import type { RunKeeper } from './runJob.ts';

type Request = { readonly recipe: Recipe } | { readonly stop: true };
type Reply =
  | { readonly share: number; readonly before?: number }
  | { readonly told: string }
  | { readonly result: StudyResult | null }
  | { readonly refused: string };

/** How a worker process is started: a script of Node's and its arguments, which must lead to `serve`. */
export interface WorkerCommand {
  readonly script: string;
  readonly args: readonly string[];
  /** Added to this process's environment, which it does not override. @default nothing */
  readonly env?: Readonly<Record<string, string>>;
}

/** The process is started by the first run, and anew by one that finds it gone. */
export class WorkerExecutor implements Executor {
  #child: ChildProcess | null = null;

  constructor(
    readonly command: WorkerCommand,
    readonly version: string,
    /** Takes a line that is no result. */
    readonly tell: (line: string) => void,
  ) {}

  #start(): ChildProcess {
    const { script, args, env } = this.command;
    const child = fork(script, args, { stdio: ['ignore', 'ignore', 'pipe', 'ipc'], env: { ...env, ...process.env } });
    // It may end between two runs, too. A process that could not be started says so by an error alone, which nobody else may listen to.
    const forget = () => void (this.#child = this.#child === child ? null : this.#child);
    return child.on('exit', forget).on('error', forget);
  }

  run(recipe: Recipe, signal: AbortSignal, onProgress: ShareListener): Promise<StudyResult | null> {
    const child = (this.#child = this.#child?.connected ? this.#child : this.#start());
    let stderr = '';
    const collect = (text: Buffer) => void (stderr = (stderr + text.toString()).slice(-2000));
    // A process that is gone by then has an exit, which ends the run.
    const stop = () => void child.send({ stop: true } satisfies Request, () => {});
    return new Promise<StudyResult | null>((resolve, reject) => {
      const answered = (reply: Reply) => {
        if ('share' in reply) return onProgress(reply.share, reply.before);
        if ('told' in reply) return this.tell(reply.told);
        leave();
        if ('result' in reply) return resolve(reply.result);
        refuse('must be able to make runs', reply.refused, 'mend what it tells, or try --jobs 1');
      };
      const died = (code: number | null, by: string | null) =>
        fail(`the worker process ended ${by ? `by ${by}` : `with code ${code}`}${stderr && `: ${stderr.trim()}`}`);
      const broken = (error: Error) => {
        if (child.pid !== undefined) return fail(`the worker process cannot be reached: ${error.message}`);
        leave();
        refuse('must be a process that can be started', error.message, 'try fewer --jobs');
      };
      const refuse = (rule: string, got: string, fix: string) => reject(new DeviceError({ op: 'study', arg: 'worker', rule, got, fix }));
      const fail = (error: string) => {
        leave();
        const { version } = this;
        resolve(signal.aborted ? null : { format: resultFormat, id: runId(recipe), status: 'failed', recipe, version, adapter: '', error });
      };
      const leave = () => {
        child.off('message', answered).off('exit', died).off('error', broken);
        child.stderr?.off('data', collect);
        signal.removeEventListener('abort', stop);
      };
      child.on('message', answered).on('exit', died).on('error', broken);
      child.stderr?.on('data', collect);
      signal.addEventListener('abort', stop);
      // One that could not be started has no channel, and an error instead.
      if (!child.connected) return;
      child.send({ recipe } satisfies Request);
      if (signal.aborted) stop();
    });
  }

  async close(): Promise<void> {
    const child = this.#child;
    this.#child = null;
    if (!child?.connected) return;
    const ended = new Promise((resolve) => child.on('exit', resolve));
    child.disconnect();
    await ended;
  }
}

/** A worker's side: makes the runs that it is told, until the other side goes. */
export async function serve(data: string | undefined, version: string, keeper: RunKeeper): Promise<void> {
  const send = (reply: Reply) => void (process.connected && process.send!(reply));
  const executor = new LocalExecutor(new Datasets(data), version, keeper, (told) => send({ told }));
  const stopping = new AbortController();
  // Ctrl-C reaches every process of a terminal, and an end of all a group's; the other side says what they mean.
  for (const by of ['SIGINT', 'SIGTERM'] as const) process.on(by, () => undefined);
  let busy: Promise<void> = Promise.resolve();
  process.on('message', (request: Request) => {
    if ('stop' in request) return stopping.abort();
    busy = executor.run(request.recipe, stopping.signal, (share, before) => send({ share, before })).then(
      (result) => send({ result }),
      (error) => send({ refused: error instanceof Error ? error.message : String(error) }),
    );
  });
  await new Promise<void>((resolve) => process.on('disconnect', resolve));
  stopping.abort();
  await busy;
  await executor.close();
}
