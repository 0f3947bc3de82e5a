/** The launches of a convolution, given what it is, how it is to be computed and what it reads and writes. */
import { grid1d, type Kernel, type Launch } from '../../kernels/contract.ts';
import { conv2dBackwardInput, conv2dBackwardWeight, conv2dForward, igemmGrid } from '../../kernels/conv2d.ts';
import { conv2dBackwardInputLanes, conv2dBackwardWeightLanes, conv2dPanel } from '../../kernels/conv2dLanes.ts';
import { directionEpilogue, gradientEpilogue, momentsEpilogue, noEpilogue, type Epilogue } from '../../kernels/epilogue.ts';
import type { Tile } from '../../kernels/igemm.ts';
import { laneColumns, laneRows } from '../../kernels/igemmLanes.ts';
import { fetchRounds } from '../../kernels/igemmPanel.ts';
import { sumPartials, sumPartialsThen, sumRows } from '../../kernels/reduce.ts';
import { emit, Scratch, type Ref } from './context.ts';
import { ceilDivide, hasPartials, keepsSize, matrixOf, panelChannels, panelLines, splitsOf, vec4s, type ConvChoice, type ConvProblem } from './convProblem.ts';

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

/** What the epilogue of a kernel is, given the WGSL of its rows' length in vec4s. */
function epilogueOf({ after }: ConvProblem, c4: string): Epilogue {
  if (after === null) return noEpilogue;
  if (after.by === 'gradient') return gradientEpilogue(after, c4);
  return after.by === 'moments' ? momentsEpilogue : directionEpilogue;
}

/** What an epilogue reads and writes beside the output. */
export interface EpilogueArgs {
  readonly bindings: ConvOperands;
  readonly uniforms: Readonly<Record<string, number>>;
}
const noArgs: EpilogueArgs = { bindings: {}, uniforms: {} };

/** Where a convolution's results go, and what its epilogue is given. */
interface Destination {
  readonly output: Ref;
  readonly after: EpilogueArgs;
}

/**
 * A direct launch, or partial results and their sum, whichever of the two ends with the epilogue.
 * @param main the launch that writes to `out`, given the epilogue by the WGSL of its rows' length and what it is given
 * @param hasPartials whether there are partial results, be it of one part
 */
