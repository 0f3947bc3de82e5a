/** Lowering of the convolutions: geometry, choice of tile, split of K. */
import { grid1d, type Launch } from '../../kernels/contract.ts';
import { conv2dBackwardInput, conv2dBackwardWeight, conv2dForward, igemmGrid, maxDirections } from '../../kernels/conv2d.ts';
import { conv2dBackwardInputLanes, conv2dBackwardWeightLanes, conv2dPanel, type PanelVariant } from '../../kernels/conv2dLanes.ts';
import { threadsOf, workgroupBytesOf, type Tile } from '../../kernels/igemm.ts';
import { isLaneCount, laneColumns, laneRows } from '../../kernels/igemmLanes.ts';
import { fetchRounds, mostTaps } from '../../kernels/igemmPanel.ts';
import { sumPartials } from '../../kernels/reduce.ts';
import { blockVec4s, rowVec4s, type Node, type Shape, type Tensor } from '../tensor.ts';
import { emit, Scratch, trialStride, type LowerContext, type LowerRule, type Ref } from './context.ts';

interface Geometry {
  images: number;
  h: number;
  w: number;
  cin: number;
  cin4: number;
  hOut: number;
  wOut: number;
  cout4: number;
  kH: number;
  kW: number;
}

/** The sizes of a convolution; a matrix product is a 1 × 1 convolution of 1 × 1 images. */
function geometry(x: Shape, weight: Shape, y: Shape): Geometry {
  const cin = x[x.length - 1];
  const cin4 = rowVec4s(x);
  const cout4 = rowVec4s(y);
  if (x.length === 2) return { images: x[0], h: 1, w: 1, cin, cin4, hOut: 1, wOut: 1, cout4, kH: 1, kW: 1 };
  return { images: x[0], h: x[1], w: x[2], cin, cin4, hOut: y[1], wOut: y[2], cout4, kH: weight[0], kW: weight[1] };
}

/** Uniforms that every convolution kernel has. */
const windowUniforms = (g: Geometry, { stride, padding }: { stride: number; padding: number }) => ({
  h: g.h,
  w: g.w,
  cin: g.cin,
  cin4: g.cin4,
  h_out: g.hOut,
  w_out: g.wOut,
  cout4: g.cout4,
  k_w: g.kW,
  stride,
  padding,
});

const ceilDivide = (a: number, b: number): number => Math.ceil(a / b);

/** Multiply-adds spent outside the matrix cost time too; a larger tile moves fewer bytes a multiply-add. */
function tileCost(tile: Tile, m: number, n: number, k: number): number {
  const work = ceilDivide(m, tile.m) * tile.m * ceilDivide(n, tile.n) * tile.n * ceilDivide(k, tile.k) * tile.k;
  return work * (1 + 4 / tile.m + 4 / tile.n);
}

export function chooseTile(tiles: readonly Tile[], m: number, n: number, k: number): Tile {
  return tiles.reduce((best, tile) => (tileCost(tile, m, n, k) < tileCost(best, m, n, k) ? tile : best));
}

/** The block that a workgroup computes: the lanes' fixed one, or the best of the tiles. */
function tileFor({ lanes, tiles }: LowerContext, m: number, n: number, k: number): Tile {
  return lanes ? { m: lanes * laneRows, n: laneColumns, k: 4 } : chooseTile(tiles, m, n, k);
}

/** The shortest part of K that is worth a workgroup of its own, in tiles: a step of lanes is a short one. */
const shortestSplit = ({ lanes }: LowerContext, tiles: number): number => (lanes ? 32 : tiles);

/** How often K is cut so that `wantedWorkgroups` have work, each with at least `leastTiles` tiles of K. */
export function chooseSplits(workgroups: number, kTiles: number, wantedWorkgroups: number, leastTiles: number): number {
  const wanted = ceilDivide(wantedWorkgroups, workgroups);
  return Math.max(1, Math.min(wanted, Math.floor(kTiles / leastTiles), 256));
}

