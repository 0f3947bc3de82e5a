/** `forkstep probe slice`: losses along a random direction. */
import { linearGrid, randomDirections, slice } from '../../probes/index.ts';
import type { SliceValues } from '../probeOptions.ts';
import { lossesText, sliceFigure } from '../probe/sliceFigure.ts';
import { probe } from '../probe/subject.ts';

export const run = (values: SliceValues): Promise<number> =>
  probe('slice', values, async ({ options }) => {
    const { from, to, points, directionSeed } = values;
    const [direction] = randomDirections(options.model, { seed: directionSeed });
    const found = await slice({ ...options, direction, at: linearGrid(from, to, points) });
    return {
      result: { directionSeed, ...found },
      summary: [lossesText(found.losses)],
      title: 'The loss along a random direction',
      figure: (text) => sliceFigure(found, `α, of a filter-normalised direction (seed ${directionSeed})`, [[0, 'the weights']], text),
    };
  });
