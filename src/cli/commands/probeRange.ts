/** `forkstep probe range`: losses over learning rates, from where the weights are. */
import { gradientLine, logGrid, rateRange, type RateRange } from '../../probes/index.ts';
import { curveFigure } from '../figure/curve.ts';
import type { FigureText } from '../figure/document.ts';
import { formatLoss, formatNumber } from '../format.ts';
import type { RangeValues } from '../probeOptions.ts';
import { probe } from '../probe/subject.ts';
import { linearScale, logScale } from '../report/scale.ts';

function draw(range: RateRange, text: FigureText): string {
  const { rates, losses, baseLoss, least, breakEven, explodes } = range;
  const low = Math.min(baseLoss, least?.loss ?? baseLoss);
  // The valley in view: what explodes leaves through the top.
  const top = baseLoss + Math.max(1.2 * (baseLoss - low), 0.15 * Math.abs(baseLoss));
  return curveFigure({
    ...text,
    x: logScale(rates[0], rates[rates.length - 1]),
    y: linearScale(low, top, 6),
    xLabel: 'learning rate η',
    yLabel: 'loss after a step of η along the gradient',
    curves: [{ color: 'a', line: 'solid', hasDots: true, name: 'φ(η)', points: rates.map((rate, i) => [rate, losses[i]] as const) }],
    rules: [
      ...(least ? [{ x: least.rate, note: `least at ${formatNumber(least.rate, 3)}: ${formatLoss(least.loss)}` }] : []),
      ...(breakEven === null ? [] : [{ x: breakEven, note: `below the start to ${formatNumber(breakEven, 3)}` }]),
      ...(explodes === null ? [] : [{ x: explodes, note: `explodes at ${formatNumber(explodes, 3)}` }]),
    ],
    level: { y: baseLoss, note: `without a step: ${formatLoss(baseLoss)}` },
  });
}

export const run = (values: RangeValues): Promise<number> =>
  probe('range', values, async ({ options }) => {
    const line = await gradientLine(options);
    const range = await rateRange(line, { rates: logGrid(values.minLr, values.maxLr, values.points) });
    const { least, breakEven, explodes, baseLoss } = range;
    return {
      result: { slope: line.slope, ...range },
      summary: [
        `loss ${formatLoss(baseLoss)} without a step`,
        least ? `least ${formatLoss(least.loss)} at learning rate ${formatNumber(least.rate)}` : 'no rate of the grid lowers it',
        ...(breakEven === null ? [] : [`lower than without a step up to ${formatNumber(breakEven)}`]),
        explodes === null ? 'no rate of the grid explodes' : `explodes at ${formatNumber(explodes)}`,
      ],
      title: 'One step at each learning rate',
      figure: (text) => draw(range, text),
    };
  });
