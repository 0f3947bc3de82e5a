import { fusions, type Fusion } from '../../src/graph/fuse/index.ts';

/** All fusions but the one that rounds otherwise than copies of the weights do: under these, trials have the bits of copies. */
export const likeCopies: readonly Fusion[] = fusions.filter((fusion) => fusion !== 'sharedInput');
