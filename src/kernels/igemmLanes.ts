/**
 * Implicit GEMM without workgroup memory, for adapters whose memory accesses cost the same wherever they go: software ones, which gather
 * lane by lane from storage and workgroup memory alike, and then pay for the barriers too.
 *
 *   out[m, n] = Σ_k A[m, k] · B[k, n]
 *
 * A workgroup is one subgroup. A lane computes 8 rows × 16 columns; all lanes have the same columns. It fetches its own rows of A; B's 16
 * vec4s of a step (4 of k × 16 columns) are fetched once, each by one lane, and handed round by `subgroupBroadcast`, which costs next to
 * nothing. Fetches and stores stand in loops: unrolled, their code outgrows the instruction cache. Measured on lavapipe: 13 to 21 GFLOP a
 * CPU-second where 8 × 8 tiles through workgroup memory reach 3 to 7, and a third of the time to compile.
 */

import type { Epilogue } from './epilogue.ts';
import { range } from './fragments.ts';
import { putSums, type ChunkPlace } from './igemm.ts';

/** Rows of out a lane computes. */
export const laneRows = 8;
/** Columns of out a lane computes. */
export const laneColumns = 16;

/** Subgroup sizes that can hand B round: 16 vec4s divide evenly over the lanes. */
export const isLaneCount = (size: number): boolean => [4, 8, 16].includes(size);

export interface LaneOperandA {
  /** `k`: a vec4 is 4 of k of one row, 8 of them a step; `m`: a vec4 is 4 rows at one k, 2 × 4 of them a step. */
  readonly along: 'k' | 'm';
  /** WGSL run once for each of the 8 rows (along k) or 2 row groups (along m); `first_row` is in scope. Names end in `_i`. */
  readonly prepare: (i: number) => string;
  /** Along k: variables of a row that `load` reads, without `_i`; declared by `prepare` with `var`. */
  readonly rowState?: readonly string[];
  /** WGSL expression of the vec4 of row `i` (along k), or of row group `i` at the step's k index `round` (along m). */
  readonly load: (i: number) => string;
}

export interface LaneOperandB {
  /** `k`: a vec4 is 4 of k of one column; `n`: a vec4 is 4 columns at one k. */
  readonly along: 'k' | 'n';
  /**
   * WGSL statements that set `mine_i`, a vec4 that this lane fetches: of column `slot_i` (along k), or of k index `slot_i / 4`, column
   * group `slot_i % 4`.
   */
  readonly load: (i: number) => string;
}

export interface IgemmLanes {
  readonly lanes: number;
  readonly a: LaneOperandA;
  readonly b: LaneOperandB;
  /** WGSL before everything else: sets `m_tile`, `n_tile` and `k_begin`, `k_end` (u32, in steps). */
  readonly prologue: string;
  /** WGSL run in every step `t` before the fetches. */
  readonly step: string;
  readonly out: LaneOutput;
}

export interface LaneOutput {
  /** WGSL run once per row, with `m` in scope. */
  readonly storeRow: string;
  /** Place of a row's column group `n4` (column / 4), whether it exists, and the WGSL statement that puts `value` at `at`. */
  readonly place: string;
  readonly exists: string;
  readonly put: string;
  /** WGSL expression: whether row `m` exists. */
  readonly hasRow: string;
  readonly epilogue: Epilogue;
  readonly chunk: ChunkPlace;
}

/** Fetches that stand side by side in the code. */
export const abreast = 2;

/** WGSL that shifts v_0 … v_(n−1) down by `by` places. */
export const shift = (name: string, n: number, by: number): string => lines(n - by, (i) => `${name}_${i} = ${name}_${i + by};`);

/** WGSL that turns v_0 … v_(n−1) round by `by` places: what stood first comes last. */
export const turn = (name: string, n: number, by: number): string =>
  `${lines(by, (i) => `let first_${name}_${i} = ${name}_${i};`)}
  ${shift(name, n, by)}
  ${lines(by, (i) => `${name}_${n - by + i} = first_${name}_${i};`)}`;

/**
 * Loops that no compiler unrolls, as they end at a uniform. Their bodies leave or take values at one end of a row of variables and move it on:
 * code as short as that of one turn, where memory accesses are most of the code.
 */
export const fetchLoop = (body: string): string => `for (var round = 0u; round < u.fetch_rounds; round += 1u) {
  ${body}
  }`;
export const eachRow = (body: string): string => `for (var r = 0u; r < u.lane_rows; r += 1u) {
    ${body}
  }`;

export const lines = (count: number, line: (i: number) => string): string => range(count).map(line).join('\n  ');

/** WGSL that hands B's 16 vec4s round: `bk_g` is the step's k index k, column group g. */
export function handRound(lanes: number, along: 'k' | 'n'): string {
  const handed = (slot: number): string => `subgroupBroadcast(mine_${Math.floor(slot / lanes)}, ${slot % lanes}u)`;
  if (along === 'n') return lines(laneColumns, (slot) => `let b${slot >> 2}_${slot & 3} = ${handed(slot)};`);
  const transposed = (k: number, g: number): string => `vec4f(${range(4).map((l) => `w${4 * g + l}[${k}]`)})`;
  return `${lines(laneColumns, (n) => `let w${n} = ${handed(n)};`)}
  ${lines(16, (i) => `let b${i >> 2}_${i & 3} = ${transposed(i >> 2, i & 3)};`)}`;
}

