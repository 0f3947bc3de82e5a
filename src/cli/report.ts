/** The run report: one HTML file with its plots inside. Pure; loads nothing from anywhere. */
import { AttrError } from '../gpu/errors.ts';
import { formatLoss, formatNumber } from './format.ts';
import { colorStyle, frame, plotMap, stepAxis } from './report/chart.ts';
import type { Point } from './report/chart.ts';
import { escapeHtml, showValue } from './report/html.ts';
import type { ReportValue } from './report/html.ts';
import { panel, renderPage } from './report/page.ts';
import { renderPlot, type PlotSeries } from './report/plot.ts';
import { linearScale } from './report/scale.ts';
import type { Scale } from './report/scale.ts';
import { nonFiniteStretches, rangeOf, smooth, thin } from './report/series.ts';
import { runColor } from './report/style.ts';
import { bestTrial, eventTable, summaryTable, valueTable } from './report/tables.ts';
import type { ReportEvent } from './report/tables.ts';

export type { ReportEvent, ReportValue };

type Values = { readonly [key: string]: ReportValue };

export interface ReportRun {
  name: string;
  /** a CSS colour name or #hex @default from a palette that follows light and dark */
  color?: string;
  /** logged updates, in order of step */
  steps: readonly { step: number; loss: number; lr: number }[];
  events: readonly ReportEvent[];
  /** testAccuracy in 0 … 1 */
  evals: readonly { step: number; testLoss: number; testAccuracy: number }[];
  /** the summary object of the run; nested records become rows, memory is shown in MiB */
  summary: Values;
}

export interface Report {
  title: string;
  /** at least one; drawn over each other */
  runs: readonly ReportRun[];
  /** every option of the run(s) */
  recipe: Values;
  adapter: string | Values;
}

type ColoredRun = ReportRun & { color: string };

/**
 * One self-contained HTML document: cards, loss, accuracy and learning rate over steps, the trials' weights, event table, summary, recipe.
 * Losses that are not finite are gaps, with a cross where they begin.
 * @throws AttrError without a run, or for a colour that is not a name or #hex
 */
export function renderReport(report: Report): string {
  const runs = colorRuns(report.runs);
  const logs = runs.flatMap((run): readonly { step: number }[][] => [[...run.steps], [...run.events], [...run.evals]]);
  const lastStep = Math.max(1, ...logs.map((log) => log.at(-1)?.step ?? 0));
  const x = linearScale(0, lastStep, 8, { fixed: true, minStep: 1, label: groupDigits });
  const adapter = typeof report.adapter === 'string' ? { adapter: report.adapter } : report.adapter;
  const device = Object.values(adapter).filter((value) => typeof value === 'string').join(' · ');
  const sections = [
    lossPanel(runs), accuracyPanel(runs), ratePanel(runs),
    ...runs.filter((run) => run.events.length > 0).map((run) => eventPanel(run, x)),
    panel('Summary', '', `<div class="wide">${summaryTable(runs)}</div>`),
    panel('Recipe', '', `<div class="wide">${valueTable(report.recipe)}</div>`),
    panel('Device', '', valueTable(adapter)),
  ];
  const cards = `<div class="cards">${runs.map(card).join('')}</div>`;
  return renderPage({ title: report.title, subtitle: device, content: [cards, runs.length > 1 ? legend(runs) : '', ...sections].join('\n') });
}

