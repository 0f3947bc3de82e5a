/** The page of a study's folder: tables, curves, rates, the robustness picture, events, recipes. Pure; loads nothing from anywhere. */
import { eventFromJson } from '../../sched/index.ts';
import { methods } from '../../study/methods.ts';
import { linesOf, mainRows, statOf, type RowSummary, type StudySummary } from '../../study/summary.ts';
import { isOverRates, methodsTable, tableOf, type Table } from '../../study/table.ts';
import { escapeHtml, flatten, showValue, type ReportValue } from './html.ts';
import { panel, renderPage } from './page.ts';
import { renderPlot, type PlotPoint, type PlotSeries } from './plot.ts';
import { runColor, runLine } from './style.ts';
import { eventTable } from './tables.ts';

/** Most events of a run in the page: there are more in its JSON. */
const mostEvents = 40;

export function renderStudyPage(summaries: readonly StudySummary[]): string {
  const all = (of: (summary: StudySummary) => readonly string[]) => [...new Set(summaries.flatMap(of))];
  const subtitle = [`forkstep ${all(({ versions }) => versions).join(', ')}`, ...all(({ adapters }) => adapters)].join(' · ');
  const content = [...summaries.map(studySection), panel('Methods', '', htmlTable(methodsTable(summaries)))];
  const scales = all(({ study }) => [study.scale]);
  return renderPage({ title: `Learning-rate study, ${scales.join(', ')}`, subtitle, content: content.join('\n') });
}

function htmlTable({ head, rows, notes }: Table): string {
  const isText = head.map((_, i) => rows.some((row) => !/^[\d–−-]/.test(row[i])));
  const kind = (i: number, cell: string) => (isText[i] ? ` class="${cell.length > 40 ? 'left' : 'name'}"` : '');
  const cells = (row: readonly string[]) => row.map((cell, i) => `<td${kind(i, cell)}>${escapeHtml(cell)}</td>`).join('');
  const heads = head.map((cell, i) => `<th${kind(i, cell)}>${escapeHtml(cell)}</th>`).join('');
  const body = rows.map((row) => `<tr>${cells(row)}</tr>`).join('');
  const below = notes.map((note) => `<p>${escapeHtml(note)}</p>`).join('');
  return `<div class="wide"><table><thead><tr>${heads}</tr></thead><tbody>${body}</tbody></table></div>${below}`;
}

function studySection(summary: StudySummary): string {
  const { study, done, total, failures } = summary;
  const id = `${study.name}-${study.scale}`;
  const partial = done < total ? `${done} of ${total} runs: what follows is of these alone.` : `${total} runs, ${study.seeds} a row.`;
  const begun = mainRows(summary).filter(({ results }) => results.length > 0);
  const plots = isOverRates(summary)
    ? [robustness(summary, id), rates(begun.filter(hasOwnRate), id)]
    : [accuracies(begun, id), rates(begun, id)];
  const head = `<p class="question">${escapeHtml(study.question)}</p><p>${partial}</p>`;
  const failed = { head: ['run', 'error'], rows: failures.map((one) => [one.id, one.error]), notes: [] };
  return [
    panel(`${study.title} (${study.name}, ${study.scale})`, '', `${head}${htmlTable(tableOf(summary))}`),
    ...plots,
    eventLogs(begun),
    recipes(summary),
    failures.length > 0 ? panel('Failed runs', '', htmlTable(failed)) : '',
  ].join('\n');
}

/** Whether the method looks at losses to set its rate: where it went is of interest from every first rate. */
const hasOwnRate = ({ row }: RowSummary): boolean => methods[row.recipe.method].family !== 'schedule';

const title = ({ row }: RowSummary): string => (row.group && !row.title.includes(row.group) ? `${row.title}, ${row.group}` : row.title);

/** Test accuracy by epoch, the mean over seeds. */
function accuracies(rows: readonly RowSummary[], id: string): string {
  const series = rows.map((own, i): PlotSeries => {
    const epochs = Math.max(...own.results.map((run) => run.epochs.length));
    const points = Array.from({ length: epochs }, (_, epoch) => {
      const stat = statOf(own.results.flatMap((run) => (run.epochs[epoch] ? 100 * run.epochs[epoch].testAccuracy : [])))!;
      return [epoch + 1, stat.mean] as const;
    });
    return { name: title(own), color: runColor(i), kind: runLine(i), points };
  });
  if (series.every(({ points }) => points.length === 0)) return '';
  const label = 'Test accuracy by epoch';
  const plot = renderPlot({ id: `accuracy-${id}`, label, xLabel: 'epochs', yUnit: ' %', height: 360, series });
  return panel(label, 'percent of the test images, mean over the seeds that got so far', plot);
}

