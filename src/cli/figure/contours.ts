/** Contour lines of a grid of values. */

/** Points of a grid, by fractional column and row. */
export type GridPoint = readonly [x: number, y: number];

/** Where the level is crossed between two corners: 0 at the first, 1 at the second. */
const crossing = (level: number, from: number, to: number): number => (level - from) / (to - from);

/**
 * Segments of the contour line of a level, by marching squares: a square of four grid points is crossed where the values on two corners
 * of a side lie on two sides of the level, by linear interpolation. Saddles are told apart by the mean of the corners. Squares with a
 * value that is not finite have none.
 * @param values [rows][columns]
 */
export function contourSegments(values: readonly (readonly number[])[], level: number): [GridPoint, GridPoint][] {
  const segments: [GridPoint, GridPoint][] = [];
  for (let row = 0; row + 1 < values.length; row++) {
    for (let column = 0; column + 1 < values[row].length; column++) {
      const corners = [values[row][column], values[row][column + 1], values[row + 1][column + 1], values[row + 1][column]];
      if (!corners.every(Number.isFinite)) continue;
      const places: GridPoint[] = [
        [0, 0],
        [1, 0],
        [1, 1],
        [0, 1],
      ];
      // Sides in order around the square, so that neighbours in this list enclose a corner.
      const crossed = places.flatMap((from, side): GridPoint[] => {
        const [a, b] = [corners[side], corners[(side + 1) % 4]];
        if (a > level === b > level) return [];
        const to = places[(side + 1) % 4];
        const t = crossing(level, a, b);
        return [[column + from[0] + t * (to[0] - from[0]), row + from[1] + t * (to[1] - from[1])]];
      });
      if (crossed.length === 2) segments.push([crossed[0], crossed[1]]);
      if (crossed.length === 4) {
        const isCenterLikeFirst = corners.reduce((sum, value) => sum + value, 0) / 4 > level === corners[0] > level;
        const [a, b, c, d] = crossed;
        // The corners that differ from the centre are cut off: 1 and 3 (between sides 0, 1 and 2, 3), or 0 and 2.
        segments.push(
          ...(isCenterLikeFirst
            ? ([
                [a, b],
                [c, d],
              ] as const)
            : ([
                [d, a],
                [b, c],
              ] as const)
          ).map(([p, q]): [GridPoint, GridPoint] => [p, q]),
        );
      }
    }
  }
  return segments;
}
