/** A run: steps to its end, what is told of them on the way, evaluations. */
import { ReduceLROnPlateau, type Schedule } from '../sched/index.ts';
import type { Journal } from './journal.ts';
import type { Trainer } from './trainer.ts';
import { checkRun, type CheckpointCadence, type Evaluation, type RunCallbacks, type RunResult } from './trainerOptions.ts';

/** Trains to the end of the run, or until it diverges or the signal says stop. */
export async function runToEnd(trainer: Trainer, journal: Journal, callbacks: RunCallbacks): Promise<RunResult> {
  const { totalSteps, stepsPerEpoch } = trainer;
  const { schedule } = trainer.options;
  checkRun(callbacks, schedule);
  const { onEvaluation, logEvery = 10, evaluate = true, signal } = callbacks;
  let evaluation: Evaluation | null = null;
  const checkpoints = callbacks.onCheckpoint && new Checkpoints(trainer, journal, callbacks);
  while (trainer.step < totalSteps && !signal?.aborted && !journal.divergence) {
    await trainer.trainStep();
    // Told while a step runs, else the GPU would be idle meanwhile; at most one, so that a signal and a divergence end the run soon.
    await journal.settle();
    const isEnd = trainer.step === totalSteps;
    const isEpoch = trainer.step % stepsPerEpoch === 0;
    if (trainer.step % logEvery === 0 || isEnd || isEpoch) await journal.readLater(() => tell(journal, callbacks));
    const isDue = evaluate && (isEnd || isEpoch);
    if (isDue) await journal.settle();
    if (isDue && !journal.divergence) {
      evaluation = await trainer.evaluate();
      onEvaluation?.(evaluation);
      if (isEpoch) tellSchedule(schedule, evaluation);
      // Otherwise the next step tells, and more exactly.
      if (isEnd && !Number.isFinite(evaluation.testLoss)) {
        journal.divergence = { step: trainer.step, reason: `the test loss is not finite (${evaluation.testLoss})` };
      }
    }
    if (checkpoints?.isDue) await checkpoints.make();
  }
  await journal.settle();
  await tell(journal, callbacks);
  await checkpoints?.make();
  const { divergence } = journal;
  return { steps: divergence?.step ?? trainer.step, divergence, aborted: signal?.aborted ?? false, evaluation };
}

/** Which steps a checkpoint is due after. */
export class CheckpointClock {
  #sinceMs = performance.now();

  constructor(
    readonly every: CheckpointCadence,
    readonly stepsPerEpoch: number,
  ) {}

  isDue(step: number): boolean {
    const { every, stepsPerEpoch } = this;
    if ('minutes' in every) return performance.now() - this.#sinceMs >= every.minutes * 60_000;
    return step % ('steps' in every ? every.steps : every.epochs * stepsPerEpoch) === 0;
  }

  /** Tells that one was made. */
  made(): void {
    this.#sinceMs = performance.now();
  }
}

/** When checkpoints are made, each step's once. */
class Checkpoints {
  readonly #clock: CheckpointClock;
  #lastStep = -1;

  constructor(
    readonly trainer: Trainer,
    readonly journal: Journal,
    readonly callbacks: RunCallbacks,
  ) {
    this.#clock = new CheckpointClock(callbacks.checkpointEvery ?? { epochs: 1 }, trainer.stepsPerEpoch);
  }

  get isDue(): boolean {
    return this.#clock.isDue(this.trainer.step);
  }

  /** After a divergence there is none. */
  async make(): Promise<void> {
    const { trainer, journal, callbacks } = this;
    await journal.settle();
    await tell(journal, callbacks);
    if (journal.divergence || trainer.step === this.#lastStep) return;
    await callbacks.onCheckpoint!(await trainer.checkpoint());
    this.#lastStep = trainer.step;
    this.#clock.made();
  }
}

/** An epoch's metric, for a schedule that listens to one. */
function tellSchedule(schedule: Schedule, { testLoss, testAccuracy }: Evaluation): void {
  schedule.step?.(schedule instanceof ReduceLROnPlateau && schedule.options.mode === 'max' ? testAccuracy : testLoss);
}

/** Tells what was logged, in order: an event before its step, after all before it. */
async function tell(journal: Journal, { onSteps, onEvent }: RunCallbacks): Promise<void> {
  await journal.read();
  const steps = journal.takeSteps();
  const tellUpTo = (end: number) => {
    const before = steps.findIndex(({ step }) => step >= end);
    const some = steps.splice(0, before === -1 ? steps.length : before);
    if (some.length > 0) onSteps?.(some);
  };
  for (const event of journal.takeEvents()) {
    tellUpTo(event.step);
    onEvent?.(event);
  }
  tellUpTo(Infinity);
}
