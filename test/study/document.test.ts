/** docs/study.md says what the committed results say. */
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { studyDocument, studyResults } from '../../scripts/studyTables.mjs';
import { markedTable } from '../../scripts/readmeTable.mjs';
import { StudyFolder } from '../../src/study/folder.node.ts';
import { studyBlocks } from '../../src/study/markdown.node.ts';
import { scales } from '../../src/study/scales.ts';
import { makeStudy, studyNames } from '../../src/study/studies.ts';

const text = readFileSync(studyDocument, 'utf8');

describe('docs/study.md', () => {
  it.each([...studyBlocks(studyResults)])('%s is what scripts/studyTables.mjs makes of the results', (mark, block) => {
    expect(markedTable(text, mark)).toBe(block);
  });

  it('has a block for every study, and every scale with its numbers', () => {
    for (const name of studyNames) expect(text).toContain(`<!-- study ${name} -->`);
    const row = (scale: string) => text.split('\n').find((line) => line.startsWith(`| \`${scale}\` |`))!;
    const { smoke, small, paper } = scales;
    expect(row('smoke')).toContain(`${smoke.base.train} procedural`);
    for (const { base } of [smoke, small, paper]) {
      const own = row(base === smoke.base ? 'smoke' : base === small.base ? 'small' : 'paper');
      expect(own).toContain(`width ${base.width}`);
      expect(own).toContain(`${base.epochs} epochs of batch ${base.batch}`);
    }
    expect(row('small')).toContain(`the first ${small.base.train.toLocaleString('en-US')} of CIFAR-10`);
    expect(row('small')).toContain(`${small.base.test.toLocaleString('en-US')} to test`);
    expect(text).toContain(`{${small.rates.tuned.join(', ')}}`);
  });
});

describe('the committed results', () => {
  it('are runs of the studies that their list names, and of no others', () => {
    const folder = new StudyFolder(studyResults);
    const own = new Set(folder.studies().flatMap(({ name, scale, seeds }) => makeStudy(name, scale, seeds).runs.map(({ id }) => id)));
    expect([...folder.results().keys()].filter((id) => !own.has(id))).toEqual([]);
  });
});
