/** A study's results as tables of text: the same cells for the page, for Markdown and for CSV. */
import { expectedCost, totalCost } from './cost.ts';
import { methods } from './methods.ts';
import { meanRate } from './result.ts';
import { linesOf, mainRows, type RowSummary, type Stat, type StudySummary } from './summary.ts';

export interface Table {
  readonly head: readonly string[];
  readonly rows: readonly (readonly string[])[];
  /** Below the table, one sentence each. */
  readonly notes: readonly string[];
}

const dash = '–';

/** '46.5 ± 0.3'; of one, '46.5'. */
export const showStat = (stat: Stat | null, digits = 1): string => {
  if (!stat) return dash;
  return stat.sd === null ? stat.mean.toFixed(digits) : `${stat.mean.toFixed(digits)} ± ${stat.sd.toFixed(digits)}`;
};

/** 1234567 → '1.23 M'. */
export function showCount(count: number | null): string {
  if (count === null) return dash;
  const [unit, by] = count >= 1e9 ? ['G', 1e9] : count >= 1e6 ? ['M', 1e6] : count >= 1e3 ? ['k', 1e3] : ['', 1];
  return `${Number((count / by).toPrecision(3))}${unit && ` ${unit}`}`;
}

/** Seconds as '34 s', '12 min', '3.2 h'. */
export function showSeconds(seconds: number | null): string {
  if (seconds === null || !Number.isFinite(seconds)) return dash;
  if (seconds < 120) return `${Number(seconds.toPrecision(2))} s`;
  return seconds < 7200 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
}

/** 0.01234 → '0.0123'. */
const showRate = (rate: number | null): string => (rate === null ? dash : String(Number(rate.toPrecision(3))));

/** '3', '2 of 3', with what became of the others. */
function showRuns({ results, diverged, failed, missing }: RowSummary): string {
  const total = results.length + failed + missing;
  const count = results.length === total ? String(total) : `${results.length} of ${total}`;
  const others = [diverged && `${diverged} diverged`, failed && `${failed} failed`].filter(Boolean);
  return others.length > 0 ? `${count} (${others.join(', ')})` : count;
}

const paperNote = "The paper's column: all of CIFAR-10, ResNet18 of width 64, 100 epochs; it does not tell which reading of linear is meant, nor with "
  + 'how many factors its own rule got 87.0.';

const showPaper = (paper: number | undefined): string => (paper === undefined ? dash : paper.toFixed(1));

/** One row a setting: accuracy beside the paper's where a row may be one of its, loss, cost, time. */
function settingsTable(summary: StudySummary): Table {
  const { study, rows, bests } = summary;
  const hasPaper = rows.some(({ row }) => row.paper !== undefined);
  const hasGroups = new Set(rows.map(({ row }) => row.group)).size > 1;
  // Of the recipe, not of what was made: a run that diverged made less, and a row may have none.
  const plain = totalCost(expectedCost({ ...study.rows[0].recipe, method: 'constant', options: {}, seed: 0 }));
  const cells = (group: string, title: string, own: RowSummary | null, paper?: number) => [
    ...(hasGroups ? [group] : []),
    title,
    ...(hasPaper ? [showPaper(paper)] : []),
    showStat(own?.accuracy ?? null),
    showStat(own?.testLoss ?? null, 3),
    showRate(own?.meanRate ?? null),
    own?.forwards ? `${(own.forwards / plain).toFixed(3)}` : dash,
    showSeconds(own?.trainSeconds ?? null),
    own ? showRuns(own) : dash,
  ];
  const chosen = new Set(bests.map((best) => best.chosen));
  const shown = mainRows(summary).filter((own) => own.row.recipe.lr === study.rows[0].recipe.lr || !chosen.has(own));
  const named = bests.map(({ best, chosen }) =>
    cells(best.group, chosen ? `${best.title}: ${chosen.row.recipe.lr}` : best.title, chosen));
  const searches = bests.flatMap(({ best, chosen, searchForwards, isAtEnd }) => {
    if (!chosen) return [];
    const cost = (searchForwards! / plain).toFixed(1);
    const how = `the rate of the highest mean test accuracy of ${best.of.length}, which cost ${cost} runs to find`;
    const end = isAtEnd ? '; it is an end of their grid, a better one may lie beyond' : '';
    return `${best.title}: ${how}${end}; choosing by test images favours it.`;
  });
  const names = [...(hasGroups ? [study.name === 'scores' ? 'score' : 'network'] : []), 'method', ...(hasPaper ? ['paper, %'] : [])];
  const unit = `${showCount(plain)} forwards of one image`;
  return {
    head: [...names, 'test accuracy, %', 'test loss', 'mean rate', 'cost', 'training time', 'runs'],
    rows: [...shown.map((own) => cells(own.row.group, own.row.title, own, own.row.paper)), ...named],
    notes: [
      'Mean ± standard deviation over seeds; a run that diverged counts as chance, and has no loss and no rate. Mean rate: over steps and runs. '
      + `Cost: forward-equivalents of training and trials over those of a whole run of constant, ${unit}.`,
      ...searches,
      ...(hasPaper ? [paperNote] : []),
    ],
  };
}

