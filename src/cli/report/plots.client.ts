/** Runs in the page: draws every plot from the JSON that lies in it, and again when the width or the colour scheme changes. */
import uPlot from 'uplot';
import { formatNumber } from '../format.ts';
import type { Plot, PlotSeries } from './plot.ts';

/** What a canvas can use of a colour: `var(--name)` is looked up in the page's style. */
function cssColor(color: string): string {
  const name = /^var\((--[\w-]+)\)$/.exec(color)?.[1];
  return name ? getComputedStyle(document.documentElement).getPropertyValue(name).trim() : color;
}

const dashes: Record<PlotSeries['kind'], number[]> = { line: [], faint: [], dashed: [9, 5], dotted: [2, 4], rings: [] };
const widths: Record<PlotSeries['kind'], number> = { line: 2, faint: 1, dashed: 2, dotted: 1.6, rings: 0 };

function seriesOf({ name, color, kind, hasRings, points }: PlotSeries): uPlot.Series {
  const stroke = cssColor(color);
  // A point alone has no line.
  const showsRings = kind === 'rings' || hasRings === true || points.length === 1;
  return {
    label: name,
    stroke,
    width: widths[kind],
    dash: dashes[kind],
    alpha: kind === 'faint' ? 0.25 : 1,
    ...(kind === 'rings' ? { paths: () => null } : {}),
    points: { show: showsRings, size: 7, stroke, fill: cssColor('var(--panel)') },
    value: (_, value) => (value === null || value === undefined ? '–' : formatNumber(value)),
  };
}

/** Standard deviations as bars, and crosses where a value is no longer finite. */
function drawMarks(plot: Plot): (chart: uPlot) => void {
  return (chart) => {
    const { ctx, bbox } = chart;
    const ratio = devicePixelRatio;
    ctx.save();
    ctx.beginPath();
    ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
    ctx.clip();
    ctx.lineWidth = 1.4 * ratio;
    for (const [i, { color, points }] of plot.series.entries()) {
      if (!chart.series[i + 1].show) continue;
      ctx.strokeStyle = cssColor(color);
      for (const [x, y, sd] of points) {
        if (y === null || !sd) continue;
        const at = chart.valToPos(x, 'x', true);
        ctx.beginPath();
        ctx.moveTo(at, chart.valToPos(y - sd, 'y', true));
        ctx.lineTo(at, chart.valToPos(y + sd, 'y', true));
        ctx.stroke();
      }
    }
    ctx.lineWidth = 2.2 * ratio;
    for (const { x, color } of plot.crosses ?? []) {
      const [at, top, arm] = [chart.valToPos(x, 'x', true), bbox.top + 6 * ratio, 4 * ratio];
      ctx.strokeStyle = cssColor(color);
      ctx.beginPath();
      for (const sign of [-1, 1]) {
        ctx.moveTo(at - arm, top - sign * arm);
        ctx.lineTo(at + arm, top + sign * arm);
      }
      ctx.stroke();
    }
    ctx.restore();
  };
}

/** Steps and epochs have no parts: distances of ticks are 1, 2 or 5 times a power of ten. */
const wholes = Array.from({ length: 24 }, (_, i) => [1, 2, 5][i % 3] * 10 ** Math.floor(i / 3));

/** Whether a tick of a log axis bears its number: the axis begins anywhere. */
const isRound = (value: number): boolean => [1, 2, 5, 10].some((digit) => Math.abs(value / 10 ** Math.floor(Math.log10(value)) - digit) < 1e-6);

function optionsOf(plot: Plot, width: number): uPlot.Options {
  const font = `12px ${getComputedStyle(document.body).fontFamily}`;
  const show = (unit: string, isLog = false) => (_: uPlot, splits: (number | null)[]) =>
    splits.map((value) => (value === null || (isLog && !isRound(value)) ? '' : `${formatNumber(value)}${unit}`));
  const [soft, grid, line] = ['--soft', '--grid', '--line'].map((name) => cssColor(`var(${name})`));
  const axis = { stroke: soft, font, grid: { stroke: grid, width: 1 }, ticks: { stroke: line, width: 1 } };
  const dashOf = (i: number) => plot.series[i - 1]?.kind;
  const { isXLog, isYLog, yRange, yUnit = '' } = plot;
  return {
    width,
    height: plot.height,
    scales: {
      x: { time: false, distr: isXLog ? 3 : 1 },
      y: { distr: isYLog ? 3 : 1, ...(yRange ? { range: () => [yRange[0], yRange[1]] as [number, number] } : {}) },
    },
    axes: [
      { ...axis, label: plot.xLabel, labelFont: font, labelSize: 20, values: show('', isXLog), ...(isXLog ? {} : { incrs: wholes }) },
      { ...axis, size: 62, values: show(yUnit, isYLog) },
    ],
    series: [
      { label: plot.xLabel, value: (_, value) => (value === null || value === undefined ? '–' : formatNumber(value, 6)) },
      ...plot.series.map(seriesOf),
    ],
    legend: { markers: { dash: (_, i) => (dashOf(i) === 'dashed' || dashOf(i) === 'dotted' ? dashOf(i)! : 'solid') } },
    focus: { alpha: 0.3 },
    cursor: { focus: { prox: 24 }, y: false },
    hooks: { draw: [drawMarks(plot)] },
  };
}

function draw(host: HTMLElement, plot: Plot): uPlot {
  const tables = plot.series.map(({ points }): uPlot.AlignedData => [
    points.map(([x]) => x),
    // A logarithm has no place for 0: the line runs out of the plot there.
    points.map(([, y]) => (plot.isYLog && y !== null && y <= 0 ? null : y)),
  ]);
  return new uPlot(optionsOf(plot, host.clientWidth), uPlot.join(tables), host);
}

for (const host of document.querySelectorAll<HTMLElement>('.plot')) {
  const plot = JSON.parse(host.querySelector('script')!.textContent!) as Plot;
  let chart = draw(host, plot);
  new ResizeObserver(() => chart.setSize({ width: host.clientWidth, height: plot.height })).observe(host);
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => {
    chart.destroy();
    chart = draw(host, plot);
  });
}
