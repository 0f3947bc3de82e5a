/** What the training loop asks of a schedule, and the constant one. Those in closed form are in decays.ts, cycles.ts and compose.ts. */
import { AttrError } from '../gpu/errors.ts';
import { envelopeAt, envelopes } from './envelopes.ts';
import type { EnvelopeName } from './envelopes.ts';
import { checkName } from './scores.ts';

/** A schedule in JSON: finite numbers, strings, null. */
export type ScheduleState = { kind: string; lr: number; [field: string]: unknown };

export interface Schedule {
  /**
   * Learning rate of update `step` (from 0) in a run of `totalSteps`; call after the event of that step, if one is due. Updates that were
   * skipped do not count.
   */
  lrAt(step: number, totalSteps?: number, stepsPerEpoch?: number): number;
  /** Is a scheduling event due before update `step`? */
  isDue(step: number, stepsPerEpoch?: number): boolean;
  /** All that a fresh object made with the same options needs to go on; survives JSON. */
  state(): ScheduleState;
  load(state: ScheduleState): void;
  /** Takes the metric of an epoch that has ended, where the schedule listens to one. */
  step?(metrics: number): void;
}

/** lr(t) = lr · envelope(t), without events. With envelope 'none' it is constant, with the others the usual baselines. */
export class ConstantSchedule implements Schedule {
  readonly options: { readonly lr: number; readonly envelope: EnvelopeName };

  /** @throws AttrError for lr not > 0, an unknown envelope, an unknown option */
  constructor({ lr, envelope = 'none', ...rest }: { readonly lr: number; readonly envelope?: EnvelopeName }) {
    const op = 'ConstantSchedule';
    checkNames(op, rest, ['lr', 'envelope']);
    checkLr(op, lr);
    checkName(op, 'envelope', envelope, envelopes);
    this.options = { lr, envelope };
  }

  lrAt(step: number, totalSteps?: number, stepsPerEpoch?: number): number {
    const { lr, envelope } = this.options;
    return lr * envelopeAt(envelope, step, totalSteps, stepsPerEpoch);
  }

  isDue(): boolean {
    return false;
  }

  state(): ScheduleState {
    return { kind: 'constant', ...this.options };
  }

  /** Changes nothing. @throws AttrError for a state of another kind, rate or envelope */
  load(state: ScheduleState): void {
    const op = 'ConstantSchedule';
    checkKind(op, state, 'constant');
    checkOptions(op, state, this.options);
  }
}

/** Throws AttrError unless lr is finite and > 0. */
export function checkLr(op: string, lr: number): void {
  if (Number.isFinite(lr) && lr > 0) return;
  throw new AttrError({ op, arg: 'lr', rule: 'must be finite and > 0', got: lr, fix: 'pass the starting learning rate, such as 0.005' });
}

/** Options without those that are undefined: these are left to their defaults. */
export const given = <T extends object>(options: T): T =>
  Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined)) as T;

/** @throws AttrError for an option that there is not, which would be ignored */
export function checkNames(op: string, options: object, names: readonly string[]): void {
  const unknown = Object.keys(options).find((name) => !names.includes(name));
  if (unknown === undefined) return;
  throw new AttrError({ op, arg: unknown, rule: 'must be an option', got: unknown, fix: `options are ${names.join(', ')}` });
}

/** @throws AttrError for the first option in which a state differs from the schedule that takes it over */
export function checkOptions(op: string, state: object, options: object, of = 'state'): void {
  for (const [name, own] of Object.entries(options)) {
    const [is, was] = [own, (state as Record<string, unknown>)[name]].map((value) => JSON.stringify(value, sorted));
    if (is !== was) throw new AttrError({ op, arg: `${of}.${name}`, rule: `must be this schedule's ${is}`, got: was, fix: 'make it with the same options' });
  }
}

/** For JSON.stringify: names in order, as what keeps JSON may change theirs. */
const sorted = (_: string, value: unknown): unknown =>
  typeof value === 'object' && value !== null && !Array.isArray(value)
    ? Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1)))
    : value;

/** Throws AttrError unless the state was made by a schedule of this kind. */
export function checkKind(op: string, state: ScheduleState, kind: string): void {
  if (state?.kind === kind) return;
  throw new AttrError({
    op, arg: 'state.kind', rule: `must be '${kind}'`, got: state?.kind, fix: 'load the state of a schedule of the same class',
  });
}
