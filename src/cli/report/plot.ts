/** Plots of a page: their data as JSON in the page, drawn there by the script of plots.client.ts. */
import { escapeHtml } from './html.ts';

/** [x, y], and where y is a mean, its standard deviation. A value that is not finite is a gap. */
export type PlotPoint = readonly [x: number, y: number | null, sd?: number];

export interface PlotSeries {
  readonly name: string;
  /** A CSS colour, or `var(--name)` of the page's style. */
  readonly color: string;
  /** faint: what a line is the mean of; rings: points alone. */
  readonly kind: 'line' | 'faint' | 'dashed' | 'dotted' | 'rings';
  /** x rising, each once. */
  readonly points: readonly PlotPoint[];
  /** A ring at each point of a line. */
  readonly hasRings?: boolean;
}

/** A cross at the top edge: from there on the value is not finite. */
export interface PlotCross {
  readonly x: number;
  readonly color: string;
}

export interface Plot {
  /** One in the page. */
  readonly id: string;
  /** What screen readers say of it. */
  readonly label: string;
  readonly xLabel: string;
  readonly isXLog?: boolean;
  readonly isYLog?: boolean;
  /** Ends of the y axis; else the data's. */
  readonly yRange?: readonly [number, number];
  /** After each value of the y axis. */
  readonly yUnit?: string;
  /** CSS pixels. */
  readonly height: number;
  readonly series: readonly PlotSeries[];
  readonly crosses?: readonly PlotCross[];
}

/** JSON that is safe within a script element, whatever the names in it. */
const embedded = (value: unknown): string => JSON.stringify(value).replaceAll('<', '\\u003c');

/** Five significant digits: more than a screen shows. */
const short = (value: number | null): number | null => (value === null || !Number.isFinite(value) ? null : Number(value.toPrecision(5)));

/** The place of a plot, with its data. */
export function renderPlot(plot: Plot): string {
  const series = plot.series.map((one) => ({
    ...one,
    points: one.points.map(([x, y, sd]) => (sd === undefined ? [x, short(y)] : [x, short(y), short(sd)])),
  }));
  return `<div class="plot" id="plot-${escapeHtml(plot.id)}" role="img" aria-label="${escapeHtml(plot.label)}" style="min-height:${plot.height}px">`
    + `<script type="application/json">${embedded({ ...plot, series })}</script></div>`;
}