function withSplits(
  p: ConvProblem,
  splits: number,
  { output, after }: Destination,
  main: (out: Ref, epilogueBy: (c4: string) => Epilogue, args: EpilogueArgs) => Launch<Ref>,
  hasPartials = splits > 1,
): Launch<Ref>[] {
  if (!hasPartials) return [main(output, (c4) => epilogueOf(p, c4), after)];
  const n = outputVec4s(p);
  const partials = new Scratch(p.trials * splits * n * 16);
  const first = main(partials, () => noEpilogue, noArgs);
  if (p.after === null)
    return [first, emit(sumPartials, { bindings: { partials, y: output }, uniforms: { n, splits }, grid: grid1d(n, 64, p.trials) })];
  const c4 = vec4s(p.kind === 'backwardInput' ? p.cin : p.cout);
  const rows = n / c4;
  const chunks = ceilDivide(rows, sumRows);
  const sum = emit(sumPartialsThen(epilogueOf(p, 'u.c4')), {
    bindings: { partials, ...after.bindings, y: output },
    uniforms: { rows, c4, splits, chunks, ...after.uniforms },
    grid: igemmGrid(chunks, ceilDivide(c4, 4), p.trials),
  });
  return [first, sum];
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

/** vec4s between the trial blocks of what a convolution reads; 0 where all trials share it. A gradient dy is shared by none. */
const trialStrides = (p: ConvProblem) => ({
  x_trial_stride: p.isXShared ? 0 : p.images * p.h * p.w * vec4s(p.cin),
  dy_trial_stride: p.images * p.hOut * p.wOut * vec4s(p.cout),
  weight_trial_stride: p.isWeightShared ? 0 : p.kH * p.kW * p.cin * vec4s(p.cout),
  affine_trial_stride: p.isAffineShared ? 0 : 4 * vec4s(p.cin),
});

/** Grid of one launch by blocks of a shape. */
function gridOf(p: ConvProblem, block: Pick<Tile, 'm' | 'n'>, splits: number): [number, number, number] {
  const { m, n, classes } = matrixOf(p);
  return igemmGrid(ceilDivide(m, block.m), ceilDivide(n, block.n), p.trials * classes * splits);
}

const laneBlock = (lanes: number) => ({ m: lanes * laneRows, n: laneColumns });

type Way<B extends ConvChoice['by']> = Extract<ConvChoice, { by: B }>;
type Lowering<B extends ConvChoice['by']> = (p: ConvProblem, way: Way<B>, operands: ConvOperands, to: Destination) => Launch<Ref>[];

/** By panels of the weight: the forward convolution, and the input gradient of one that keeps the size of its image. */
const panel: Lowering<'panel'> = (p, way, operands, to) => {
  const { lanes } = way;
  const { cin, cout } = panelChannels(p);
  const block = laneBlock(lanes);
  const { m, n } = matrixOf(p);
  const mTiles = ceilDivide(m, block.m);
  const nTiles = ceilDivide(n, block.n);
  const lines = panelLines(p);
  const splits = splitsOf(p, way);
  // More tiles share a panel where there are so many that its workgroups still fill the adapter; that does not touch the order of a sum.
  const sharing = Math.floor((mTiles * nTiles * p.trials) / way.leastGroups);
  const tilesPerGroup = Math.min(way.mostTiles, mTiles, Math.max(1, sharing));
  // One tap shares its pixels with none.
  const window = keepsSize(p) && p.kW > 1 ? p.kW : null;
  const strides = trialStrides(p);
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
    lines_per_split: ceilDivide(lines, splits),
    fetch_rounds: fetchRounds(window),
    lane_rows: laneRows,
    lane_groups: laneColumns / 4,
    ...strides,
    x_trial_stride: p.kind === 'forward' ? strides.x_trial_stride : strides.dy_trial_stride,
    inv_cin4: 1 / vec4s(cin),
    inv_plane: 1 / (p.hOut * p.wOut),
    inv_w_out: 1 / p.wOut,
  };
  const weight = p.kind === 'forward' ? 'forward' : 'transposed';
  const variant = { lanes, window, weight, directions: p.directions, scaled: p.scaled, input: p.input } as const;
  const { dy: x = operands.x, ...rest } = operands;
  const grid = igemmGrid(ceilDivide(mTiles, tilesPerGroup), nTiles, p.trials * splits);
  const main = (y: Ref, epilogueBy: (c4: string) => Epilogue, after: EpilogueArgs) =>
    emit(conv2dPanel({ ...variant, epilogue: epilogueBy('u.cout4') }), { bindings: { ...rest, x, ...after.bindings, y }, uniforms, grid });
  return withSplits(p, splits, to, main, hasPartials(p, way));
};

function forwardTiles(p: ConvProblem, { tile, splits }: Way<'tile'>, operands: ConvOperands, to: Destination): Launch<Ref>[] {
  const { m, n, k } = matrixOf(p);
  const tiles = ceilDivide(k, tile.k);
  const uniforms = {
    ...windowUniforms(p),
    m,
    k4: k / 4,
    m_tiles: ceilDivide(m, tile.m),
    n_tiles: ceilDivide(n, tile.n),
    splits,
    tiles,
    tiles_per_split: ceilDivide(tiles, splits),
    ...trialStrides(p),
    inv_cin4: 1 / vec4s(p.cin),
    inv_k_w: 1 / p.kW,
  };
  const { directions, scaled, input } = p;
  return withSplits(p, splits, to, (y, epilogueBy, after) =>
    emit(conv2dForward(tile, { directions, scaled, input, epilogue: epilogueBy('u.cout4') }), {
      bindings: { ...operands, ...after.bindings, y },
      uniforms,
      grid: gridOf(p, tile, splits),
    }),
  );
}

