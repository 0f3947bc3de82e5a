/** What kernel generators write WGSL with. Not among the kernels' exports. */

/** 0 … count − 1. */
export const range = (count: number): number[] => Array.from({ length: count }, (_, i) => i);

/** A line of WGSL for each of 0 … count − 1. */
export const times = (count: number, line: (i: number) => string): string => range(count).map(line).join('\n');
