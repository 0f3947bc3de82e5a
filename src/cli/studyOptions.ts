/** The options of `forkstep study` and `forkstep report`. */
import { findCifarFolder } from '../data/cifar.node.ts';
import { scaleNames } from '../study/scales.ts';
import { studyNames, makeStudy, type StudyName } from '../study/studies.ts';
import { UsageError, choice, flag, integer, path, required, text } from './args.ts';
import type { OptionValues, Parsed } from './args.ts';

export { studyNames };

export const studyOptions = {
  scale: choice(scaleNames, { default: 'smoke', help: 'smoke: minutes, procedural images; small: hours, CIFAR in part; paper: needs a GPU' }),
  seeds: integer({ default: 3, min: 1, max: 1000, help: 'runs of each row, with seeds 0, 1, …' }),
  jobs: integer({ default: 1, min: 1, max: 64, help: 'runs at once; more than 1: in as many worker processes' }),
  data: path('folder', { default: undefined, help: "folder of CIFAR's binary files, of small and paper; see forkstep data fetch" }),
  out: path('output', { default: undefined, defaultText: 'runs/study-SCALE', help: 'folder of the results; studies of one scale share theirs' }),
  only: text({ default: undefined, placeholder: 'TEXT', help: 'make only the runs that have this in their name or row, such as cosine-, -s0- or anchored' }),
  dryRun: flag('list the runs and what they cost, and make none'),
  json: flag('print one JSON object last'),
};

export const reportOptions = {
  out: path('output', { default: undefined, defaultText: 'the folder itself', help: 'folder for report.html and runs.csv' }),
};

/** What a worker process is started with. */
export const workerOptions = {
  data: path('folder', { default: undefined, help: studyOptions.data.help }),
  out: required(path('folder', { default: undefined, help: studyOptions.out.help })),
};

export type StudyValues = OptionValues<typeof studyOptions>;
export type ReportValues = OptionValues<typeof reportOptions>;
export type WorkerValues = OptionValues<typeof workerOptions>;

/** --data belongs to scales that read files, and must hold what the study reads. @throws UsageError */
export function checkStudy(command: string, { values, positionals }: Parsed<typeof studyOptions>): void {
  const { scale, data, dryRun } = values;
  const [name] = positionals as StudyName[];
  const files = [...new Set(makeStudy(name, scale, 1).rows.map(({ recipe }) => recipe.dataset))].filter((set) => set !== 'procedural');
  const refuse = (rule: string, got: string, fix: string): never => {
    throw new UsageError({ op: command, arg: '--data', rule, got, fix });
  };
  if (files.length === 0 && data !== undefined) refuse('must go with --scale small or paper', `--scale ${scale}`, 'leave --data out');
  if (dryRun) return;
  for (const set of files) {
    const fix = `forkstep data fetch ${set} --data DIR downloads it`;
    if (data === undefined) refuse(`must be given with --scale ${scale}`, 'nothing', fix);
    if (findCifarFolder(set, data!) === null) refuse(`must hold ${set}, which ${name} trains on`, JSON.stringify(data), fix);
  }
}

export const defaultFolder = ({ scale, out }: Pick<StudyValues, 'scale' | 'out'>): string => out ?? `runs/study-${scale}`;
