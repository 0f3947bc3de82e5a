/** `forkstep probe slice`: losses along a random direction. */
import { linearGrid, randomDirections, slice } from '../../probes/index.ts';
import { formatLoss } from '../format.ts';
import type { SliceValues } from '../probeOptions.ts';
import { sliceFigure } from '../probe/sliceFigure.ts';
import { probe } from '../probe/subject.ts';

export const run = (values: SliceValues): Promise<number> =>
  probe('slice', values, async ({ options }) => {
    const { from, to, points, directionSeed } = values;
    const [direction] = randomDirections(options.model, { seed: directionSeed });
    const found = await slice({ ...options, direction, at: linearGrid(from, to, points) });
    const finite = found.losses.filter(Number.isFinite);
    return {
      result: { directionSeed, ...found },
      summary: [finite.length > 0 ? `losses ${formatLoss(Math.min(...finite))} … ${formatLoss(Math.max(...finite))}` : 'no loss is finite'],
      title: 'The loss along a random direction',
      figure: (text) => sliceFigure(found, `α, of a filter-normalised direction (seed ${directionSeed})`, [[0, 'the weights']], text),
    };
  });
