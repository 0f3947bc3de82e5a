/**
 * The implicit GEMM of `igemm.ts` on matrix units: operands are f16, sums f32.
 *
 * Threads fetch tiles as there, form what enters the product in f32 (normalised inputs, perturbed weights) and put it to workgroup memory as
 * f16, in the order in which memory has it: a unit loads fragments of either order, so nothing is transposed. Lines are 8 elements longer than
 * the tile, so that the rows of a fragment begin in different banks. A subgroup keeps a block of results; at the end they go through workgroup
 * memory, 4 rows of each thread at a time, to the threads that store them, as what the epilogue does is told by rows and columns.
 */
import type { Igemm, Operand, Tile } from './igemm.ts';
import { range, times } from './fragments.ts';
import { fetchesOf, putSlots, register, storeAll, threadsOf, threadTile } from './igemm.ts';
import type { MatrixUnit } from './matrixUnit.ts';

/** Elements that a line of f16 is longer than the tile. */
const padding = 8;

const extentOf = (name: 'a' | 'b', { m, n }: Tile): number => (name === 'a' ? m : n);

/** An operand's tile in workgroup memory: lines along k, or along m or n, one behind the other. */
function layoutOf(name: 'a' | 'b', along: Operand['along'], tile: Tile): { stride: number; size: number } {
  const extent = extentOf(name, tile);
  const [line, lines] = along === 'k' ? [tile.k, extent] : [extent, tile.k];
  return { stride: line + padding, size: (line + padding) * lines };
}

/** WGSL that puts what was fetched: vec4s of a line, each as four f16. */
function putHalves(name: 'a' | 'b', operand: Operand, tile: Tile, slots: Parameters<typeof putSlots>[1]): string {
  const { stride, size } = layoutOf(name, operand.along, tile);
  const line = (i: number, r: number): string => {
    const [row, column] = operand.along === 'k' ? [`local_${name}${i} * 4u + ${r}u`, `depth_${name}${i}`] : [`depth_${name}${i}`, `local_${name}${i}`];
    const four = range(4).map((j) => `half_${name}[o + ${j}u] = h[${j}];`);
    return `{ let h = vec4h(${register(name, i, r)}); let o = half * ${size}u + (${row}) * ${stride}u + ${column} * 4u; ${four.join(' ')} }`;
  };
  return putSlots(name, slots, (i) => range(operand.along === 'k' ? 4 : 1).map((r) => line(i, r)).join('\n    '));
}

/** How the subgroups of a workgroup share its block: `down` × `across` of them, each with `rows` × `columns` fragments. */
export function subgroupsOf(tile: Tile, { m, n, lanes }: MatrixUnit): { down: number; across: number; rows: number; columns: number } {
  const count = threadsOf(tile) / lanes;
  const [mostDown, mostAcross] = [tile.m / m, tile.n / n];
  // As square a block for each as there can be: it loads the fewest fragments a product.
  const ways = range(count + 1).flatMap((down) => (down > 0 && count % down === 0 ? [{ down, across: count / down }] : []));
  const fitting = ways.filter(({ down, across }) => mostDown % down === 0 && mostAcross % across === 0);
  const fragments = ({ down, across }: { down: number; across: number }): number => mostDown / down + mostAcross / across;
  const [best] = fitting.sort((a, b) => fragments(a) - fragments(b));
  return { ...best, rows: mostDown / best.down, columns: mostAcross / best.across };
}

/** Whether a unit computes a tile: fragments and subgroups come out even, in each strip of rows too. */
export function fitsUnit(tile: Tile, unit: MatrixUnit): boolean {
  const { rows = 8 } = tile;
  const subgroups = threadsOf(tile) / unit.lanes;
  const strip = (tile.m / rows) * 4;
  if (!Number.isInteger(subgroups) || tile.k % unit.k !== 0 || tile.m % unit.m !== 0 || tile.n % unit.n !== 0 || strip % unit.m !== 0) return false;
  const [down, across] = [tile.m / unit.m, tile.n / unit.n];
  return range(subgroups + 1).some((n) => n > 0 && subgroups % n === 0 && down % n === 0 && across % (subgroups / n) === 0);
}

/** Bytes of workgroup memory: two tiles of each operand, a strip of results, sums of an epilogue. */
export function matrixWorkgroupBytes(tile: Tile): number {
  const { rows, groups } = threadTile(tile);
  const halves = (name: 'a' | 'b') => Math.max(layoutOf(name, 'k', tile).size, layoutOf(name, 'mn', tile).size);
  return 4 * (halves('a') + halves('b')) + (tile.m / rows) * 4 * tile.n * 4 + threadsOf(tile) * groups.length * 16;
}

