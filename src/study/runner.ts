/** Makes the runs of a study that are not there yet, several at once where there are several executors. */
import { roughSeconds } from './cost.ts';
import type { Recipe } from './recipe.ts';
import type { StudyResult } from './result.ts';
import type { StudyRun } from './studies.ts';

/** Makes one run at a time. What goes wrong in a run is its result; null where the signal ended it. */
export interface Executor {
  /** @throws what would go wrong in every run, such as data that are not there */
  run(recipe: Recipe, signal: AbortSignal, onProgress: (share: number) => void): Promise<StudyResult | null>;
  close(): Promise<void>;
}

export interface Progress {
  /** Runs of the study, those already there among them. */
  readonly total: number;
  readonly done: number;
  readonly failed: number;
  /** In progress, with the share that is made. */
  readonly running: readonly { readonly run: StudyRun; readonly share: number }[];
  /** By the pace so far, each run weighed by its cost; NaN before anything has been made. */
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

/** @throws what onResult or an executor throws, once the runs in progress have ended */
export async function runAll(options: RunnerOptions): Promise<Outcome> {
  const { runs, known, executors, signal, onResult, onProgress, now = () => performance.now() } = options;
  const queue = missingRuns(runs, known);
  const total = new Set(runs.map(({ id }) => id)).size;
  const weights = new Map(queue.map(({ id, recipe }) => [id, roughSeconds(recipe)]));
  const running = new Map<Executor, { run: StudyRun; share: number }>();
  const before = total - queue.length;
  const start = now();
  let [made, failed, madeWeight, next] = [0, 0, 0, 0];
  let problem: { cause: unknown } | null = null;

  const tell = (): void => {
    const all = [...weights.values()].reduce((sum, weight) => sum + weight, 0);
    const weighed = madeWeight + [...running.values()].reduce((sum, { run, share }) => sum + share * weights.get(run.id)!, 0);
    const secondsLeft = weighed > 0 ? ((now() - start) / 1000) * ((all - weighed) / weighed) : NaN;
    onProgress?.({ total, done: before + made, failed, running: [...running.values()], secondsLeft });
  };
  const work = async (executor: Executor): Promise<void> => {
    while (next < queue.length && !signal.aborted && !problem) {
      const run = queue[next++];
      running.set(executor, { run, share: 0 });
      tell();
      const result = await executor.run(run.recipe, signal, (share) => {
        running.set(executor, { run, share });
        tell();
      });
      running.delete(executor);
      if (!result) return;
      onResult(result);
      made++;
      failed += Number(result.status === 'failed');
      madeWeight += weights.get(run.id)!;
      tell();
    }
  };
  await Promise.all(executors.map((executor) => work(executor).catch((cause) => void (problem ??= { cause }))));
  if (problem) throw (problem as { cause: unknown }).cause;
  return { made, failed, left: queue.length - made };
}
