/** The launches of a convolution, given what it is, how it is to be computed and what it reads and writes. */
import { grid1d, type Kernel, type Launch } from '../../kernels/contract.ts';
import { conv2dBackwardInput, conv2dBackwardWeight, conv2dForward, igemmGrid } from '../../kernels/conv2d.ts';
import { conv2dBackwardInputLanes, conv2dBackwardWeightLanes, conv2dPanel } from '../../kernels/conv2dLanes.ts';
import type { Tile } from '../../kernels/igemm.ts';
import { laneColumns, laneRows } from '../../kernels/igemmLanes.ts';
import { fetchRounds } from '../../kernels/igemmPanel.ts';
import { sumPartials } from '../../kernels/reduce.ts';
import { emit, Scratch, type Ref } from './context.ts';
import { ceilDivide, keepsSize, matrixOf, panelChannels, panelLines, vec4s, type ConvChoice, type ConvProblem } from './convProblem.ts';

/**
 * What a convolution binds beside its output, by the names of the kernel that forwards it: `x` and `weight`, with directions `d0`, … and
 * `coefficients`; `dy` and `weight`; `x` and `dy`.
 */
export type ConvOperands = Readonly<Record<string, Ref>>;

/** vec4s of one trial's output. */
function outputVec4s(p: ConvProblem): number {
  if (p.kind === 'forward') return p.images * p.hOut * p.wOut * vec4s(p.cout);
  if (p.kind === 'backwardInput') return p.images * p.h * p.w * vec4s(p.cin);
  return p.kH * p.kW * p.cin * vec4s(p.cout);
}

/** A direct launch, or partial results and their sum. */
function withSplits(p: ConvProblem, splits: number, output: Ref, main: (out: Ref) => Launch<Ref>): Launch<Ref>[] {
  if (splits === 1) return [main(output)];
  const n = outputVec4s(p);
  const partials = new Scratch(p.trials * splits * n * 16);
  const sum = emit(sumPartials, { bindings: { partials, y: output }, uniforms: { n, splits }, grid: grid1d(n, 64, p.trials) });
  return [main(partials), sum];
}

/** Uniforms that every convolution kernel has. */
const windowUniforms = (p: ConvProblem) => ({
  h: p.h,
  w: p.w,
  cin: p.cin,
  cin4: vec4s(p.cin),
  h_out: p.hOut,
  w_out: p.wOut,
  cout4: vec4s(p.cout),
  k_w: p.kW,
  stride: p.stride,
  padding: p.padding,
});

/** vec4s between the trial blocks of what a forward convolution reads; 0 where all trials share it. */
const trialStrides = (p: ConvProblem) => ({
  x_trial_stride: p.isXShared ? 0 : p.images * p.h * p.w * vec4s(p.cin),
  weight_trial_stride: p.isWeightShared ? 0 : p.kH * p.kW * p.cin * vec4s(p.cout),
});

/** Grid of one launch by blocks of a shape. */
function gridOf(p: ConvProblem, block: Pick<Tile, 'm' | 'n'>, splits: number): [number, number, number] {
  const { m, n, classes } = matrixOf(p);
  return igemmGrid(ceilDivide(m, block.m), ceilDivide(n, block.n), p.trials * classes * splits);
}

const laneBlock = (lanes: number) => ({ m: lanes * laneRows, n: laneColumns });

type Way<B extends ConvChoice['by']> = Extract<ConvChoice, { by: B }>;
type Lowering<B extends ConvChoice['by']> = (p: ConvProblem, way: Way<B>, operands: ConvOperands, output: Ref) => Launch<Ref>[];

/** By panels of the weight: the forward convolution, and the input gradient of one that keeps the size of its image. */
const panel: Lowering<'panel'> = (p, { lanes, splits: wantedSplits, tilesPerGroup }, operands, output) => {
  const { cin, cout } = panelChannels(p);
  const block = laneBlock(lanes);
  const { m, n } = matrixOf(p);
  const mTiles = ceilDivide(m, block.m);
  const nTiles = ceilDivide(n, block.n);
  const lines = panelLines(p);
  const linesPerSplit = ceilDivide(lines, wantedSplits);
  // None without lines: it would write nothing.
  const splits = ceilDivide(lines, linesPerSplit);
  // One tap shares its pixels with none.
  const window = keepsSize(p) && p.kW > 1 ? p.kW : null;
  const uniforms = {
    ...windowUniforms({ ...p, cin, cout }),
    cout,
    k_h: p.kH,
    m,
    m_tiles: mTiles,
    tiles_per_group: tilesPerGroup,
    n_tiles: nTiles,
    splits,
    lines,
    lines_per_split: linesPerSplit,
    fetch_rounds: fetchRounds(window),
    lane_rows: laneRows,
    ...trialStrides(p),
    inv_cin4: 1 / vec4s(cin),
    inv_plane: 1 / (p.hOut * p.wOut),
    inv_w_out: 1 / p.wOut,
  };
  const weight = p.kind === 'forward' ? 'forward' : 'transposed';
  const kernel = conv2dPanel({ lanes, window, weight, directions: p.directions, scaled: p.scaled });
  const { dy: x = operands.x, ...rest } = operands;
  const grid = igemmGrid(ceilDivide(mTiles, tilesPerGroup), nTiles, p.trials * splits);
  return withSplits(p, splits, output, (y) => emit(kernel, { bindings: { ...rest, x, y }, uniforms, grid }));
};