/** A direct launch, or partial results and their sum. `n` counts the vec4s of one result. */
function withSplits(splits: number, n: number, output: Ref, trials: number, main: (out: Ref) => Launch<Ref>): Launch<Ref>[] {
  if (splits === 1) return [main(output)];
  const partials = new Scratch(trials * splits * n * 16);
  return [main(partials), emit(sumPartials, { bindings: { partials, y: output }, uniforms: { n, splits }, grid: grid1d(n, 64, trials) })];
}

export interface Perturbation {
  readonly base: Tensor;
  readonly directions: readonly Tensor[];
  readonly coefficients: Tensor;
  readonly scaled: boolean;
}

/** What a perturbed parameter is made of, when it has as few directions as a kernel can form itself. */
export function perturbation(weight: Tensor): Perturbation | null {
  if (weight.node.op !== 'perturbed' || weight.node.inputs.length - 2 > maxDirections) return null;
  const { inputs, attrs } = weight.node as Node<'perturbed'>;
  return { base: inputs[0], directions: inputs.slice(1, -1), coefficients: inputs[inputs.length - 1], scaled: attrs.scaled };
}

/** Tiles of rows that share a panel of the weight; fewer where more would leave cores idle. */
const mostTilesPerGroup = 16;

interface PanelLaunch {
  readonly lanes: number;
  readonly wantedWorkgroups: number;
  /** Sizes of the sum: of x and y, or dy and dx. */
  readonly g: Geometry;
  /** Columns. */
  readonly cout: number;
  readonly stride: number;
  readonly padding: number;
  readonly trials: number;
  /** Trials by which K is split. */
  readonly splitTrials: number;
  readonly xTrialStride: number;
  readonly weightTrialStride: number;
  readonly variant: Pick<PanelVariant, 'weight' | 'directions' | 'scaled'>;
  /** What it reads beside x: weight, d0, …, coefficients. */
  readonly operands: Record<string, Ref>;
}

/** A line of taps must fit a panel. */
const fitsPanel = (lanes: number | undefined, { kW }: Geometry): boolean => lanes !== undefined && kW <= mostTaps(lanes);

/** A convolution by panels of the weight, for software adapters. */
function panelLaunches(x: Ref, y: Ref, p: PanelLaunch): Launch<Ref>[] {
  const { g, trials, lanes } = p;
  const m = g.images * g.hOut * g.wOut;
  const mTiles = ceilDivide(m, lanes * laneRows);
  const nTiles = ceilDivide(g.cout4 * 4, laneColumns);
  const lines = g.kH * g.cin4;
  const wantedSplits = chooseSplits(mTiles * nTiles * p.splitTrials, lines, p.wantedWorkgroups, ceilDivide(32, g.kW));
  const linesPerSplit = ceilDivide(lines, wantedSplits);
  // None without lines: it would write nothing.
  const splits = ceilDivide(lines, linesPerSplit);
  const tilesPerGroup = Math.min(mostTilesPerGroup, mTiles, Math.max(1, Math.floor((mTiles * nTiles * trials) / (4 * p.wantedWorkgroups))));
  const window = p.stride === 1 && g.h === g.hOut && g.w === g.wOut ? g.kW : null;
  const uniforms = {
    ...windowUniforms(g, p),
    cout: p.cout,
    k_h: g.kH,
    m,
    m_tiles: mTiles,
    tiles_per_group: tilesPerGroup,
    n_tiles: nTiles,
    splits,
    lines,
    lines_per_split: linesPerSplit,
    fetch_rounds: fetchRounds(window),
    lane_rows: laneRows,
    x_trial_stride: p.xTrialStride,
    weight_trial_stride: p.weightTrialStride,
    inv_cin4: 1 / g.cin4,
    inv_plane: 1 / (g.hOut * g.wOut),
    inv_w_out: 1 / g.wOut,
  };
  const grid = igemmGrid(ceilDivide(mTiles, tilesPerGroup), nTiles, trials * splits);
  const kernel = conv2dPanel({ lanes, window, ...p.variant });
  return withSplits(splits, m * g.cout4, y, trials, (out) => emit(kernel, { bindings: { x, ...p.operands, y: out }, uniforms, grid }));
}

