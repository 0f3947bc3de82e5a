/** From results to what is said of them: each row's mean and deviation over seeds, the best of those that are tuned, robustness. */
import { totalCost } from './cost.ts';
import { methods } from './methods.ts';
import { isFinished, meanRate, type FinishedRun, type StudyResult } from './result.ts';
import type { Recipe } from './recipe.ts';
import type { BestRow, Row, Study } from './studies.ts';

/** Of a sample: sd with n − 1, null of one. */
export interface Stat {
  readonly mean: number;
  readonly sd: number | null;
}

/** Null of an empty sample. */
export function statOf(values: readonly number[]): Stat | null {
  if (values.length === 0) return null;
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  if (values.length === 1) return { mean, sd: null };
  return { mean, sd: Math.sqrt(values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (values.length - 1)) };
}

export interface RowSummary {
  readonly row: Row;
  /** By seed, those that ended. */
  readonly results: readonly FinishedRun[];
  readonly diverged: number;
  readonly failed: number;
  readonly missing: number;
  /** Test accuracy at the end, %; a run that diverged counts as chance. */
  readonly accuracy: Stat | null;
  /** Over the runs that did not diverge. */
  readonly testLoss: Stat | null;
  /** Mean over the steps of the runs that did not diverge. */
  readonly meanRate: number | null;
  /** Mean of a run. */
  readonly forwards: number | null;
  readonly trainSeconds: number | null;
}

export interface BestSummary {
  readonly best: BestRow;
  /** The row of the highest mean accuracy; null while one that it is chosen from lacks a run. */
  readonly chosen: RowSummary | null;
  /** Of a run with every rate of the grid. */
  readonly searchForwards: number | null;
  /** The chosen rate is the least or the greatest of its grid: a better one may lie beyond. */
  readonly isAtEnd: boolean;
}

export interface StudySummary {
  readonly study: Study;
  readonly rows: readonly RowSummary[];
  readonly bests: readonly BestSummary[];
  /** Runs that ended, of all; a run that two rows share is one. */
  readonly done: number;
  readonly total: number;
  readonly failures: readonly { readonly id: string; readonly error: string }[];
  readonly adapters: readonly string[];
  readonly versions: readonly string[];
}

/** What guessing gets, %. */
export const chance = ({ dataset }: Pick<Recipe, 'dataset'>): number => (dataset === 'cifar100' ? 1 : 10);

/** Test accuracy of a run, %: chance where it diverged. */
export const accuracyOf = ({ testAccuracy, recipe }: FinishedRun): number => (testAccuracy === null ? chance(recipe) : 100 * testAccuracy);

function summarizeRow(study: Study, row: Row, known: ReadonlyMap<string, StudyResult>): RowSummary {
  const found = study.runs.filter((run) => run.row === row.key).map(({ id }) => known.get(id));
  const results = found.filter((result) => result !== undefined).filter(isFinished);
  const mean = (of: (run: FinishedRun) => number) => statOf(results.map(of))?.mean ?? null;
  return {
    row,
    results,
    diverged: results.filter(({ status }) => status === 'diverged').length,
    failed: found.filter((result) => result?.status === 'failed').length,
    missing: found.filter((result) => result === undefined).length,
    accuracy: statOf(results.map(accuracyOf)),
    testLoss: statOf(results.flatMap(({ testLoss }) => testLoss ?? [])),
    meanRate: statOf(results.flatMap(({ status, lr }) => (status === 'done' ? meanRate(lr) ?? [] : [])))?.mean ?? null,
    forwards: mean(({ cost }) => totalCost(cost)),
    trainSeconds: mean(({ trainMs }) => trainMs / 1000),
  };
}

const isWhole = ({ failed, missing }: RowSummary): boolean => failed + missing === 0;

function chooseBest(best: BestRow, rows: readonly RowSummary[]): BestSummary {
  const among = best.of.map((key) => rows.find(({ row }) => row.key === key)!);
  if (!among.every(isWhole)) return { best, chosen: null, searchForwards: null, isAtEnd: false };
  const chosen = among.reduce((a, b) => (b.accuracy!.mean > a.accuracy!.mean ? b : a));
  const rates = among.map(({ row }) => row.recipe.lr);
  const isAtEnd = [Math.min(...rates), Math.max(...rates)].includes(chosen.row.recipe.lr);
  return { best, chosen, searchForwards: among.reduce((sum, { forwards }) => sum + forwards!, 0), isAtEnd };
}

export function summarize(study: Study, known: ReadonlyMap<string, StudyResult>): StudySummary {
  const rows = study.rows.map((row) => summarizeRow(study, row, known));
  const ids = [...new Set(study.runs.map(({ id }) => id))];
  const results = ids.flatMap((id) => known.get(id) ?? []);
  const failures = results.flatMap((result) => (isFinished(result) ? [] : { id: result.id, error: result.error }));
  const distinct = (of: (result: StudyResult) => string) => [...new Set(results.map(of))].filter((text) => text !== '').sort();
  return {
    study,
    rows,
    bests: study.bests.map((best) => chooseBest(best, rows)),
    done: results.length - failures.length,
    total: ids.length,
    failures,
    adapters: distinct(({ adapter }) => adapter),
    versions: distinct(({ version }) => version),
  };
}

/** The rows of a table: without those that serve only to be chosen from, but with those that were. */
export function mainRows({ study, rows, bests }: StudySummary): RowSummary[] {
  const grid = new Set(bests.flatMap(({ best }) => best.of));
  const chosen = new Set(bests.flatMap((best) => best.chosen?.row.key ?? []));
  const first = study.rows[0].recipe.lr;
  return rows.filter(({ row }) => row.recipe.lr === first || !grid.has(row.key) || chosen.has(row.key));
}

/** One method over first rates: a line of the robustness picture. */
export interface Line {
  readonly title: string;
  readonly note: string;
  /** By first rate, upwards; those with a run. */
  readonly points: readonly { readonly lr: number; readonly accuracy: Stat; readonly diverged: number }[];
  /** Mean accuracy at the worst and at the best first rate; null until every rate has a run. */
  readonly worst: number | null;
  readonly best: number | null;
  /** How far the worst is below the best tuned schedule, in points. */
  readonly regret: number | null;
}

/** The rows of a study over first rates as lines; the reference is the best mean of any schedule, which takes no losses, at any rate. */
export function linesOf({ rows }: StudySummary): { lines: Line[]; reference: { title: string; accuracy: number } | null } {
  const groups = [...new Set(rows.map(({ row }) => row.group))];
  const schedules = rows.filter(({ row, accuracy }) => accuracy && methods[row.recipe.method].family === 'schedule');
  const top = schedules.reduce<RowSummary | null>((best, one) => (!best || one.accuracy!.mean > best.accuracy!.mean ? one : best), null);
  const reference = top && { title: top.row.title, accuracy: top.accuracy!.mean };
  const lines = groups.map((group): Line => {
    const own = rows.filter(({ row }) => row.group === group);
    const points = own
      .flatMap(({ row, accuracy, diverged }) => (accuracy ? { lr: row.recipe.lr, accuracy, diverged } : []))
      .sort((a, b) => a.lr - b.lr);
    const means = points.map(({ accuracy }) => accuracy.mean);
    const isWhole = points.length === own.length;
    const worst = isWhole ? Math.min(...means) : null;
    const regret = worst !== null && reference ? reference.accuracy - worst : null;
    return { title: group, note: methods[own[0].row.recipe.method].note, points, worst, best: isWhole ? Math.max(...means) : null, regret };
  });
  return { lines, reference };
}
