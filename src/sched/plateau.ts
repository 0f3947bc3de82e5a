/** The schedule that listens to metrics. */
import { AttrError } from '../gpu/errors.ts';
import { checkNumber, checkWord } from './pure.ts';
import { checkKind, checkLr, checkNames, checkOptions, given } from './schedule.ts';
import type { Schedule, ScheduleState } from './schedule.ts';

export interface ReduceLROnPlateauOptions {
  readonly lr: number;
  /** What is better: less ('min', a loss) or more ('max', an accuracy). @default 'min' */
  readonly mode?: 'min' | 'max';
  /** In (0, 1). @default 0.1 */
  readonly factor?: number;
  /** Bad metrics in a row that are borne: the next one lowers the rate. An integer ≥ 0, @default 10 */
  readonly patience?: number;
  /** By how much better counts as better, ≥ 0. @default 1e-4 */
  readonly threshold?: number;
  /** Of the best metric, or in its own unit. @default 'rel' */
  readonly thresholdMode?: 'rel' | 'abs';
  /** Metrics after a cut that do not count as bad. An integer ≥ 0, @default 0 */
  readonly cooldown?: number;
  /** ≥ 0. @default 0 */
  readonly minLr?: number;
  /** A cut that would be no larger is not made. ≥ 0, @default 1e-8 */
  readonly eps?: number;
}

/** What it holds between metrics. */
interface PlateauState {
  readonly lr: number;
  /** Null before the first metric that is one. */
  readonly best: number | null;
  readonly numBadEpochs: number;
  readonly cooldownCounter: number;
}

/**
 * lr ← max(lr · factor, minLr) where more than `patience` metrics in a row were not better than the best one. `step(metrics)` takes one, at
 * the end of an epoch; `Trainer.run` gives it the test loss of each, or with mode 'max' the accuracy. A metric that is NaN is bad.
 * @source PyTorch `lr_scheduler.ReduceLROnPlateau`
 */
export class ReduceLROnPlateau implements Schedule {
  readonly options: Readonly<Required<ReduceLROnPlateauOptions>>;
  #state: PlateauState;

  /** @throws AttrError for parameters out of range */
  constructor(options: ReduceLROnPlateauOptions) {
    const op = 'reduceLROnPlateau';
    const all: Required<ReduceLROnPlateauOptions> = {
      mode: 'min', factor: 0.1, patience: 10, threshold: 1e-4, thresholdMode: 'rel', cooldown: 0, minLr: 0, eps: 1e-8, ...given(options),
    };
    checkNames(op, all, ['lr', 'mode', 'factor', 'patience', 'threshold', 'thresholdMode', 'cooldown', 'minLr', 'eps']);
    checkLr(op, all.lr);
    checkWord(op, 'mode', all.mode, ['min', 'max']);
    checkWord(op, 'thresholdMode', all.thresholdMode, ['rel', 'abs']);
    checkNumber(op, 'factor', all.factor, { above: 0, max: 1 });
    if (all.factor === 1) throw new AttrError({ op, arg: 'factor', rule: 'must be < 1', got: 1, fix: '0.1 is usual' });
    for (const name of ['patience', 'cooldown'] as const) checkNumber(op, name, all[name], { min: 0, isInteger: true });
    for (const name of ['threshold', 'minLr', 'eps'] as const) checkNumber(op, name, all[name], { min: 0 });
    this.options = all;
    this.#state = { lr: all.lr, best: null, numBadEpochs: 0, cooldownCounter: 0 };
  }

  /** The rate in force. */
  get lr(): number {
    return this.#state.lr;
  }

  lrAt(): number {
    return this.#state.lr;
  }

  isDue(): boolean {
    return false;
  }

  /** Takes an epoch's metric. */
  step(metrics: number): void {
    const { factor, patience, cooldown, minLr, eps } = this.options;
    let { lr, best, numBadEpochs, cooldownCounter } = this.#state;
    if (this.#isBetter(metrics, best)) {
      best = metrics;
      numBadEpochs = 0;
    } else {
      numBadEpochs += 1;
    }
    if (cooldownCounter > 0) {
      cooldownCounter -= 1;
      numBadEpochs = 0;
    }
    if (numBadEpochs > patience) {
      const lower = Math.max(lr * factor, minLr);
      if (lr - lower > eps) lr = lower;
      cooldownCounter = cooldown;
      numBadEpochs = 0;
    }
    this.#state = { lr, best, numBadEpochs, cooldownCounter };
  }

  #isBetter(metrics: number, best: number | null): boolean {
    if (Number.isNaN(metrics)) return false;
    const { mode, threshold, thresholdMode } = this.options;
    const sign = mode === 'min' ? -1 : 1;
    // PyTorch begins with a best of ±Infinity.
    const from = best ?? -sign * Infinity;
    const needed = thresholdMode === 'rel' ? from * (1 + sign * threshold) : from + sign * threshold;
    return mode === 'min' ? metrics < needed : metrics > needed;
  }

  /** The rates in force at each of the metrics: at first lr, then what all metrics before have made of it. Takes them. */
  preview(metrics: readonly number[]): number[] {
    return metrics.map((metric) => {
      const { lr } = this;
      this.step(metric);
      return lr;
    });
  }

  state(): ScheduleState {
    const { lr, best, ...counts } = this.#state;
    return { kind: 'reduceLROnPlateau', options: this.#fixed(), lr, best: best === null || Number.isFinite(best) ? best : String(best), ...counts };
  }

  /** Options that the future depends on: all but the first rate. */
  #fixed(): Partial<ReduceLROnPlateauOptions> {
    const { lr: _first, ...fixed } = this.options;
    return fixed;
  }

  /** @throws AttrError for a state of another kind or of other options, or one that state() did not give; the schedule is then unchanged */
  load(state: ScheduleState): void {
    const op = 'reduceLROnPlateau';
    checkKind(op, state, op);
    checkOptions(op, (state.options ?? {}) as object, this.#fixed(), 'state.options');
    const { lr, best, numBadEpochs, cooldownCounter } = state as unknown as PlateauState;
    checkNumber(op, 'state.lr', lr, { min: 0 });
    checkNumber(op, 'state.numBadEpochs', numBadEpochs, { min: 0, isInteger: true });
    checkNumber(op, 'state.cooldownCounter', cooldownCounter, { min: 0, isInteger: true });
    const isBest = best === null || Number.isFinite(best) || ['Infinity', '-Infinity'].includes(best as unknown as string);
    if (!isBest) throw new AttrError({ op, arg: 'state.best', rule: 'must be a number or null', got: best, fix: 'pass what state() gave' });
    this.#state = { lr, best: best === null ? null : Number(best), numBadEpochs, cooldownCounter };
  }
}

/** @throws AttrError for parameters out of range */
export const reduceLROnPlateau = (options: ReduceLROnPlateauOptions): ReduceLROnPlateau => new ReduceLROnPlateau(options);