/** The input gradient by tiles or lanes, which compute blocks of a shape. */
function inputGradient(
  p: ConvProblem,
  { kernelOf, block, splits }: { kernelOf: (epilogue: Epilogue) => Kernel; block: Pick<Tile, 'm' | 'n'>; splits: number },
  operands: ConvOperands,
  to: Destination,
) {
  const uniforms = {
    images: p.images,
    ...windowUniforms(p),
    k_h: p.kH,
    m_tiles: ceilDivide(matrixOf(p).m, block.m),
    n_tiles: ceilDivide(matrixOf(p).n, block.n),
    splits,
    fetch_rounds: fetchRounds(null),
    lane_rows: laneRows,
    lane_groups: laneColumns / 4,
    ...trialStrides(p),
    inv_cout4: 1 / vec4s(p.cout),
  };
  return withSplits(p, splits, to, (dx, epilogueBy, after) =>
    emit(kernelOf(epilogueBy('u.cin4')), { bindings: { ...operands, ...after.bindings, dx }, uniforms, grid: gridOf(p, block, splits) }),
  );
}

/** The weight gradient by tiles or lanes; `tiles` of K in all. */
function weightGradient(
  p: ConvProblem,
  { kernelOf, block, tiles, splits }: { kernelOf: (epilogue: Epilogue) => Kernel; block: Pick<Tile, 'm' | 'n'>; tiles: number; splits: number },
  operands: ConvOperands,
  to: Destination,
): Launch<Ref>[] {
  const { m, n, k } = matrixOf(p);
  const quads = vec4s(p.wOut);
  const uniforms = {
    ...windowUniforms(p),
    m4: m / 4,
    k,
    n_tiles: ceilDivide(n, block.n),
    splits,
    tiles,
    tiles_per_split: ceilDivide(tiles, splits),
    ...trialStrides(p),
    quads,
    fetch_rounds: 4,
    lane_rows: laneRows,
    lane_groups: laneColumns / 4,
    inv_quads: 1 / quads,
    inv_h_out: 1 / p.hOut,
    inv_plane: 1 / (p.hOut * p.wOut),
    inv_w_out: 1 / p.wOut,
  };
  return withSplits(p, splits, to, (dw, epilogueBy, after) =>
    emit(kernelOf(epilogueBy('u.cout4')), {
      bindings: { ...operands, ...after.bindings, dw },
      uniforms: { ...uniforms, ...after.uniforms },
      grid: gridOf(p, block, splits),
    }),
  );
}

const tile: Lowering<'tile'> = (p, way, operands, to) => {
  const { tile: block, splits } = way;
  if (p.kind === 'forward') return forwardTiles(p, way, operands, to);
  if (p.kind === 'backwardInput')
    return inputGradient(p, { kernelOf: (epilogue) => conv2dBackwardInput(block, epilogue), block, splits }, operands, to);
  const tiles = ceilDivide(matrixOf(p).k, block.k);
  return weightGradient(p, { kernelOf: (epilogue) => conv2dBackwardWeight(block, p.input, epilogue), block, tiles, splits }, operands, to);
};

const lanes: Lowering<'lanes'> = (p, { lanes: count, splits }, operands, to) => {
  const block = laneBlock(count);
  if (p.kind === 'backwardInput')
    return inputGradient(p, { kernelOf: (epilogue) => conv2dBackwardInputLanes(count, epilogue), block, splits }, operands, to);
  const tiles = p.images * p.hOut * vec4s(p.wOut);
  return weightGradient(p, { kernelOf: (epilogue) => conv2dBackwardWeightLanes(count, p.input, epilogue), block, tiles, splits }, operands, to);
};

const ways: { [B in ConvChoice['by']]: Lowering<B> } = { tile, lanes, panel };

/** Of every tap of every output, on the border too: the same for all three kinds. */
const flopsOf = (p: ConvProblem): number => 2 * p.trials * p.images * p.hOut * p.wOut * p.cout * p.kH * p.kW * p.cin;

/** Computes `problem` the chosen way: one launch, or partial results and their sum. `after` is what its epilogue is given. */
export function convLaunches(
  problem: ConvProblem,
  choice: ConvChoice,
  operands: ConvOperands,
  output: Ref,
  { bindings = {}, uniforms = {} }: Partial<EpilogueArgs> = {},
): Launch<Ref>[] {
  const [main, ...rest] = (ways[choice.by] as Lowering<ConvChoice['by']>)(problem, choice, operands, { output, after: { bindings, uniforms } });
  return [{ ...main, flops: flopsOf(problem) }, ...rest];
}
