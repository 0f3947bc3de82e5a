/** Work that is measured in a process of its own: the parent asks, the child answers, one question at a time. */
import { fork, type ChildProcess } from 'node:child_process';

/** In the child: an answer to every question. An error ends it. */
export function serve<Q, A>(answer: (question: Q) => Promise<A>): void {
  process.on('message', (question) => {
    void (async () => process.send!(await answer(question as Q)))();
  });
  process.send!('ready');
}

export class MeasuredProcess<Q, A> {
  #ended: string | null = null;
  #pending: { done(answer: unknown): void; fail(error: Error): void } | null = null;

  private constructor(
    readonly name: string,
    readonly child: ChildProcess,
  ) {
    child.on('message', (message) => this.#settle()?.done(message));
    child.on('exit', (code, signal) => {
      this.#ended = `${name} ended with ${signal ?? `code ${code}`}`;
      this.#settle()?.fail(new Error(this.#ended));
    });
  }

  /** Starts `script`, which calls `serve()`. @throws Error when it ends instead */
  static async start<Q, A>(name: string, script: string, args: readonly string[], cwd: string): Promise<MeasuredProcess<Q, A>> {
    // Structured clones, so that arrays of numbers come as they are.
    const started = new MeasuredProcess<Q, A>(name, fork(script, args, { cwd, serialization: 'advanced' }));
    await started.#answer();
    return started;
  }

  /** @throws Error when the process ends instead, or has ended since the last answer */
  async ask(question: Q): Promise<A> {
    this.#check();
    const answer = this.#answer();
    this.child.send(question as object);
    return (await answer) as A;
  }

  /** @throws Error when the process has ended by itself: what it answered may be wrong */
  async stop(): Promise<void> {
    this.#check();
    const exited = new Promise((done) => this.child.once('exit', done));
    this.child.kill();
    await exited;
  }

  #check(): void {
    if (this.#ended) throw new Error(this.#ended);
  }

  #answer(): Promise<unknown> {
    return new Promise((done, fail) => (this.#pending = { done, fail }));
  }

  #settle(): { done(answer: unknown): void; fail(error: Error): void } | null {
    const pending = this.#pending;
    this.#pending = null;
    return pending;
  }
}
