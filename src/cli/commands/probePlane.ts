/** `forkstep probe plane`: losses over the plane of two random directions. */
import { linearGrid, plane, randomDirections } from '../../probes/index.ts';
import { planeFigure } from '../figure/plane.ts';
import type { PlaneValues } from '../probeOptions.ts';
import { lossesText } from '../probe/sliceFigure.ts';
import { probe } from '../probe/subject.ts';

export const run = (values: PlaneValues): Promise<number> =>
  probe('plane', values, async ({ options }) => {
    const { span, points, directionSeed } = values;
    const [d1, d2] = randomDirections(options.model, { seed: directionSeed, count: 2 });
    const grid = linearGrid(-span, span, points);
    const found = await plane({ ...options, directions: [d1, d2], x: grid, y: grid });
    return {
      result: { directionSeed, ...found },
      summary: [lossesText(found.losses.flat())],
      title: 'The loss over a plane of two random directions',
      figure: (text) =>
        planeFigure({
          ...text,
          x: found.x,
          y: found.y,
          values: found.losses,
          xLabel: `α, of a filter-normalised direction (seed ${directionSeed})`,
          yLabel: 'β, of a second one',
        }),
    };
  });
