/**
 * Implicit GEMM of convolutions for software adapters, on the idea of `igemmLanes.ts`: a workgroup is one subgroup, a lane computes 8 rows × 16
 * columns, B is handed round by `subgroupBroadcast`. Where A is an image and B a weight, more can be had, since there a memory access costs as
 * much as ten multiplications and code as much as it is long (the loop must fit the processor's instruction cache):
 *
 *   panel    B of many steps is fetched (and formed, where it is perturbed) once, kept by the lanes in arrays of their own, and used for
 *            several tiles of rows; sums that go on in the next panel wait in `out`
 *   window   where neighbouring rows are neighbouring pixels, the taps of one kernel row share their pixels: 8 rows and 3 taps fetch 10, not 24
 *   fetches  stand in a loop of two at a time whose results move along, so that the code of a fetch is there twice, not ten times
 *
 * Measured on lavapipe, 3 × 3, 16 to 128 channels: 0.7 of the time of `igemmLanes.ts`; a perturbed weight costs 2 to 5 % more where it cost 10 to 33 %.
 */
import { range } from './fragments.ts';
import {
  abreast,
  eachRow,
  fetchLoop,
  handRound,
  laneColumns,
  laneRows,
  lines,
  nextGroup,
  nextRow,
  shift,
  storeLanes,
  turn,
  type LaneOutput,
} from './igemmLanes.ts';

/** Steps (4 of k) that a panel holds: 288 vec4s a lane, of the 512 that WGSL allows in function memory. */
const panelSteps = (lanes: number): number => 18 * lanes;

/** Lines of a panel whose own vec4s are kept: with the panel and the sums these stay within the 512 too. */
const mostKept = 48;

/**
 * Longest line of taps: it fits a panel, and with its window, the sums and up to three vec4s of the lines' own where they are kept, a lane's
 * variables stay within the 512 vec4s.
 */
export const mostTaps = (lanes: number, isKept: boolean): number => Math.min(panelSteps(lanes), isKept ? 9 : 150);

/** Lines of `taps` taps that a panel holds, with vec4s of the lines' own where `isKept`; the sums of more wait in `out` meanwhile. */
export const linesPerPanel = (lanes: number, taps: number, isKept: boolean): number =>
  Math.min(Math.floor(panelSteps(lanes) / taps), isKept ? mostKept : Infinity);

/** Pixels that `taps` neighbouring taps of 8 neighbouring rows look at, made even. */
const windowSize = (taps: number): number => Math.ceil((laneRows + taps - 1) / abreast) * abreast;

/** Rounds of the loop that fetches: the kernel takes it from a uniform, so that no compiler unrolls it. `taps` is null where there is no window. */
export const fetchRounds = (taps: number | null): number => (taps === null ? laneRows : windowSize(taps)) / abreast;

export interface IgemmPanel {
  readonly lanes: number;
  /** Taps of a line, where all rows share a window; null where every row fetches its own pixel in every tap. */
  readonly window: number | null;
  /**
   * WGSL before everything else: sets `n_tile`, `m_begin`, `m_end` (tiles of rows), `taps` (steps of a line) and `line_begin`, `line_end` (u32).
   * A line is what shares one row of taps and four channels.
   */
  readonly prologue: string;
  /** WGSL that sets what `b` and `fetch` need of the line `line`. */
  readonly line: string;
  /** vec4s that `fetch` reads of each line, by name: kept in arrays of the lane's own beside the panel. */
  readonly ofLine: Readonly<Record<string, string>>;
  readonly b: {
    /** `k`: a vec4 is 4 of k of one column; `n`: a vec4 is 4 columns at one k. */
    readonly along: 'k' | 'n';
    /** WGSL that sets `mine_i` in tap `tap`, a vec4: of column `slot_i` (along k), or of k index `slot_i / 4`, column group `slot_i % 4`. */
    readonly load: (i: number) => string;
  };
  /** WGSL run once for each of the 8 rows, `first_row` in scope: sets the variables of `rowState` and others, all ending in `_i`. */
  readonly prepare: (i: number) => string;
  /** Variables of a row that `fetch` reads, without `_i`; declared by `prepare` with `var`. */
  readonly rowState: readonly string[];
  /** Expression of a vec4 of A: of pixel `q` (a WGSL u32) of the window, or of row `i` in tap `tap`. */
  readonly fetch: (at: { readonly q: string; readonly i: number }) => string;
  /** With a window: whether row `i` has a pixel in tap `tap`, a WGSL bool. */
  readonly inside: (i: number) => string;
  /** Where the sums go. */
  readonly out: LaneOutput;
  /** Reads what `put` has put, by the WGSL of its place. */
  readonly readBack: (at: string) => string;
}