/** Rates in force, of the first seed. */
function rates(rows: readonly RowSummary[], id: string): string {
  const series = rows.map((own, i): PlotSeries => ({ name: title(own), color: runColor(i), kind: runLine(i), points: own.results[0].lr }));
  const values = series.flatMap(({ points }) => points.flatMap(([, lr]) => (lr !== null && lr > 0 ? lr : [])));
  if (values.length === 0) return '';
  // What decays to 0 would take decades of the axis at its end.
  const sorted = values.sort((a, b) => a - b);
  const low = Math.min(sorted[Math.floor(sorted.length * 0.02)], ...rows.map(({ row }) => row.recipe.lr));
  const label = 'Learning rate in force';
  return panel(label, 'log axis, of the first seed', renderPlot({
    id: `rate-${id}`, label, xLabel: 'step', isYLog: true, yRange: [low / 1.3, sorted[sorted.length - 1] * 1.3], height: 360, series,
  }));
}

/** Final accuracy against the first rate, a line a method. */
function robustness(summary: StudySummary, id: string): string {
  const series = linesOf(summary).lines.map(({ title: name, points }, i): PlotSeries => ({
    name, color: runColor(i), kind: runLine(i), hasRings: true,
    points: points.map(({ lr, accuracy: { mean, sd } }): PlotPoint => (sd === null ? [lr, mean] : [lr, mean, sd])),
  }));
  if (series.every(({ points }) => points.length === 0)) return '';
  const label = 'Final accuracy against the first rate';
  const note = 'percent of the test images, mean and standard deviation over seeds; a run that diverged counts as chance; log axis';
  const plot = { id: `robustness-${id}`, label, xLabel: 'first learning rate', isXLog: true, yUnit: ' %', height: 420, series };
  return panel(label, note, renderPlot(plot));
}

/** The events of each row's first seed. */
function eventLogs(rows: readonly RowSummary[]): string {
  const logs = rows.flatMap((own) => {
    const [run] = own.results;
    if (run.events.length === 0) return [];
    const events = run.events.slice(0, mostEvents).map(eventFromJson);
    const rest = run.eventCount > events.length ? `, the first ${events.length} kept ones` : '';
    return `<details><summary>${escapeHtml(title(own))}: ${run.eventCount} events${rest}</summary>${eventTable(events, runColor(0))}</details>`;
  });
  const note = 'Of the first seed. Loss of each trial, shaded by weight; the factor chosen is their weighted geometric mean.';
  return logs.length > 0 ? panel('Scheduling events', note, logs.join('')) : '';
}

function flat(value: object): Map<string, string> {
  const show = (one: ReportValue) => (typeof one === 'number' ? String(one) : showValue('', one));
  return new Map(flatten(value as { [key: string]: ReportValue }).map((one) => [one.path, show(one.value)]));
}

/** What all rows have in common once, then what each has of its own. */
function recipes({ study, rows }: StudySummary): string {
  const fields = rows.map(({ row }) => flat(row.recipe));
  const names = [...new Set(fields.flatMap((one) => [...one.keys()]))];
  const isCommon = (name: string) => fields.every((one) => one.get(name) === fields[0].get(name));
  const common = names.filter(isCommon).map((name) => [name, fields[0].get(name)!]);
  const own = names.filter((name) => !isCommon(name));
  const table = { head: ['row', ...own], rows: rows.map(({ row }, i) => [row.key, ...own.map((name) => fields[i].get(name) ?? '')]), notes: [] };
  const seeds = `0 … ${study.seeds - 1}`;
  const ofAll = htmlTable({ head: ['of every run', ''], rows: [...common, ['seed', seeds]], notes: [] });
  const content = `${ofAll}${own.length > 0 ? htmlTable(table) : ''}`;
  return panel('Recipe', '', `<details><summary>every number of every row</summary>${content}</details>`);
}
