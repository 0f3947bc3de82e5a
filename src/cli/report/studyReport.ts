/** Writes what a study's folder has to tell. */
import { join } from 'node:path';
import type { StudyFolder } from '../../study/folder.node.ts';
import { makeStudy } from '../../study/studies.ts';
import { summarize } from '../../study/summary.ts';
import { runsCsv } from '../../study/table.ts';
import { writeWhole } from '../../train/files.node.ts';
import { renderStudyPage } from './studyPage.ts';

/** report.html and runs.csv of all studies of a folder; returns their paths. */
export function writeStudyReport(folder: StudyFolder, out: string): { page: string; csv: string } {
  const known = folder.results();
  const summaries = folder.studies().map(({ name, scale, seeds }) => summarize(makeStudy(name, scale, seeds), known));
  const [page, csv] = [join(out, 'report.html'), join(out, 'runs.csv')];
  writeWhole(page, renderStudyPage(summaries));
  writeWhole(csv, runsCsv(summaries));
  return { page, csv };
}