const groups = range(laneColumns / 4);

/** Once a line: the pixels that all its taps look at. */
function fetchWindow({ window, fetch }: IgemmPanel): string {
  if (window === null) return '';
  const size = windowSize(window);
  return `${lines(size, (q) => `var pixel_${q} = vec4f();`)}
  ${fetchLoop(`${shift('pixel', size, abreast)}
  ${lines(abreast, (i) => `pixel_${size - abreast + i} = ${fetch({ q: `(round * ${abreast}u + ${i}u)`, i: 0 })};`)}`)}`;
}

/** Once a tap: a_0 … a_7, the rows' vec4s. */
function rowsOfTap({ window, fetch, inside, rowState }: IgemmPanel): string {
  if (window !== null) return lines(laneRows, (i) => `let a_${i} = select(vec4f(), pixel_${i}, ${inside(i)});`);
  // The rows' state turns with the rounds and is back in its place after the last.
  return `${lines(laneRows, (i) => `var a_${i} = vec4f();`)}
  ${fetchLoop(`${shift('a', laneRows, abreast)}
  ${lines(abreast, (i) => `a_${laneRows - abreast + i} = ${fetch({ q: '0u', i })};`)}
  ${rowState.map((name) => turn(name, laneRows, abreast)).join('\n  ')}`)}`;
}

/** The whole entry point `main`. */
export function igemmPanelMain(kernel: IgemmPanel): string {
  const { lanes, window, prologue, line, ofLine, b, prepare, out, readBack } = kernel;
  const { storeRow, place, exists } = out;
  const kept = Object.entries(ofLine);
  const slots = laneColumns / lanes;
  const rows = range(laneRows);
  const last = groups.length - 1;
  const multiply = (r: number, g: number): string =>
    range(4).map((k) => `acc${r}_${g} = fma(vec4f(a_${r}[${k}]), b${k}_${g}, acc${r}_${g});`).join(' ');
  return /* wgsl */ `
@compute @workgroup_size(${lanes})
fn main(@builtin(workgroup_id) wid: vec3u, @builtin(subgroup_invocation_id) lane: u32) {
  ${lines(slots, (i) => `var panel_${i}: array<vec4f, ${panelSteps(lanes)}>; let slot_${i} = lane + ${i * lanes}u;`)}
  ${kept.map(([name]) => `var kept_${name}: array<vec4f, ${mostKept}>;`).join(' ')}
  ${prologue}
  let panel_lines = ${kept.length > 0 ? `min(${panelSteps(lanes)}u / taps, ${mostKept}u)` : `${panelSteps(lanes)}u / taps`};
  for (var first_line = line_begin; first_line < line_end; first_line += panel_lines) {
  let last_line = min(first_line + panel_lines, line_end);
  var step = 0u;
  for (var line = first_line; line < last_line; line += 1u) { ${line}
    ${kept.map(([name, value]) => `kept_${name}[line - first_line] = ${value};`).join(' ')}
    for (var tap = 0u; tap < taps; tap += 1u) {
    ${lines(slots, (i) => `var mine_${i} = vec4f(); ${b.load(i)} panel_${i}[step] = mine_${i};`)}
    step += 1u;
  } }
  for (var m_tile = m_begin; m_tile < m_end; m_tile += 1u) {
  let first_row = (m_tile * ${lanes}u + lane) * ${laneRows}u;
  ${lines(laneRows, prepare)}
  ${rows.flatMap((r) => groups.map((g) => `var acc${r}_${g} = vec4f();`)).join(' ')}
  if (first_line > line_begin) { for (var g = 0u; g < u.lane_groups; g += 1u) { let n4 = n_tile * ${groups.length}u + g; ${nextGroup}
    ${eachRow(`let m = first_row + r; ${storeRow} ${nextRow(last)}
    let at = select(0u, ${place}, ${exists}); acc${laneRows - 1}_${last} = select(vec4f(), ${readBack('at')}, ${exists});`)} } }
  step = 0u;
  for (var line = first_line; line < last_line; line += 1u) { ${line}
    ${kept.map(([name]) => `let ${name} = kept_${name}[line - first_line];`).join(' ')}
    ${fetchWindow(kernel)}
    for (var tap = 0u; tap < taps; tap += 1u) {
    ${rowsOfTap(kernel)}
    ${lines(slots, (i) => `let mine_${i} = panel_${i}[step];`)}
    ${handRound(lanes, b.along)}
    ${lines(laneRows, (r) => groups.map((g) => multiply(r, g)).join(' '))}
    ${window === null ? '' : shift('pixel', windowSize(window), 1)}
    step += 1u;
  } }
  ${storeLanes(out, 'last_line == line_end')}
  } }
}`;
}
