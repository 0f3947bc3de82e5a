#!/usr/bin/env node
/** The command `forkstep`. Exit codes: 0 done, 1 the run failed or diverged, 2 the command line or the files it names are at fault. */
import { DataError, ForkstepError } from '../gpu/errors.ts';
import { UsageError, columns, helpText, parseArgs, suggestion } from './args.ts';
import type { OptionTable, OptionValues, Parsed } from './args.ts';
import {
  checkCompare,
  checkData,
  checkEval,
  checkTrain,
  compareOptions,
  dataFetchOptions,
  devicesOptions,
  evalOptions,
  trainOptions,
} from './options.ts';
import {
  checkCurvature,
  checkRange,
  checkSlice,
  curvatureOptions,
  interpolateOptions,
  planeOptions,
  rangeOptions,
  sliceOptions,
} from './probeOptions.ts';
import { profileOptions } from './profileOptions.ts';
import { checkSchedule, scheduleNames, scheduleOptions } from './scheduleOptions.ts';
import { checkStudy, reportOptions, studyNames, studyOptions, workerOptions } from './studyOptions.ts';
import { version } from './version.ts';

interface Spec<T extends OptionTable, P extends string> {
  summary: string;
  options: T;
  /** Words that must follow the command's name, one of them. */
  positional?: readonly P[];
  /** In their place, what help calls a word that may be any. */
  argument?: string;
  /** For the command's own processes: help does not list it. */
  isHidden?: boolean;
  /** Rules that span options. @throws UsageError */
  check?(command: string, parsed: Parsed<T>): void;
  /** The module behind the command; run() resolves with the exit code. */
  load(): Promise<{ run(values: OptionValues<T>, positional: P, given: ReadonlySet<keyof T>): Promise<number> }>;
}

interface Command {
  summary: string;
  isHidden: boolean;
  execute(name: string, argv: readonly string[]): Promise<number>;
}

/** A command from its parts; its option values are typed by its own table. */
function command<T extends OptionTable, const P extends string>(spec: Spec<T, P>): Command {
  const { summary, options, positional = [], argument, isHidden = false, check, load } = spec;
  const execute = async (name: string, argv: readonly string[]): Promise<number> => {
    const parsed = parseArgs(name, options, argv);
    if (parsed.wantsHelp) {
      process.stdout.write(helpText(name, summary, options, argument ?? positional.join('|')));
      return 0;
    }
    const [word = '', ...extra] = parsed.positionals;
    const unexpected = positional.length === 0 && argument === undefined ? parsed.positionals[0] : extra[0];
    if (unexpected !== undefined) {
      throw new UsageError({ op: name, arg: 'argument', rule: 'must follow an option', got: unexpected, fix: `see ${name} --help` });
    }
    if (positional.length > 0 && !positional.includes(word as P)) {
      const fix = suggestion(word, positional) ?? `see ${name} --help`;
      throw new UsageError({ op: name, arg: 'argument', rule: `must be ${positional.join(' or ')}`, got: word || 'none', fix });
    }
    if (argument !== undefined && word === '') {
      throw new UsageError({ op: name, arg: argument, rule: 'must be given', got: 'nothing', fix: `see ${name} --help` });
    }
    check?.(name, parsed);
    return (await load()).run(parsed.values, word as P, parsed.given);
  };
  return { summary, isHidden, execute };
}

