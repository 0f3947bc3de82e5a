/** `forkstep study`: the runs of an experiment that are not there yet, then its table and report. */
import { availableParallelism } from 'node:os';
import { expectedCost, roughSeconds, totalCost } from '../../study/cost.ts';
import { StudyFolder } from '../../study/folder.node.ts';
import { Datasets, LocalExecutor } from '../../study/local.node.ts';
import { isFinished, type StudyResult } from '../../study/result.ts';
import { missingRuns, runAll, type Executor, type Outcome } from '../../study/runner.ts';
import { makeStudy, type Study, type StudyName, type StudyRun } from '../../study/studies.ts';
import { summarize } from '../../study/summary.ts';
import { showCount, showSeconds, tableOf, type Table } from '../../study/table.ts';
import { WorkerExecutor } from '../../study/workers.node.ts';
import { UsageError } from '../args.ts';
import { makeOutputFolder } from '../run/setup.ts';
import { interruptible } from '../run/training.ts';
import { writeStudyReport } from '../report/studyReport.ts';
import { StudyProgress } from '../studyProgress.ts';
import { defaultFolder, type StudyValues } from '../studyOptions.ts';
import { builtVersion } from '../version.ts';

/** Columns under one another; the first to the left. */
export function textTable({ head, rows }: Pick<Table, 'head' | 'rows'>): string {
  const all = [head, ...rows];
  const widths = head.map((_, column) => Math.max(...all.map((row) => row[column].length)));
  return all.map((row) => `${row.map((cell, i) => (i === 0 ? cell.padEnd(widths[i]) : cell.padStart(widths[i]))).join('   ')}\n`).join('');
}

/** @throws UsageError where no run has the text in its name or its row's */
function chosenRuns(study: Study, only: string | undefined): readonly StudyRun[] {
  if (only === undefined) return study.runs;
  const runs = study.runs.filter(({ id, row }) => id.includes(only) || row.includes(only));
  if (runs.length > 0) return runs;
  const rule = `must be in the name of one of the study's ${study.runs.length} runs, or of its row`;
  throw new UsageError({ op: 'forkstep study', arg: '--only', rule, got: only, fix: '--dry-run lists them' });
}

/** Seconds of a run by the pace of runs of the same network that are there; where there are none, roughly, on 2 cores without a GPU. */
function estimator(known: ReadonlyMap<string, StudyResult>): { seconds: (run: StudyRun) => number; isMeasured: (run: StudyRun) => boolean } {
  const finished = [...known.values()].filter(isFinished).filter(({ status }) => status === 'done');
  const alike = (run: StudyRun) => finished.filter(({ recipe }) => recipe.stem === run.recipe.stem && recipe.width === run.recipe.width);
  const pace = (run: StudyRun): number => {
    const taken = alike(run).reduce((sum, { trainMs, evaluationMs }) => sum + (trainMs + evaluationMs) / 1000, 0);
    return taken / alike(run).reduce((sum, { recipe }) => sum + roughSeconds(recipe), 0);
  };
  const isMeasured = (run: StudyRun) => alike(run).length > 0;
  return { seconds: (run) => roughSeconds(run.recipe) * (isMeasured(run) ? pace(run) : 1), isMeasured };
}

/** What a study would make: --dry-run, as text or as JSON. */
function planOf(study: Study, runs: readonly StudyRun[], known: ReadonlyMap<string, StudyResult>, jobs: number) {
  const missing = new Set(missingRuns(runs, known));
  const { seconds, isMeasured } = estimator(known);
  const listed = [...new Map(runs.map((run) => [run.id, run])).values()].map((run) => {
    const state = missing.has(run) ? (known.has(run.id) ? 'failed, to be made again' : 'to be made') : 'there';
    return { row: run.row, id: run.id, forwards: totalCost(expectedCost(run.recipe)), seconds: seconds(run), state };
  });
  const left = listed.filter(({ state }) => state !== 'there');
  const sum = (of: (run: (typeof left)[number]) => number) => left.reduce((all, run) => all + of(run), 0);
  return {
    study: study.name, scale: study.scale, runs: listed, left: left.length, forwards: sum((run) => run.forwards),
    seconds: sum((run) => run.seconds) / jobs, isMeasured: [...missing].every(isMeasured),
  };
}

