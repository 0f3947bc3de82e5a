/**
 * `node scripts/readmeTable.mjs` writes the README's table of measurements from bench/results/peers.json, cold.json and trials.json, which
 * `npm run bench -- NAME --json bench/results/NAME.json` makes. A file that is not there gives no rows.
 */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { ROOT } from './build.mjs';

const begin = (mark) => `<!-- ${mark} -->\n`;
const end = (mark) => `\n<!-- /${mark} -->`;

/** The reports that the table is made of, in the order of its rows. */
export const tableReports = ['peers', 'cold', 'trials'];

/** Three significant digits; whole numbers from 100 on. */
const short = (value) => (Math.abs(value) >= 100 ? Math.round(value).toLocaleString('en-US') : String(Number(value.toPrecision(3))));
const pair = (a, b) => `${a} / ${b}`;

/** A report by its bench's name, or null. @throws Error if it is of another size than the table's */
function readReport(folder, name) {
  const file = join(folder, `${name}.json`);
  if (!existsSync(file)) return null;
  const report = JSON.parse(readFileSync(file, 'utf8'));
  const size = /--(width(?! 16\b)|batch(?! 32\b)|stem(?! cifar\b))\b.*/.exec(report.command);
  if (report.bench !== name || size) {
    throw new Error(`${name}.json: the table is of the CIFAR stem, width 16, batch 32; got ${report.command}`);
  }
  return report;
}

/** The row of a report that begins with these words in that column. @throws Error if there is none */
function rowOf(report, column, words) {
  const row = report.rows.find((one) => String(one[column]).startsWith(words));
  if (!row) throw new Error(`${report.bench}.json has no row ${words}`);
  return row;
}

const methods = ['forkstep', 'jax-js', 'tfjs'];
const wholeStep = 'step width 16, batch 32';

/** One line a measurement: what it is, then a cell for each of the libraries. */
const rowsOf = {
  peers: (report) => {
    const step = { ...report, rows: report.rows.filter((row) => row.case === wholeStep) };
    const rows = methods.map((name) => rowOf(step, 'method', name));
    const line = (what, cell) => [what, ...rows.map(cell)];
    return [
      line('training step, wall / CPU ms', ({ wallMs, cpuMs }) => pair(short(wallMs), short(cpuMs))),
      line('dispatches / submits of a step', ({ dispatches, submits }) => pair(short(dispatches), short(submits))),
      line('GPU buffers at their peak, MB', ({ peakBytes }) => short(peakBytes / 1e6)),
    ];
  },
  cold: (report) => {
    const [cold, warm] = ['cold', 'warm'].map((cache) => rowOf(report, 'cache', cache));
    const what = 'process start to first step done, shader cache cold / warm, s';
    return [[what, pair(short(cold.seconds), short(warm.seconds)), '–', '–']];
  },
  trials: (report) => {
    const five = { ...report, rows: report.rows.filter(({ trials }) => trials === 5) };
    const { wallTimesForward, cpuTimesForward } = rowOf(five, 'method', 'fused');
    const what = 'event of 5 trials in forwards of the same 160 images, wall / CPU';
    return [[what, pair(short(wallTimesForward), short(cpuTimesForward)), '–', '–']];
  },
};

function caption(reports) {
  const [{ driver, adapter, cores, node, dawn }] = reports;
  const runs = reports.map(({ command, commit, load }) => `\`${command}\` (commit ${commit}, load ${load})`);
  const machine = `${driver || adapter}, ${cores} cores, Node ${node.slice(1)}, Dawn from ${dawn}`;
  return `Medians on ${machine}: ${runs.join(', ')}; all figures are in bench/results.`;
}

/** The table in Markdown, its source below it; only its head where there is no report. */
export function benchTable(folder = join(ROOT, 'bench/results')) {
  const reports = tableReports.map((name) => readReport(folder, name)).filter((report) => report !== null);
  const [first] = reports;
  const version = (name) => (first?.bench === 'peers' ? ` ${first.packages[name]}` : '');
  const libraries = ['forkstep', `jax-js${version('@jax-js/jax')}`, `TensorFlow.js${version('@tensorflow/tfjs')}`];
  const head = ['ResNet18 (CIFAR stem), width 16, batch 32', ...libraries];
  const lines = [head, ['---', '--:', '--:', '--:'], ...reports.flatMap((report) => rowsOf[report.bench](report))];
  const table = lines.map((cells) => `| ${cells.join(' | ')} |`).join('\n');
  return reports.length > 0 ? `${table}\n\n${caption(reports)}` : table;
}

/** What stands between the marks of a text. @throws Error unless it has both, in order */
export function markedTable(text, mark = 'bench-table') {
  const [first, last] = [text.indexOf(begin(mark)), text.indexOf(end(mark))];
  if (first < 0 || last < first) throw new Error(`the text must have <!-- ${mark} --> and, below it, <!-- /${mark} -->`);
  return text.slice(first + begin(mark).length, last);
}

/** The text with another table between its marks. */
export function withTable(text, table, mark = 'bench-table') {
  const old = markedTable(text, mark);
  const at = text.indexOf(begin(mark)) + begin(mark).length;
  return text.slice(0, at) + table + text.slice(at + old.length);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const readme = join(ROOT, 'README.md');
  const missing = tableReports.filter((name) => !existsSync(join(ROOT, 'bench/results', `${name}.json`)));
  writeFileSync(readme, withTable(readFileSync(readme, 'utf8'), benchTable()));
  if (missing.length > 0) process.stderr.write(`readmeTable: no rows for want of bench/results/{${missing.join(',')}}.json\n`);
}