/** One row a method, one column a first rate. */
function ratesTable(summary: StudySummary): Table {
  const { lines, reference } = linesOf(summary);
  const rates = [...new Set(summary.rows.map(({ row }) => row.recipe.lr))].sort((a, b) => a - b);
  const rows = lines.map(({ title, points, worst, regret }) => [
    title,
    ...rates.map((lr) => {
      const point = points.find((one) => one.lr === lr);
      return point ? `${showStat(point.accuracy)}${point.diverged > 0 ? ` (${point.diverged} diverged)` : ''}` : dash;
    }),
    worst === null ? dash : worst.toFixed(1),
    regret === null ? dash : regret.toFixed(1),
  ]);
  const rateless = summary.rows.filter(({ row }) => !methods[row.recipe.method].takesRate);
  const best = reference ? `: ${reference.title}, ${reference.accuracy.toFixed(1)} %` : '';
  return {
    head: ['method', ...rates.map(String), 'worst', 'below the best schedule'],
    rows,
    notes: [
      'Test accuracy at the end by first rate, %: mean ± standard deviation over seeds; a run that diverged counts as chance.',
      ...(rateless.length > 0 ? [`${rateless.map(({ row }) => row.group).join(', ')} start from no rate: their one figure stands below ${rateless[0].row.recipe.lr}.`] : []),
      `Worst: at the worst first rate. Below the best schedule: how far that is under the best tuned schedule${best}.`,
    ],
  };
}

export const isOverRates = ({ study }: StudySummary): boolean => study.name === 'robustness' || study.name === 'initial-lr';

export const tableOf = (summary: StudySummary): Table => (isOverRates(summary) ? ratesTable(summary) : settingsTable(summary));

/** What each method is. */
export function methodsTable(summaries: readonly StudySummary[]): Table {
  const used = [...new Set(summaries.flatMap(({ rows }) => rows.map(({ row }) => row.recipe.method)))];
  const rows = used.map((name) => [methods[name].title, methods[name].family, methods[name].note]);
  return { head: ['method', 'kind', 'what it does'], rows, notes: [] };
}

const csvCell = (value: string | number): string => (/[",\n]/.test(String(value)) ? `"${String(value).replaceAll('"', '""')}"` : String(value));

/** A line a run that ended, those that diverged among them, with its recipe: for a notebook or a spreadsheet. Lines end in \n. */
export function runsCsv(summaries: readonly StudySummary[]): string {
  const head = [
    'study', 'scale', 'row', 'method', 'options', 'dataset', 'train', 'test', 'stem', 'width', 'batch', 'epochs', 'momentum', 'weightDecay', 'nesterov',
    'augment', 'lr', 'seed', 'status', 'testAccuracy', 'testLoss', 'steps', 'events', 'trainingForwards', 'trialForwards', 'forwards', 'trainSeconds',
    'evaluationSeconds', 'meanLr', 'lastLr', 'adapter', 'version', 'id',
  ];
  const lines = summaries.flatMap(({ study, rows }) => rows.flatMap(({ row, results }) => results.map((run) => {
    const { recipe, cost } = run;
    const { optimizer } = recipe;
    return [
      study.name, study.scale, row.key, recipe.method, JSON.stringify(recipe.options), recipe.dataset, recipe.train, recipe.test, recipe.stem,
      recipe.width, recipe.batch, recipe.epochs, optimizer.momentum, optimizer.weightDecay, String(optimizer.nesterov), recipe.augment, recipe.lr,
      recipe.seed, run.status, run.testAccuracy ?? '', run.testLoss ?? '', run.steps, run.eventCount, cost.training, cost.trials, totalCost(cost),
      run.trainMs / 1000, run.evaluationMs / 1000, meanRate(run.lr) ?? '', run.lr.at(-1)?.[1] ?? '', run.adapter, run.version, run.id,
    ];
  })));
  return [head, ...lines].map((cells) => `${cells.map(csvCell).join(',')}\n`).join('');
}

/** A table and its notes in Markdown; numbers stand to the right. */
export function markdownTable({ head, rows, notes }: Table): string {
  const line = (cells: readonly string[]) => `| ${cells.join(' | ')} |`;
  const isNumber = head.map((_, i) => rows.every((row) => /^[\d–−-]/.test(row[i])));
  const rule = line(isNumber.map((is) => (is ? '--:' : '---')));
  return [line(head), rule, ...rows.map(line), ...notes.flatMap((note) => ['', note])].join('\n');
}
