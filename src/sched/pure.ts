/** Schedules in closed form: what they share, and the checks of their parameters. */
import { AttrError } from '../gpu/errors.ts';
import type { RunLength } from './durations.ts';
import { checkKind, checkOptions } from './schedule.ts';
import type { Schedule, ScheduleState } from './schedule.ts';

export interface PureSpec {
  /** Name of the function that makes it. */
  readonly kind: string;
  /** PyTorch's `initial_lr`, which the rates are made of. */
  readonly lr: number;
  /** True where every rate is lr times a factor that does not depend on lr: what `chained` may multiply. */
  readonly isFactor: boolean;
  /** What a state must have in common with the schedule that takes it over; functions are left out. */
  readonly parameters: Readonly<Record<string, unknown>>;
  /** Rate of update `step`, an integer ≥ 0. */
  rate(step: number, run: RunLength): number;
}

/**
 * A rate that depends on the step and the length of the run alone. It keeps nothing: whoever asks says where the run is, and may ask for any
 * step in any order.
 */
export class PureSchedule implements Schedule {
  constructor(readonly spec: PureSpec) {}

  /** The rate that `factor` schedules multiply: PyTorch's `initial_lr`. */
  get lr(): number {
    return this.spec.lr;
  }

  /** Rate of update `step`, from 0. @throws AttrError for a length in epochs or percent of a run whose length is not told */
  lrAt(step: number, totalSteps?: number, stepsPerEpoch?: number): number {
    if (!(Number.isInteger(step) && step >= 0)) {
      throw new AttrError({ op: this.spec.kind, arg: 'step', rule: 'must be an integer ≥ 0', got: step, fix: 'steps count from 0' });
    }
    return this.spec.rate(step, { totalSteps, stepsPerEpoch });
  }

  /** Rates of updates 0 … n − 1. @param run what lengths in epochs and percent refer to; its totalSteps is n unless given */
  preview(n: number, run: RunLength = {}): number[] {
    return previewOf(this, n, run);
  }

  isDue(): boolean {
    return false;
  }

  /** Kind and parameters: there is nothing else to keep. */
  state(): ScheduleState {
    return { kind: this.spec.kind, lr: this.spec.lr, parameters: structuredClone(this.spec.parameters) };
  }

  /** Changes nothing. @throws AttrError for a state of another kind or of other parameters */
  load(state: ScheduleState): void {
    const { kind } = this.spec;
    checkKind(kind, state, kind);
    checkOptions(kind, state, this.state());
  }
}

/** @throws AttrError unless n is an integer ≥ 1 */
export function previewOf(schedule: Schedule, n: number, { totalSteps = n, stepsPerEpoch }: RunLength = {}): number[] {
  if (!(Number.isSafeInteger(n) && n >= 1)) {
    throw new AttrError({ op: 'preview', arg: 'n', rule: 'must be an integer ≥ 1', got: n, fix: "pass the run's steps" });
  }
  return Array.from({ length: n }, (_, step) => schedule.lrAt(step, totalSteps, stepsPerEpoch));
}

/** Bounds of a number: each as it is named, where it is given. */
export interface Bounds {
  readonly min?: number;
  readonly above?: number;
  readonly max?: number;
  readonly isInteger?: boolean;
}

/** @throws AttrError unless the value is a finite number within the bounds */
export function checkNumber(
  op: string, arg: string, value: number, { min, above, max, isInteger = false }: Bounds, fix = "parameters are PyTorch's",
): void {
  const isInside = value >= (min ?? -Infinity) && value > (above ?? -Infinity) && value <= (max ?? Infinity);
  if (isInside && Number.isFinite(value) && (!isInteger || Number.isInteger(value))) return;
  const bounds = Object.entries({ '≥': min, '>': above, '≤': max }).flatMap(([sign, bound]) => (bound === undefined ? [] : [`${sign} ${bound}`]));
  const rule = `must be ${isInteger ? 'an integer' : 'finite'}${bounds.length > 0 ? ` ${isInteger ? '' : 'and '}${bounds.join(' and ')}` : ''}`;
  throw new AttrError({ op, arg, rule, got: value, fix });
}

/** @throws AttrError unless the word is one of those that are known */
export function checkWord(op: string, arg: string, got: string, words: readonly string[]): void {
  if (words.includes(got)) return;
  throw new AttrError({ op, arg, rule: `must be ${words.map((word) => `'${word}'`).join(' or ')}`, got, fix: 'pick one' });
}