function planText({ title, scale }: Study, { runs, left, forwards, seconds, isMeasured }: ReturnType<typeof planOf>): string {
  const rows = runs.map((run) => [run.row, run.id, showCount(run.forwards), showSeconds(run.seconds), run.state]);
  const basis = isMeasured ? 'by the runs that are there' : 'on 2 cores without a GPU, roughly';
  const table = textTable({ head: ['row', 'run', 'forwards', 'time', ''], rows });
  const cost = `${showCount(forwards)} forwards of one image, ${showSeconds(seconds)} ${basis}`;
  return `${table}\n${title}, ${scale}: ${runs.length} runs, ${left} to be made: ${cost}\n`;
}

function makeExecutors({ jobs, data }: StudyValues, folder: StudyFolder, missing: number, tell: (line: string) => void): Executor[] {
  if (jobs === 1) return [new LocalExecutor(new Datasets(data), builtVersion, folder, tell)];
  const args = ['study', 'worker', '--out', folder.path, ...(data === undefined ? [] : ['--data', data])];
  const workers = Math.min(jobs, missing);
  // lavapipe takes all cores for each process otherwise; GPUs do not look at it.
  const env = { LP_NUM_THREADS: String(Math.max(1, Math.floor(availableParallelism() / workers))) };
  const command = { script: process.argv[1], args, env };
  return Array.from({ length: workers }, () => new WorkerExecutor(command, builtVersion, tell));
}

async function makeRuns(values: StudyValues, study: Study, runs: readonly StudyRun[], folder: StudyFolder): Promise<Outcome> {
  const known = folder.results();
  const missing = missingRuns(runs, known).length;
  if (missing === 0) return { made: 0, failed: 0, left: 0 };
  const { signal, release } = interruptible('stopping; the runs in progress are kept as they are (press Ctrl-C again to leave at once)');
  const progress = new StudyProgress(process.stderr, study.name);
  const executors = makeExecutors(values, folder, missing, (line) => progress.tell(line));
  try {
    return await runAll({
      runs, known, executors, signal,
      onResult: (result) => {
        folder.write(result);
        progress.result(result);
      },
      onProgress: (state) => progress.update(state),
    });
  } finally {
    progress.done();
    release();
    await Promise.all(executors.map((executor) => executor.close()));
  }
}

export async function run(values: StudyValues, name: StudyName): Promise<number> {
  const study = makeStudy(name, values.scale, values.seeds);
  const runs = chosenRuns(study, values.only);
  const folder = new StudyFolder(defaultFolder(values));
  if (values.dryRun) {
    const plan = planOf(study, runs, folder.results(), values.jobs);
    process.stdout.write(values.json ? `${JSON.stringify(plan)}\n` : planText(study, plan));
    return 0;
  }
  makeOutputFolder(folder.path);
  const unlock = folder.lock();
  try {
    folder.note(study);
    process.stderr.write(`${study.title}, ${study.scale}: ${study.question}\n`);
    const outcome = await makeRuns(values, study, runs, folder);
    const summary = summarize(study, folder.results());
    const { page } = writeStudyReport(folder, folder.path);
    const { done, total } = summary;
    if (values.json) process.stdout.write(`${JSON.stringify({ study: name, scale: values.scale, ...outcome, done, total, report: page })}\n`);
    else process.stdout.write(`${textTable(tableOf(summary))}report: ${page}\n`);
    return outcome.left > 0 ? 130 : outcome.failed > 0 ? 1 : 0;
  } finally {
    unlock();
  }
}
