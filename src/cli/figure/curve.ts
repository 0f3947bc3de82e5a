/** A curve of losses over one axis. */
import { frame, plotMap, stepAxis, type Point } from '../report/chart.ts';
import { escapeHtml } from '../report/html.ts';
import type { Scale } from '../report/scale.ts';
import { svgDocument, units, type FigureText } from './document.ts';

export interface Curve {
  /** a, b or c: one of the figure's colours */
  readonly color: 'a' | 'b' | 'c';
  readonly points: readonly Point[];
  /** Line, dashed line, or nothing between the points. */
  readonly line: 'solid' | 'dashed' | 'none';
  readonly hasDots: boolean;
  /** Stands in the legend. */
  readonly name: string;
}

export interface CurveFigure extends FigureText {
  readonly x: Scale;
  readonly y: Scale;
  readonly xLabel: string;
  readonly yLabel: string;
  readonly curves: readonly Curve[];
  /** Vertical lines with a note. */
  readonly rules: readonly { readonly x: number; readonly note: string }[];
  /** A horizontal line with a note. */
  readonly level?: { readonly y: number; readonly note: string };
}

const height = 420;
const [left, right] = [frame.left, frame.width - frame.right];
const [top, bottom] = [frame.top, height - frame.bottom];

type PlotMap = ReturnType<typeof plotMap>;

function drawCurve({ color, points, line, hasDots }: Curve, { px, py }: PlotMap): string {
  const far = (v: number): number => Math.max(-1e4, Math.min(1e4, v));
  const stretches: string[][] = [[]];
  for (const [x, y] of points) {
    if (Number.isFinite(py(y))) stretches[stretches.length - 1].push(`${units(px(x))} ${units(far(py(y)))}`);
    else stretches.push([]);
  }
  const kind = line === 'dashed' ? 'curve dashed' : 'curve';
  const paths = stretches.filter(({ length }) => length > 1).map((at) => `<path class="${kind}" d="M${at.join('L')}"/>`);
  const dots = points
    .filter(([, y]) => Number.isFinite(py(y)))
    .map(([x, y]) => {
      const text = `<title>${x}: ${y}</title>`;
      return `<circle class="dot" cx="${units(px(x))}" cy="${units(far(py(y)))}" r="3.4">${text}</circle>`;
    });
  return `<g style="stroke:var(--${color})">${line === 'none' ? '' : paths.join('')}${hasDots ? dots.join('') : ''}</g>`;
}

const hasCross = ([, y]: Point): boolean => !Number.isFinite(y);

/** Crosses at the top edge for losses that are NaN or infinite. */
const drawCrosses = ({ points }: Curve, { px }: PlotMap): string =>
  points
    .filter(hasCross)
    .map(([x]) => `<path class="cross" d="M${units(px(x))} ${top + 6}m-4 -4l8 8m0 -8l-8 8"><title>${x}: not finite</title></path>`)
    .join('');

/** Vertical lines with their notes, the first below `from`, each a line lower than the one before, so that none covers another. */
function drawRules(rules: CurveFigure['rules'], from: number, { px }: PlotMap): string {
  const lines = rules.map(({ x }) => `<path class="rule" d="M${units(px(x))} ${top}V${bottom}"/>`);
  const notes = rules.map(({ x, note }, i) => {
    const isRight = px(x) > (left + right) / 2;
    const anchor = `x="${units(px(x) + (isRight ? -7 : 7))}" y="${from + 16 + 19 * i}" text-anchor="${isRight ? 'end' : 'start'}"`;
    return `<text class="note" ${anchor}>${escapeHtml(note)}</text>`;
  });
  return [...lines, ...notes].join('');
}

/** Under the notes, which begin below `from`, in the right half. */
function drawLegend(curves: readonly Curve[], notes: number, from: number): string {
  if (curves.length < 2) return '';
  const x = (left + right) / 2 + 8;
  const entry = ({ color, line, hasDots, name }: Curve, i: number): string => {
    const y = from + 12 + 20 * (notes + i);
    const dash = line === 'none' ? '' : `<path class="curve${line === 'dashed' ? ' dashed' : ''}" d="M${x} ${y}h26"/>`;
    const dot = hasDots ? `<circle class="dot" cx="${x + 13}" cy="${y}" r="3.4"/>` : '';
    const text = `<text class="note" x="${x + 34}" y="${y}" dy=".34em">${escapeHtml(name)}</text>`;
    return `<g style="stroke:var(--${color})">${dash}${dot}</g>${text}`;
  };
  return curves.map(entry).join('');
}

/** The figure as an SVG file's text. */
export function curveFigure(figure: CurveFigure): string {
  const { x, y, xLabel, yLabel, curves, rules, level } = figure;
  const map = plotMap(x, y, height);
  const textTop = curves.some(({ points }) => points.some(hasCross)) ? top + 10 : top;
  const grid = y.ticks.map(({ value, label }) => {
    const at = units(map.py(value));
    const squeezed = label.length > 7 ? ` textLength="${left - 12}" lengthAdjust="spacingAndGlyphs"` : '';
    const text = `<text x="${left - 9}" y="${at}" dy=".34em" text-anchor="end"${squeezed}>${escapeHtml(label)}</text>`;
    return `<path class="grid" d="M${left} ${at}H${right}"/>${text}`;
  });
  const area = `x="${left - 5}" y="${top - 5}" width="${right - left + 10}" height="${bottom - top + 10}"`;
  const levelLine = level
    ? `<path class="rule" d="M${left} ${units(map.py(level.y))}H${right}"/>` +
      `<text class="note" x="${left + 8}" y="${units(map.py(level.y) - 7)}">${escapeHtml(level.note)}</text>`
    : '';
  const body = [
    `<clipPath id="plot"><rect ${area}/></clipPath><text x="20" y="0">${escapeHtml(yLabel)}</text>`,
    ...grid,
    stepAxis(x, xLabel, height),
    drawRules(rules, textTop, map),
    `<g clip-path="url(#plot)">${curves.map((curve) => drawCurve(curve, map)).join('')}</g>`,
    levelLine,
    ...curves.map((curve) => drawCrosses(curve, map)),
    drawLegend(curves, rules.length, textTop),
  ];
  return svgDocument(figure, body.join(''), height);
}