/**
 * A loop over column groups, `n4` in scope, whose body has the group's sums in acc_r_0: all groups move on by one after each turn, so the sums
 * are gone when it ends. A body for every group would be four times the code, and most of what a kernel takes to compile.
 */
const eachGroup = (body: string): string => `for (var g = 0u; g < u.lane_groups; g += 1u) { let n4 = n_tile * ${laneColumns / 4}u + g;
    ${body}
    ${nextGroup}
  }`;

/** WGSL that moves all groups on by one: g has what g + 1 had. A loop that then takes one in at the end has all in their places when it ends. */
export const nextGroup = range(laneRows).flatMap((r) => range(laneColumns / 4 - 1).map((g) => `acc${r}_${g} = acc${r}_${g + 1};`)).join(' ');

/** WGSL that moves the rows of a group on by one. */
export const nextRow = (g: number): string => range(laneRows - 1).map((r) => `acc${r}_${g} = acc${r + 1}_${g};`).join(' ');

/**
 * WGSL that stores a lane's sums acc_r_g, with the epilogue. `first_row` and `n_tile` are in scope. Column groups stand in a loop, and rows in
 * another, at whose ends the sums move on by a group and by a row.
 * @param isLast WGSL bool: whether the sums are whole, where they may be stored before that, without the epilogue
 */
export function storeLanes({ storeRow, place, exists, put, hasRow, epilogue, chunk }: LaneOutput, isLast: string | null = null): string {
  const { change, sums } = epilogue;
  const rows = range(laneRows);
  const onlyLast = (code: string): string => (isLast === null || code.trim() === '' ? code : `if (${isLast}) { ${code} }`);
  const add = sums === null || sums === 'moments' ? '' : `first += ${sums.first}; second += ${sums.second};`;
  const store = eachRow(`let m = first_row + r; ${storeRow}
    var value = acc0_0; if (${exists}) { let at = ${place}; ${onlyLast(`${change} ${add}`)} ${put} }
    ${nextRow(0)}`);
  if (sums === null) return eachGroup(store);
  const putAll = `if (lane == 0u) { ${putSums(chunk, 'first', 'second')} }`;
  if (sums !== 'moments') {
    return eachGroup(`var first = vec4f(); var second = vec4f();
    ${store}
    ${onlyLast(`first = subgroupAdd(first); second = subgroupAdd(second); ${putAll}`)}`);
  }
  // Rows that do not exist have sums of zero.
  return eachGroup(`${onlyLast(`let first = subgroupAdd(${rows.map((r) => `acc${r}_0`).join(' + ')}) / f32(max(${chunk.rows}, 1u)); var second = vec4f();
    ${lines(laneRows, (r) => `{ let m = first_row + ${r}u; if (${hasRow}) { let apart = acc${r}_0 - first; second += apart * apart; } }`)}
    second = subgroupAdd(second); ${putAll}`)}
    ${store}`);
}

/** The whole entry point `main`. */
export function igemmLanesMain({ lanes, a, b, prologue, step, out }: IgemmLanes): string {
  const slots = laneColumns / lanes;
  const groups = range(laneColumns / 4);
  const rows = range(laneRows);
  const isAlongK = a.along === 'k';
  const value = (row: number, k: number): string => (isAlongK ? `a_${row}[${k}]` : `a${row >> 2}_${k}[${row & 3}]`);
  const fetchA = isAlongK
    ? `${lines(laneRows, (r) => `var a_${r} = vec4f();`)}
  ${fetchLoop(`${shift('a', laneRows, abreast)}
  ${lines(abreast, (i) => `a_${laneRows - abreast + i} = ${a.load(i)};`)}
  ${a.rowState!.map((name) => turn(name, laneRows, abreast)).join('\n  ')}`)}`
    : `${lines(laneRows, (r) => `var a${r >> 2}_${r & 3} = vec4f();`)}
  ${fetchLoop(lines(laneRows / 4, (i) => `${shift(`a${i}`, 4, 1)} a${i}_3 = ${a.load(i)};`))}`;
  // k innermost: each accumulator is read and written once a step.
  const multiply = (r: number, g: number): string =>
    range(4).map((k) => `acc${r}_${g} = fma(vec4f(${value(r, k)}), b${k}_${g}, acc${r}_${g});`).join(' ');
  const accumulate = lines(laneRows, (r) => groups.map((g) => multiply(r, g)).join(' '));
  return /* wgsl */ `
@compute @workgroup_size(${lanes})
fn main(@builtin(workgroup_id) wid: vec3u, @builtin(subgroup_invocation_id) lane: u32) {
  ${prologue}
  let first_row = (m_tile * ${lanes}u + lane) * ${laneRows}u;
  ${lines(slots, (i) => `let slot_${i} = lane + ${i * lanes}u;`)}
  ${lines(isAlongK ? laneRows : laneRows / 4, a.prepare)}
  ${rows.flatMap((r) => groups.map((g) => `var acc${r}_${g} = vec4f();`)).join(' ')}
  for (var t = k_begin; t < k_end; t += 1u) {
  ${step}
  ${lines(slots, (i) => `var mine_${i} = vec4f(); ${b.load(i)}`)}
  ${fetchA}
  ${handRound(lanes, b.along)}
  ${accumulate}
  }
  ${storeLanes(out)}
}`;
}
