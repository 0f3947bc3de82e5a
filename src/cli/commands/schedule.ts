/** `forkstep schedule`: the curve of a schedule, before a run is spent on it. */
import { dirname } from 'node:path';
import { columns } from '../args.ts';
import { curveFigure } from '../figure/curve.ts';
import { formatNumber } from '../format.ts';
import { finiteRange, linearScale } from '../report/scale.ts';
import { writeWhole } from '../../train/files.node.ts';
import { makeOutputFolder } from '../run/setup.ts';
import { curveOf, type ScheduleName, type ScheduleValues } from '../scheduleOptions.ts';

/** Steps whose rates are printed, at most. */
const mostRows = 21;

function draw(name: string, lrs: readonly number[], unit: string): string {
  const [low, high] = finiteRange(lrs)!;
  return curveFigure({
    title: name,
    subtitle: `${lrs.length} ${unit}s, learning rates ${formatNumber(low)} to ${formatNumber(high)}`,
    x: linearScale(0, Math.max(1, lrs.length - 1), 8, { fixed: true, minStep: 1 }),
    y: linearScale(Math.min(0, low), high, 6),
    xLabel: unit,
    yLabel: `learning rate in force during the ${unit}`,
    curves: [{ color: 'a', line: 'solid', hasDots: lrs.length <= 60, name, points: lrs.map((lr, step) => [step, lr] as const) }],
    rules: [],
  });
}

export async function run(values: ScheduleValues, name: ScheduleName): Promise<number> {
  const lrs = curveOf(name, values);
  const unit = name === 'reduceLROnPlateau' ? 'epoch' : 'step';
  if (values.svg !== undefined) {
    makeOutputFolder(dirname(values.svg), '--svg');
    writeWhole(values.svg, draw(name, lrs, unit));
  }
  if (values.json) {
    process.stdout.write(`${JSON.stringify({ name, lr: lrs })}\n`);
    return 0;
  }
  const rows = Math.min(mostRows, lrs.length);
  const at = Array.from({ length: rows }, (_, i) => Math.round((i * (lrs.length - 1)) / Math.max(1, rows - 1)));
  const table = at.map((step): [string, string] => [String(step), formatNumber(lrs[step], 6)]);
  process.stdout.write(columns([[unit, 'learning rate'], ...table], 8));
  if (values.svg !== undefined) process.stderr.write(`figure: ${values.svg}\n`);
  return 0;
}
