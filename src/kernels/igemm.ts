/**
 * Implicit GEMM: the one skeleton behind every convolution and every linear layer.
 *
 *   out[m, n] = Σ_k A[m, k] · B[k, n]
 *
 * A workgroup computes a `tileM × tileN` block with 8 × 8 outputs a thread, or fewer where there are few. Tiles of A and B pass through
 * workgroup memory as vec4 along m and n; the next tile is fetched into registers while the current one is used, and stored into the other
 * half of a double buffer, so that one barrier a tile is enough. Operands whose memory runs along k are fetched as 4 × 4 blocks and
 * transposed in registers: no two invocations ever write parts of the same vec4.
 *
 * What A, B and out are is given by WGSL fragments; see `conv2d.ts`, and `epilogue.ts` for what is done with out beside storing it.
 */
import type { Epilogue } from './epilogue.ts';
import { range, times } from './fragments.ts';
import type { MatrixUnit } from './matrixUnit.ts';

export interface Tile {
  /** Rows of out a workgroup computes: a power of two times `rows`; at least 32 where an epilogue takes sums of them. */
  readonly m: number;
  /** Columns of out a workgroup computes: a multiple of `columns`. */
  readonly n: number;
  /** Depth of a tile: a multiple of 4. */
  readonly k: number;
  /** Rows of out a thread computes. @default 8 */
  readonly rows?: 4 | 8;
  /** Columns of out a thread computes. @default 8 */
  readonly columns?: 4 | 8;
  /** Matrix units that compute products of f16 operands, where there are: then a thread only stores its rows and columns. @default none */
  readonly unit?: MatrixUnit;
}

export interface Operand {
  /** `k`: the vec4 of memory runs along k (needs the 4 × 4 transpose); `mn`: along m (A) or n (B). */
  readonly along: 'k' | 'mn';
  /**
   * WGSL run once before the loop for load slot `i`. In scope: `group` (m or n index / 4, of the whole matrix) and
   * `depth` (k index inside the tile; / 4 when along k). Declares what `load` needs, with names ending in `_i`.
   */
  readonly prepare: (i: number) => string;
  /** WGSL statements shared by the four rows of slot `i` of a tile; `kt` is the k index (/ 4 when along k) of this slot. */
  readonly address: (i: number) => string;
  /** WGSL expression of the vec4: row `r` of the 4 × 4 block of slot `i` when along k, else the slot's only vec4 (r = 0). */
  readonly load: (i: number, r: number) => string;
}

export interface Igemm {
  readonly tile: Tile;
  readonly a: Operand;
  readonly b: Operand;
  /** WGSL before everything else: sets `m_tile`, `n_tile` (u32) and `k_begin`, `k_end` (u32, in tiles of the k dimension). */
  readonly prologue: string;
  /** WGSL run once per output row of a thread, `m` in scope, before its column groups; declares what `place` and `exists` need. */
  readonly storeRow: string;
  /** Place in out of a row's column group `n4` (column / 4), whether it exists, and the WGSL statement that puts `value` (vec4f) at `at`. */
  readonly place: string;
  readonly exists: string;
  readonly put: string;
  /** WGSL expression: whether row `m` exists. */
  readonly hasRow: string;
  readonly epilogue: Epilogue;
  readonly chunk: ChunkPlace;
}

/** WGSL expressions of where the two sums of a workgroup's block of rows go. */
export interface ChunkPlace {
  /** Rows that exist in the block. */
  readonly rows: string;
  /** Whether the block is one of those that have a place. */
  readonly exists: string;
  /** The block's number. */
  readonly index: string;
  /** vec4s of a row. */
  readonly c4: string;
}

/** WGSL that puts the sums of column group `n4`. */
export const putSums = ({ exists, index, c4 }: ChunkPlace, first: string, second: string): string =>
  `if (${exists} && n4 < ${c4}) { let chunk_at = (${index}) * 2u * ${c4} + n4; sums[chunk_at] = ${first}; sums[chunk_at + ${c4}] = ${second}; }`;

export const threadsOf = ({ m, n, rows = 8, columns = 8 }: Tile): number => (m / rows) * (n / columns);
/** `64x64x16`, with `_4x4` where a thread does not compute 8 × 8, with the name of the matrix unit. */
export const tileName = ({ m, n, k, rows = 8, columns = 8, unit }: Tile): string =>
  `${m}x${n}x${k}${rows === 8 && columns === 8 ? '' : `_${rows}x${columns}`}${unit ? `_${unit.name}` : ''}`;
/** Bytes of workgroup memory the double buffer takes. */
export const workgroupBytesOf = (tile: Tile): number => 2 * (tile.m + tile.n) * tile.k * 4;

interface Slots {
  readonly count: number;
  readonly units: number;
  readonly exact: boolean;
}

