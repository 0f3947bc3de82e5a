/** What the host has heard of the steps: the log as far as it was read, how many updates were made, and whether the run has diverged. */
import { TrialScheduler, type Schedule, type TrialEvent } from '../sched/index.ts';
import type { Divergence, LoggedStep } from './stepLog.ts';
import type { StepPlans } from './stepPlans.ts';

export class Journal {
  divergence: Divergence | null = null;
  /** Steps that were logged and made, but those whose gradients overflowed. */
  #made: number;
  /** Those whose gradients did. */
  #skipped: number;
  /** A read of the log that nobody waits for, and what it throws. */
  #lateRead: Promise<void> = Promise.resolve();
  /** Read from the GPU, not yet asked for. */
  #steps: LoggedStep[] = [];
  #events: TrialEvent[] = [];

  constructor(
    readonly plans: StepPlans,
    readonly schedule: Schedule,
    /** Of the steps before the first. */
    { made, skipped } = { made: 0, skipped: 0 },
  ) {
    this.#made = made;
    this.#skipped = skipped;
  }

  get made(): number {
    return this.#made;
  }

  get skipped(): number {
    return this.#skipped;
  }

  /** What is read after a divergence was noted came of steps that changed nothing. */
  async read(): Promise<void> {
    const { steps, events, divergence } = await this.plans.log.read();
    if (this.divergence) return;
    this.#steps.push(...steps);
    const made = steps.filter(({ skipped }) => !skipped).length;
    this.#made += made;
    this.#skipped += steps.length - made;
    this.#events.push(...events);
    for (const event of events) this.plans.rule!.record(event);
    for (const one of steps) this.plans.adaptive?.record(one);
    if (!divergence) return;
    this.divergence = divergence;
    // The weights are those before the step: so is the schedule.
    if (this.schedule instanceof TrialScheduler) this.schedule.revert(divergence.step);
  }

  /** Begins to read the log, once the last such read is done; the next steps need not wait. */
  async readLater(read: () => Promise<void> = () => this.read()): Promise<void> {
    await this.settle();
    this.#lateRead = read();
    // Whoever waits for it hears of it.
    this.#lateRead.catch(() => undefined);
  }

  /** Waits for the read that was begun. What it throws it throws once. */
  async settle(): Promise<void> {
    const late = this.#lateRead;
    this.#lateRead = Promise.resolve();
    await late;
  }

  /** An event whose rule ran on the host. */
  note(event: TrialEvent): void {
    this.#events.push(event);
  }

  takeSteps(): LoggedStep[] {
    return this.#steps.splice(0);
  }

  takeEvents(): TrialEvent[] {
    return this.#events.splice(0);
  }
}