export const lowerConv2d: LowerRule<'conv2d'> = (node, context) => {
  const [x, weight] = node.inputs;
  const [y] = node.outputs;
  const g = geometry(x.shape, weight.shape, y.shape);
  const { stride, padding } = node.attrs;
  const trials = y.trials;
  const splitTrials = context.trials ?? trials;
  const perturbed = perturbation(weight);
  const directions = perturbed?.directions.length ?? 0;
  const scaled = perturbed?.scaled ?? false;
  const operands: Record<string, Ref> = perturbed
    ? {
        weight: perturbed.base,
        ...Object.fromEntries(perturbed.directions.map((d, j) => [`d${j}`, d])),
        coefficients: perturbed.coefficients,
      }
    : { weight };
  const xTrialStride = trialStride(x, blockVec4s(x.shape));
  const weightTrialStride = perturbed ? 0 : trialStride(weight, blockVec4s(weight.shape));
  if (fitsPanel(context.lanes, g)) {
    const cout = y.shape[y.shape.length - 1];
    const variant = { weight: 'forward', directions, scaled } as const;
    const strides = { trials, splitTrials, xTrialStride, weightTrialStride, stride, padding };
    return panelLaunches(x, y, { ...context, lanes: context.lanes!, g, cout, ...strides, variant, operands });
  }
  const m = g.images * g.hOut * g.wOut;
  const k4 = g.kH * g.kW * g.cin4;
  const tile = chooseTile(context.tiles, m, g.cout4 * 4, k4 * 4);
  const mTiles = ceilDivide(m, tile.m);
  const nTiles = ceilDivide(g.cout4 * 4, tile.n);
  const tiles = ceilDivide(k4, tile.k / 4);
  const splits = chooseSplits(mTiles * nTiles * splitTrials, tiles, context.wantedWorkgroups, 8);
  const uniforms = {
    ...windowUniforms(g, { stride, padding }),
    m,
    k4,
    n_tiles: nTiles,
    splits,
    tiles,
    tiles_per_split: ceilDivide(tiles, splits),
    x_trial_stride: xTrialStride,
    weight_trial_stride: weightTrialStride,
    inv_cin4: 1 / g.cin4,
    inv_k_w: 1 / g.kW,
  };
  return withSplits(splits, m * g.cout4, y, trials, (out) =>
    emit(conv2dForward(tile, directions, scaled), {
      bindings: { x, ...operands, y: out },
      uniforms,
      grid: igemmGrid(mTiles, nTiles, trials * splits),
    }),
  );
};