const commands: Record<string, Command> = {
  devices: command({
    summary: 'List the adapters, and which one is chosen and why.',
    options: devicesOptions,
    load: () => import('./commands/devices.ts'),
  }),
  train: command({
    summary: 'Train a network, its learning rate set by fused trials.',
    options: trainOptions,
    // With --resume, once the run's own options are known.
    check: (name, parsed) => (parsed.values.resume ? undefined : checkTrain(name, parsed)),
    load: () => import('./commands/train.ts'),
  }),
  compare: command({
    summary: 'Train twice from the same start, at a constant learning rate and with the trial scheduler, and report both.',
    options: compareOptions,
    check: checkCompare,
    load: () => import('./commands/compare.ts'),
  }),
  eval: command({
    summary: 'Measure a checkpoint on the test images.',
    options: evalOptions,
    check: checkEval,
    load: () => import('./commands/eval.ts'),
  }),
  'probe range': command({
    summary: 'Losses of one step over learning rates: where it is least, and where it explodes. Prints JSON, draws an SVG.',
    options: rangeOptions,
    check: checkRange,
    load: () => import('./commands/probeRange.ts'),
  }),
  'probe slice': command({
    summary: 'Losses along a random, filter-normalised direction. Prints JSON, draws an SVG.',
    options: sliceOptions,
    check: checkSlice,
    load: () => import('./commands/probeSlice.ts'),
  }),
  'probe plane': command({
    summary: 'Losses over the plane of two such directions. Prints JSON, draws an SVG.',
    options: planeOptions,
    check: checkData,
    load: () => import('./commands/probePlane.ts'),
  }),
  'probe curvature': command({
    summary: 'Curvature of the loss along the gradient, beside 2/η. Prints JSON, draws an SVG.',
    options: curvatureOptions,
    check: checkCurvature,
    load: () => import('./commands/probeCurvature.ts'),
  }),
  'probe interpolate': command({
    summary: 'Losses on the line between two checkpoints. Prints JSON, draws an SVG.',
    options: interpolateOptions,
    check: checkData,
    load: () => import('./commands/probeInterpolate.ts'),
  }),
  profile: command({
    summary: 'Where the GPU time of a training step or of a scheduling event goes, dispatch by dispatch. Draws an SVG.',
    options: profileOptions,
    load: () => import('./commands/profile.ts'),
  }),
  schedule: command({
    summary: 'The learning rates of a schedule, step by step, before a run is spent on them. Draws an SVG.',
    options: scheduleOptions,
    positional: scheduleNames,
    check: checkSchedule,
    load: () => import('./commands/schedule.ts'),
  }),
  study: command({
    summary: 'Make the runs of an experiment that compares ways to set the learning rate, and report them; what is there is kept.',
    options: studyOptions,
    positional: studyNames,
    check: checkStudy,
    load: () => import('./commands/study.ts'),
  }),
  'study worker': command({
    summary: 'Make the runs that forkstep study --jobs tells.',
    options: workerOptions,
    isHidden: true,
    load: () => import('./commands/studyWorker.ts'),
  }),
  report: command({
    summary: "Write the page and the CSV file of a study's folder.",
    options: reportOptions,
    argument: 'DIR',
    load: () => import('./commands/report.ts'),
  }),
  'data fetch': command({
    summary: "Download a data set from its authors' site, verified; a broken download is resumed.",
    options: dataFetchOptions,
    positional: ['cifar10', 'cifar100'],
    load: () => import('./commands/dataFetch.ts'),
  }),
};

/** Commands that people use. */
const listed = Object.entries(commands).filter(([, { isHidden }]) => !isHidden);
const listedNames = listed.map(([name]) => name);

function generalHelp(): string {
  const rows = listed.map(([name, { summary }]): [string, string] => [name, summary]);
  return [
    `forkstep ${version}: train on WebGPU, and let fused trial steps set the learning rate.\n\n`,
    `Usage: forkstep COMMAND [options]\n\n${columns(rows, 17)}\n`,
    "forkstep COMMAND --help lists a command's options; forkstep --version prints the version.\n",
  ].join('');
}

/** Runs one command line. Resolves with the exit code. @throws UsageError, or whatever the command throws */
async function dispatch(argv: readonly string[]): Promise<number> {
  const [first = '', second = ''] = argv;
  if (first === '--version') {
    process.stdout.write(`${version}\n`);
    return 0;
  }
  if (first === '--help' || first === '-h' || first === '') {
    (first === '' ? process.stderr : process.stdout).write(generalHelp());
    return first === '' ? 2 : 0;
  }
  const twoWords = `${first} ${second}`;
  const name = Object.hasOwn(commands, twoWords) ? twoWords : first;
  if (!Object.hasOwn(commands, name)) {
    const isGroup = listedNames.some((known) => known.startsWith(`${first} `));
    if (isGroup && (second === '--help' || second === '-h')) return dispatch(['--help']);
    const got = isGroup ? twoWords.trimEnd() : first;
    const fix = suggestion(got, listedNames) ?? 'see forkstep --help';
    throw new UsageError({ op: 'forkstep', arg: 'command', rule: `must be one of ${listedNames.join(', ')}`, got, fix });
  }
  return commands[name].execute(`forkstep ${name}`, argv.slice(name.split(' ').length));
}

/**
 * Prints what went wrong: one line for what forkstep refuses or the system reports, the stack for what nobody foresaw. Returns the exit
 * code.
 */
function report(error: unknown): number {
  const isForeseen = error instanceof ForkstepError || (error instanceof Error && 'code' in error);
  process.stderr.write(`${isForeseen ? (error as Error).message : ((error as Error)?.stack ?? String(error))}\n`);
  return error instanceof UsageError || error instanceof DataError ? 2 : 1;
}

// A reader that closes early (forkstep … | head) is no failure.
process.stdout.on('error', (error: NodeJS.ErrnoException) => process.exit(error.code === 'EPIPE' ? 0 : 1));
process.exitCode = await dispatch(process.argv.slice(2)).catch(report);
