/** The blocks of docs/study.md, made of the results that are committed. */
import { StudyFolder } from './folder.node.ts';
import { methodNames, methods } from './methods.ts';
import { makeStudy, studyNames, type StudyName } from './studies.ts';
import { summarize, type StudySummary } from './summary.ts';
import { markdownTable, tableOf } from './table.ts';

/** What is there, where it was made, and the table. */
function resultsOf(summary: StudySummary): string {
  const { done, total, failures, adapters, versions } = summary;
  const failed = failures.length > 0 ? `, ${failures.length} failed` : '';
  const part = done < total ? '; **a part: what follows is of these alone**' : '';
  const made = `${done} of ${total} runs${failed}${part}. Made by forkstep ${versions.join(', ')} on ${adapters.join('; ')}.`;
  return `${made}\n\n${markdownTable(tableOf(summary))}`;
}

/** Text by the name of its block: `study NAME` for each study, `methods` for the registry. */
export function studyBlocks(folder: string): Map<string, string> {
  const results = new StudyFolder(folder);
  const known = results.results();
  const asked = results.studies();
  const block = (name: StudyName): string => {
    const study = asked.find((one) => one.name === name);
    return study ? resultsOf(summarize(makeStudy(name, study.scale, study.seeds), known)) : 'Not run yet.';
  };
  const list = methodNames.map((name) => [`\`${name}\``, methods[name].title, methods[name].family, methods[name].note]);
  return new Map([
    ['study methods', markdownTable({ head: ['name', 'title', 'kind', 'what it does'], rows: list, notes: [] })],
    ...studyNames.map((name) => [`study ${name}`, block(name)] as const),
  ]);
}
