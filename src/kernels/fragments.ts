/** What kernel generators write WGSL with. Not among the kernels' exports. */

/** 0 … count − 1. */
export const range = (count: number): number[] => Array.from({ length: count }, (_, i) => i);

/** A line of WGSL for each of 0 … count − 1. */
export const times = (count: number, line: (i: number) => string): string => range(count).map(line).join('\n');

/**
 * WGSL of a tree over the threads of a workgroup: `add` puts what thread + apart has to what `thread` has, apart halving from `from` down to
 * above `to`. `grid` is num_workgroups: its x, never 0, keeps compilers from unrolling the loop, for a software adapter compiles what
 * stands between two barriers as a piece by itself, and more slowly than all the rest of a small kernel.
 */
export const tree = (from: number, to: number, add: string): string => `for (var apart = ${from}u; apart > ${to}u; apart >>= min(grid.x, 1u)) {
    workgroupBarrier();
    if (thread < apart) { ${add} }
  }
  workgroupBarrier();`;
