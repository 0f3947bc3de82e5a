/** From results to tables, lines and CSV, against figures computed by hand. */
import { describe, expect, it } from 'vitest';
import { renderStudyPage } from '../../src/cli/report/studyPage.ts';
import { meanRate, type StudyResult } from '../../src/study/result.ts';
import { makeStudy, type Study } from '../../src/study/studies.ts';
import { linesOf, statOf, summarize } from '../../src/study/summary.ts';
import { markdownTable, runsCsv, showCount, showSeconds, showStat, tableOf } from '../../src/study/table.ts';
import { madeResults, madeRun } from './made.ts';

/** Results with the accuracies given by row, in %, one a seed; null diverged, undefined is not there. */
function resultsOf(study: Study, accuracies: Record<string, (number | null | undefined)[]>): Map<string, StudyResult> {
  return new Map(study.runs.flatMap(({ id, row, recipe }) => {
    const accuracy = accuracies[row]?.[recipe.seed];
    return accuracy === undefined ? [] : [[id, madeRun(id, recipe, accuracy === null ? null : accuracy / 100)] as const];
  }));
}

const table = makeStudy('table', 'small', 3);
const rowOf = (study: Study, known: Map<string, StudyResult>, key: string) => summarize(study, known).rows.find(({ row }) => row.key === key)!;

describe('statistics', () => {
  it('mean and deviation of a sample', () => {
    expect(statOf([2, 4, 4, 4, 5, 5, 7, 9])).toEqual({ mean: 5, sd: Math.sqrt(32 / 7) });
    expect([statOf([5]), statOf([])]).toEqual([{ mean: 5, sd: null }, null]);
  });

  it('mean rate of a trace: what lies between its points counts step by step', () => {
    expect(meanRate([])).toBe(null);
    expect(meanRate([[7, 0.5]])).toBe(0.5);
    // 1 1 1 2 2 3 3 3
    expect(meanRate([[0, 1], [2, 1], [3, 2], [4, 2], [5, 3], [7, 3]])).toBe(2);
    // 4 3 2 1, of which the two in the middle were thinned away.
    expect(meanRate([[10, 4], [13, 1]])).toBe(2.5);
  });

  it('in words', () => {
    expect([showStat({ mean: 46.449, sd: 0.351 }), showStat({ mean: 46.449, sd: null }), showStat(null)]).toEqual(['46.4 ± 0.4', '46.4', '–']);
    expect([0, 768, 1664, 4.56e6, 7.6e10].map(showCount)).toEqual(['0', '768', '1.66 k', '4.56 M', '76 G']);
    expect([0.5, 34.4, 119, 720, 11_000, NaN].map(showSeconds)).toEqual(['0.5 s', '34 s', '120 s', '12 min', '3.1 h', '–']);
  });
});

describe('a row', () => {
  it('has the mean over its seeds; a run that diverged counts as chance and has no loss', () => {
    const own = rowOf(table, resultsOf(table, { cosine: [40, 44, null] }), 'cosine');
    expect(own.accuracy!.mean).toBeCloseTo((40 + 44 + 10) / 3, 12);
    expect(own.testLoss!.mean).toBeCloseTo((0.6 + 0.56) / 2, 12);
    // Each from 0.005 to half of it by a straight line; the one that diverged is left out.
    expect(own.meanRate).toBeCloseTo(0.00375, 15);
    expect(own).toMatchObject({ diverged: 1, failed: 0, missing: 0, forwards: (3 * 32 * (1250 + 1250 + 7)) / 3, trainSeconds: 2 });
    const factors = makeStudy('factors', 'small', 1);
    // 100 classes.
    expect(rowOf(factors, resultsOf(factors, { constant: [null] }), 'constant').accuracy!.mean).toBe(1);
  });

  it('says what is not there, and what failed', () => {
    const known = resultsOf(table, { cosine: [40] });
    const { id, recipe } = table.runs.find((run) => run.row === 'cosine' && run.recipe.seed === 1)!;
    known.set(id, { format: 1, id, status: 'failed', recipe, version: '0', adapter: '', error: 'no luck' });
    const summary = summarize(table, known);
    expect(summary.rows.find(({ row }) => row.key === 'cosine')).toMatchObject({ failed: 1, missing: 1, accuracy: { mean: 40, sd: null } });
    expect(summary).toMatchObject({ done: 1, total: table.runs.length, failures: [{ id, error: 'no luck' }] });
    const cells = tableOf(summary).rows.find(([method]) => method === 'cosine')!;
    expect(cells).toEqual(['cosine', '85.0', '40.0', '0.600', '0.00375', '1.000', '2 s', '1 of 3 (1 failed)']);
  });
});

