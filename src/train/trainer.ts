/** Training over a data set: steps with their scheduling events, evaluation, runs. */
import type { EpochSampler } from '../data/batches.ts';
import type { Device } from '../gpu/device.ts';
import { AttrError } from '../gpu/errors.ts';
import type { MemoryReport } from '../graph/memory.ts';
import type { TrialEvent } from '../sched/index.ts';
import type { Checkpoint, TrainerState } from './checkpoint.ts';
import { evaluateTest } from './evaluationPlan.ts';
import { Journal } from './journal.ts';
import { capture, checkResume, restore, ruleMemory } from './resume.ts';
import { runToEnd } from './runLoop.ts';
import type { Divergence, LoggedStep } from './stepLog.ts';
import type { StepPlans } from './stepPlans.ts';
import { Stepper } from './stepper.ts';
import { checkTrainerOptions, lengthOf, type Evaluation, type RunCallbacks, type RunResult, type TrainerOptions } from './trainerOptions.ts';
import { makeParts, release, type TrainerParts } from './trainerParts.ts';

export class Trainer {
  readonly device: Device;
  readonly options: TrainerOptions;
  readonly plans: StepPlans;
  readonly sampler: EpochSampler;
  readonly totalSteps: number;
  readonly stepsPerEpoch: number;
  readonly batchSize: number;
  readonly #journal: Journal;
  readonly #stepper: Stepper;

  private constructor(
    private readonly parts: TrainerParts,
    resumed: TrainerState | undefined,
  ) {
    const { device, options, plans, sampler } = parts;
    this.device = device;
    this.options = options;
    this.plans = plans;
    this.sampler = sampler;
    this.batchSize = sampler.batchSize;
    this.stepsPerEpoch = sampler.stepsPerEpoch;
    this.totalSteps = lengthOf(options).totalSteps;
    this.#journal = new Journal(plans, options.schedule, resumed && { made: resumed.updates, skipped: resumed.skipped });
    this.#stepper = new Stepper(parts, this.#journal, this.totalSteps, resumed?.step);
  }

  /**
   * Uploads the data, compiles the kernels and makes every buffer and bind group that the run needs. With `resume` the trainer is where the
   * checkpoint was made, and so is the schedule.
   * @throws AttrError for options out of range, those that differ from the checkpoint's, a scheduler that is another trainer's or, without a
   * checkpoint, has had events; DataError and ShapeError for a checkpoint of another model; DeviceError without an adapter
   */
  static async create(options: TrainerOptions): Promise<Trainer> {
    checkTrainerOptions(options);
    const { resume, schedule } = options;
    if (!resume) return new Trainer(await makeParts(options), undefined);
    const restored = checkResume(options, resume);
    const parts = await makeParts(options);
    try {
      const rule = ruleMemory(parts, resume);
      schedule.load(resume.state.schedule);
      restore(parts, resume, restored, rule);
    } catch (error) {
      await release(parts);
      throw error;
    }
    return new Trainer(parts, resume.state);
  }

  /** Steps made so far. */
  get step(): number {
    return this.#stepper.step;
  }

  get divergence(): Divergence | null {
    return this.#journal.divergence;
  }

  /** Updates that the log, as far as it was read, says were made: what a schedule counts. Steps that were skipped or refused are none. */
  get updates(): number {
    return this.#journal.made;
  }

  /** True when the next step begins with a scheduling event. */
  get isEventDue(): boolean {
    return this.#stepper.isEventDue;
  }

  /** GPU bytes by category: the sum of all live buffers of this trainer. */
  get memory(): MemoryReport {
    return this.plans.report;
  }

  /** Dispatches of a step without an event, all in one compute pass and one submit; those of trials that every step makes are among them. */
  get dispatchesPerStep(): number {
    return this.#stepper.order(this.plans.adaptive !== null && this.plans.event !== null).reduce((sum, { dispatches }) => sum + dispatches, 0);
  }

  /**
   * One step: a scheduling event first when one is due, then the update at the schedule's learning rate, all in one submit. Nothing is
   * read back but the log when it is full, and that is not waited for; `losses()` and `events()` tell what came of it. Resolves once the
   * GPU has done the step before the last one, so that it always has work. (With a score or a rule of one's own an event's losses are read
   * back, in a submit of their own; what it throws ends the run: later steps throw it again.)
   */
  trainStep(): Promise<void> {
    return this.#stepper.make();
  }

  /** The losses logged since the last call; notes a divergence. Waits for the GPU. */
  async losses(): Promise<LoggedStep[]> {
    await this.#journal.settle();
    await this.#journal.read();
    return this.#journal.takeSteps();
  }

  /** The scheduling events since the last call, that of a step which diverged too. Waits for the GPU. */
  async events(): Promise<TrialEvent[]> {
    await this.#journal.settle();
    await this.#journal.read();
    return this.#journal.takeEvents();
  }

  /** Mean loss and accuracy over the test images, in inference mode; where the schedule evaluates at another point than it trains at, there. */
  async evaluate(): Promise<Evaluation> {
    const { plans: { control, totals, evaluation, secondPoint }, device, batchSize } = this;
    this.#stepper.enterEvaluation();
    const measured = await evaluateTest({ device, control, plan: evaluation!, totals, count: this.parts.test.set.count, batchSize });
    if (secondPoint) this.#stepper.submit([secondPoint.leave]);
    return { step: this.step, ...measured };
  }

  /** Trains to the end of the run, or until it diverges or the signal says stop. */
  run(callbacks: RunCallbacks = {}): Promise<RunResult> {
    return runToEnd(this, this.#journal, callbacks);
  }

  /**
   * All that the run needs to go on from here: weights, momentum, running statistics, schedule, loss scale, counts. A trainer made with it
   * as `resume` and with the same options goes on bit for bit, on the same adapter. Waits for the GPU; call it between steps. Steps and
   * events that were not asked for yet stay with this trainer.
   * @throws AttrError once the run has diverged
   */
  async checkpoint(): Promise<Checkpoint> {
    this.#stepper.checkWhole();
    await this.#journal.settle();
    await this.#journal.read();
    if (this.divergence) {
      const fix = 'resume from an earlier checkpoint; close() brings the weights before that step back';
      throw new AttrError({ op: 'checkpoint', arg: 'run', rule: 'must not have diverged', got: this.divergence.reason, fix });
    }
    return capture(this.parts, this.#journal, this.step, this.totalSteps);
  }

  /** Brings the weights, those that evaluations are of, back to the host model and frees everything on the GPU. */
  async close(): Promise<void> {
    await this.#stepper.idle();
    await this.#journal.settle().catch(() => undefined);
    try {
      this.#stepper.enterEvaluation();
    } finally {
      await release(this.parts);
    }
  }
}
