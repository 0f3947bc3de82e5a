import { describe, expect, it } from 'vitest';
import { AttrError } from '../../src/gpu/errors.ts';
import { renderReport } from '../../src/cli/report.ts';
import type { Report, ReportEvent, ReportRun } from '../../src/cli/report.ts';
import type { Plot, PlotSeries } from '../../src/cli/report/plot.ts';
import { finiteRange, linearScale, logScale } from '../../src/cli/report/scale.ts';
import { nonFiniteStretches, smooth, thin } from '../../src/cli/report/series.ts';
import { runColor, runLine } from '../../src/cli/report/style.ts';
import type { Point } from '../../src/cli/report/chart.ts';
import { asPublished, TrialScheduler } from '../../src/sched/index.ts';

const run = (change: Partial<ReportRun> = {}): ReportRun => ({
  name: 'trial', steps: Array.from({ length: 100 }, (_, step) => ({ step, loss: 2.3 * 0.99 ** step, lr: 0.005 })),
  events: [], evals: [{ step: 49, testLoss: 1.5, testAccuracy: 0.4 }, { step: 99, testLoss: 1.2, testAccuracy: 0.5512 }],
  summary: { steps: 100, imagesPerSecond: 812.3 }, ...change,
});
const render = (runs: ReportRun[], change: Partial<Report> = {}): string =>
  renderReport({ title: 'T', runs, recipe: { lr: 0.005 }, adapter: 'llvmpipe', ...change });
const svgOf = (html: string, label: string): string => html.match(new RegExp(`<svg[^>]*aria-label="${label}[^]*?</svg>`))![0];
/** The data of a plot, as the page's script finds them; null where the page has none of that name. */
const plotOf = (html: string, id: string): Plot | null => {
  const found = html.match(new RegExp(`id="plot-${id}"[^>]*><script type="application/json">([^]*?)</script>`));
  return found && (JSON.parse(found[1]) as Plot);
};
const seriesOf = (html: string, id: string, kind: PlotSeries['kind']): PlotSeries[] => plotOf(html, id)!.series.filter((one) => one.kind === kind);

/** Every element is closed in order: what a forgotten escape or a lost tag breaks. */
function expectBalanced(html: string): void {
  const open: string[] = [];
  for (const [, close, name, selfClosed] of html.replaceAll(/<(style|script)[^>]*>[^]*?<\/\1>/g, '').matchAll(/<(\/?)([a-zA-Z0-9]+)[^>]*?(\/?)>/g)) {
    if (name === 'meta' || selfClosed === '/') continue;
    if (close === '/') expect(open.pop()).toBe(name);
    else open.push(name);
  }
  expect(open).toEqual([]);
}

