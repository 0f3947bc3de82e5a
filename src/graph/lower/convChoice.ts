/** How convolutions are launched: the tile, the split of K, the panel. All such choices are made here. */
import type { Launch } from '../../kernels/contract.ts';
import { threadsOf, workgroupBytesOf, type Tile } from '../../kernels/igemm.ts';
import { isLaneCount, laneColumns, laneRows } from '../../kernels/igemmLanes.ts';
import { fitsUnit, matrixWorkgroupBytes } from '../../kernels/igemmMatrix.ts';
import type { MatrixUnit } from '../../kernels/matrixUnit.ts';
import { mostTaps } from '../../kernels/igemmPanel.ts';
import type { LowerContext, Ref } from './context.ts';
import { ceilDivide, choiceName, keepsSize, matrixOf, panelChannels, panelLines, vec4s, type ConvChoice, type ConvProblem } from './convProblem.ts';

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

/** The block that a workgroup of so many lanes computes. */
const laneTile = (lanes: number): Tile => ({ m: lanes * laneRows, n: laneColumns, k: 4 });

/** Panels compute sums over neighbouring taps, of which a line must fit one; lanes take four fifths of their time for gradients of one tap. */
function fitsPanel(p: ConvProblem, lanes: number): boolean {
  const isConvolution = p.kind === 'forward' || (p.kind === 'backwardInput' && keepsSize(p) && p.kW > 1);
  return isConvolution && p.kW <= mostTaps(lanes, p.input !== 'plain');
}

/** The most tiles of rows that share a panel by default, and the workgroups that there have to be for every wanted one. */
const [mostTiles, groupsPerWanted] = [16, 4];