/** How many fetches of an operand's tile fall to each thread. */
function slotsOf(extent: number, tile: Tile, along: 'k' | 'mn'): Slots {
  const threads = threadsOf(tile);
  const units = along === 'k' ? (extent / 4) * (tile.k / 4) : (extent / 4) * tile.k;
  return { count: Math.ceil(units / threads), units, exact: units % threads === 0 };
}

/** An operand's fetches: WGSL before the loop, WGSL that fetches tile `t` into registers. */
interface Fetches {
  readonly slots: Slots;
  readonly prepare: string;
  readonly fetch: string;
}

/** Register that holds row `r` of slot `i` (r = 0 alone, where an operand is along m or n). */
export const register = (name: 'a' | 'b', i: number, r: number): string => `r${name}${i}_${r}`;

export function fetchesOf(name: 'a' | 'b', operand: Operand, tile: Tile): Fetches {
  const extent = name === 'a' ? tile.m : tile.n;
  const threads = threadsOf(tile);
  const slots = slotsOf(extent, tile, operand.along);
  const rows = operand.along === 'k' ? 4 : 1;
  const perDepth = operand.along === 'k' ? tile.k / 4 : extent / 4;
  const prepare = times(slots.count, (i) => {
    const split =
      operand.along === 'k'
        ? `let local_${name}${i} = slot_${name}${i} / ${perDepth}u; let depth_${name}${i} = slot_${name}${i} % ${perDepth}u;`
        : `let local_${name}${i} = slot_${name}${i} % ${perDepth}u; let depth_${name}${i} = slot_${name}${i} / ${perDepth}u;`;
    return `let slot_${name}${i} = li + ${i * threads}u; ${split}
    let group_${name}${i} = ${name === 'a' ? 'm_tile' : 'n_tile'} * ${extent / 4}u + local_${name}${i};
    ${operand.prepare(i)}
    ${times(rows, (r) => `var ${register(name, i, r)} = vec4f();`)}`;
  });
  const fetch = times(slots.count, (i) => {
    const depthUnit = operand.along === 'k' ? tile.k / 4 : tile.k;
    return `{ let kt = t * ${depthUnit}u + depth_${name}${i};
    ${operand.address(i)}
    ${times(rows, (r) => `${register(name, i, r)} = ${operand.load(i, r)};`)} }`;
  });
  return { slots, prepare, fetch };
}

/** WGSL of what is put to workgroup memory for slot `i`, left out for slots beyond the tile. */
export const putSlots = (name: 'a' | 'b', { count, units, exact }: Slots, put: (i: number) => string): string =>
  times(count, (i) => `${exact || i < count - 1 ? '' : `if (slot_${name}${i} < ${units}u) `}{ ${put(i)} }`);

/** WGSL that puts what was fetched as vec4s along m or n. */
function putTile(name: 'a' | 'b', { along }: Operand, { slots }: Fetches, tile: Tile): string {
  const extent = name === 'a' ? tile.m : tile.n;
  const start = `half * ${(tile.k * extent) / 4}u`;
  return putSlots(name, slots, (i) => {
    if (along === 'mn') return `tile_${name}[${start} + slot_${name}${i}] = ${register(name, i, 0)};`;
    const lanes = ['x', 'y', 'z', 'w'];
    const transposed = lanes.map((lane) => `vec4f(${[0, 1, 2, 3].map((r) => `${register(name, i, r)}.${lane}`).join(', ')})`);
    return `let o = ${start} + depth_${name}${i} * ${extent}u + local_${name}${i};
    ${transposed.map((value, j) => `tile_${name}[o + ${(j * extent) / 4}u] = ${value};`).join(' ')}`;
  });
}

/** Rows and column groups (vec4s) of out that a thread computes, and threads along m and n. */
export function threadTile({ m, n, rows = 8, columns = 8 }: Tile) {
  return { rows, groups: range(columns / 4), wy: m / rows, wx: n / columns };
}

/** WGSL run for each row of a thread, `m` in scope. */
function eachRow(tile: Tile, body: (r: number) => string): string {
  const { rows, wy } = threadTile(tile);
  return times(rows, (r) => `{ let m = m_tile * ${tile.m}u + (ly + ${(r >> 2) * wy}u) * 4u + ${r & 3}u; ${body(r)} }`);
}

/** WGSL that adds v_c, a column group's vec4 in each thread, over all threads of the column, in a tree; each of them has total_c then. */
function addColumns(tile: Tile, v: string, total: string): string {
  const threads = threadsOf(tile);
  const { groups, wx, wy } = threadTile(tile);
  return `workgroupBarrier();
  ${groups.map((c) => `tile_a[li + ${c * threads}u] = ${v}_${c};`).join(' ')}
  for (var apart = ${wy / 2}u; apart > 0u; apart /= 2u) {
    workgroupBarrier();
    if (ly < apart) { ${groups.map((c) => `tile_a[li + ${c * threads}u] += tile_a[li + apart * ${wx}u + ${c * threads}u];`).join(' ')} }
  }
  workgroupBarrier();
  ${groups.map((c) => `let ${total}_${c} = tile_a[lx + ${c * threads}u];`).join(' ')}`;
}

