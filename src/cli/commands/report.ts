/** `forkstep report DIR`: one page and one CSV file of what lies in a study's folder. */
import { existsSync } from 'node:fs';
import { StudyFolder } from '../../study/folder.node.ts';
import { UsageError } from '../args.ts';
import { writeStudyReport } from '../report/studyReport.ts';
import { makeOutputFolder } from '../run/setup.ts';
import type { ReportValues } from '../studyOptions.ts';

export async function run({ out }: ReportValues, path: string): Promise<number> {
  const folder = new StudyFolder(path);
  if (!existsSync(path) || folder.studies().length === 0) {
    const fix = 'forkstep study NAME --out DIR makes one';
    throw new UsageError({ op: 'forkstep report', arg: 'DIR', rule: 'must be the folder of a study', got: path, fix });
  }
  makeOutputFolder(out ?? path);
  const { page, csv } = writeStudyReport(folder, out ?? path);
  process.stdout.write(`report: ${page}\nruns: ${csv}\n`);
  return 0;
}