function panelChoice(p: ConvProblem, lanes: number, wantedWorkgroups: number): Extract<ConvChoice, { by: 'panel' }> {
  const tile = laneTile(lanes);
  const tiles = ceilDivide(matrixOf(p).m, tile.m) * ceilDivide(vec4s(panelChannels(p).cout) * 4, tile.n);
  const lines = panelLines(p);
  const wanted = chooseSplits(tiles * p.eventTrials, lines, wantedWorkgroups, ceilDivide(32, p.kW));
  const splits = ceilDivide(lines, ceilDivide(lines, wanted));
  return { by: 'panel', lanes, splits, mostTiles, leastGroups: groupsPerWanted * wantedWorkgroups };
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

/** Matrix units take f16, and are faster than any other way by far. */
const firstTiles = ({ isHalf }: ConvProblem, { tiles, matrixTiles = [] }: LowerContext): readonly Tile[] =>
  isHalf && matrixTiles.length > 0 ? matrixTiles : tiles;

/** The best way by estimate. */
function estimated(p: ConvProblem, context: LowerContext): ConvChoice {
  const { lanes, wantedWorkgroups } = context;
  if (lanes !== undefined && fitsPanel(p, lanes)) return panelChoice(p, lanes, wantedWorkgroups);
  if (lanes !== undefined && p.kind !== 'forward') return lanesChoice(p, lanes, wantedWorkgroups);
  const { m, n, k } = matrixOf(p);
  return tileChoice(p, chooseTile(firstTiles(p, context), m, n, k), wantedWorkgroups);
}

/** K cut twice as often, half as often and not at all. */
function otherSplits(p: ConvProblem, choice: ConvChoice): ConvChoice[] {
  const depth = choice.by === 'panel' ? panelLines(p) : ceilDivide(matrixOf(p).k, choice.by === 'tile' ? choice.tile.k : 4);
  const wanted = [2 * choice.splits, Math.round(choice.splits / 2), 1].filter((splits) => splits >= 1 && splits <= Math.min(depth, 256));
  // As even parts as there can be: none is empty.
  return wanted.map((splits) => ({ ...choice, splits: ceilDivide(depth, ceilDivide(depth, splits)) }));
}

/** Other tiles by their cost: some of 8 × 8 outputs a thread, and some of fewer, which make more of a small output. */
function otherTiles(p: ConvProblem, first: Tile, context: LowerContext): ConvChoice[] {
  const { tiles, otherTiles: others = [], wantedWorkgroups } = context;
  const { m, n, k } = matrixOf(p);
  const byCost = (a: Tile, b: Tile): number => tileCost(a, m, n, k) - tileCost(b, m, n, k);
  if (first.unit) {
    const units = firstTiles(p, context).filter((tile) => tile !== first).sort(byCost);
    return [...units, chooseTile(tiles, m, n, k)].map((tile) => tileChoice(p, tile, wantedWorkgroups));
  }
  const ranked = [...tiles, ...others].filter((tile) => tile !== first).sort(byCost);
  const isLarge = ({ rows = 8, columns = 8 }: Tile): boolean => rows * columns === 64;
  const picked = [...ranked.filter(isLarge).slice(0, 3), ...ranked.filter((tile) => !isLarge(tile)).slice(0, 2)];
  return picked.map((tile) => tileChoice(p, tile, wantedWorkgroups));
}

/** Fewer and more tiles that share a panel, fewer workgroups for it; the kernel by lanes where there is one. */
function otherPanels(p: ConvProblem, first: Extract<ConvChoice, { by: 'panel' }>, wantedWorkgroups: number): ConvChoice[] {
  const shared = [1, 4, 64].map((most) => ({ ...first, mostTiles: most }));
  const fewer = { ...first, mostTiles: 64, leastGroups: wantedWorkgroups };
  return [...shared, fewer, ...(p.kind === 'backwardInput' ? [lanesChoice(p, first.lanes, wantedWorkgroups)] : [])];
}

/**
 * Up to 8 ways to compute a problem on an adapter, the best by estimate first. They do not depend on the trials of the launch: all passes of an
 * event have the same.
 */
export function convChoices(p: ConvProblem, context: LowerContext): ConvChoice[] {
  const first = estimated(p, context);
  const others = {
    tile: () => (first.by === 'tile' ? otherTiles(p, first.tile, context) : []),
    lanes: () => [],
    panel: () => (first.by === 'panel' ? otherPanels(p, first, context.wantedWorkgroups) : []),
  };
  const all = [first, ...otherSplits(p, first), ...others[first.by]()];
  return [...new Map(all.map((choice) => [choiceName(choice), choice])).values()].slice(0, 8);
}

/** The way that a convolution takes: the context's pick among the adapter's, by default the best by estimate. */
export function chooseConv(p: ConvProblem, context: LowerContext, launches: (choice: ConvChoice) => Launch<Ref>[]): ConvChoice {
  return context.choose ? context.choose(p, convChoices(p, context), launches) : estimated(p, context);
}

/** Tiles that are worth measuring beside those chosen by estimate. */
const triedTiles: readonly Tile[] = [
  { m: 64, n: 64, k: 8 },
  { m: 128, n: 64, k: 8 },
  { m: 128, n: 128, k: 8 },
  { m: 64, n: 32, k: 16, columns: 4 },
  { m: 32, n: 32, k: 16, rows: 4, columns: 4 },
  { m: 128, n: 16, k: 8, columns: 4 },
];

/** Tiles of matrix units: what a subgroup's fragments come to, and what fits 32 KiB of workgroup memory, or 48. */
const unitTiles: readonly Tile[] = [
  { m: 64, n: 64, k: 32, columns: 4 },
  { m: 128, n: 64, k: 16 },
  { m: 64, n: 32, k: 32, rows: 4, columns: 4 },
  { m: 64, n: 16, k: 32, rows: 4, columns: 4 },
];

/** What of an adapter decides how convolutions are computed on it. */
export interface AdapterTraits {
  readonly workgroupBytes: number;
  readonly maxInvocations: number;
  readonly isSoftware: boolean;
  /** @default none of one size */
  readonly subgroupSize?: number | null;
  /** @default none */
  readonly unit?: MatrixUnit | null;
}

/**
 * What an adapter is served best with. Measured on lavapipe: lanes take a third of the time of tiles; among tiles, for 16 columns, 64 rows
 * make weight gradients 1.3 times as fast as 128. Tiles of matrix units are estimates.
 */
export function defaultLowerContext({ workgroupBytes, maxInvocations, isSoftware, subgroupSize = null, unit = null }: AdapterTraits): LowerContext {
  const fits = (tile: Tile): boolean =>
    (tile.unit ? matrixWorkgroupBytes(tile) : workgroupBytesOf(tile)) <= workgroupBytes && threadsOf(tile) <= maxInvocations;
  const tiles: Tile[] = [
    { m: 64, n: 64, k: 16 },
    { m: 128, n: 32, k: 8 },
    { m: isSoftware ? 64 : 128, n: 16, k: 8 },
  ];
  const ofUnit = unit ? unitTiles.map((tile) => ({ ...tile, unit })).filter((tile) => fitsUnit(tile, unit)) : [];
  const lanes = isSoftware && subgroupSize !== null && isLaneCount(subgroupSize) ? subgroupSize : undefined;
  return {
    wantedWorkgroups: isSoftware ? 8 : 264,
    tiles: tiles.filter(fits),
    otherTiles: triedTiles.filter(fits),
    matrixTiles: ofUnit.filter(fits),
    lanes,
  };
}