function forwardTiles(p: ConvProblem, { tile, splits }: Way<'tile'>, operands: ConvOperands, output: Ref): Launch<Ref>[] {
  const { m, n, k } = matrixOf(p);
  const tiles = ceilDivide(k, tile.k);
  const uniforms = {
    ...windowUniforms(p),
    m,
    k4: k / 4,
    n_tiles: ceilDivide(n, tile.n),
    splits,
    tiles,
    tiles_per_split: ceilDivide(tiles, splits),
    ...trialStrides(p),
    inv_cin4: 1 / vec4s(p.cin),
    inv_k_w: 1 / p.kW,
  };
  const kernel = conv2dForward(tile, p.directions, p.scaled);
  return withSplits(p, splits, output, (y) => emit(kernel, { bindings: { ...operands, y }, uniforms, grid: gridOf(p, tile, splits) }));
}

/** The input gradient by tiles or lanes, which compute blocks of a shape. */
function inputGradient(p: ConvProblem, kernel: Kernel, block: Pick<Tile, 'm' | 'n'>, splits: number, operands: ConvOperands, output: Ref) {
  const uniforms = {
    images: p.images,
    ...windowUniforms(p),
    k_h: p.kH,
    n_tiles: ceilDivide(matrixOf(p).n, block.n),
    splits,
    fetch_rounds: fetchRounds(null),
    lane_rows: laneRows,
    inv_cout4: 1 / vec4s(p.cout),
  };
  return withSplits(p, splits, output, (dx) => emit(kernel, { bindings: { ...operands, dx }, uniforms, grid: gridOf(p, block, splits) }));
}

/** The weight gradient by tiles or lanes; `tiles` of K in all. */
function weightGradient(
  p: ConvProblem,
  { kernel, block, tiles, splits }: { kernel: Kernel; block: Pick<Tile, 'm' | 'n'>; tiles: number; splits: number },
  operands: ConvOperands,
  output: Ref,
): Launch<Ref>[] {
  const { m, n, k } = matrixOf(p);
  const quads = vec4s(p.wOut);
  const uniforms = {
    ...windowUniforms(p),
    m4: m / 4,
    k,
    n_tiles: ceilDivide(n, block.n),
    tiles,
    tiles_per_split: ceilDivide(tiles, splits),
    quads,
    fetch_rounds: 4,
    lane_rows: laneRows,
    inv_quads: 1 / quads,
    inv_h_out: 1 / p.hOut,
    inv_plane: 1 / (p.hOut * p.wOut),
    inv_w_out: 1 / p.wOut,
  };
  return withSplits(p, splits, output, (dw) => emit(kernel, { bindings: { ...operands, dw }, uniforms, grid: gridOf(p, block, splits) }));
}

const tile: Lowering<'tile'> = (p, way, operands, output) => {
  const { tile: block, splits } = way;
  if (p.kind === 'forward') return forwardTiles(p, way, operands, output);
  if (p.kind === 'backwardInput') return inputGradient(p, conv2dBackwardInput(block), block, splits, operands, output);
  const tiles = ceilDivide(matrixOf(p).k, block.k);
  return weightGradient(p, { kernel: conv2dBackwardWeight(block), block, tiles, splits }, operands, output);
};

const lanes: Lowering<'lanes'> = (p, { lanes: count, splits }, operands, output) => {
  const block = laneBlock(count);
  if (p.kind === 'backwardInput') return inputGradient(p, conv2dBackwardInputLanes(count), block, splits, operands, output);
  const tiles = p.images * p.hOut * vec4s(p.wOut);
  return weightGradient(p, { kernel: conv2dBackwardWeightLanes(count), block, tiles, splits }, operands, output);
};

const ways: { [B in ConvChoice['by']]: Lowering<B> } = { tile, lanes, panel };

/** Of every tap of every output, on the border too: the same for all three kinds. */
const flopsOf = (p: ConvProblem): number => 2 * p.trials * p.images * p.hOut * p.wOut * p.cout * p.kH * p.kW * p.cin;

/** Computes `problem` the chosen way: one launch, or partial results and their sum. */
export function convLaunches(problem: ConvProblem, choice: ConvChoice, operands: ConvOperands, output: Ref): Launch<Ref>[] {
  const [main, ...rest] = (ways[choice.by] as Lowering<ConvChoice['by']>)(problem, choice, operands, output);
  return [{ ...main, flops: flopsOf(problem) }, ...rest];
}
