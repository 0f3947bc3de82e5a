/** Text into HTML, and report values into text. */
import { formatBytes, formatNumber } from '../format.ts';

/** Plain data of a summary or recipe. */
export type ReportValue = string | number | boolean | null | undefined | readonly ReportValue[] | { readonly [key: string]: ReportValue };

/** Safe as element text and inside a quoted attribute. */
export function escapeHtml(text: string): string {
  const entities: Record<string, string> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', "'": '&#39;' };
  return text.replace(/[&<>"']/g, (c) => entities[c]);
}

const isRecord = (value: ReportValue): value is { readonly [key: string]: ReportValue } =>
  value !== null && typeof value === 'object' && !Array.isArray(value);

/** Nested records as rows: { memory: { total: 1 } } → ['memory total', 1, path 'memory.total']. */
export function flatten(value: { readonly [key: string]: ReportValue }, path = ''): { path: string; value: ReportValue }[] {
  return Object.entries(value).flatMap(([key, inner]) => {
    const full = path === '' ? key : `${path}.${key}`;
    return isRecord(inner) ? flatten(inner, full) : [{ path: full, value: inner }];
  });
}

/** 'memory.testLoss' → 'memory: test loss'. */
export function labelOf(path: string): string {
  const words = path.replaceAll('.', ': ').replace(/([a-z0-9])([A-Z])/g, (_, a: string, b: string) => `${a} ${b.toLowerCase()}`);
  return words.replace(/\blr\b/g, 'learning rate').replace(/(^|: )images per second$/, '$1images/s');
}

/** A value as text: accuracies as %, sizes (memory.*, *Bytes) as MiB, long lists cut. */
export function showValue(path: string, value: ReportValue): string {
  if (value === null || value === undefined) return '–';
  if (typeof value === 'boolean') return value ? 'yes' : 'no';
  if (typeof value === 'number') return showNumber(path, value);
  if (Array.isArray(value)) {
    const list = value as readonly ReportValue[];
    const shown = list.slice(0, 12).map((v) => showValue(path, v)).join(', ');
    return list.length > 12 ? `${shown}, … (${list.length} values)` : shown;
  }
  return isRecord(value) ? flatten(value).map((row) => `${labelOf(row.path)} ${showValue(row.path, row.value)}`).join(', ') : String(value);
}

function showNumber(path: string, value: number): string {
  if (/accuracy$/i.test(path) && Number.isFinite(value)) return `${(100 * value).toFixed(2)} %`;
  if (/(^|\.)memory\.|bytes$/i.test(path)) return formatBytes(value);
  return Number.isInteger(value) && Math.abs(value) < 1e15 ? String(value) : formatNumber(value, 5);
}