/** WGSL that stores the outputs, with the epilogue. */
export function storeAll({ tile, storeRow, place, exists, put, hasRow, epilogue, chunk }: Igemm): string {
  const { change, sums } = epilogue;
  const { rows, groups, wx } = threadTile(tile);
  const column = (c: number) => `let n4 = n_tile * ${tile.n / 4}u + lx + ${c * wx}u;`;
  const add = (c: number) => (sums === null || sums === 'moments' ? '' : `first_${c} += ${sums.first}; second_${c} += ${sums.second};`);
  const store = eachRow(tile, (r) => `${storeRow}
    ${groups.map((c) => `{ ${column(c)} var value = acc${r}_${c}; if (${exists}) { let at = ${place}; ${change} ${put} ${add(c)} } }`).join('\n    ')}`);
  if (sums === null) return store;
  const each = (line: (c: number) => string): string => groups.map(line).join(' ');
  const declare = each((c) => `var first_${c} = vec4f(); var second_${c} = vec4f();`);
  // Rows that do not exist have sums of zero.
  const moments = `${each((c) => `first_${c} = ${range(rows).map((r) => `acc${r}_${c}`).join(' + ')};`)}
  ${addColumns(tile, 'first', 'sum')}
  ${each((c) => `first_${c} = sum_${c} / f32(max(${chunk.rows}, 1u));`)}
  ${eachRow(tile, (r) => `if (${hasRow}) { ${each((c) => `second_${c} += (acc${r}_${c} - first_${c}) * (acc${r}_${c} - first_${c});`)} }`)}`;
  const firsts = `${addColumns(tile, 'first', 'sum')} ${each((c) => `first_${c} = sum_${c};`)}`;
  return `${declare}
  ${store}
  ${sums === 'moments' ? moments : firsts}
  ${addColumns(tile, 'second', 'rest')}
  if (ly == 0u) {
    ${groups.map((c) => `{ ${column(c)} ${putSums(chunk, `first_${c}`, `rest_${c}`)} }`).join('\n    ')}
  }`;
}

/** The whole entry point `main`. */
export function igemmMain(spec: Igemm): string {
  const { tile } = spec;
  const { rows: nRows = 8, columns: nColumns = 8 } = tile;
  const wx = tile.n / nColumns;
  const wy = tile.m / nRows;
  const [a, b] = [fetchesOf('a', spec.a, tile), fetchesOf('b', spec.b, tile)];
  const put = `${putTile('a', spec.a, a, tile)}
  ${putTile('b', spec.b, b, tile)}`;
  const groups = range(nColumns / 4);
  const rows = range(nRows);
  const accumulate = rows
    .flatMap((r) => groups.map((c) => `acc${r}_${c} = fma(vec4f(a${r >> 2}[${r & 3}]), b${c}, acc${r}_${c});`))
    .join('\n      ');
  return /* wgsl */ `
var<workgroup> tile_a: array<vec4f, ${(2 * tile.m * tile.k) / 4}>;
var<workgroup> tile_b: array<vec4f, ${(2 * tile.n * tile.k) / 4}>;
@compute @workgroup_size(${threadsOf(tile)})
fn main(@builtin(workgroup_id) wid: vec3u, @builtin(local_invocation_index) li: u32) {
  let lx = li % ${wx}u;
  let ly = li / ${wx}u;
  ${spec.prologue}
  ${a.prepare}
  ${b.prepare}
  ${rows.flatMap((r) => groups.map((c) => `var acc${r}_${c} = vec4f();`)).join(' ')}
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
    for (var kk = 0u; kk < ${tile.k}u; kk += 1u) {
      let row_a = half * ${(tile.k * tile.m) / 4}u + kk * ${tile.m / 4}u + ly;
      let row_b = half * ${(tile.k * tile.n) / 4}u + kk * ${tile.n / 4}u + lx;
      ${range(nRows / 4).map((g) => `let a${g} = tile_a[row_a${g ? ` + ${g * wy}u` : ''}];`).join(' ')}
      ${groups.map((g) => `let b${g} = tile_b[row_b${g ? ` + ${g * wx}u` : ''}];`).join(' ')}
      ${accumulate}
    }
    if (!more) { break; }
    half = 1u - half;
    ${put}
    workgroupBarrier();
  }
  ${storeAll(spec)}
}`;
}
