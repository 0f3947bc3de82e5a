/** A plane of losses: a heat map with contour lines and a colour bar. */
import { frame } from '../report/chart.ts';
import { formatNumber } from '../format.ts';
import { escapeHtml } from '../report/html.ts';
import { finiteRange, linearScale, logScale, type Scale } from '../report/scale.ts';
import { contourSegments } from './contours.ts';
import { svgDocument, units, type FigureText } from './document.ts';

export interface PlaneFigure extends FigureText {
  readonly x: readonly number[];
  readonly y: readonly number[];
  /** [y][x] */
  readonly values: readonly (readonly number[])[];
  readonly xLabel: string;
  readonly yLabel: string;
}

const side = 640;
const [left, top] = [frame.left + 40, 8];
const height = top + side + 46;
const bar = { x: left + side + 34, width: 22 };

/** Dark blue through green to yellow: lightness rises evenly, so that it reads in grey too. */
const stops = [
  [52, 18, 88],
  [62, 74, 137],
  [38, 130, 142],
  [75, 183, 117],
  [190, 217, 60],
  [253, 231, 76],
];

/** Colour of a share in 0 … 1. */
function colorAt(share: number): string {
  const at = Math.max(0, Math.min(1, share)) * (stops.length - 1);
  const i = Math.min(stops.length - 2, Math.floor(at));
  const mixed = stops[i].map((from, channel) => Math.round(from + (at - i) * (stops[i + 1][channel] - from)));
  return `#${mixed.map((value) => value.toString(16).padStart(2, '0')).join('')}`;
}

/** A grid step in viewBox units; cells reach half a step to each side of their point. */
const cellSize = (count: number): number => side / count;

function axisTicks(grid: readonly number[], isX: boolean): string {
  const [low, high] = [grid[0], grid[grid.length - 1]];
  const size = cellSize(grid.length);
  const marks = grid.length < 2 ? [{ value: low, label: formatNumber(low) }] : linearScale(low, high, 6, { fixed: true }).ticks;
  return marks
    .map(({ value, label }) => {
      const at = size / 2 + (high > low ? ((value - low) / (high - low)) * (side - size) : 0);
      const text = escapeHtml(label);
      if (!isX) {
        const y = units(top + side - at);
        return `<path class="tick" d="M${left} ${y}h-5"/><text x="${left - 9}" y="${y}" dy=".34em" text-anchor="end">${text}</text>`;
      }
      const x = units(left + at);
      return `<path class="tick" d="M${x} ${top + side}v5"/><text x="${x}" y="${top + side + 18}" text-anchor="middle">${text}</text>`;
    })
    .join('');
}

function drawCells({ x, y, values }: PlaneFigure, share: (value: number) => number): string {
  const [w, h] = [cellSize(x.length), cellSize(y.length)];
  // Half a unit over, against hairlines between the cells.
  const size = `width="${units(w + 0.5)}" height="${units(h + 0.5)}"`;
  const cell = (value: number, column: number, row: number): string => {
    const place = `x="${units(left + column * w)}" y="${units(top + side - (row + 1) * h)}" ${size}`;
    const text = `<title>${formatNumber(x[column])}, ${formatNumber(y[row])}: ${formatNumber(value, 6)}</title>`;
    return Number.isFinite(value)
      ? `<rect ${place} fill="${colorAt(share(value))}">${text}</rect>`
      : `<rect class="hole" ${place}>${text}</rect>`;
  };
  return values.map((line, row) => line.map((value, column) => cell(value, column, row)).join('')).join('');
}

/** Lines that show on the colours of their level. */
const contourClass = (scale: Scale, level: number): string => (scale.at(level) > 0.6 ? 'contour bright' : 'contour');

function drawContours({ x, y, values }: PlaneFigure, scale: Scale): string {
  const [w, h] = [cellSize(x.length), cellSize(y.length)];
  const place = ([column, row]: readonly [number, number]): string =>
    `${units(left + (column + 0.5) * w)} ${units(top + side - (row + 0.5) * h)}`;
  return scale.ticks
    .map(({ value: level }) => {
      const path = contourSegments(values, level).map(([from, to]) => `M${place(from)}L${place(to)}`);
      return path.length === 0 ? '' : `<path class="${contourClass(scale, level)}" d="${path.join('')}"/>`;
    })
    .join('');
}

/** A cross at the origin, where θ is. */
function drawOrigin({ x, y }: PlaneFigure): string {
  const at = (grid: readonly number[]): number => {
    const size = cellSize(grid.length);
    return size / 2 + (-grid[0] / (grid[grid.length - 1] - grid[0])) * (side - size);
  };
  const [across, up] = [at(x), at(y)];
  if (!(across >= 0 && across <= side && up >= 0 && up <= side)) return '';
  const d = `M${units(left + across)} ${units(top + side - up)}m-6 0h12m-6 -6v12`;
  return `<path class="mark under" d="${d}"/><path class="mark" d="${d}"><title>θ</title></path>`;
}

function drawBar(scale: Scale): string {
  const steps = 80;
  const size = side / steps;
  const cells = Array.from({ length: steps }, (_, i) => {
    const y = units(top + side - (i + 1) * size);
    return `<rect x="${bar.x}" y="${y}" width="${bar.width}" height="${units(size + 0.5)}" fill="${colorAt((i + 0.5) / steps)}"/>`;
  });
  const ticks = scale.ticks.map(({ value, label }) => {
    const y = units(top + side - scale.at(value) * side);
    const text = `<text x="${bar.x + bar.width + 8}" y="${y}" dy=".34em">${escapeHtml(label)}</text>`;
    return `<path class="${contourClass(scale, value)}" d="M${bar.x} ${y}h${bar.width}"/>${text}`;
  });
  return `${cells.join('')}${ticks.join('')}<text x="${bar.x}" y="${top - 12}">loss</text>`;
}

/**
 * The figure as an SVG file's text. Colours are logarithmic where the losses are > 0 and span a factor of 4 or more, contour lines stand at
 * the ticks of the colour bar; a loss that is not finite leaves its cell grey.
 */
export function planeFigure(figure: PlaneFigure): string {
  const middle = left + side / 2;
  const name = `transform="translate(${left - 62} ${top + side / 2}) rotate(-90)" text-anchor="middle"`;
  const axes = `<path class="axis" d="M${left} ${top}v${side}h${side}"/>${axisTicks(figure.x, true)}${axisTicks(figure.y, false)}`;
  const names =
    `<text x="${middle}" y="${top + side + 38}" text-anchor="middle">${escapeHtml(figure.xLabel)}</text>` +
    `<text ${name}>${escapeHtml(figure.yLabel)}</text>`;
  return svgDocument(figure, drawMap(figure) + axes + names, height);
}

function drawMap(figure: PlaneFigure): string {
  const range = finiteRange(figure.values.flat());
  if (!range) return drawCells(figure, () => 0);
  const [low, high] = range;
  const scale = low > 0 && high / low >= 4 ? logScale(low, high) : linearScale(low, high, 10, { fixed: true });
  return drawCells(figure, scale.at) + drawContours(figure, scale) + drawOrigin(figure) + drawBar(scale);
}
