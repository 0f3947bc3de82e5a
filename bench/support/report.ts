/** What a bench prints and writes: a table, and JSON that says where its figures come from. */
import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { dirname, resolve } from 'node:path';
import { parseArgs, type ParseArgsConfig } from 'node:util';
import type { AdapterSummary } from '../../src/gpu/device.ts';
import { matching } from './filter.ts';
import { load, type Timing } from './measure.ts';

export type Row = Record<string, string | number | boolean | null | Timing>;

/** Ends the bench with one line and code 2: the command line is at fault. */
export function refuse(message: string): never {
  process.stderr.write(`bench: ${message}\n`);
  process.exit(2);
}

/** Ends the bench with one line and code 1. */
export function fail(message: string): never {
  process.stderr.write(`bench: ${message}\n`);
  process.exit(1);
}

type Config = NonNullable<ParseArgsConfig['options']>;

function parse<const T extends Config>(config: T, allowPositionals: boolean) {
  try {
    const options = { json: { type: 'string' }, ...config } as T & { json: { type: 'string' } };
    return parseArgs({ options, strict: true, allowPositionals });
  } catch (error) {
    return refuse((error as Error).message.split('\n')[0]);
  }
}

/** Refuses what the bench does not take. */
export const options = <const T extends Config>(config: T) => parse(config, false).values;

/** Of a bench that takes words besides, each of which selects by a part of a name. */
export function optionsAndWords<const T extends Config>(config: T) {
  const { values, positionals } = parse(config, true);
  return { values, words: positionals };
}

/** `matching()`, refusing a word that nothing has in its name. */
export function chosen<T>(what: string, items: readonly T[], nameOf: (item: T) => string, words: readonly string[]): T[] {
  try {
    return matching(what, items, nameOf, words);
  } catch (error) {
    return refuse((error as Error).message);
  }
}

/** A number given on the command line. */
export function positive(name: string, text: string): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 1) refuse(`--${name} must be an integer ≥ 1, got ${JSON.stringify(text)}`);
  return value;
}

/** Numbers given as a list, `1,3,5`. */
export const positives = (name: string, text: string): number[] => text.split(',').map((one) => positive(name, one));

const git = (...args: string[]): string => execFileSync('git', args, { encoding: 'utf8' }).trim();

/** The commit, with `+changes` where what a bench runs differs from it. A portable kit has no repository and says it by a variable. */
function commit(): string {
  if (process.env.FORKSTEP_COMMIT) return process.env.FORKSTEP_COMMIT;
  const changes = git('status', '--porcelain', '--', 'src', 'bench', ':!src/cli', ':!bench/results');
  return git('rev-parse', '--short=12', 'HEAD') + (changes ? '+changes' : '');
}

/** Version of an installed package, whether or not it lets its package.json be imported. */
export const packageVersion = (name: string, root = '.'): string =>
  (JSON.parse(readFileSync(resolve(root, 'node_modules', name, 'package.json'), 'utf8')) as { version: string }).version;

/** The command as one would type it, without where its results were written and its data lie. */
function command(name: string): string {
  const args = process.argv.slice(2);
  const at = args.indexOf('--json');
  if (at >= 0) args.splice(at, 2);
  const data = args.indexOf('--data');
  if (data >= 0) args[data + 1] = 'DIR';
  return ['npm run bench --', name, ...args].join(' ');
}

/** Writes `--json FILE`. */
export function writeReport(
  name: string,
  adapter: AdapterSummary,
  rows: readonly Row[],
  file: string | undefined,
  more: Record<string, unknown> = {},
): void {
  if (file === undefined) return;
  const report = {
    bench: name, command: command(name), commit: commit(), date: new Date().toISOString().slice(0, 10),
    adapter: adapter.device || adapter.vendor, driver: adapter.description, software: adapter.isSoftware,
    node: process.version, dawn: `webgpu ${packageVersion('webgpu')}`, cores: availableParallelism(), load: load(), ...more, rows,
  };
  writeFileSync(resolve(file), `${JSON.stringify(report, null, 1)}\n`);
  process.stdout.write(`wrote ${dirname(file)}/${file.split('/').pop()}\n`);
}

const isTiming = (value: Row[string]): value is Timing => typeof value === 'object' && value !== null;
const cell = (value: Row[string]): string => {
  if (isTiming(value)) return `${value.wallMs.median} / ${value.cpuMs.median} ±${value.cpuMs.iqr}`;
  return typeof value === 'number' && !Number.isInteger(value) ? String(Number(value.toPrecision(4))) : String(value ?? '–');
};

/** Rows as a table; a timing reads `wall / CPU ms ±IQR of the CPU ms`, medians. */
export function printTable(title: string, rows: readonly Row[]): void {
  const columns = [...new Set(rows.flatMap((row) => Object.keys(row)))];
  const lines = [columns, ...rows.map((row) => columns.map((column) => cell(row[column] ?? null)))];
  const widths = columns.map((_, i) => Math.max(...lines.map((line) => line[i].length)));
  const text = lines.map((line) => line.map((value, i) => (i === 0 ? value.padEnd(widths[i]) : value.padStart(widths[i]))).join('  '));
  process.stdout.write(`\n${title}   (load ${load()})\n${text.join('\n')}\n`);
}

/** Ends the bench with code 1: its figures would be of something that is wrong. */
export function insist(condition: boolean, message: string): void {
  if (!condition) fail(`wrong result: ${message}`);
}
