/** `forkstep probe curvature`: the curvature along the gradient beside 2/η. */
import { curvature, gradientLine, linearGrid, type Curvature } from '../../probes/index.ts';
import { curveFigure } from '../figure/curve.ts';
import type { FigureText } from '../figure/document.ts';
import { formatLoss, formatNumber } from '../format.ts';
import type { CurvatureValues } from '../probeOptions.ts';
import { probe } from '../probe/subject.ts';
import { finiteRange, linearScale } from '../report/scale.ts';

/** The losses with their tangent taken away: the straight part would hide the curve. */
function draw({ steps, losses, fit, slope, curvature: along, limit, ratio }: Curvature, text: FigureText): string {
  const reach = steps[steps.length - 1];
  const base = losses[(losses.length - 1) / 2];
  const above = (step: number, loss: number) => [step, loss - base - slope * step] as const;
  const parabola = linearGrid(-reach, reach, 81).map((c) => above(c, fit.value + fit.slope * c + (fit.secondDerivative * c * c) / 2));
  const measured = steps.map((step, i) => above(step, losses[i]));
  const [low, high] = finiteRange([0, ...[...parabola, ...measured].map(([, height]) => height)])!;
  return curveFigure({
    ...text,
    x: linearScale(-reach, reach, 8, { fixed: true }),
    y: linearScale(low, high, 6),
    xLabel: 'step η along the gradient',
    yLabel: `loss above its tangent, φ(η) − φ(0) − η·φ'(0), φ'(0) = ${formatNumber(slope)}`,
    curves: [
      { color: 'c', line: 'solid', hasDots: false, name: `parabola, curvature ${formatNumber(along, 3)}`, points: parabola },
      { color: 'a', line: 'none', hasDots: true, name: 'losses', points: measured },
    ],
    rules: [{ x: 0, note: `2/η = ${formatNumber(limit, 3)}; curvature / (2/η) = ${formatNumber(ratio, 3)}` }],
  });
}

export const run = (values: CurvatureValues): Promise<number> =>
  probe('curvature', values, async ({ options }) => {
    const { lr, span, points } = values;
    const found = await curvature(await gradientLine(options), { lr, span, points });
    const { fit, slope, breakEven } = found;
    return {
      result: found,
      summary: [
        `loss ${formatLoss(fit.value)}, slope ${formatNumber(slope)} (fitted ${formatNumber(fit.slope)})`,
        `curvature ${formatNumber(found.curvature)} along the gradient, 2/η ${formatNumber(found.limit)}, ratio ${formatNumber(found.ratio)}`,
        breakEven === null ? 'the loss curves downwards' : `a step of ${formatNumber(breakEven)} would end as high as it began`,
      ],
      title: 'Curvature along the gradient',
      figure: (text) => draw(found, text),
    };
  });
