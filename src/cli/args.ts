/**
 * A strict, table-driven command-line parser. An option is a row of a table: how its value is read, its default and its help; parsing,
 * error lines and help texts all come from the table. Whatever is wrong throws UsageError, which the command turns into one line and exit
 * code 2.
 */
import { statSync, type Stats } from 'node:fs';
import { ForkstepError } from '../gpu/errors.ts';

/** A command line that cannot be run as it stands. */
export class UsageError extends ForkstepError {}

/** One option. Its flag is its key in the table in kebab case: `maxSteps` is `--max-steps`. */
export interface Option<V> {
  /** What stands for the value in the help text; empty for a flag, which takes none. */
  placeholder: string;
  help: string;
  default: V;
  /** What the help text says of the default where that is not the default itself. */
  defaultText?: string;
  isRequired: boolean;
  /** The only values, of a choice. */
  words?: readonly string[];
  /** @throws BadValue */
  parse(text: string): V;
}

export type OptionTable = Readonly<Record<string, Option<unknown>>>;
/** The values that a table's options have after parsing. */
export type OptionValues<T extends OptionTable> = { [K in keyof T]: T[K] extends Option<infer V> ? V : never };

/** What a value's text breaks: completes the sentence "--flag …, got …; …". */
export class BadValue extends Error {
  constructor(
    readonly rule: string,
    readonly fix?: string,
  ) {
    super(rule);
  }
}

interface Common<D> {
  help: string;
  default: D;
  defaultText?: string;
}

/** An option that is either given or not. */
export function flag(help: string): Option<boolean> {
  return { placeholder: '', help, default: false, isRequired: false, parse: () => true };
}

interface Range {
  min?: number;
  max?: number;
  /** exclusive lower bound */
  above?: number;
  /** exclusive upper bound */
  below?: number;
}

function checkRange(value: number, noun: string, { min, max, above, below }: Range): void {
  const bounds = [
    ...(min !== undefined ? [`≥ ${min}`] : []),
    ...(above !== undefined ? [`> ${above}`] : []),
    ...(max !== undefined ? [`≤ ${max}`] : []),
    ...(below !== undefined ? [`< ${below}`] : []),
  ];
  const isInside = value >= (min ?? -Infinity) && value <= (max ?? Infinity) && value > (above ?? -Infinity) && value < (below ?? Infinity);
  if (!isInside || !Number.isFinite(value)) throw new BadValue(`must be ${noun} ${bounds.join(' and ')}`.trimEnd());
}

const WHOLE = /^[+-]?\d+$/;

/** The number that a text in decimal notation stands for, NaN for any other text. */
export const decimal = (value: string): number => (/^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(value) ? Number(value) : NaN);

/** A decimal number within a range. */
export function number<D extends number | undefined>(spec: Common<D> & Range & { placeholder?: string }): Option<number | D> {
  const parse = (text: string): number => {
    const value = decimal(text);
    checkRange(value, 'a number', spec);
    return value;
  };
  return { placeholder: 'X', isRequired: false, ...spec, parse };
}

/** A whole number within a range. */
export function integer<D extends number | undefined>(spec: Common<D> & Range & { placeholder?: string }): Option<number | D> {
  const parse = (text: string): number => {
    const value = WHOLE.test(text) ? Number(text) : NaN;
    checkRange(value, 'an integer', spec);
    if (!Number.isSafeInteger(value)) throw new BadValue('must be an integer below 2^53');
    return value;
  };
  return { placeholder: 'N', isRequired: false, ...spec, parse };
}

/** One of a few words. */
export function choice<const T extends string, D extends T | undefined>(words: readonly T[], spec: Common<D>): Option<T | D> {
  const parse = (text: string): T => {
    const word = words.find((candidate) => candidate === text);
    if (word === undefined) throw new BadValue(`must be ${words.join(' or ')}`, suggestion(text, words));
    return word;
  };
  return { placeholder: words.join('|'), isRequired: false, ...spec, words, parse };
}

/** Text that is taken as it is, but not empty. */
export function text<D extends string | undefined>(spec: Common<D> & { placeholder: string }): Option<string | D> {
  const parse = (value: string): string => {
    if (value === '') throw new BadValue('must not be empty');
    return value;
  };
  return { isRequired: false, ...spec, parse };
}

/** Undefined where there is nothing, also where the path leads through a file. */
function statOf(value: string): Stats | undefined {
  try {
    return statSync(value, { throwIfNoEntry: false });
  } catch {
    return undefined;
  }
}

/** What each kind of path must be; `stat` is undefined where there is nothing yet. */
const pathKinds = {
  file: { placeholder: 'FILE', isGood: (stat?: Stats) => stat?.isFile(), rule: 'must be a file that exists' },
  folder: { placeholder: 'DIR', isGood: (stat?: Stats) => stat?.isDirectory(), rule: 'must be a folder that exists' },
  outputFile: { placeholder: 'FILE', isGood: (stat?: Stats) => !stat || stat.isFile(), rule: 'must be a file, or not be there yet' },
  output: { placeholder: 'DIR', isGood: (stat?: Stats) => !stat || stat.isDirectory(), rule: 'must be a folder, or not be there yet' },
};

/** A path: of a file or folder that must exist, or of one that is made where it is missing ('outputFile', and 'output' for a folder). */
export function path<D extends string | undefined>(kind: keyof typeof pathKinds, spec: Common<D>): Option<string | D> {
  const { placeholder, isGood, rule } = pathKinds[kind];
  const parse = (value: string): string => {
    if (value === '') throw new BadValue('must not be empty');
    if (!isGood(statOf(value))) throw new BadValue(rule);
    return value;
  };
  return { placeholder, isRequired: false, ...spec, parse };
}