function colorRuns(runs: readonly ReportRun[]): ColoredRun[] {
  const op = 'renderReport';
  if (runs.length === 0) {
    throw new AttrError({ op, arg: 'runs', rule: 'must hold at least one run', got: runs, fix: 'pass a run, even an empty one' });
  }
  return runs.map((run, i) => {
    if (run.color !== undefined && !/^(#[0-9a-f]{3,8}|[a-z]+)$/i.test(run.color)) {
      throw new AttrError({ op, arg: `runs[${i}].color`, rule: 'must be a CSS colour name or #hex', got: run.color, fix: 'leave it out' });
    }
    return { ...run, color: run.color ?? runColor(i) };
  });
}

/** 12345 → '12,345'. */
const groupDigits = (n: number): string => n.toLocaleString('en-US');

const legend = (runs: readonly ColoredRun[]): string =>
  `<ul class="legend">${runs.map((run) => `<li><i${colorStyle(run.color)}></i>${escapeHtml(run.name)}</li>`).join('')}</ul>`;

/** The headline of a run: its last test accuracy (else its last loss), and what stands behind it. */
function card(run: ColoredRun): string {
  const last = run.evals.at(-1);
  const lastStep = run.steps.at(-1);
  const lastLoss = lastStep === undefined ? '–' : formatLoss(lastStep.loss);
  const headline = last === undefined ? lastLoss : showValue('testAccuracy', last.testAccuracy);
  const { imagesPerSecond: speed, steps: nSteps = lastStep === undefined ? undefined : lastStep.step + 1 } = run.summary;
  const small = [
    last !== undefined ? 'test accuracy' : 'training loss',
    last !== undefined ? `test loss ${formatLoss(last.testLoss)}` : '',
    typeof nSteps === 'number' ? `${groupDigits(nSteps)} ${nSteps === 1 ? 'update' : 'updates'}` : '',
    lastStep !== undefined ? `learning rate at the end ${formatNumber(lastStep.lr, 3)}` : '',
    typeof speed === 'number' ? `${formatNumber(speed, 3)} images/s` : '',
  ].filter((text) => text !== '');
  const diverged = run.summary.diverged;
  const bad = diverged === undefined || diverged === null || diverged === false ? '' : '<small class="bad">diverged</small>';
  return `<div class="card"${colorStyle(run.color)}><span class="run">${escapeHtml(run.name)}</span><b>${escapeHtml(headline)}</b>`
    + `${small.map((text) => `<small>${escapeHtml(text)}</small>`).join('')}${bad}</div>`;
}

const empty = (what: string): string => `<p>No ${what} logged.</p>`;

function lossPanel(runs: readonly ColoredRun[]): string {
  const raw = runs.map((run) => run.steps.map(({ step, loss }): Point => [step, loss]));
  const windowOf = (n: number): number => (n < 30 ? 1 : 2 * Math.floor(n / 60) + 1);
  const means = raw.map((points) => smooth(points, windowOf(points.length)));
  const tests = runs.map((run) => run.evals.map(({ step, testLoss }): Point => [step, testLoss]));
  const shown = rangeOf([...means, ...tests].flat().map(([, y]) => y));
  const spread = rangeOf(raw.flat().map(([, y]) => y), 0.01);
  if (shown === null || spread === null) return panel('Training loss', '', empty('finite loss'));
  const [low, high] = [Math.min(shown[0], spread[0]), Math.max(shown[1], spread[1])];
  const isYLog = low > 0 && high / low > 12;
  const series = runs.flatMap(({ name, color }, i): PlotSeries[] => [
    ...(windowOf(raw[i].length) > 1 ? [{ name: `${name}: each update`, color, kind: 'faint', points: thin(raw[i], 1400) } as const] : []),
    { name, color, kind: 'line', points: thin(means[i], 700) },
    ...(tests[i].length > 1 ? [{ name: `${name}: test`, color, kind: 'dotted', points: tests[i] } as const] : []),
  ]);
  const crosses = runs.flatMap(({ color }, i) => nonFiniteStretches(raw[i]).map((x) => ({ x, color })));
  const note = [
    isYLog ? 'cross-entropy in nats, log axis' : 'cross-entropy in nats',
    series.some(({ kind }) => kind === 'faint') ? 'faint: each logged update; line: running mean over about a thirtieth of the run' : '',
    series.some(({ kind }) => kind === 'dotted') ? 'dotted: test loss' : '',
    crosses.length > 0 ? '✕: not finite from here' : '',
  ].filter((text) => text !== '').join(' · ');
  const label = 'Training loss over steps';
  const yRange = padded(low, high, isYLog);
  return panel('Training loss', note, renderPlot({ id: 'loss', label, xLabel: 'step', isYLog, yRange, height: 300, series, crosses }));
}

/** A little more than the data's range, so that lines keep off the frame. */
const padded = (low: number, high: number, isLog: boolean): [number, number] => {
  if (isLog) return [low / 1.08, high * 1.08];
  const room = high > low ? 0.05 * (high - low) : 0.1 * (Math.abs(high) || 1);
  return [low - room, high + room];
};

function accuracyPanel(runs: readonly ColoredRun[]): string {
  const range = rangeOf(runs.flatMap((run) => run.evals.map((e) => 100 * e.testAccuracy)));
  if (range === null) return panel('Test accuracy', '', empty('evaluation'));
  const series = runs.map(({ name, color, evals }): PlotSeries => ({
    name, color, kind: 'line', hasRings: true, points: evals.map(({ step, testAccuracy }) => [step, 100 * testAccuracy]),
  }));
  const yRange = [Math.max(0, range[0] - 2), Math.min(100, range[1] + 2)] as const;
  const label = 'Test accuracy over steps';
  const plot = renderPlot({ id: 'accuracy', label, xLabel: 'step', yRange, yUnit: ' %', height: 270, series });
  return panel('Test accuracy', 'percent of the test images', plot);
}

function ratePanel(runs: readonly ColoredRun[]): string {
  const positive = (values: number[]): number[] => values.filter((v) => v > 0 && Number.isFinite(v));
  const all = positive(runs.flatMap((run) => run.steps.map((s) => s.lr)));
  const bulk = rangeOf(all, 0.01);
  if (bulk === null) return panel('Learning rate', '', empty('learning rate above 0'));
  const ends = rangeOf([...all, ...positive(runs.flatMap((run) => run.events.map((e) => e.lrAfter)))])!;
  const series = runs.flatMap(({ name, color, steps, events }): PlotSeries[] => [
    { name, color, kind: 'line', points: thin(steps.map(({ step, lr }): Point => [step, lr]), 1400) },
    ...(events.length > 0 && events.length <= 200
      ? [{ name: `${name}: set by events`, color, kind: 'rings', points: events.map(({ step, lrAfter }) => [step, lrAfter] as const) } as const]
      : []),
  ]);
  const hasRings = series.some(({ kind }) => kind === 'rings');
  const note = hasRings ? 'log axis · ring: the scale that an event set; the line is the rate in force, with its envelope' : 'log axis';
  // The last hundredth of a decay to 0 would take decades of the axis: it runs out of the plot below.
  const yRange = padded(Math.max(ends[0], bulk[0]), ends[1], true);
  const label = 'Learning rate over steps';
  return panel('Learning rate', note, renderPlot({ id: 'rate', label, xLabel: 'step', isYLog: true, yRange, height: 270, series }));
}

/** Events of one run: a strip of weights, factor against step, and the table. */
function eventPanel(run: ColoredRun, x: Scale): string {
  const note = 'strip: weight of each trial, stronger is more; outlined: the lowest loss; ✕: not finite. '
    + 'Table: loss of each trial, shaded by weight; the factor chosen is their weighted geometric mean.';
  return panel(`Scheduling events: ${run.name}`, note, weightStrip(run, x) + eventTable(run.events, run.color));
}

/** Most events in a strip; of more, evenly chosen ones are shown. */
const mostColumns = 240;

function weightStrip(run: ColoredRun, x: Scale): string {
  const every = Math.ceil(run.events.length / mostColumns);
  const events = run.events.filter((_, i) => i % every === 0);
  const factors = [...new Set(events.flatMap((e) => e.factors))].sort((a, b) => b - a);
  const rowHeight = 19;
  const height = frame.top + factors.length * rowHeight + frame.bottom;
  const { px } = plotMap(x, x, height);
  const names = factors.map((f, i) =>
    `<text x="${frame.left - 9}" y="${frame.top + (i + 0.5) * rowHeight}" dy=".34em" text-anchor="end">× ${formatNumber(f)}</text>`);
  const cells = events.map((event, i) => {
    const left = px(event.step);
    const right = i + 1 < events.length ? px(events[i + 1].step) : frame.width - frame.right;
    const width = Math.max(2, Math.min(right - left, 26) - 1.5);
    const best = bestTrial(event.losses);
    return event.factors.map((f, j) => {
      const box = { left, top: frame.top + factors.indexOf(f) * rowHeight, width, height: rowHeight - 2 };
      return stripCell(event, j, j === best, box);
    }).join('');
  });
  const label = 'role="img" aria-label="Weights of the trials over steps"';
  return `<div class="wide"><svg viewBox="0 0 ${frame.width} ${height}" ${label}${colorStyle(run.color)}>`
    + `${names.join('')}${stepAxis(x, 'step', height)}${cells.join('')}</svg></div>`;
}

interface Box {
  left: number;
  top: number;
  width: number;
  height: number;
}

function stripCell(event: ReportEvent, j: number, isBest: boolean, at: Box): string {
  const { left, top, width, height } = at;
  const loss = event.losses[j];
  const weight = event.weights[j] ?? 0;
  const what = `loss ${formatNumber(loss, 5)}, weight ${Math.round(100 * weight)} %`;
  const title = `step ${event.step}, × ${formatNumber(event.factors[j])}: ${what}`;
  const box = `x="${left.toFixed(1)}" y="${top}" width="${width.toFixed(1)}" height="${height}" rx="2"`;
  const heaviest = Math.max(...event.weights, 1e-12);
  const opacity = (0.06 + 0.94 * (weight / heaviest) ** 2).toFixed(2);
  const alive = `<rect class="cell" ${box} fill-opacity="${opacity}"/>${isBest ? `<rect class="best" ${box}/>` : ''}`;
  const middle = `${(left + width / 2).toFixed(1)} ${top + height / 2}`;
  const dead = `<rect class="cell dead" ${box}/><path class="dead-mark" d="M${middle}m-3 -3l6 6m0 -6l-6 6"/>`;
  const body = Number.isFinite(loss) ? alive : dead;
  return `<g>${body}<title>${escapeHtml(title)}</title></g>`;
}
