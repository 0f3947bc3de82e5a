/** Makes the runs of a study that are not there yet, several at once where there are several executors. */
import { roughSeconds } from './cost.ts';
import type { Recipe } from './recipe.ts';
import type { StudyResult } from './result.ts';
import type { StudyRun } from './studies.ts';

/** Takes the share of a run that is made, and what of it a checkpoint had, @default nothing. */
export type ShareListener = (share: number, before?: number) => void;

/** Makes one run at a time. What goes wrong in a run is its result; null where the signal ended it. */
export interface Executor {
  /** @throws what would go wrong in every run, such as data that are not there */
  run(recipe: Recipe, signal: AbortSignal, onProgress: ShareListener): Promise<StudyResult | null>;
  close(): Promise<void>;
}

export interface Progress {
  /** Runs of the study, those already there among them. */
  readonly total: number;
  readonly done: number;
  readonly failed: number;
  /** In progress, with the share that is made. */
  readonly running: readonly { readonly run: StudyRun; readonly share: number }[];
  /** By the pace so far, each run weighed by its cost, and less what checkpoints had of it; NaN before anything has been made. */
  readonly secondsLeft: number;
}

export interface RunnerOptions {
  readonly runs: readonly StudyRun[];
  /** What is there already: runs that ended are not made again, failed ones are. */
  readonly known: ReadonlyMap<string, StudyResult>;
  readonly executors: readonly Executor[];
  readonly signal: AbortSignal;
  /** Called with each result as it comes, before the next run of that executor. */
  readonly onResult: (result: StudyResult) => void;
  readonly onProgress?: (progress: Progress) => void;
  /** Milliseconds. @default performance.now */
  readonly now?: () => number;
}

export interface Outcome {
  readonly made: number;
  readonly failed: number;
  /** Not made, as the signal ended it. */
  readonly left: number;
}

/** Runs that are not there; a run that two rows share is one. */
export function missingRuns(runs: readonly StudyRun[], known: ReadonlyMap<string, StudyResult>): StudyRun[] {
  const byId = new Map(runs.map((run) => [run.id, run]));
  return [...byId.values()].filter(({ id }) => (known.get(id)?.status ?? 'failed') === 'failed');
}

/** @throws what onResult or an executor throws, once the runs in progress have ended, which are stopped as by the signal */
export async function runAll(options: RunnerOptions): Promise<Outcome> {
  const { runs, known, executors, signal, onResult, onProgress, now = () => performance.now() } = options;
  const queue = missingRuns(runs, known);
  const total = new Set(runs.map(({ id }) => id)).size;
  const weights = new Map(queue.map(({ id, recipe }) => [id, roughSeconds(recipe)]));
  const running = new Map<Executor, { run: StudyRun; share: number; before: number }>();
  const before = total - queue.length;
  const start = now();
  // What ended, and what of it was made since the start.
  let [made, failed, endedWeight, madeWeight, next] = [0, 0, 0, 0, 0];
  let problem: { cause: unknown } | null = null;
  const stopping = new AbortController();
  const stop = AbortSignal.any([signal, stopping.signal]);

  const tell = (): void => {
    const all = [...weights.values()].reduce((sum, weight) => sum + weight, 0);
    const inProgress = (of: (one: { share: number; before: number }) => number) =>
      [...running.values()].reduce((sum, one) => sum + of(one) * weights.get(one.run.id)!, 0);
    const left = all - endedWeight - inProgress(({ share }) => share);
    const weighed = madeWeight + inProgress((one) => one.share - one.before);
    const secondsLeft = weighed > 0 ? ((now() - start) / 1000) * (left / weighed) : NaN;
    const runsNow = [...running.values()].map(({ run, share }) => ({ run, share }));
    onProgress?.({ total, done: before + made, failed, running: runsNow, secondsLeft });
  };
  const work = async (executor: Executor): Promise<void> => {
    while (next < queue.length && !stop.aborted) {
      const run = queue[next++];
      let hadBefore = 0;
      running.set(executor, { run, share: 0, before: 0 });
      tell();
      const result = await executor.run(run.recipe, stop, (share, before = 0) => {
        hadBefore = before;
        running.set(executor, { run, share, before });
        tell();
      });
      running.delete(executor);
      if (!result) return;
      onResult(result);
      made++;
      failed += Number(result.status === 'failed');
      endedWeight += weights.get(run.id)!;
      madeWeight += (1 - hadBefore) * weights.get(run.id)!;
      tell();
    }
  };
  const end = (cause: unknown): void => {
    problem ??= { cause };
    stopping.abort();
  };
  await Promise.all(executors.map((executor) => work(executor).catch(end)));
  if (problem) throw (problem as { cause: unknown }).cause;
  return { made, failed, left: queue.length - made };
}
