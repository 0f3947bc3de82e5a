/** What a convolution is to its kernels, in numbers: whatever decides how it is launched, and the ways to launch it. */
import type { ConvInput } from '../../kernels/convInput.ts';
import type { GradientEpilogue } from '../../kernels/epilogue.ts';
import { tileName, type Tile } from '../../kernels/igemm.ts';
import { laneRows } from '../../kernels/igemmLanes.ts';
import { linesPerPanel } from '../../kernels/igemmPanel.ts';
import { KernelError } from '../../gpu/errors.ts';
import { leastChunkRows } from '../opShapes.ts';
import { sumRows } from '../../kernels/reduce.ts';

export type ConvKind = 'forward' | 'backwardInput' | 'backwardWeight';

/**
 * A matrix product is a 1 × 1 convolution of 1 × 1 images. Sizes are the layer's, whichever of the three is computed; channels are not
 * padded.
 */
export interface ConvProblem {
  readonly kind: ConvKind;
  readonly images: number;
  readonly h: number;
  readonly w: number;
  readonly cin: number;
  readonly hOut: number;
  readonly wOut: number;
  readonly cout: number;
  readonly kH: number;
  readonly kW: number;
  readonly stride: number;
  readonly padding: number;
  /** Activations are f16. */
  readonly isHalf: boolean;
  /** Trials of this launch. */
  readonly trials: number;
  /** Trials in all passes of the event: the order of a sum goes by these, so that it does not tell how trials are cut into passes. */
  readonly eventTrials: number;
  /** x is one for all trials. */
  readonly isXShared: boolean;
  /** The weight that is bound is one for all trials: there are none, or the kernel forms theirs. */
  readonly isWeightShared: boolean;
  /** Directions of which the kernel forms the trials' weights; 0 where it reads them. */
  readonly directions: number;
  /** Trials scale the weight too. */
  readonly scaled: boolean;
  /** What is done to x while it is loaded, and whether that is one for all trials. */
  readonly input: ConvInput;
  readonly isAffineShared: boolean;
  /** What is done with the output beside storing it; null for nothing. */
  readonly after: ConvAfter | null;
}

export type ConvAfter =
  /** Moments of each channel. */
  | { readonly by: 'moments' }
  /** A weight's gradient becomes the direction of SGD. */
  | { readonly by: 'direction' }
  /** A gradient is added, a mask applied, and sums for the norm's gradient taken; see `GradientEpilogue`. */
  | ({ readonly by: 'gradient' } & GradientEpilogue);

/** How rows are cut into chunks, each with a pair of sums. */
export interface Chunks {
  readonly rowsPerChunk: number;
  readonly chunks: number;
}

/**
 * How it is computed, with K cut into `splits` parts that are added in order afterwards:
 *   tile   by tiles through workgroup memory
 *   lanes  by subgroups of `lanes` without workgroup memory (software adapters)
 *   panel  likewise, a panel of the weight kept for up to `mostTiles` tiles of rows, as long as there are `leastGroups` workgroups
 */
export type ConvChoice =
  | { readonly by: 'tile'; readonly tile: Tile; readonly splits: number }
  | { readonly by: 'lanes'; readonly lanes: number; readonly splits: number }
  | { readonly by: 'panel'; readonly lanes: number; readonly splits: number; readonly mostTiles: number; readonly leastGroups: number };

/** What a pass decides: how many trials it has, and with that whether its operands have a trial axis. */
const ofPass: readonly (keyof ConvProblem)[] = ['trials', 'isXShared', 'isWeightShared', 'isAffineShared'];

/** All that a problem says but what differs from pass to pass of an event: one name, one choice. */
export const problemName = (problem: ConvProblem): string =>
  Object.entries(problem)
    .filter(([name]) => !(ofPass as readonly string[]).includes(name))
    .map(([name, value]) => `${name}=${typeof value === 'string' ? value : JSON.stringify(value)}`)
    .sort()
    .join(' ');

