/** Dot products of what lies in memory, on the GPU: the launches of src/kernels/dot.ts, and the room that they need. */
import { grid1d, type Launch } from '../kernels/contract.ts';
import { dotChunk, dotFinish, dotPartials } from '../kernels/dot.ts';
import { emit, type Ref } from './lower/context.ts';
import type { Arena, Memory, MemoryCategory } from './memory.ts';
import type { Storage } from './tensor.ts';

/**
 * result[k] = x_k · y_k over all that two arenas hold, f32 one after the other, for any number of pairs. Arenas of equal sizes and
 * order, with zeros in their gaps, as `Arena` makes them for parameters, gradients and momentum.
 * @param kernel `distancePartials` for ‖x_k − y_k‖² instead
 * @param category what the partial sums' memory counts as: an f32 for every 64 KiB of a pair
 * @numerics f32 sums in a fixed order: bitwise repeatable on one adapter
 */
export function dotLaunches(
  memory: Memory,
  category: MemoryCategory,
  pairs: readonly (readonly [Arena, Arena])[],
  result: Storage,
  kernel: typeof dotPartials = dotPartials,
): Launch<Ref>[] {
  const chunksOf = ({ size }: Storage): number => Math.ceil(size / 16 / dotChunk);
  const count = pairs[0][0].segments.reduce((sum, segment) => sum + chunksOf(segment), 0);
  const partials = memory.storage(category, 'partial dot products', pairs.length * count * 4);
  let first = 0;
  const products = pairs.flatMap(([{ segments }, other]) =>
    segments.map((x, i) => {
      const chunks = chunksOf(x);
      const uniforms = { n: x.size / 16, chunks, first };
      first += chunks;
      return emit(kernel, { bindings: { x, y: other.segments[i], partials }, uniforms, grid: grid1d(chunks, 1) });
    }),
  );
  return [...products, emit(dotFinish, { bindings: { partials, result }, uniforms: { count }, grid: [pairs.length, 1, 1] })];
}
