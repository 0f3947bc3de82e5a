/** Line charts as inline SVG. Colours come from CSS (`--c` on a run's group), so light and dark need no second drawing. */
import { escapeHtml } from './html.ts';
import type { Scale } from './scale.ts';

/** Plot area inside the 880-wide viewBox, in viewBox units. All charts share left and right, so that steps line up down the page. */
export const frame = { width: 880, left: 68, right: 18, top: 14, bottom: 42 };

/** [step, value]; a value that is not finite is a gap */
export type Point = readonly [number, number];

export interface Line {
  /** CSS class: 'mean', 'raw', 'test' */
  kind: string;
  points: readonly Point[];
}

export interface Dot {
  x: number;
  y: number;
  /** shown on hover, read by screen readers */
  title: string;
}

/** What one run draws in one chart. */
export interface ChartRun {
  color: string;
  lines: Line[];
  dots: Dot[];
  /** steps at which the value was not finite: a cross at the top edge */
  crosses: { x: number; title: string }[];
}

export interface Chart {
  id: string;
  label: string;
  xLabel: string;
  x: Scale;
  y: Scale;
  height: number;
  runs: ChartRun[];
}

export const colorStyle = (color: string): string => ` style="--c:${escapeHtml(color)}"`;
const round = (v: number): string => String(Math.round(v * 10) / 10);

/** Maps data to viewBox units. */
export function plotMap(x: Scale, y: Scale, height: number): { px: (v: number) => number; py: (v: number) => number } {
  const plotWidth = frame.width - frame.left - frame.right;
  const plotHeight = height - frame.top - frame.bottom;
  return { px: (v) => frame.left + x.at(v) * plotWidth, py: (v) => frame.top + (1 - y.at(v)) * plotHeight };
}

/** The step axis under a plot: ticks, labels, name. */
export function stepAxis(x: Scale, xLabel: string, height: number): string {
  const bottom = height - frame.bottom;
  const span = frame.width - frame.left - frame.right;
  const ticks = x.ticks.map(({ value, label }) => {
    const at = round(frame.left + x.at(value) * span);
    return `<path class="tick" d="M${at} ${bottom}v5"/><text x="${at}" y="${bottom + 18}" text-anchor="middle">${escapeHtml(label)}</text>`;
  });
  const name = `<text class="name" x="${frame.left + span / 2}" y="${height - 6}" text-anchor="middle">${escapeHtml(xLabel)}</text>`;
  return `<path class="axis" d="M${frame.left} ${bottom}h${span}"/>${ticks.join('')}${name}`;
}

/** One chart as an svg element. */
export function renderChart(chart: Chart): string {
  const { id, label, x, y, height, runs } = chart;
  const map = plotMap(x, y, height);
  const span = frame.width - frame.left - frame.right;
  const grid = y.ticks.map(({ value, label: text }) => {
    const at = round(map.py(value));
    return `<path class="grid" d="M${frame.left} ${at}h${span}"/>`
      + `<text x="${frame.left - 9}" y="${at}" dy=".34em" text-anchor="end">${escapeHtml(text)}</text>`;
  });
  const area = `x="${frame.left - 4}" y="${frame.top - 4}" width="${span + 8}" height="${height - frame.top - frame.bottom + 8}"`;
  const clip = `<clipPath id="clip-${id}"><rect ${area}/></clipPath>`;
  const perRun = (draw: (run: ChartRun) => string[]): string =>
    runs.map((run) => `<g${colorStyle(run.color)}>${draw(run).join('')}</g>`).join('');
  const lines = perRun((run) => run.lines.map((line) => drawLine(line, map)));
  const dots = perRun((run) => run.dots.map((dot) => drawDot(dot, map)));
  const crosses = perRun((run) => run.crosses.map((cross) => drawCross(cross.x, cross.title, map)));
  return `<div class="wide"><svg viewBox="0 0 ${frame.width} ${height}" role="img" aria-label="${escapeHtml(label)}">${clip}`
    + `${grid.join('')}${stepAxis(x, chart.xLabel, height)}<g clip-path="url(#clip-${id})">${lines}${dots}</g>${crosses}</svg></div>`;
}

type PlotMap = ReturnType<typeof plotMap>;

/** A path over the finite points, broken at the others; a point alone between gaps becomes a dot. */
function drawLine({ kind, points }: Line, { px, py }: PlotMap): string {
  let path = '';
  let alone = '';
  let run: string[] = [];
  const flush = (): void => {
    if (run.length === 1) alone += `<circle class="alone ${kind}" cx="${run[0].replace(' ', '" cy="')}" r="2.6"/>`;
    else if (run.length > 1) path += `M${run.join('L')}`;
    run = [];
  };
  for (const [x, y] of points) {
    const [at, up] = [px(x), py(y)];
    if (Number.isFinite(at) && Number.isFinite(up)) run.push(`${round(at)} ${round(Math.max(-1e4, Math.min(1e4, up)))}`);
    else flush();
  }
  flush();
  return (path === '' ? '' : `<path class="${kind}" d="${path}"/>`) + alone;
}

function drawDot({ x, y, title }: Dot, { px, py }: PlotMap): string {
  if (!Number.isFinite(py(y))) return '';
  return `<circle class="dot" cx="${round(px(x))}" cy="${round(py(y))}" r="3.2"><title>${escapeHtml(title)}</title></circle>`;
}

function drawCross(x: number, title: string, { px }: PlotMap): string {
  const at = round(px(x));
  return `<path class="cross" d="M${at} ${frame.top}m-4 -4l8 8m0 -8l-8 8"><title>${escapeHtml(title)}</title></path>`;
}