/** The same option, but one that must be given. */
export function required<V>(option: Option<V>): Option<Exclude<V, undefined>> {
  return { ...option, isRequired: true } as Option<Exclude<V, undefined>>;
}

/** `maxSteps` → `--max-steps` */
export const flagOf = (key: string): string => `--${key.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;

/** Edits (insert, delete, replace, swap two neighbours) that lead from a to b. */
function editDistance(a: string, b: string): number {
  const rows = [Array.from({ length: b.length + 1 }, (_, j) => j)];
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const edited = Math.min(row[j - 1] + 1, rows[i - 1][j] + 1, rows[i - 1][j - 1] + (a[i - 1] === b[j - 1] ? 0 : 1));
      const isSwapped = i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1];
      row.push(isSwapped ? Math.min(edited, rows[i - 2][j - 2] + 1) : edited);
    }
    rows.push(row);
  }
  return rows[a.length][b.length];
}

/** 'did you mean …?' where one of the words is near, else undefined. */
export function suggestion(word: string, words: readonly string[]): string | undefined {
  const ranked = words.map((candidate) => ({ candidate, distance: editDistance(word.toLowerCase(), candidate.toLowerCase()) }));
  const nearest = ranked.sort((a, b) => a.distance - b.distance)[0];
  const isNear = nearest && nearest.distance <= Math.max(1, Math.floor(nearest.candidate.length / 3));
  return isNear ? `did you mean ${nearest.candidate}?` : undefined;
}

export interface Parsed<T extends OptionTable> {
  values: OptionValues<T>;
  /** Keys of the options that were given, as opposed to left at their defaults. */
  given: ReadonlySet<keyof T>;
  positionals: string[];
  wantsHelp: boolean;
}

/**
 * Reads the arguments that follow a command's name. `--flag value` and `--flag=value` both do; a value may begin with one dash.
 * @param command as it is typed, for messages: 'forkstep train'
 * @throws UsageError for an unknown option, one given twice or without its value, a wrong value, a missing required option
 */
export function parseArgs<T extends OptionTable>(command: string, table: T, argv: readonly string[]): Parsed<T> {
  const seeHelp = `see ${command} --help`;
  const fail = (arg: string, rule: string, got: unknown, fix?: string): never => {
    throw new UsageError({ op: command, arg, rule, got, fix: fix ?? seeHelp });
  };
  const keys = new Map(Object.keys(table).map((key) => [flagOf(key), key]));
  const values: Record<string, unknown> = Object.fromEntries(Object.entries(table).map(([key, option]) => [key, option.default]));
  const given = new Set<string>();
  const positionals: string[] = [];
  const rest = [...argv];
  if (rest.includes('--help') || rest.includes('-h')) return { values: values as OptionValues<T>, given, positionals, wantsHelp: true };
  for (let argument = rest.shift(); argument !== undefined; argument = rest.shift()) {
    if (!argument.startsWith('-') || argument === '-') {
      positionals.push(argument);
      continue;
    }
    const [name, attached] = argument.split(/=(.*)/s);
    const key = keys.get(name);
    if (key === undefined) return fail('option', 'must be one that --help lists', name, suggestion(name, [...keys.keys(), '--help']));
    if (given.has(key)) fail(name, 'must be given once', 'it twice');
    given.add(key);
    const option = table[key];
    if (option.placeholder === '') {
      if (attached !== undefined) fail(name, 'must stand alone', `the value ${JSON.stringify(attached)}`);
      values[key] = true;
      continue;
    }
    const value = attached ?? (rest[0]?.startsWith('--') ? undefined : rest.shift());
    if (value === undefined) return fail(name, `must be followed by a value (${option.placeholder})`, 'none');
    try {
      values[key] = option.parse(value);
    } catch (error) {
      if (!(error instanceof BadValue)) throw error;
      fail(name, error.rule, JSON.stringify(value), error.fix);
    }
  }
  const missing = Object.keys(table).find((key) => table[key].isRequired && !given.has(key));
  if (missing !== undefined) fail(flagOf(missing), 'must be given', 'nothing', `add ${flagOf(missing)} ${table[missing].placeholder}`);
  return { values: values as OptionValues<T>, given, positionals, wantsHelp: false };
}

/** Lines of two columns; a left part that is too long gets a line of its own. */
export function columns(rows: readonly (readonly [string, string])[], width = 34): string {
  const line = ([left, right]: readonly [string, string]): string =>
    left.length <= width ? `  ${left.padEnd(width)}  ${right}\n` : `  ${left}\n  ${' '.repeat(width)}  ${right}\n`;
  return rows.map(line).join('');
}

function defaultNote(option: Option<unknown>): string {
  if (option.isRequired) return ' (required)';
  if (option.defaultText !== undefined) return ` (default: ${option.defaultText})`;
  return option.placeholder === '' || option.default === undefined ? '' : ` (default: ${String(option.default)})`;
}

/** The help text of a command. */
export function helpText(command: string, summary: string, table: OptionTable, positional = ''): string {
  const rows = Object.entries(table).map(([key, option]): [string, string] => [
    `${flagOf(key)} ${option.placeholder}`.trimEnd(),
    option.help + defaultNote(option),
  ]);
  return `${summary}\n\nUsage: ${command}${positional && ` ${positional}`} [options]\n\n${columns([...rows, ['--help', 'this text']])}`;
}