export const lowerConv2dBackwardInput: LowerRule<'conv2dBackwardInput'> = (node, context) => {
  const [dy, weight] = node.inputs;
  const [dx] = node.outputs;
  const g = geometry(dx.shape, weight.shape, dy.shape);
  const { stride, padding } = node.attrs;
  if (stride === 1 && g.h === g.hOut && g.w === g.wOut && fitsPanel(context.lanes, g)) {
    // The same convolution of dy, with taps and channels the other way round.
    const turned = { ...g, cin: dy.shape[dy.shape.length - 1], cin4: g.cout4, cout4: g.cin4 };
    const alone = { trials: 1, splitTrials: 1, xTrialStride: 0, weightTrialStride: 0 };
    const rest = { ...alone, stride, padding, variant: { weight: 'transposed' }, operands: { weight } } as const;
    return panelLaunches(dy, dx, { ...context, lanes: context.lanes!, g: turned, cout: g.cin, ...rest });
  }
  const classes = stride * stride;
  const m = g.images * ceilDivide(g.h, stride) * ceilDivide(g.w, stride);
  const k = ceilDivide(g.kH, stride) * ceilDivide(g.kW, stride) * g.cout4 * 4;
  const tile = tileFor(context, m, g.cin4 * 4, k);
  const mTiles = ceilDivide(m, tile.m);
  const nTiles = ceilDivide(g.cin4 * 4, tile.n);
  const splits = chooseSplits(mTiles * nTiles * classes, ceilDivide(k, tile.k), context.wantedWorkgroups, shortestSplit(context, 8));
  const uniforms = {
    images: g.images,
    ...windowUniforms(g, { stride, padding }),
    k_h: g.kH,
    n_tiles: nTiles,
    splits,
    fetch_rounds: fetchRounds(null),
    lane_rows: laneRows,
    inv_cout4: 1 / g.cout4,
  };
  const kernel = context.lanes ? conv2dBackwardInputLanes(context.lanes) : conv2dBackwardInput(tile);
  return withSplits(splits, blockVec4s(dx.shape), dx, 1, (out) =>
    emit(kernel, { bindings: { dy, weight, dx: out }, uniforms, grid: igemmGrid(mTiles, nTiles, classes * splits) }),
  );
};

export const lowerConv2dBackwardWeight: LowerRule<'conv2dBackwardWeight'> = (node, context) => {
  const [x, dy] = node.inputs;
  const [dw] = node.outputs;
  const g = geometry(x.shape, dw.shape, dy.shape);
  const { stride, padding } = node.attrs;
  const m4 = g.kH * g.kW * g.cin4;
  const k = g.images * g.hOut * g.wOut;
  const tile = tileFor(context, m4 * 4, g.cout4 * 4, k);
  const mTiles = ceilDivide(m4 * 4, tile.m);
  const nTiles = ceilDivide(g.cout4 * 4, tile.n);
  const quads = ceilDivide(g.wOut, 4);
  const tiles = context.lanes ? g.images * g.hOut * quads : ceilDivide(k, tile.k);
  const splits = chooseSplits(mTiles * nTiles, tiles, context.wantedWorkgroups, shortestSplit(context, 16));
  const uniforms = {
    ...windowUniforms(g, { stride, padding }),
    m4,
    k,
    n_tiles: nTiles,
    tiles,
    tiles_per_split: ceilDivide(tiles, splits),
    quads,
    fetch_rounds: 4,
    lane_rows: laneRows,
    inv_quads: 1 / quads,
    inv_h_out: 1 / g.hOut,
    inv_plane: 1 / (g.hOut * g.wOut),
    inv_w_out: 1 / g.wOut,
  };
  const kernel = context.lanes ? conv2dBackwardWeightLanes(context.lanes) : conv2dBackwardWeight(tile);
  return withSplits(splits, blockVec4s(dw.shape), dw, 1, (out) =>
    emit(kernel, { bindings: { x, dy, dw: out }, uniforms, grid: igemmGrid(mTiles, nTiles, splits) }),
  );
};

/**
 * What an adapter is served best with. Measured on lavapipe: lanes take a third of the time of tiles; among tiles, for 16 columns, 64 rows
 * make weight gradients 1.3 times as fast as 128.
 */
export function defaultLowerContext(
  workgroupBytes: number,
  maxInvocations: number,
  isSoftware: boolean,
  subgroupSize: number | null = null,
): LowerContext {
  const all: Tile[] = [
    { m: 64, n: 64, k: 16 },
    { m: 128, n: 32, k: 8 },
    { m: isSoftware ? 64 : 128, n: 16, k: 8 },
  ];
  const tiles = all.filter((tile) => workgroupBytesOf(tile) <= workgroupBytes && threadsOf(tile) <= maxInvocations);
  const lanes = isSoftware && subgroupSize !== null && isLaneCount(subgroupSize) ? subgroupSize : undefined;
  return { wantedWorkgroups: isSoftware ? 8 : 264, tiles, lanes };
}