describe('the cost of a row', () => {
  const column = (known: Map<string, StudyResult>) => {
    const { head, rows, notes } = tableOf(summarize(table, known));
    const cost = (title: string) => rows.find(([method]) => method === title)![head.indexOf('cost')];
    return { of: [cost('constant'), cost('ALR'), cost('ALR at equal cost'), cost('cosine')], notes: notes.join() };
  };

  it('is over that of a whole run of constant, though the one that is there diverged, or others cost less', () => {
    const { of, notes } = column(resultsOf(table, { constant: [null], alr: [50], alrEqualCost: [50] }));
    expect(of).toEqual(['0.006', '3.000', '0.900', '–']);
    expect(notes).toContain('over those of a whole run of constant, 120 k forwards of one image.');
  });

  it('is a number of forwards where nothing has been made, too', () => {
    expect(column(new Map())).toMatchObject({ of: ['–', '–', '–', '–'], notes: expect.stringContaining('120 k forwards') as string });
  });
});

describe('a tuned row', () => {
  const grid = {
    constant: [30, 30, 30], 'constant@0.015': [40, 41, 42], 'constant@0.05': [44, 44, 30], 'constant@0.15': [41, 41, 41],
    'constant@0.5': [null, null, null], 'constant@1.5': [null, null, null],
  };
  const bestOf = (known: Map<string, StudyResult>) => summarize(table, known).bests.find(({ best }) => best.key === 'tuned constant')!;

  it('is the row of the highest mean over seeds, and costs the search', () => {
    const { chosen, searchForwards } = bestOf(resultsOf(table, grid));
    // Ties go to the first of the grid.
    expect([chosen!.row.key, searchForwards]).toEqual(['constant@0.015', 4 * 120_000 + 2 * 3 * 32 * 7]);
    const { rows, notes } = tableOf(summarize(table, resultsOf(table, grid)));
    expect(rows.find(([method]) => method.startsWith('constant, tuned'))!.slice(0, 3)).toEqual(['constant, tuned: 0.015', '–', '41.0 ± 1.0']);
    expect(notes.join('\n')).toContain('of 6, which cost 4.0 runs to find; choosing');
    const atEnd = resultsOf(table, { ...grid, 'constant@1.5': [50, 50, 50] });
    expect(tableOf(summarize(table, atEnd)).notes.join('\n')).toContain('of 6, which cost 5.0 runs to find; it is an end of their grid, a better one may lie beyond;');
  });

  it('is none while a rate of its grid lacks a run', () => {
    expect(bestOf(resultsOf(table, { ...grid, 'constant@0.5': [null, null] })).chosen).toBeNull();
  });
});