/** One name a choice. */
export function choiceName(choice: ConvChoice): string {
  const splits = `${choice.splits === 1 ? '' : `, K in ${choice.splits}`}`;
  if (choice.by === 'tile') return `tile ${tileName(choice.tile)}${splits}`;
  if (choice.by === 'lanes') return `lanes ${choice.lanes}${splits}`;
  return `panel ${choice.lanes}, ≤ ${choice.mostTiles} tiles, ≥ ${choice.leastGroups} groups${splits}`;
}

export const ceilDivide = (a: number, b: number): number => Math.ceil(a / b);
/** vec4s of a row of `n`. */
export const vec4s = (n: number): number => ceilDivide(n, 4);

/** The matrix product out[m, n] = Σ_k A[m, k] · B[k, n] of a problem, channels padded; `classes` of them, one a parity class of pixels. */
export function matrixOf(p: ConvProblem): { m: number; n: number; k: number; classes: number } {
  const [cin, cout] = [vec4s(p.cin) * 4, vec4s(p.cout) * 4];
  if (p.kind === 'forward') return { m: p.images * p.hOut * p.wOut, n: cout, k: p.kH * p.kW * cin, classes: 1 };
  if (p.kind === 'backwardWeight') return { m: p.kH * p.kW * cin, n: cout, k: p.images * p.hOut * p.wOut, classes: 1 };
  const m = p.images * ceilDivide(p.h, p.stride) * ceilDivide(p.w, p.stride);
  return { m, n: cin, k: ceilDivide(p.kH, p.stride) * ceilDivide(p.kW, p.stride) * cout, classes: p.stride ** 2 };
}

/** Whether the image keeps its size at stride 1, so that neighbouring pixels lie next to each other for every tap. */
export const keepsSize = ({ stride, h, w, hOut, wOut }: ConvProblem): boolean => stride === 1 && h === hOut && w === wOut;

/** The sum as panels see it: the input gradient is a convolution of dy, with taps and channels the other way round. */
export const panelChannels = ({ kind, cin, cout }: ConvProblem): { cin: number; cout: number } =>
  kind === 'forward' ? { cin, cout } : { cin: cout, cout: cin };

/** Rows of taps times vec4s of channels: what panels cut K into. */
export const panelLines = (p: ConvProblem): number => p.kH * vec4s(panelChannels(p).cin);

/** Parts that K is cut into in fact: panels have none without lines. */
export function splitsOf(p: ConvProblem, choice: ConvChoice): number {
  if (choice.by !== 'panel') return choice.splits;
  const lines = panelLines(p);
  return ceilDivide(lines, ceilDivide(lines, choice.splits));
}

/** Whether results are added up from partial ones: of parts of K, or of panels that go on with sums, which would else be rounded in between. */
export function hasPartials(p: ConvProblem, choice: ConvChoice): boolean {
  const splits = splitsOf(p, choice);
  if (splits > 1 || choice.by !== 'panel') return splits > 1;
  return p.isHalf && panelLines(p) > linesPerPanel(choice.lanes, p.kW, p.input !== 'plain');
}

/** Rows of the blocks that the workgroups of a choice compute. */
export const blockRows = (choice: ConvChoice): number => (choice.by === 'tile' ? choice.tile.m : choice.lanes * laneRows);

/** How the rows of the output are cut into chunks by an epilogue with sums. */
export function chunksOfChoice(p: ConvProblem, choice: ConvChoice): Chunks {
  const { m, classes } = matrixOf(p);
  if (!hasPartials(p, choice) && blockRows(choice) < leastChunkRows) {
    const fix = 'use larger tiles, or leave out the fusions convMoments and gradientSums';
    throw new KernelError({ op: 'conv2d', arg: 'tile.m', rule: `must be ≥ ${leastChunkRows} where rows are summed by blocks`, got: blockRows(choice), fix });
  }
  if (!hasPartials(p, choice)) return { rowsPerChunk: blockRows(choice), chunks: classes * ceilDivide(m, blockRows(choice)) };
  const rows = p.kind === 'forward' ? m : p.images * p.h * p.w;
  return { rowsPerChunk: sumRows, chunks: ceilDivide(rows, sumRows) };
}
