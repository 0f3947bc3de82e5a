/** One step of training, all of it in one submit, and where the next one begins. */
import { floatBits } from '../graph/control.ts';
import type { Plan } from '../graph/plan.ts';
import { TrialScheduler } from '../sched/index.ts';
import type { HostRule } from './hostRule.ts';
import type { Journal } from './journal.ts';
import { enterSecondPoint } from './secondPoint.ts';
import type { TrainerParts } from './trainerParts.ts';

/** Steps the host may be ahead of the GPU. */
const stepsAhead = 2;

export class Stepper {
  #step: number;
  #epoch = -1;
  /** What a rule of one's own threw: the momentum has taken the gradient by then, so that the step cannot be made again. */
  #failure: { readonly cause: unknown } | null = null;
  readonly #pending: Promise<void>[] = [];
  /** Of the epoch after this one, made while the GPU is busy with this one's last step. */
  #nextOrder: { readonly epoch: number; readonly order: Uint32Array } | null = null;

  constructor(
    readonly parts: TrainerParts,
    readonly journal: Journal,
    readonly totalSteps: number,
    /** Steps made before. */
    step = 0,
  ) {
    this.#step = step;
  }

  /** Steps made so far. */
  get step(): number {
    return this.#step;
  }

  /** True when the next step begins with a scheduling event. */
  get isEventDue(): boolean {
    const { plans, options, sampler } = this.parts;
    if (this.journal.divergence || !(plans.event || this.#blind)) return false;
    return options.schedule.isDue(this.#step, sampler.stepsPerEpoch);
  }

  /** A scheduler whose events need no trials. */
  get #blind(): TrialScheduler | null {
    const { schedule } = this.parts.options;
    return schedule instanceof TrialScheduler && schedule.options.control === 'blindDrift' ? schedule : null;
  }

  /** See `Trainer.trainStep`. */
  async make(): Promise<void> {
    const { journal, parts } = this;
    const { plans, device, hostRule, sampler } = parts;
    const { batchSize, stepsPerEpoch } = sampler;
    device.check();
    this.checkWhole();
    const step = this.#step;
    this.#beginEpoch(Math.floor(step / stepsPerEpoch));
    const blind = this.#blind;
    if ((hostRule || blind) && this.isEventDue) await journal.read();
    else if (plans.log.isFull) await journal.readLater();
    if (blind && this.isEventDue) journal.note(blind.drift(step));
    const cursor = (step % stepsPerEpoch) * batchSize;
    const counter = step * batchSize;
    const next = { scoreCursor: cursor + batchSize, scoreCounter: counter + batchSize };
    plans.control.write({ cursor, counter, ...next, first: Number(step === 0) });
    let run = this.order(this.isEventDue);
    // Nothing was skipped that has not been heard of, unless rates are given ahead; where the host moves the rate it has just heard.
    const update = step - journal.skipped;
    // Asked first, as schedules refuse a step after their last one: what is noted is submitted.
    plans.ahead?.write(journal.made, update - journal.made, journal.skipped, (at) => this.#rateAt(at));
    if (plans.rule) {
      const envelope = floatBits(this.#rateAt(update));
      plans.rule.sync(step);
      const searching = Number(plans.rule.scheduler.isSearching(step));
      plans.control.write({ slot: plans.log.note(step, null), eventSlot: this.isEventDue ? plans.rule.note(step) : 0, envelope, searching });
    } else if (plans.adaptive) {
      plans.adaptive.sync(step);
      plans.control.write({ slot: plans.log.note(step, null) });
    } else {
      if (hostRule && this.isEventDue) run = await this.#askHost(hostRule, run, update);
      hostRule?.sync();
      const lr = this.#rateAt(update);
      plans.control.write({ slot: plans.log.note(step, plans.ahead ? null : lr) });
      device.gpu.queue.writeBuffer(plans.rates.buffer, plans.rates.offset, Float32Array.of(lr));
    }
    this.submit(run);
    this.#step++;
    if (this.#step % stepsPerEpoch === 0 && this.#step < this.totalSteps) this.#nextOrder = this.#orderOf(this.#epoch + 1);
    if (this.#pending.length >= stepsAhead) await this.#pending.shift();
    this.#pending.push(device.wait(device.gpu.queue.onSubmittedWorkDone()).then(() => undefined));
  }

  /** @throws what a rule of one's own threw, which left a step half made */
  checkWhole(): void {
    if (this.#failure) throw this.#failure.cause;
  }

  /** The schedule's rate of an update, or what the GPU multiplies its scale by. */
  #rateAt(update: number): number {
    const { plans, options, sampler } = this.parts;
    if (plans.rule) return plans.rule.scheduler.envelopeAt(update, this.totalSteps, sampler.stepsPerEpoch);
    return options.schedule.lrAt(update, this.totalSteps, sampler.stepsPerEpoch);
  }

  /** Runs the plans up to the event and moves the rate by its losses; returns the plans that are left. */
  async #askHost(hostRule: HostRule, run: readonly Plan[], update: number): Promise<Plan[]> {
    const { plans, sampler } = this.parts;
    const after = run.indexOf(plans.event!) + 1;
    const before = run.slice(0, after);
    const base = hostRule.scheduler.baseAt(update, this.totalSteps, sampler.stepsPerEpoch);
    const event = hostRule.run(this.#step, base, this.journal.made === 0, (copy) => this.submit(before, copy));
    const told = await event.catch((cause) => {
      this.#failure = { cause };
      throw cause;
    });
    if (told) this.journal.note(told);
    return run.slice(after);
  }

  /** The plans of a step; trials come once what they look along is there. */
  order(isEventDue: boolean): Plan[] {
    const { gradient, slope, direction, event, update, rateAhead } = this.parts.plans;
    const ahead = rateAhead ? [rateAhead] : [];
    if (!isEventDue || !event) return [...ahead, gradient, direction, update];
    if (this.parts.plans.adaptive) return [gradient, direction, event, update];
    const { direction: along, momenta, weightDecays } = (this.parts.options.schedule as TrialScheduler).options;
    // A grid makes its directions of the gradient and the buffer itself.
    const isBefore = along !== 'optimizer' || momenta !== null || weightDecays !== null;
    return [...ahead, gradient, ...(slope ? [slope] : []), ...(isBefore ? [event, direction] : [direction, event]), update];
  }

  /** Brings the point that evaluations are of to where the weights are, where it is another than that of training. */
  enterEvaluation(): void {
    const { plans, sampler } = this.parts;
    const { batchSize, stepsPerEpoch } = sampler;
    if (!plans.secondPoint) return;
    // The epoch of the last step, whoever made it.
    this.#beginEpoch(Math.floor(Math.max(this.#step - 1, 0) / stepsPerEpoch));
    const seek = (index: number) => plans.control.write({ cursor: index * batchSize, counter: index * batchSize });
    enterSecondPoint(plans.secondPoint, (plan) => this.submit([plan]), seek, stepsPerEpoch);
  }

  /** Runs plans in one pass of one submit, and what `after` records behind it. */
  submit(run: readonly Plan[], after?: (encoder: GPUCommandEncoder) => void): void {
    const { gpu } = this.parts.device;
    const encoder = gpu.createCommandEncoder({ label: 'step' });
    const pass = encoder.beginComputePass({ label: 'step' });
    for (const plan of run) plan.encode(pass);
    pass.end();
    after?.(encoder);
    gpu.queue.submit([encoder.finish()]);
  }

  #beginEpoch(epoch: number): void {
    if (epoch === this.#epoch) return;
    this.#epoch = epoch;
    const { order } = this.#nextOrder?.epoch === epoch ? this.#nextOrder : this.#orderOf(epoch);
    this.#nextOrder = null;
    this.parts.train.writeOrder(order);
  }

  /** An epoch's order, and its beginning once more: held-out images follow the batch. */
  #orderOf(epoch: number): { epoch: number; order: Uint32Array } {
    const { sampler, train } = this.parts;
    const once = sampler.epochOrder(epoch);
    const extra = Math.min(train.options.capacity - once.length, once.length);
    const order = new Uint32Array(once.length + extra);
    order.set(once);
    order.set(once.subarray(0, extra), once.length);
    return { epoch, order };
  }

  /** Waits until nothing is under way, whatever came of it. */
  async idle(): Promise<void> {
    await Promise.allSettled(this.#pending);
  }
}