describe('the lines over first rates', () => {
  const study = makeStudy('robustness', 'small', 2);
  const known = madeResults(study);
  const { lines, reference } = linesOf(summarize(study, known));

  it('are one a method, by rate, with the worst and its distance from the best schedule', () => {
    const constant = lines.find(({ title }) => title === 'constant')!;
    expect(constant.points.map(({ lr }) => lr)).toEqual([0.0005, 0.005, 0.05, 0.5]);
    expect(constant.points.at(-1)).toMatchObject({ accuracy: { mean: 10, sd: 0 }, diverged: 2 });
    const at = (lr: number) => 50.5 + 5 * Math.log10(lr);
    // The best of all schedules: those that do not diverge at 0.5.
    expect(reference!.accuracy).toBeCloseTo(at(0.5), 9);
    expect(constant.worst).toBe(10);
    expect(constant.regret).toBeCloseTo(at(0.5) - 10, 9);
    const robust = lines.find(({ title }) => title === 'robust')!;
    expect(robust.worst).toBeCloseTo(at(0.0005), 9);
    expect(robust.regret).toBeCloseTo(15, 9);
  });

  it('have no worst until every rate has a run', () => {
    const some = new Map([...known].filter(([, { recipe }]) => recipe.lr < 0.5));
    expect(linesOf(summarize(study, some)).lines.find(({ title }) => title === 'robust')).toMatchObject({ worst: null, regret: null });
  });

  it('are a table of one column a rate', () => {
    const { head, rows } = tableOf(summarize(study, known));
    expect(head).toEqual(['method', '0.0005', '0.005', '0.05', '0.5', 'worst', 'below the best schedule']);
    expect(rows.find(([method]) => method === 'constant')!.slice(4)).toEqual(['10.0 ± 0.0 (2 diverged)', '10.0', '39.0']);
  });
});

describe('what is written', () => {
  it('CSV: a line a run that ended, each with its recipe', () => {
    const scores = makeStudy('scores', 'smoke', 1);
    const lines = runsCsv([summarize(scores, madeResults(scores))]).trimEnd().split('\n');
    expect(lines).toHaveLength(1 + scores.runs.length);
    const [head, first, second] = lines.map((line) => line.match(/("([^"]|"")*"|[^,]*)(,|$)/g)!.map((cell) => cell.replace(/,$/, '')));
    expect(second).toHaveLength(head.length);
    const cell = (row: string[], name: string) => row[head.indexOf(name)];
    expect([cell(first, 'method'), cell(first, 'options'), cell(first, 'forwards')]).toEqual(['published5', '{}', String(3 * 16 * 16 + 2 * 5 * 16)]);
    expect([cell(first, 'meanLr'), cell(first, 'lastLr')]).toEqual(['0.00375', '0.0025']);
    expect([cell(first, 'nesterov'), cell(first, 'augment'), cell(first, 'status')]).toEqual(['false', 'none', 'done']);
    expect([cell(second, 'row'), cell(second, 'options')]).toEqual(['"exp, minMax, anchored"', '"{""anchor"":true}"']);
  });

  it('Markdown: numbers to the right, notes below', () => {
    expect(markdownTable({ head: ['method', '%'], rows: [['a', '1.0'], ['b', '–']], notes: ['So it is.'] })).toBe(
      '| method | % |\n| --- | --: |\n| a | 1.0 |\n| b | – |\n\nSo it is.',
    );
  });

  it('a page that says what is not there, escapes what it is told, and has every table', () => {
    const factors = makeStudy('factors', 'smoke', 2);
    const known = madeResults(factors);
    const [first] = factors.runs;
    known.set(first.id, { format: 1, id: first.id, status: 'failed', recipe: first.recipe, version: '0', adapter: '', error: '<b>no & luck</b>' });
    known.delete(factors.runs[1].id);
    const html = renderStudyPage([summarize(factors, known)]);
    expect(html).toContain('6 of 8 runs: what follows is of these alone.');
    expect(html).toContain('&lt;b&gt;no &amp; luck&lt;/b&gt;');
    const titles = ['Test accuracy by epoch', 'Learning rate in force', 'Scheduling events', 'Recipe', 'Failed runs', 'Methods'];
    for (const title of titles) expect(html).toContain(`<h2>${title}</h2>`);
    expect(html.replaceAll(/<script[^]*?<\/script>/g, '')).not.toMatch(/undefined|Infinity/);
    // Nothing there at all is a page, too.
    expect(renderStudyPage([summarize(factors, new Map())])).toContain('0 of 8 runs');
  });
});
