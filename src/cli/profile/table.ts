/** A profile as tables for people. */
import type { DispatchProfile, Peaks, StepProfile } from '../../train/index.ts';
import { formatNumber } from '../format.ts';

/** Dispatches taken together. */
export interface Group {
  readonly kernel: string;
  /** With the direction; empty where the group is of several, or of none. */
  readonly layer: string;
  readonly dispatches: number;
  readonly ms: number;
  readonly flops: number;
  readonly bytes: number;
}

/** `layer1.0.conv1 forward` */
export const ownerText = ({ layer, direction }: DispatchProfile): string => (direction === null ? layer : `${layer} ${direction}`);

/** Groups of dispatches that have kernel and layer in common, or the kernel alone; what takes longest first. */
export function groupDispatches(dispatches: readonly DispatchProfile[], by: 'kernel' | 'layer'): Group[] {
  const groups = new Map<string, Group>();
  for (const one of dispatches) {
    const layer = by === 'layer' ? ownerText(one) : '';
    const key = JSON.stringify([one.kernel, layer]);
    const { dispatches: n, ms, flops, bytes } = groups.get(key) ?? { dispatches: 0, ms: 0, flops: 0, bytes: 0 };
    groups.set(key, {
      kernel: one.kernel,
      layer,
      dispatches: n + 1,
      ms: ms + one.ms,
      flops: flops + one.flops,
      bytes: bytes + one.bytes,
    });
  }
  return [...groups.values()].sort((a, b) => b.ms - a.ms);
}

export interface Rates {
  /** Null where no operations are counted, or no time was seen. */
  readonly gflopsPerSecond: number | null;
  readonly gigabytesPerSecond: number | null;
  /** The larger share of the adapter's two peaks, and which one it is. */
  readonly ofPeak: { readonly share: number; readonly peak: 'fma' | 'copy' } | null;
}

/** Speeds, and how near they are to what the adapter was measured to do. */
export function ratesOf({ ms, flops, bytes }: Pick<Group, 'ms' | 'flops' | 'bytes'>, peaks: Peaks): Rates {
  if (ms === 0) return { gflopsPerSecond: null, gigabytesPerSecond: null, ofPeak: null };
  const [gflopsPerSecond, gigabytesPerSecond] = [flops > 0 ? flops / ms / 1e6 : null, bytes / ms / 1e6];
  const ofFma = (gflopsPerSecond ?? 0) / peaks.gflopsPerSecond;
  const ofCopy = gigabytesPerSecond / peaks.gigabytesPerSecond;
  return {
    gflopsPerSecond,
    gigabytesPerSecond,
    ofPeak: ofFma > ofCopy ? { share: ofFma, peak: 'fma' } : { share: ofCopy, peak: 'copy' },
  };
}

const percent = (share: number): string => `${(100 * share).toFixed(1)} %`;
const three = (value: number | null): string => (value === null ? '–' : formatNumber(value, 3));

const head = ['kernel', 'layer', 'dispatches', 'ms', 'share', 'GFLOP', 'GFLOP/s', 'MB', 'GB/s', 'of peak'];

function cells(group: Group, totalMs: number, peaks: Peaks): string[] {
  const { kernel, layer, dispatches, ms, flops, bytes } = group;
  const { gflopsPerSecond, gigabytesPerSecond, ofPeak } = ratesOf(group, peaks);
  return [
    kernel,
    layer,
    String(dispatches),
    ms.toFixed(3),
    totalMs > 0 ? percent(ms / totalMs) : '–',
    flops > 0 ? three(flops / 1e9) : '–',
    three(gflopsPerSecond),
    three(bytes / 1e6),
    three(gigabytesPerSecond),
    ofPeak ? `${percent(ofPeak.share)} ${ofPeak.peak}` : '–',
  ];
}

/** Columns that say nothing are left out; all but the first two are numbers. */
function lay(rows: readonly string[][]): string {
  const shown = head.map((_, column) => rows.some((row) => row[column] !== '') && column).filter((column) => column !== false);
  const lines = [head, ...rows].map((row) => shown.map((column) => row[column]));
  const widths = shown.map((_, i) => Math.max(...lines.map((line) => line[i].length)));
  const pad = (cell: string, i: number): string => (shown[i] < 2 ? cell.padEnd(widths[i]) : cell.padStart(widths[i]));
  return lines.map((line) => `${line.map(pad).join('  ').trimEnd()}\n`).join('');
}

const sumOf = (groups: readonly Group[], kernel: string): Group => ({
  kernel,
  layer: '',
  dispatches: groups.reduce((sum, one) => sum + one.dispatches, 0),
  ms: groups.reduce((sum, one) => sum + one.ms, 0),
  flops: groups.reduce((sum, one) => sum + one.flops, 0),
  bytes: groups.reduce((sum, one) => sum + one.bytes, 0),
});

/** @param rows of the table by layers; what is left is summed up */
export function profileTables({ dispatches, peaks, passMs, part }: StepProfile, rows: number): string {
  const kernels = groupDispatches(dispatches, 'kernel');
  const layers = groupDispatches(dispatches, 'layer');
  const all = sumOf(kernels, 'all');
  const text = (groups: readonly Group[]): string => lay(groups.map((group) => cells(group, all.ms, peaks)));
  const rest = layers.slice(rows);
  return (
    `timed by ${peaks.method}: ${peaks.why}\n` +
    `peaks: ${three(peaks.gflopsPerSecond)} GFLOP/s of multiply-adds (fma), ${three(peaks.gigabytesPerSecond)} GB/s of a copy, read and written\n\n` +
    `${text([...kernels, all])}\n` +
    `${text([...layers.slice(0, rows), ...(rest.length > 0 ? [sumOf(rest, `${rest.length} others`)] : [])])}\n` +
    `the ${part}: ${all.ms.toFixed(3)} ms dispatch by dispatch, ${passMs.toFixed(3)} ms in one pass\n`
  );
}
