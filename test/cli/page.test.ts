/** The reports in a browser: every plot is drawn, nothing is asked for, nothing is thrown; on a desk and on a phone, light and dark. */
import { beforeEach, describe, expect, it } from 'vitest';
import { renderReport } from '../../src/cli/report.ts';
import { renderStudyPage } from '../../src/cli/report/studyPage.ts';
import { makeStudy } from '../../src/study/studies.ts';
import { summarize } from '../../src/study/summary.ts';
import { madeResults } from '../study/made.ts';
import { chromium, see } from '../support/chromium.ts';

const runReport = (): string => renderReport({
  title: 'A run', recipe: { lr: 0.005 }, adapter: 'llvmpipe',
  runs: ['constant', 'trial'].map((name, i) => ({
    name,
    steps: Array.from({ length: 300 }, (_, step) => ({ step, loss: step === 200 ? NaN : 2.3 * 0.99 ** step + i, lr: 0.005 * (i + 1) })),
    events: i === 0 ? [] : [{ step: 100, lrBefore: 0.005, lrAfter: 0.01, factors: [2, 1], losses: [1, 2], weights: [0.7, 0.3] }],
    evals: [{ step: 149, testLoss: 1.5, testAccuracy: 0.4 }, { step: 299, testLoss: 1.2, testAccuracy: 0.55 }],
    summary: { steps: 300 },
  })),
});

function studyReport(): string {
  const studies = (['table', 'robustness'] as const).map((name) => makeStudy(name, 'small', 2));
  return renderStudyPage(studies.map((study) => summarize(study, madeResults(study))));
}

describe('a report in Chromium', () => {
  beforeEach(({ skip }) => skip(!chromium, 'no Chromium at hand'));

  it.each([
    ['a run, on a desk, light', runReport, { width: 1200 }, ['plot-loss', 'plot-accuracy', 'plot-rate']],
    ['a run, on a phone, dark', runReport, { width: 500, dark: true }, ['plot-loss', 'plot-accuracy', 'plot-rate']],
    [
      'a study, on a phone, light', studyReport, { width: 500 },
      ['plot-accuracy-table-small', 'plot-rate-table-small', 'plot-robustness-robustness-small', 'plot-rate-robustness-small'],
    ],
  ] as const)('%s', (_, render, how, ids) => {
    const { problems, plots, overflow } = see(render(), how);
    expect(problems).toEqual([]);
    expect(Object.keys(plots)).toEqual(ids);
    for (const [id, { pixels, colors, legend }] of Object.entries(plots)) {
      expect(pixels, id).toBeGreaterThan(500);
      expect(colors, id).toBeGreaterThan(3);
      expect(legend.length, id).toBeGreaterThan(2);
    }
    expect(overflow).toBeLessThanOrEqual(0);
  });

  it('tells of what a page throws and asks for', () => {
    const { problems } = see('<html><head></head><body><img src="missing.png"><script>nothing()</script></body></html>', { width: 800 });
    expect(problems.join('\n')).toMatch(/nothing is not defined/);
    expect(problems.join('\n')).toMatch(/missing\.png/);
  });
});
