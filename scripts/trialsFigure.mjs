/**
 * Draws docs/fused-trials.svg and writes the table of docs/fused-trials.md from bench/results/trials.json: memory and time of every way to
 * run N trials. A test holds the three together.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { ROOT } from './build.mjs';
import { withTable } from './readmeTable.mjs';

/** What the ways are called, in the order of legend and table. */
const methods = {
  fused: { label: 'fused (ours)', color: '#0b6e4f', dash: '', width: 3 },
  forward: { label: 'plain forward of N·B images', color: '#777777', dash: '6 4', width: 1.5 },
  inPlace: { label: 'in place, one by one', color: '#1f77b4', dash: '', width: 1.5 },
  copies: { label: 'copies, one by one', color: '#9467bd', dash: '', width: 1.5 },
  stacked: { label: 'stacked copies, one pass', color: '#e08a00', dash: '', width: 1.5 },
  asPrinted: { label: 'as printed in the paper', color: '#c0392b', dash: '', width: 1.5 },
  jaxVmap: { label: 'jax-js vmap', color: '#5d4037', dash: '2 3', width: 1.5 },
};

const panel = { width: 400, height: 260, left: 62, top: 84, gap: 82 };
const size = { width: 970, height: 412 };
const text = (x, y, content, anchor = 'middle', more = '') => `<text x="${x}" y="${y}" text-anchor="${anchor}"${more}>${content}</text>`;
const fixed = (value) => String(Math.round(value * 10) / 10);

/** CPU time of a software adapter, which computes there; else GPU time, or wall time where no timestamps were taken (jax-js). */
const timeOf = ({ software }) =>
  software
    ? { name: 'CPU time', ms: (row) => row.cpuMs, timesForward: (row) => row.cpuTimesForward }
    : { name: 'GPU time', ms: (row) => row.gpuMs ?? row.wallMs, timesForward: (row) => row.gpuTimesForward ?? row.wallTimesForward };

/** 4 KiB, 64 MiB, … */
function bytesText(bytes) {
  const unit = Math.min(3, Math.floor(Math.log2(bytes) / 10));
  const value = bytes / 2 ** (10 * unit);
  return `${value < 10 && value % 1 ? value.toFixed(1) : Math.round(value)} ${['B', 'KiB', 'MiB', 'GiB'][unit]}`;
}

/** A logarithmic scale from the power of `base` below the least value to the one above the largest. */
function logScale(values, base, from, to) {
  const log = (value) => Math.log(value) / Math.log(base);
  const first = Math.floor(log(Math.min(...values)));
  const last = Math.max(first + 1, Math.ceil(log(Math.max(...values))));
  const ticks = Array.from({ length: last - first + 1 }, (_, i) => base ** (first + i));
  return { at: (value) => from + ((log(value) - first) / (last - first)) * (to - from), ticks };
}

/** One plot: axes, and a line with dots for each method that has points [N, value]. */
function plot(left, title, lines, base, tickText) {
  const { width, height, top } = panel;
  const points = [...lines.values()].flat();
  const trials = [...new Set(points.map(([n]) => n))].sort((a, b) => a - b);
  const x = logScale(trials, 2, left, left + width);
  const y = logScale(
    points.map(([, value]) => value),
    base,
    top + height,
    top,
  );
  const rows = y.ticks.map(
    (value) =>
      `<path class="grid" d="M${left} ${fixed(y.at(value))}h${width}"/>${text(left - 8, fixed(y.at(value) + 4), tickText(value), 'end')}`,
  );
  const columns = trials.map(
    (n) => `<path class="axis" d="M${fixed(x.at(n))} ${top + height}v5"/>${text(fixed(x.at(n)), top + height + 19, n)}`,
  );
  const curves = [...lines].map(([name, all]) => {
    const { color, dash, width: stroke } = methods[name];
    const path = all.map(([n, value], i) => `${i ? 'L' : 'M'}${fixed(x.at(n))} ${fixed(y.at(value))}`).join('');
    const dots = all.map(([n, value]) => `<circle cx="${fixed(x.at(n))}" cy="${fixed(y.at(value))}" r="${stroke + 1}"/>`).join('');
    const dashes = dash ? ` stroke-dasharray="${dash}"` : '';
    return `<g fill="${color}"><path fill="none" stroke="${color}" stroke-width="${stroke}"${dashes} d="${path}"/>${dots}</g>`;
  });
  return [
    text(left, top - 14, title, 'start', ' class="title"'),
    ...rows,
    `<path class="axis" d="M${left} ${top + height}h${width}"/>`,
    ...columns,
    text(left + width / 2, top + height + 40, 'trials N'),
    ...curves.reverse(),
  ].join('\n');
}