/** WGSL that brings the results to the threads as `acc{row}_{column group}`, a strip of 4 rows a thread at a time. */
function shareResults(tile: Tile, unit: MatrixUnit): string {
  const { rows, groups, wx, wy } = threadTile(tile);
  const subgroups = subgroupsOf(tile, unit);
  const stripRows = wy * 4;
  const store = (strip: number) =>
    times(subgroups.rows, (i) => `{ let row = first_row + ${i * unit.m}u;
    if (row / ${stripRows}u == ${strip}u) { ${range(subgroups.columns)
      .map((j) => unit.store(`sum${i}_${j}`, { array: 'sheet', offset: `row % ${stripRows}u * ${tile.n}u + first_column + ${j * unit.n}u`, stride: tile.n }))
      .join(' ')} } }`);
  const take = (r: number) =>
    groups
      .map((c) => {
        const at = `(ly * 4u + ${r & 3}u) * ${tile.n}u + (lx + ${c * wx}u) * 4u`;
        return `let acc${r}_${c} = vec4f(${range(4).map((j) => `sheet[${at} + ${j}u]`).join(', ')});`;
      })
      .join(' ');
  return times(rows / 4, (strip) => `workgroupBarrier();
  ${store(strip)}
  workgroupBarrier();
  ${range(4).map((r) => take(strip * 4 + r)).join('\n  ')}`);
}

/** The whole entry point `main`, with what it needs. `tile_a` are the sums of an epilogue. */
export function matrixMain(spec: Igemm, unit: MatrixUnit): string {
  const { tile } = spec;
  const { groups, wx } = threadTile(tile);
  const [a, b] = [fetchesOf('a', spec.a, tile), fetchesOf('b', spec.b, tile)];
  const [ofA, ofB] = [layoutOf('a', spec.a.along, tile), layoutOf('b', spec.b.along, tile)];
  const put = `${putHalves('a', spec.a, tile, a.slots)}
  ${putHalves('b', spec.b, tile, b.slots)}`;
  const { down, across, rows, columns } = subgroupsOf(tile, unit);
  const place = (name: 'a' | 'b', line: string, kk: number) => {
    const { stride, size } = name === 'a' ? ofA : ofB;
    const isAlongK = spec[name].along === 'k';
    const offset = isAlongK ? `(${line}) * ${stride}u + ${kk}u` : `${kk * stride}u + ${line}`;
    return { array: `half_${name}`, offset: `half * ${size}u + ${offset}`, stride } as const;
  };
  const product = times(tile.k / unit.k, (step) => `{
      ${range(rows).map((i) => unit.left(`left${i}`, place('a', `first_row + ${i * unit.m}u`, step * unit.k), spec.a.along)).join('\n      ')}
      ${range(columns).map((j) => unit.right(`right${j}`, place('b', `first_column + ${j * unit.n}u`, step * unit.k), spec.b.along)).join('\n      ')}
      ${range(rows).flatMap((i) => range(columns).map((j) => unit.multiply(`sum${i}_${j}`, `left${i}`, `right${j}`))).join('\n      ')}
    }`);
  return /* wgsl */ `${unit.functions}
var<workgroup> half_a: array<f16, ${2 * ofA.size}>;
var<workgroup> half_b: array<f16, ${2 * ofB.size}>;
var<workgroup> sheet: array<f32, ${threadTile(tile).wy * 4 * tile.n}>;
${spec.epilogue.sums === null ? '' : `var<workgroup> tile_a: array<vec4f, ${threadsOf(tile) * groups.length}>;`}
${unit.attributes}
@compute @workgroup_size(${threadsOf(tile)})
fn main(@builtin(workgroup_id) wid: vec3u, @builtin(local_invocation_index) li: u32) {
  let lx = li % ${wx}u;
  let ly = li / ${wx}u;
  let lane = li % ${unit.lanes}u;
  let first_row = li / ${unit.lanes}u / ${across}u * ${tile.m / down}u;
  let first_column = li / ${unit.lanes}u % ${across}u * ${tile.n / across}u;
  ${spec.prologue}
  ${a.prepare}
  ${b.prepare}
  ${range(rows).flatMap((i) => range(columns).map((j) => unit.zero(`sum${i}_${j}`))).join(' ')}
  var t = k_begin;
  ${a.fetch}
  ${b.fetch}
  var half = 0u;
  ${put}
  workgroupBarrier();
  loop {
    let more = t + 1u < k_end;
    if (more) {
      t += 1u;
      ${a.fetch}
      ${b.fetch}
    }
    ${product}
    if (!more) { break; }
    half = 1u - half;
    ${put}
    workgroupBarrier();
  }
  ${shareResults(tile, unit)}
  ${storeAll(spec)}
}`;
}
