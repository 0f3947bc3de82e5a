/** How losses along directions are shown: the figure of one direction, and a line of text. */
import type { Slice } from '../../probes/index.ts';
import { curveFigure } from '../figure/curve.ts';
import type { FigureText } from '../figure/document.ts';
import { formatLoss } from '../format.ts';
import { finiteRange, linearScale, logScale } from '../report/scale.ts';

/** @param marks coefficients at which the network has a name */
export function sliceFigure(
  { at, losses }: Slice,
  xLabel: string,
  marks: readonly (readonly [number, string])[],
  text: FigureText,
): string {
  const [low, high] = finiteRange(losses) ?? [0, 1];
  const nearest = (x: number): number => at.reduce((best, value, i) => (Math.abs(value - x) < Math.abs(at[best] - x) ? i : best), 0);
  const inside = marks.filter(([x]) => x >= at[0] && x <= at[at.length - 1]);
  return curveFigure({
    ...text,
    x: linearScale(at[0], at[at.length - 1], 8, { fixed: true }),
    y: low > 0 && high / low > 30 ? logScale(low, high) : linearScale(low, high, 6),
    xLabel,
    yLabel: 'loss',
    curves: [{ color: 'a', line: 'solid', hasDots: at.length <= 60, name: 'loss', points: at.map((x, i) => [x, losses[i]] as const) }],
    rules: inside.map(([x, name]) => ({ x, note: at[nearest(x)] === x ? `${name}: ${formatLoss(losses[nearest(x)])}` : name })),
  });
}

/** For people: between what the losses lie. */
export function lossesText(losses: readonly number[]): string {
  const range = finiteRange(losses);
  return range ? `losses ${range.map(formatLoss).join(' … ')}` : 'no loss is finite';
}
