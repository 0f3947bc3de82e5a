/** The report's tables: scheduling events, summary, recipe. */
import { formatNumber } from '../format.ts';
import { colorStyle } from './chart.ts';
import { escapeHtml, flatten, labelOf, showValue } from './html.ts';
import type { ReportValue } from './html.ts';

/** One scheduling event as the report shows it; a TrialEvent fits. */
export interface ReportEvent {
  step: number;
  lrBefore: number;
  lrAfter: number;
  /** one a trial, as are losses and weights */
  factors: readonly number[];
  losses: readonly number[];
  weights: readonly number[];
  clamped?: boolean;
  held?: boolean;
  allNonFinite?: boolean;
}

/** Most rows of an event table: half from the start, half from the end. */
const mostRows = 600;

/** Index of the lowest finite loss, −1 where there is none. */
export function bestTrial(losses: readonly number[]): number {
  return losses.reduce((best, loss, i) => (Number.isFinite(loss) && (best < 0 || loss < losses[best]) ? i : best), -1);
}

/** All events of one run: step, lr before → after, the factor chosen, each trial's loss shaded by its weight. */
export function eventTable(events: readonly ReportEvent[], color: string): string {
  const nTrials = Math.max(...events.map((e) => e.factors.length));
  const isUniform = events.every((e) => e.factors.join() === events[0].factors.join());
  const headOf = (i: number): string => (isUniform ? `× ${formatNumber(events[0].factors[i])}` : `trial ${i + 1}`);
  const heads = Array.from({ length: nTrials }, (_, i) => `<th>${headOf(i)}</th>`);
  const rows = events.map((event) => eventRow(event, nTrials, isUniform));
  const nLeftOut = rows.length - mostRows;
  if (nLeftOut > 0) {
    rows.splice(mostRows / 2, nLeftOut, `<tr><td class="note" colspan="${nTrials + 5}">… ${nLeftOut} events left out here …</td></tr>`);
  }
  return `<div class="scroll"${colorStyle(color)}><table><thead><tr><th>step</th><th>lr before</th><th>lr after</th>`
    + `<th>factor chosen</th>${heads.join('')}<th></th></tr></thead><tbody>${rows.join('')}</tbody></table></div>`;
}

function eventRow(event: ReportEvent, nTrials: number, isUniform: boolean): string {
  const best = bestTrial(event.losses);
  const cells = Array.from({ length: nTrials }, (_, i) => {
    if (i >= event.losses.length) return '<td></td>';
    const loss = event.losses[i];
    const factor = isUniform ? '' : `× ${formatNumber(event.factors[i])}: `;
    const kind = Number.isFinite(loss) ? (i === best ? 'w min' : 'w') : 'w bad';
    const share = Math.round(100 * Math.min(1, Math.max(0, event.weights[i] ?? 0)));
    return `<td class="${kind}" style="--w:${share}" title="weight ${share} %">${escapeHtml(factor + formatNumber(loss, 5))}</td>`;
  });
  const flags = [
    event.held === true ? 'held: losses equal within rounding' : '', event.clamped === true ? 'at a bound' : '',
    event.allNonFinite === true ? 'every trial diverged' : '',
  ].filter((flag) => flag !== '');
  const chosen = `× ${formatNumber(event.lrAfter / event.lrBefore)}`;
  return `<tr><td>${formatNumber(event.step, 9)}</td><td>${formatNumber(event.lrBefore)}</td><td>${formatNumber(event.lrAfter)}</td>`
    + `<td>${chosen}</td>${cells.join('')}<td class="note">${flags.join(', ')}</td></tr>`;
}

/** One row a field, one column a run; a field that a run lacks shows as –. */
export function summaryTable(runs: readonly { name: string; color: string; summary: { readonly [key: string]: ReportValue } }[]): string {
  const rows = new Map<string, ReportValue[]>();
  runs.forEach((run, i) => {
    for (const { path, value } of flatten(run.summary)) {
      if (!rows.has(path)) rows.set(path, runs.map(() => undefined));
      rows.get(path)![i] = value;
    }
  });
  const heads = runs.map((run) => `<th><span class="key"${colorStyle(run.color)}></span>${escapeHtml(run.name)}</th>`);
  const body = [...rows].map(([path, values]) => {
    const cells = values.map((value) => `<td${Array.isArray(value) ? ' class="left"' : ''}>${escapeHtml(showValue(path, value))}</td>`);
    return `<tr><td>${escapeHtml(labelOf(path))}</td>${cells.join('')}</tr>`;
  });
  return `<table><thead><tr><th></th>${heads.join('')}</tr></thead><tbody>${body.join('')}</tbody></table>`;
}

/** Every option, one a row. */
export function valueTable(record: { readonly [key: string]: ReportValue }): string {
  const rows = flatten(record).map(({ path, value }) =>
    `<tr><td>${escapeHtml(path)}</td><td class="left">${escapeHtml(showValue(path, value))}</td></tr>`);
  return `<table><tbody>${rows.join('')}</tbody></table>`;
}
