/** How convolutions are launched: the tile, the split of K, the panel. All such choices are made here. */
import { threadsOf, workgroupBytesOf, type Tile } from '../../kernels/igemm.ts';
import { isLaneCount, laneColumns, laneRows } from '../../kernels/igemmLanes.ts';
import { mostTaps } from '../../kernels/igemmPanel.ts';
import type { LowerContext } from './context.ts';
import { ceilDivide, keepsSize, matrixOf, panelChannels, panelLines, vec4s, type ConvChoice, type ConvProblem } from './convProblem.ts';

/** Multiply-adds spent outside the matrix cost time too; a larger tile moves fewer bytes a multiply-add. */
function tileCost(tile: Tile, m: number, n: number, k: number): number {
  const work = ceilDivide(m, tile.m) * tile.m * ceilDivide(n, tile.n) * tile.n * ceilDivide(k, tile.k) * tile.k;
  return work * (1 + 4 / tile.m + 4 / tile.n);
}

export function chooseTile(tiles: readonly Tile[], m: number, n: number, k: number): Tile {
  return tiles.reduce((best, tile) => (tileCost(tile, m, n, k) < tileCost(best, m, n, k) ? tile : best));
}

/** How often K is cut so that `wantedWorkgroups` have work, each with at least `leastTiles` tiles of K. */
export function chooseSplits(workgroups: number, kTiles: number, wantedWorkgroups: number, leastTiles: number): number {
  const wanted = ceilDivide(wantedWorkgroups, workgroups);
  return Math.max(1, Math.min(wanted, Math.floor(kTiles / leastTiles), 256));
}

/** Tiles of rows that share a panel of the weight; fewer where more would leave cores idle. */
const mostTilesPerGroup = 16;

/** The block that a workgroup of so many lanes computes. */
const laneTile = (lanes: number): Tile => ({ m: lanes * laneRows, n: laneColumns, k: 4 });

/** Panels compute sums over neighbouring taps, of which a line must fit one; lanes take four fifths of their time for gradients of one tap. */
function fitsPanel(p: ConvProblem, lanes: number): boolean {
  const isConvolution = p.kind === 'forward' || (p.kind === 'backwardInput' && keepsSize(p) && p.kW > 1);
  return isConvolution && p.kW <= mostTaps(lanes);
}

function panelChoice(p: ConvProblem, lanes: number, wantedWorkgroups: number): ConvChoice {
  const tile = laneTile(lanes);
  const mTiles = ceilDivide(matrixOf(p).m, tile.m);
  const tiles = mTiles * ceilDivide(vec4s(panelChannels(p).cout) * 4, tile.n);
  const lines = panelLines(p);
  const wanted = chooseSplits(tiles * p.eventTrials, lines, wantedWorkgroups, ceilDivide(32, p.kW));
  const splits = ceilDivide(lines, ceilDivide(lines, wanted));
  const tilesPerGroup = Math.min(mostTilesPerGroup, mTiles, Math.max(1, Math.floor((tiles * p.trials) / (4 * wantedWorkgroups))));
  return { by: 'panel', lanes, splits, tilesPerGroup };
}

/** Splits of K by tiles of a shape that fill the adapter. A part is worth a workgroup from `leastTiles` tiles of K on. */
function splitsOf(p: ConvProblem, tile: Tile, kTiles: number, leastTiles: number, wantedWorkgroups: number): number {
  const { m, n, classes } = matrixOf(p);
  const workgroups = ceilDivide(m, tile.m) * ceilDivide(n, tile.n) * classes * p.eventTrials;
  return chooseSplits(workgroups, kTiles, wantedWorkgroups, leastTiles);
}

function lanesChoice(p: ConvProblem, lanes: number, wantedWorkgroups: number): ConvChoice {
  const tile = laneTile(lanes);
  // A step of the weight gradient is four neighbouring pixels of one row of an image.
  const steps = p.kind === 'backwardWeight' ? p.images * p.hOut * vec4s(p.wOut) : ceilDivide(matrixOf(p).k, tile.k);
  return { by: 'lanes', lanes, splits: splitsOf(p, tile, steps, 32, wantedWorkgroups) };
}

function tileChoice(p: ConvProblem, tile: Tile, wantedWorkgroups: number): ConvChoice {
  const kTiles = ceilDivide(matrixOf(p).k, tile.k);
  return { by: 'tile', tile, splits: splitsOf(p, tile, kTiles, p.kind === 'backwardWeight' ? 16 : 8, wantedWorkgroups) };
}

/** Ways to compute a problem on an adapter, the one that is best by estimate first. */
export function convChoices(p: ConvProblem, { lanes, tiles, wantedWorkgroups }: LowerContext): ConvChoice[] {
  const { m, n, k } = matrixOf(p);
  if (lanes !== undefined && fitsPanel(p, lanes)) return [panelChoice(p, lanes, wantedWorkgroups)];
  if (lanes !== undefined && p.kind !== 'forward') return [lanesChoice(p, lanes, wantedWorkgroups)];
  const best = chooseTile(tiles, m, n, k);
  return [best, ...tiles.filter((tile) => tile !== best)].map((tile) => tileChoice(p, tile, wantedWorkgroups));
}

/** The way that a convolution takes: the context's choice among the adapter's, by default the first. */
export function chooseConv(problem: ConvProblem, context: LowerContext): ConvChoice {
  const choices = convChoices(problem, context);
  return context.choose?.(problem, choices) ?? choices[0];
}

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
