/** What is logged while a run goes on: little at any time, and the same whether the run was broken off or not. */
import { eventToJson, type TrialEvent, type TrialEventJson } from '../sched/index.ts';
import type { Evaluation, LoggedStep } from '../train/index.ts';
import { evenly, thinTrace, type EpochResult } from './result.ts';

/** Most points of a trace of rates, and events, that a result keeps; twice as many are held before they are thinned. */
const most = { rates: 200, events: 100 } as const;

/** A log as JSON holds it, for a run that goes on. */
export interface RunNotes {
  readonly trace: readonly { readonly step: number; readonly lr: number }[];
  /** Losses of the epoch that has begun. */
  readonly losses: readonly number[];
  readonly epochs: readonly EpochResult[];
  readonly events: readonly TrialEventJson[];
  readonly eventCount: number;
  readonly trainMs: number;
  readonly evaluationMs: number;
}

export class RunLog {
  #trace: { step: number; lr: number }[] = [];
  #losses: number[] = [];
  #epochs: EpochResult[] = [];
  #events: TrialEventJson[] = [];
  #eventCount = 0;
  #trainMs = 0;
  #evaluationMs = 0;
  #since = performance.now();

  constructor(readonly stepsPerEpoch: number) {}

  get eventCount(): number {
    return this.#eventCount;
  }

  #lap(): number {
    const before = this.#since;
    this.#since = performance.now();
    return this.#since - before;
  }

  addSteps(steps: readonly LoggedStep[]): void {
    this.#trainMs += this.#lap();
    for (const { step, lr, loss } of steps) {
      this.#losses.push(loss);
      this.#trace.push({ step, lr });
      // Whenever there are so many, not when it suits a checkpoint: else a broken run would keep others.
      if (this.#trace.length === 2 * most.rates) this.#trace = thinTrace(this.#trace, most.rates).map(([at, rate]) => ({ step: at, lr: rate }));
    }
  }

  addEvent(event: TrialEvent): void {
    this.#eventCount++;
    this.#events.push(eventToJson(event));
    if (this.#events.length === 2 * most.events) this.#events = evenly(this.#events, most.events);
  }

  /** Comes right after the steps before it, so that the time since then is its own. */
  addEvaluation({ step, testLoss, testAccuracy }: Evaluation): void {
    this.#evaluationMs += this.#lap();
    const mean = this.#losses.reduce((sum, loss) => sum + loss, 0) / this.#losses.length;
    const trainLoss = Number.isFinite(mean) ? mean : null;
    this.#losses = [];
    // One that is not finite is a divergence, and JSON holds no such number.
    if (Number.isFinite(testLoss)) this.#epochs.push({ epoch: Math.round(step / this.stepsPerEpoch), step, trainLoss, testLoss, testAccuracy });
  }

  /** What a result keeps of it. */
  end() {
    return {
      epochs: this.#epochs,
      lr: thinTrace(this.#trace, most.rates),
      events: evenly(this.#events, most.events),
      eventCount: this.#eventCount,
      trainMs: Math.round(this.#trainMs),
      evaluationMs: Math.round(this.#evaluationMs),
    };
  }

  notes(): RunNotes {
    this.#trainMs += this.#lap();
    return {
      trace: this.#trace, losses: this.#losses, epochs: this.#epochs, events: this.#events, eventCount: this.#eventCount,
      trainMs: this.#trainMs, evaluationMs: this.#evaluationMs,
    };
  }

  static from(notes: RunNotes, stepsPerEpoch: number): RunLog {
    const log = new RunLog(stepsPerEpoch);
    log.#trace = [...notes.trace];
    log.#losses = [...notes.losses];
    log.#epochs = [...notes.epochs];
    log.#events = [...notes.events];
    log.#eventCount = notes.eventCount;
    log.#trainMs = notes.trainMs;
    log.#evaluationMs = notes.evaluationMs;
    return log;
  }
}