describe('renderReport', () => {
  it('is one document that loads nothing', () => {
    const html = render([run(), run({ name: 'constant' })]);
    expect(html.startsWith('<!doctype html>')).toBe(true);
    expect(html).not.toMatch(/\bsrc=|\bhref=|@import|<link|<iframe|url\(|\bfetch\(|\bimport\(|XMLHttpRequest|WebSocket|sendBeacon/i);
    expect(html.match(/<script/g)).toHaveLength(4);
    expectBalanced(html);
  });

  it('has the style of what draws its plots, and its own', () => {
    for (const rule of ['.u-wrap', '.panel{']) expect(render([run()]).match(/<style>[^]*?<\/style>/)![0]).toContain(rule);
  });

  it('bears the licence of what draws its plots', () => {
    expect(render([run()])).toMatch(/<script>\/\* Plots: uPlot\.\nThe MIT License[^]*Copyright[^]*Permission is hereby granted[^]*\*\//);
  });

  it('draws every run in every plot, with a legend', () => {
    const html = render([run(), run({ name: 'constant' })]);
    for (const id of ['loss', 'accuracy', 'rate']) expect(seriesOf(html, id, 'line').map(({ name }) => name)).toEqual(['trial', 'constant']);
    expect(seriesOf(html, 'loss', 'faint')).toHaveLength(2);
    expect(seriesOf(html, 'loss', 'dotted').map(({ points }) => points)).toEqual([[[49, 1.5], [99, 1.2]], [[49, 1.5], [99, 1.2]]]);
    expect(html.match(/<ul class="legend">.*<\/ul>/)![0].match(/<li>/g)).toHaveLength(2);
    expect(html).toContain('55.12 %');
  });

  it('plots what was logged, within its axes', () => {
    const html = render([run()]);
    expect(seriesOf(html, 'accuracy', 'line')[0].points).toEqual([[49, 40], [99, 55.12]]);
    expect(seriesOf(html, 'rate', 'line')[0].points).toHaveLength(100);
    const faint = seriesOf(html, 'loss', 'faint')[0].points;
    expect([faint[0], faint[99]]).toEqual([[0, 2.3], [99, Number((2.3 * 0.99 ** 99).toPrecision(5))]]);
    for (const id of ['loss', 'accuracy', 'rate']) {
      const { yRange: [low, high] = [NaN, NaN], series } = plotOf(html, id)!;
      for (const [, y] of series.filter(({ kind }) => kind !== 'faint').flatMap(({ points }) => points)) {
        expect(y! >= low && y! <= high, `${id}: ${y} in ${low} … ${high}`).toBe(true);
      }
    }
  });

  it('draws gaps and crosses for losses that are not finite', () => {
    const lossAt = (step: number, loss: number): number => (step >= 40 && step < 50 ? NaN : step === 70 ? Infinity : loss);
    const steps = run().steps.map((s) => ({ ...s, loss: lossAt(s.step, s.loss) }));
    const html = render([run({ steps })]);
    expect(plotOf(html, 'loss')!.crosses!.map(({ x }) => x)).toEqual([40, 70]);
    const gaps = seriesOf(html, 'loss', 'line')[0].points.filter(([, y]) => y === null).map(([x]) => x);
    expect(gaps).toEqual([40, 70]);
    expectBalanced(html);
  });

  it('works with a single step, without any, and with nothing finite', () => {
    const single = render([run({ steps: [{ step: 0, loss: 2.3, lr: 0.1 }], evals: [], summary: {} })], { recipe: {} });
    expect(seriesOf(single, 'loss', 'line')[0].points).toEqual([[0, 2.3]]);
    expect(single).toContain('1 update<');
    const none = render([run({ steps: [], evals: [], summary: {} })]);
    for (const text of ['No finite loss logged.', 'No evaluation logged.', 'No learning rate above 0 logged.']) {
      expect(none).toContain(text);
    }
    expect(plotOf(none, 'loss')).toBeNull();
    const bad = render([run({ steps: [{ step: 0, loss: NaN, lr: NaN }], evals: [{ step: 0, testLoss: NaN, testAccuracy: NaN }] })]);
    for (const html of [single, none, bad]) {
      expect(html).not.toContain('Scheduling events');
      expectBalanced(html);
    }
  });

  it('escapes all text', () => {
    const evil = `<img src=x onerror="alert('1')">&`;
    const event: ReportEvent = { step: 0, lrBefore: 1, lrAfter: 1, factors: [1], losses: [1], weights: [1] };
    const html = render([run({ name: evil, events: [event], summary: { [evil]: evil, list: [evil] } })], {
      title: evil, recipe: { [evil]: { [evil]: evil } }, adapter: { [evil]: evil },
    });
    expect(html).not.toContain('<img');
    expect(html).not.toContain('onerror="');
    expect(seriesOf(html, 'accuracy', 'line')[0].name).toBe(evil);
    expect(html.match(/&lt;img src=x onerror=&quot;alert\(&#39;1&#39;\)&quot;&gt;&amp;/g)!.length).toBeGreaterThan(10);
    expectBalanced(html);
  });

  it('lists events: lr before → after, factor, each loss, the best, the diverged', () => {
    const scheduler = new TrialScheduler(asPublished('factor3', { lr: 0.01, bounds: [0.001, 0.0101] }));
    scheduler.apply(0, [1.5, 2, 3]);
    scheduler.apply(50, [NaN, 2.125, 2.25]);
    const html = render([run({ events: scheduler.events })]);
    const body = html.match(/<tbody>.*?<\/tbody>/)![0];
    const rows = body.split('</tr>').map((row) => row.replace(/<td/g, ' <td').replace(/<[^>]*>/g, '').trim());
    expect(rows[0].split(/ +/)).toEqual(['0', '0.01', '0.0101', '×', '1.01', '1.5', '2', '3', 'at', 'a', 'bound']);
    expect(rows[1].split(/ +/).slice(0, 2)).toEqual(['50', '0.0101']);
    expect(rows[1]).toContain('NaN 2.125 2.25');
    expect(html).toContain('<td class="w min" style="--w:73" title="weight 73 %">2.125</td>');
    expect(html).toContain('<td class="w bad" style="--w:0" title="weight 0 %">NaN</td>');
    const strip = svgOf(html, 'Weights of the trials');
    expect(strip.match(/class="best"/g)).toHaveLength(2);
    expect(strip.match(/class="dead-mark"/g)).toHaveLength(1);
  });

  it('keeps long runs small: thinned lines, a strip and table with the middle left out', () => {
    const steps = Array.from({ length: 50000 }, (_, step) => ({ step, loss: 2 + Math.sin(step), lr: 0.1 }));
    const event = (step: number): ReportEvent => ({ step, lrBefore: 1, lrAfter: 1, factors: [2, 1], losses: [1, 2], weights: [0.5, 0.5] });
    const html = render([run({ steps, events: Array.from({ length: 2000 }, (_, i) => event(25 * i)) })]);
    expect(html.length).toBeLessThan(1_000_000);
    expect(html).toContain('1400 events left out');
    expect(html.match(/<tbody>.*?<\/tbody>/)![0].match(/<tr>/g)).toHaveLength(601);
  });

  it('gives every field of summary and recipe a row, in units', () => {
    const html = render([run({ summary: { testAccuracy: 0.87, memory: { total: 160123456 }, lrHistory: Array(50).fill(0.1), a: null } }),
      run({ name: 'b', summary: { diverged: true, only: 'here' } })], { recipe: { scheduler: { factors: [2, 1], hold: true } } });
    const cells = (label: string): string[] => {
      const row = html.match(new RegExp(`<tr><td>${label}</td>(.*?)</tr>`))![1];
      return [...row.matchAll(/>([^<]*)</g)].map((m) => m[1]).filter((text) => text !== '');
    };
    expect(cells('test accuracy')).toEqual(['87.00 %', '–']);
    expect(cells('memory: total')).toEqual(['153 MiB', '–']);
    expect(cells('learning rate history')[0]).toMatch(/^(0\.1, ){12}… \(50 values\)$/);
    expect(cells('diverged')).toEqual(['–', 'yes']);
    expect(cells('only')).toEqual(['–', 'here']);
    expect(cells('scheduler.factors')).toEqual(['2, 1']);
    expect(cells('scheduler.hold')).toEqual(['yes']);
    expect(html).toContain('<small class="bad">diverged</small>');
  });

  it('takes colours, and refuses what is none', () => {
    expect(render([run({ color: '#abc' })])).toContain('style="--c:#abc"');
    for (const color of ['red;background:blue', 'x y', '"']) {
      expect(() => render([run({ color })])).toThrow(expect.objectContaining({ arg: 'runs[0].color' }));
    }
    expect(() => render([])).toThrow(AttrError);
    const many = Array.from({ length: 24 }, (_, i) => `${runColor(i)} ${runLine(i)}`);
    expect(new Set(many).size).toBe(24);
  });
});

describe('axes', () => {
  const labels = (scale: { ticks: { label: string }[] }): string[] => scale.ticks.map((t) => t.label);
  it('linear: 1, 2, 5 steps, rounded out or fixed', () => {
    expect(labels(linearScale(0.13, 0.87, 5))).toEqual(['0', '0.2', '0.4', '0.6', '0.8', '1']);
    expect(labels(linearScale(0, 3755, 8, { fixed: true }))).toEqual(['0', '500', '1000', '1500', '2000', '2500', '3000', '3500']);
    expect(labels(linearScale(0, 1, 8, { fixed: true, minStep: 1 }))).toEqual(['0', '1']);
    expect(labels(linearScale(2.36404, 2.36406, 4, { fixed: true }))).toEqual(['2.36404', '2.364045', '2.36405', '2.364055', '2.36406']);
    expect(linearScale(2, 2, 5).at(2)).toBe(0.5);
    expect([0, 3755].map((v) => linearScale(0, 3755, 8, { fixed: true }).at(v))).toEqual([0, 1]);
  });

  it('range: of what is finite, of any number of values', () => {
    expect([finiteRange([NaN, 3, -1, Infinity]), finiteRange([NaN, -Infinity]), finiteRange([])]).toEqual([[-1, 3], null, null]);
    expect(finiteRange(Array.from({ length: 300_000 }, (_, i) => i))).toEqual([0, 299_999]);
  });

  it('log: decades, with steps between where few show', () => {
    expect(labels(logScale(1e-5, 0.5))).toEqual(['1e-5', '0.0001', '0.001', '0.01', '0.1']);
    expect(labels(logScale(0.01, 0.5))).toEqual(['0.01', '0.02', '0.05', '0.1', '0.2', '0.5']);
    expect(labels(logScale(0.005, 0.005)).length).toBeGreaterThanOrEqual(3);
    expect(labels(logScale(1e-30, 1)).length).toBeLessThanOrEqual(8);
    expect(logScale(0.005, 0.005).at(0.005)).toBeCloseTo(0.5, 12);
    expect(logScale(0.1, 1).at(0)).toBeNaN();
  });
});

describe('series', () => {
  const line = (...ys: number[]): Point[] => ys.map((y, x) => [x, y]);
  it('smooth: running mean, cut at ends and gaps', () => {
    expect(smooth(line(0, 3, 6, 0, NaN, 5, 7), 3)).toEqual([[0, 1.5], [1, 3], [2, 3], [3, 3], [4, NaN], [5, 6], [6, 6]]);
    expect(smooth(line(1, 2), 1)).toEqual(line(1, 2));
  });

  it('thin: keeps ends, spikes and gaps', () => {
    const ys = Array.from({ length: 10000 }, (_, i) => (i === 5003 ? 99 : i === 7001 ? NaN : i === 20 ? -99 : 1));
    const thinned = thin(line(...ys), 500);
    expect(thinned.length).toBeLessThanOrEqual(510);
    for (const x of [0, 20, 5003, 7001, 9999]) expect(thinned.some(([at]) => at === x)).toBe(true);
    expect(thinned.every(([x], i) => i === 0 || x > thinned[i - 1][0])).toBe(true);
  });

  it('finds where values stop being finite', () => {
    expect(nonFiniteStretches(line(1, NaN, NaN, 2, Infinity))).toEqual([1, 4]);
    expect(nonFiniteStretches(line(1, 2))).toEqual([]);
  });
});
