/** Lengths of time in a schedule, with their unit; a run's length turns them into steps. */
import { AttrError } from '../gpu/errors.ts';

/** A length of time: so many epochs, so many steps, or a share of the run. */
export type Duration = { readonly epochs: number } | { readonly steps: number } | { readonly percent: number };

/** What a schedule is told of the run that it is asked in. */
export interface RunLength {
  readonly totalSteps?: number;
  readonly stepsPerEpoch?: number;
}

const refuse = (op: string, arg: string, rule: string, got: unknown, fix: string): never => {
  throw new AttrError({ op, arg, rule, got, fix });
};

function made<U extends string>(unit: U, n: number, isGood: boolean, rule: string): { readonly [K in U]: number } {
  if (!isGood) refuse(unit, 'n', rule, n, `pass a length such as ${unit}(5)`);
  return { [unit]: n } as { [K in U]: number };
}

/** n passes over the training images, parts of one too: epochs(0.5). @throws AttrError unless n is finite and ≥ 0 */
export const epochs = (n: number) => made('epochs', n, Number.isFinite(n) && n >= 0, 'must be finite and ≥ 0');

/** n updates. @throws AttrError unless n is an integer ≥ 0 */
export const steps = (n: number) => made('steps', n, Number.isSafeInteger(n) && n >= 0, 'must be an integer ≥ 0');

/** n % of the run, or of the stretch of a `sequential` that the schedule has to itself. @throws AttrError unless n is in [0, 100] */
export const percent = (n: number) => made('percent', n, n >= 0 && n <= 100, 'must be in [0, 100]');

/** @throws AttrError unless it is made by epochs(), steps() or percent() */
export function checkDuration(op: string, arg: string, duration: Duration): void {
  const [[unit, n] = ['', NaN], ...rest] = typeof duration === 'object' && duration !== null ? Object.entries(duration) : [];
  const fix = typeof duration === 'number' ? `pass steps(${duration}) or epochs(${duration})` : 'pass epochs(5), steps(500) or percent(10)';
  if (rest.length > 0 || !['epochs', 'steps', 'percent'].includes(unit)) {
    refuse(op, arg, 'must be a length with its unit', typeof duration === 'number' ? duration : JSON.stringify(duration), fix);
  }
  const isGood = n >= 0 && Number.isFinite(n) && (unit !== 'steps' || Number.isSafeInteger(n)) && (unit !== 'percent' || n <= 100);
  if (!isGood) refuse(op, `${arg}.${unit}`, 'must be a length ≥ 0, whole steps, at most 100 %', n, fix);
}

/**
 * The length in steps, to the nearest whole one.
 * @throws AttrError where the run's length that it takes is unknown, and below `least` steps
 */
export function stepsOf(op: string, arg: string, duration: Duration, run: RunLength, least = 0): number {
  const length = 'steps' in duration ? duration.steps : Math.round(shareOf(op, arg, duration, run));
  if (length < least) refuse(op, arg, `must be ≥ ${least} steps`, `${JSON.stringify(duration)} = ${length} steps`, 'make it longer');
  return length;
}

function shareOf(op: string, arg: string, duration: Exclude<Duration, { steps: number }>, { totalSteps, stepsPerEpoch }: RunLength): number {
  const known = (name: keyof RunLength, value: number | undefined): number => {
    if (value !== undefined && Number.isInteger(value) && value >= 1) return value;
    const rule = `must be an integer ≥ 1 for ${arg} in ${'epochs' in duration ? 'epochs' : 'percent'}`;
    return refuse(op, name, rule, value, `tell it, or give ${arg} in steps`);
  };
  if ('epochs' in duration) return duration.epochs * known('stepsPerEpoch', stepsPerEpoch);
  return (duration.percent * known('totalSteps', totalSteps)) / 100;
}
