/** `forkstep probe interpolate`: losses on the line between two checkpoints. */
import { interpolate, linearGrid } from '../../probes/index.ts';
import { formatLoss } from '../format.ts';
import type { InterpolateValues } from '../probeOptions.ts';
import { sliceFigure } from '../probe/sliceFigure.ts';
import { probe } from '../probe/subject.ts';

export const run = (values: InterpolateValues): Promise<number> =>
  probe('interpolate', values, async ({ options, other }) => {
    const { to, points } = values;
    const found = await interpolate({ ...options, to: other('--to', to), at: linearGrid(0, 1, points) });
    const { losses } = found;
    const ends = [losses[0], losses[losses.length - 1]];
    const barrier = losses.reduce((most, loss) => Math.max(most, loss)) - Math.max(...ends);
    return {
      result: { to, ...found },
      summary: [`losses ${formatLoss(ends[0])} and ${formatLoss(ends[1])} at the ends, at most ${formatLoss(barrier)} more between`],
      title: 'The loss between two checkpoints',
      figure: (text) =>
        sliceFigure(
          found,
          'α, from --checkpoint (0) to --to (1)',
          [
            [0, 'start'],
            [1, 'end'],
          ],
          text,
        ),
    };
  });
