/**
 * Implicit GEMM without workgroup memory, for adapters whose memory accesses cost the same wherever they go: software ones, which gather
 * lane by lane from storage and workgroup memory alike, and then pay for the barriers too.
 *
 *   out[m, n] = Σ_k A[m, k] · B[k, n]
 *
 * A workgroup is one subgroup. A lane computes 8 rows × 16 columns; all lanes have the same columns. It fetches its own rows of A; B's 16
 * vec4s of a step (4 of k × 16 columns) are fetched once, each by one lane, and handed round by `subgroupBroadcast`, which costs next to
 * nothing. Measured on lavapipe: 15 to 22 GFLOP a CPU-second where 8 × 8 tiles through workgroup memory reach 3 to 7, and half the time
 * to compile.
 */

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
  /** WGSL expression of the vec4 of row `i` (along k), or of row group `i` at the step's k index `j` (along m). */
  readonly load: (i: number, j: number) => string;
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
  /** WGSL run once per row, with `m` in scope. */
  readonly storeRow: string;
  /** WGSL run for each column group: `n4` (column / 4) and `value` in scope. */
  readonly store: string;
}

const range = (count: number): number[] => Array.from({ length: count }, (_, i) => i);
const lines = (count: number, line: (i: number) => string): string => range(count).map(line).join('\n  ');

/** WGSL that hands B's 16 vec4s round: `bk_g` is the step's k index k, column group g. */
export function handRound(lanes: number, along: 'k' | 'n'): string {
  const handed = (slot: number): string => `subgroupBroadcast(mine_${Math.floor(slot / lanes)}, ${slot % lanes}u)`;
  if (along === 'n') return lines(laneColumns, (slot) => `let b${slot >> 2}_${slot & 3} = ${handed(slot)};`);
  const transposed = (k: number, g: number): string => `vec4f(${range(4).map((l) => `w${4 * g + l}[${k}]`)})`;
  return `${lines(laneColumns, (n) => `let w${n} = ${handed(n)};`)}
  ${lines(16, (i) => `let b${i >> 2}_${i & 3} = ${transposed(i >> 2, i & 3)};`)}`;
}

/** The whole entry point `main`. */
export function igemmLanesMain({ lanes, a, b, prologue, step, storeRow, store }: IgemmLanes): string {
  const slots = laneColumns / lanes;
  const groups = range(laneColumns / 4);
  const rows = range(laneRows);
  const isAlongK = a.along === 'k';
  const value = (row: number, k: number): string => (isAlongK ? `a${row}[${k}]` : `a${row >> 2}_${k}[${row & 3}]`);
  // Where fetches stand is what the compiler of lavapipe keeps in registers by: all rows first along k, group by group along m.
  const fetchRows = isAlongK ? lines(laneRows, (r) => `let a${r} = ${a.load(r, 0)};`) : '';
  const fetchGroup = (r: number): string =>
    !isAlongK && r % 4 === 0 ? range(4).map((j) => `let a${r / 4}_${j} = ${a.load(r / 4, j)};`).join(' ') : '';
  // k innermost: each accumulator is read and written once a step.
  const multiply = (r: number, g: number): string =>
    range(4).map((k) => `acc${r}_${g} = fma(vec4f(${value(r, k)}), b${k}_${g}, acc${r}_${g});`).join(' ');
  const accumulate = lines(laneRows, (r) => `${fetchGroup(r)} ${groups.map((g) => multiply(r, g)).join(' ')}`);
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
  ${fetchRows}
  ${handRound(lanes, b.along)}
  ${accumulate}
  }
  ${lines(laneRows, (r) => `{ let m = first_row + ${r}u; ${storeRow}
  ${groups.map((g) => `{ let n4 = n_tile * ${groups.length}u + ${g}u; let value = acc${r}_${g}; ${store} }`).join(' ')} }`)}
}`;
}
