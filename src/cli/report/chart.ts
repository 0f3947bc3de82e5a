/** What SVG figures share: the frame of a plot, and its step axis. */
import { escapeHtml } from './html.ts';
import type { Scale } from './scale.ts';

/** Plot area inside the 880-wide viewBox, in viewBox units. All figures share left and right, so that steps line up. */
export const frame = { width: 880, left: 68, right: 18, top: 14, bottom: 42 };

/** [step, value]; a value that is not finite is a gap */
export type Point = readonly [number, number];

export const colorStyle = (color: string): string => ` style="--c:${escapeHtml(color)}"`;
const round = (v: number): string => String(Math.round(v * 10) / 10);

/** Maps data to viewBox units. */
export function plotMap(x: Scale, y: Scale, height: number): { px: (v: number) => number; py: (v: number) => number } {
  const plotWidth = frame.width - frame.left - frame.right;
  const plotHeight = height - frame.top - frame.bottom;
  return { px: (v) => frame.left + x.at(v) * plotWidth, py: (v) => frame.top + (1 - y.at(v)) * plotHeight };
}

/** The step axis under a plot: ticks, labels, name. */
export function stepAxis(x: Scale, xLabel: string, height: number): string {
  const bottom = height - frame.bottom;
  const span = frame.width - frame.left - frame.right;
  const ticks = x.ticks.map(({ value, label }) => {
    const at = round(frame.left + x.at(value) * span);
    return `<path class="tick" d="M${at} ${bottom}v5"/><text x="${at}" y="${bottom + 18}" text-anchor="middle">${escapeHtml(label)}</text>`;
  });
  const name = `<text class="name" x="${frame.left + span / 2}" y="${height - 6}" text-anchor="middle">${escapeHtml(xLabel)}</text>`;
  return `<path class="axis" d="M${frame.left} ${bottom}h${span}"/>${ticks.join('')}${name}`;
}