/** Methods that a report has rows of, in order, each with its points; rows without a value are left out. */
function linesOf(report, value) {
  const lines = Object.keys(methods).map((name) => {
    const rows = report.rows.filter(({ method }) => method === name).sort((a, b) => a.trials - b.trials);
    return [name, rows.map((row) => [row.trials, value(row)]).filter(([, one]) => one > 0)];
  });
  return new Map(lines.filter(([, points]) => points.length > 0));
}

/** What the figures are of, and where they come from. */
function caption({ rows: [{ stem, width, batch }], driver, adapter, command, commit }) {
  return `ResNet18 (${stem} stem), width ${width}, batch ${batch}, on ${driver || adapter}: ${command} (commit ${commit})`;
}

/** The figure, whole. @throws Error if the report is of several nets, or has no forward pass to compare with */
export function trialsFigure(report) {
  if (new Set(report.rows.map(({ stem, width, batch }) => `${stem} ${width} ${batch}`)).size !== 1)
    throw new Error('the figure is of one net');
  const { name, timesForward } = timeOf(report);
  if (report.rows.some((row) => !timesForward(row))) throw new Error('the figure needs the forward pass of every N');
  const memory = linesOf(report, ({ method, extraBytes }) => (method === 'forward' ? 0 : extraBytes));
  const time = linesOf(report, timesForward);
  const legend = [...time.keys()].map((method, i) => {
    const [x, y] = [panel.left + (i % 4) * 225, 18 + Math.floor(i / 4) * 20];
    const { color, dash, width, label } = methods[method];
    const dashes = dash ? ` stroke-dasharray="${dash}"` : '';
    return `<path stroke="${color}" stroke-width="${width}"${dashes} d="M${x} ${y}h26"/>${text(x + 33, y + 4, label, 'start')}`;
  });
  const right = panel.left + panel.width + panel.gap;
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${size.width} ${size.height}" role="img"
  aria-label="Memory and time of N trials">
<style>text{font:12px sans-serif;fill:#222}.title{font-weight:bold}.axis{stroke:#222;fill:none}.grid{stroke:#ddd;fill:none}</style>
<rect width="100%" height="100%" fill="#fff"/>
${legend.join('\n')}
${plot(panel.left, 'GPU memory over training without trials', memory, 16, bytesText)}
${plot(right, `${name}, in forward passes of the same N·B images`, time, 2, (value) => `${value}×`)}
${text(panel.left, size.height - 6, caption(report), 'start')}
</svg>
`;
}

/** Time, memory and work of every method at N trials, in Markdown. @throws Error if the report has no such rows */
export function trialsTable(report, count = 5) {
  const { name, ms, timesForward } = timeOf(report);
  const rows = report.rows.filter(({ trials }) => trials === count);
  if (rows.length === 0 || !rows.every(timesForward)) throw new Error(`there is no forward pass at N = ${count}`);
  const head = [
    `N = ${count}`,
    `${name}, ms`,
    'in forwards',
    'dispatches',
    'submits',
    'extra memory',
    'losses off by',
    'weights left changed',
  ];
  const cells = Object.keys(methods)
    .flatMap((method) => rows.filter((row) => row.method === method))
    .map((row) => [
      methods[row.method].label,
      ms(row),
      timesForward(row).toFixed(2),
      row.dispatches.toLocaleString('en-US'),
      row.submits,
      bytesText(row.extraBytes),
      row.maxRelativeError === null ? '–' : row.maxRelativeError === 0 ? '0' : row.maxRelativeError.toExponential(1),
      row.changedWeights.toLocaleString('en-US'),
    ]);
  return [head, ['---', ...head.slice(1).map(() => '--:')], ...cells].map((row) => `| ${row.join(' | ')} |`).join('\n');
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const report = JSON.parse(readFileSync(join(ROOT, 'bench/results/trials.json'), 'utf8'));
  const page = join(ROOT, 'docs/fused-trials.md');
  writeFileSync(join(ROOT, 'docs/fused-trials.svg'), trialsFigure(report));
  writeFileSync(page, withTable(readFileSync(page, 'utf8'), trialsTable(report), 'trials-table'));
}
