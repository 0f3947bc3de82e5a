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
  readonly #envelope: EnvelopeName;
  #lr: number;

  /** @throws AttrError for lr not > 0, an unknown envelope */
  constructor({ lr, envelope = 'none' }: { lr: number; envelope?: EnvelopeName }) {
    checkLr('ConstantSchedule', lr);
    checkName('ConstantSchedule', 'envelope', envelope, envelopes);
    this.#lr = lr;
    this.#envelope = envelope;
  }

  lrAt(step: number, totalSteps?: number, stepsPerEpoch?: number): number {
    return this.#lr * envelopeAt(this.#envelope, step, totalSteps, stepsPerEpoch);
  }

  isDue(): boolean {
    return false;
  }

  state(): ScheduleState {
    return { kind: 'constant', lr: this.#lr, envelope: this.#envelope };
  }

  /** @throws AttrError for a state of another kind or envelope */
  load(state: ScheduleState): void {
    const op = 'ConstantSchedule';
    checkKind(op, state, 'constant');
    checkLr(op, state.lr);
    if (state.envelope !== this.#envelope) {
      const rule = `must be '${this.#envelope}', as this schedule's`;
      throw new AttrError({ op, arg: 'state.envelope', rule, got: state.envelope, fix: 'make it with the same options' });
    }
    this.#lr = state.lr;
  }
}

/** Throws AttrError unless lr is finite and > 0. */
export function checkLr(op: string, lr: number): void {
  if (Number.isFinite(lr) && lr > 0) return;
  throw new AttrError({ op, arg: 'lr', rule: 'must be finite and > 0', got: lr, fix: 'pass the starting learning rate, such as 0.005' });
}

/** Throws AttrError unless the state was made by a schedule of this kind. */
export function checkKind(op: string, state: ScheduleState, kind: string): void {
  if (state?.kind === kind) return;
  throw new AttrError({
    op, arg: 'state.kind', rule: `must be '${kind}'`, got: state?.kind, fix: 'load the state of a schedule of the same class',
  });
}
