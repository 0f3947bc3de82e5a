/** The scheduler's rule on the GPU: what the kernel reads and writes there, and the events that the host takes from it later. */
import { AttrError } from '../gpu/errors.ts';
import { controlWords, type Control, type Word } from '../graph/control.ts';
import { emit, type Ref } from '../graph/lower/context.ts';
import type { Memory } from '../graph/memory.ts';
import { upload } from '../graph/plan.ts';
import type { Storage } from '../graph/tensor.ts';
import { grid1d, type Launch } from '../kernels/contract.ts';
import { pairedDifferences } from '../kernels/trialEvidence.ts';
import {
  coefficientForms,
  eventAllNonFinite,
  eventClamped,
  eventHead,
  eventHeld,
  eventValid,
  ruleNormalize,
  ruleScore,
  trialCoefficients,
  trialRate,
  trialRule,
} from '../kernels/trialRule.ts';
import type { SgdOptions } from '../optim/sgd.ts';
import { FLOAT32, holdUlps, meanLogFactor, scoreDefaults, shuffledTrials, TrialScheduler } from '../sched/index.ts';
import type { NormalizeName, OptimizerPoint, OwnScore, ScoreName, TrialEvent } from '../sched/index.ts';
import { ULP } from '../sched/scores.ts';
import { shortest } from './float32.ts';

/** An event's trials: how many run in each pass, and where the numbers of all lie, f32, trial by trial. */
export interface EventTrials {
  readonly passes: readonly number[];
  readonly coefficients: Storage;
  readonly losses: Storage;
  /** Losses of single samples, where the score looks at them. @default null */
  readonly samples?: EventSamples | null;
  /** g·u, f32, where the score looks at it. @default null */
  readonly slope?: Storage | null;
}

/** f32 [trials][batches][padded], of which the first `images` of each batch count. */
export interface EventSamples {
  readonly storage: Storage;
  readonly images: number;
  readonly padded: number;
  readonly batches: number;
}

const normalizeCodes: Record<NormalizeName, number> = ruleNormalize;
const scoreCodes: Record<ScoreName, number> = ruleScore;

/** Events between two reads of the log, at most; and bytes of them, so that a log of many trials stays small. */
const mostEvents = 64;
const eventLogBytes = 8192;

/** What trials are run at, in units of m: the factors; and 0, the loss at the weights, for the scores that ask for it. */
export const trialFactors = ({ options: { factors, score } }: TrialScheduler): number[] =>
  hasBase(score) ? [...factors, 0] : [...factors];

const hasBase = (score: ScoreName | OwnScore): boolean => score === 'relGain' || score === 'armijo' || typeof score === 'function';

/** What the score looks at beside the losses. */
export const evidenceOf = ({ options: { score } }: TrialScheduler): 'samples' | 'slope' | null =>
  score === 'pairedNoise' ? 'samples' : score === 'armijo' ? 'slope' : null;

/** Of the losses of single samples, [trials][batches][padded], those of each trial one after the other. */
export function samplesOf({ images, padded, batches }: EventSamples, values: Float32Array, trials: number): Float32Array[] {
  return Array.from({ length: trials }, (_, t) => {
    const all = new Float32Array(batches * images);
    for (let batch = 0; batch < batches; batch++) {
      const start = (t * batches + batch) * padded;
      all.set(values.subarray(start, start + images), batch * images);
    }
    return all;
  });
}

/** What a trial's coefficients are of: a grid tries whole steps, before the direction is made; without momentum there is no buffer. */
export function coefficientForm({ options: { momenta, weightDecays } }: TrialScheduler, { momentum }: Required<SgdOptions>): number {
  if (!momenta && !weightDecays) return coefficientForms.direction;
  if (momentum > 0) return coefficientForms.bufferAndGradient;
  if (!momenta) return coefficientForms.gradient;
  const fix = 'pass optimizer: { momentum: 0.9 }, from which the grid departs';
  throw new AttrError({ op: 'Trainer', arg: 'factors.momentum', rule: "must go with the optimizer's momentum > 0", got: momentum, fix });
}

/** How many times their direction trials go: what momentum makes of a gradient in all, where they look along that, else once. */
export function reachOf({ options: { direction } }: TrialScheduler, { momentum, dampening }: Required<SgdOptions>): number {
  return direction === 'accumulated' && momentum > 0 ? (1 - dampening) / (1 - momentum) : 1;
}

/** A score of one's own, or a scheduler whose rule was overridden, is asked on the host. */
export function rulePath(scheduler: TrialScheduler): TrialEvent['path'] {
  const asked = ['apply', 'trialRates', 'lrAt', 'envelopeAt', 'baseAt', 'isSearching', 'ceilingAt'] as const;
  const isOwn = asked.some((name) => scheduler[name] !== TrialScheduler.prototype[name]);
  return isOwn || typeof scheduler.options.score === 'function' ? 'host' : 'gpu';
}

/** Momentum and weight decay of the steps: the optimizer's own, or what trials have made of them. */
export const presentPoint = ({ optimizer }: TrialScheduler, own: Required<SgdOptions>) => ({
  momentum: optimizer.momentum ?? own.momentum,
  weightDecay: optimizer.weightDecay ?? own.weightDecay,
});

export class TrialRule {
  readonly #events: Storage;
  readonly #staging: GPUBuffer;
  readonly #stride: number;
  readonly #capacity: number;
  /** Steps of the events in the log. */
  #waiting: number[] = [];
  /** m, and what else the rates hold, as the host knows it. */
  #m = NaN;
  #point: OptimizerPoint | null = null;
  /** Step at which the host set them last. */
  #since = 0;
  readonly #table: Storage;
  /** What the score looks at beside the losses, f32, and how many of them. */
  readonly #evidence: Storage;
  readonly #evidenceWords: number;

  constructor(
    readonly memory: Memory,
    readonly scheduler: TrialScheduler,
    readonly optimizer: Required<SgdOptions>,
    /** f32: η, m, momentum, weight decay, the highest m that a search has found. */
    readonly rates: Storage,
    readonly event: EventTrials,
    /** Of the run, by which a control shuffles losses. */
    readonly seed = 0,
  ) {
    const n = scheduler.options.factors.length;
    this.#evidenceWords = event.samples ? 2 * n : Number(!!event.slope);
    this.#evidence = event.slope ?? memory.storage('trials', 'evidence', Math.max(16, 4 * this.#evidenceWords));
    this.#stride = eventHead + 2 * n + this.#evidenceWords;
    this.#capacity = Math.max(1, Math.min(mostEvents, Math.floor(eventLogBytes / (this.#stride * 4))));
    const sizeBytes = this.#capacity * this.#stride * 4;
    this.#events = memory.storage('trials', 'event log', sizeBytes);
    this.#staging = memory.create('trials', 'event log staging', sizeBytes, GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST);
    this.#table = upload(memory, 'trials', 'trial factors', this.#rows());
  }

  #order(step: number): number[] | null {
    const { control, factors } = this.scheduler.options;
    return control === 'shuffledLosses' ? shuffledTrials(this.seed, step, factors.length) : null;
  }

  get #form() {
    const { momenta, weightDecays } = this.scheduler.options;
    return {
      form: coefficientForm(this.scheduler, this.optimizer),
      tries_momentum: Number(momenta !== null),
      tries_decay: Number(weightDecays !== null),
    };
  }

  /** What the trials are made with, the optimizer's first step where `first` is 1. First launch of an event. */
  coefficientsLaunch(first: Word, control: Control): Launch<Ref> {
    const { dampening, momentum, nesterov } = this.optimizer;
    const count = trialFactors(this.scheduler).length;
    return emit(trialCoefficients, {
      bindings: {
        trials: this.#table, first: first.storage, control: control.storage, rates: this.rates, coefficients: this.event.coefficients,
      },
      uniforms: {
        envelope_word: controlWords.envelope,
        has_base: Number(this.scheduler.options.base !== null),
        count,
        ...this.#form,
        dampening: momentum > 0 ? dampening : 0,
        nesterov: Number(nesterov),
        first_word: first.word,
      },
      grid: grid1d(count, 64),
    });
  }

  /** The rule and what it looks at, once the losses are there. Last launches of an event. */
  launches(control: Control, flags: Storage): Launch<Ref>[] {
    const { samples, losses, coefficients } = this.event;
    const rule = this.#ruleLaunch(control, flags);
    if (!samples) return [rule];
    const n = this.scheduler.options.factors.length;
    const { images, padded, batches, storage } = samples;
    const pairs = emit(pairedDifferences, {
      bindings: { samples: storage, losses, coefficients, pairs: this.#evidence },
      uniforms: { n, words: this.#form.form + 1, images, padded, batches },
      grid: [n, 1, 1],
    });
    return [pairs, rule];
  }

  #ruleLaunch(control: Control, flags: Storage): Launch<Ref> {
    const { normalize, score, tau, kappa, c, hold, bounds, factors } = this.scheduler.options;
    if (typeof score === 'function')
      throw new AttrError({ op: 'TrialRule', arg: 'score', rule: 'must be a name', got: score, fix: 'a function runs on the host' });
    const [low, high] = bounds ?? [FLOAT32.least, FLOAT32.greatest];
    const { rates } = this;
    const { losses, coefficients } = this.event;
    return emit(trialRule, {
      bindings: {
        trials: this.#table, losses, coefficients, control: control.storage, flags, rates, events: this.#events, evidence: this.#evidence,
      },
      uniforms: {
        n: factors.length,
        has_base: trialFactors(this.scheduler).length - factors.length,
        normalize: normalizeCodes[normalize],
        score: scoreCodes[score],
        parameter: { pairedNoise: kappa ?? scoreDefaults.kappa, armijo: c ?? scoreDefaults.c, exp: tau, relGain: tau, rank: tau }[score],
        hold: hold ? holdUlps * ULP : -1,
        least_factor: Math.min(...factors),
        low,
        high,
        slot_word: controlWords.eventSlot,
        search_word: controlWords.searching,
        stride: this.#stride,
        ...this.#form,
        evidence_words: this.#evidenceWords,
      },
      grid: [1, 1, 1],
    });
  }

  /** rates[0] = m · envelope. First launch of an update. */
  rateLaunch(control: Control): Launch<Ref> {
    return emit(trialRate, {
      bindings: { control: control.storage, rates: this.rates },
      uniforms: { envelope_word: controlWords.envelope },
      grid: [1, 1, 1],
    });
  }

  /** `trialWords` of each trial, scored by the loss of `order[i]`; the one at 0 has no momentum or weight decay of its own. */
  #rows(order: readonly number[] | null = null): Float32Array {
    const { factors, momenta, weightDecays, anchor } = this.scheduler.options;
    const drift = anchor ? meanLogFactor(factors) : 0;
    const reach = reachOf(this.scheduler, this.optimizer);
    return Float32Array.from(
      trialFactors(this.scheduler).flatMap((factor, i) => {
        const [mu, decay] = [momenta?.[i] ?? 0, weightDecays?.[i] ?? 1];
        return [-factor * reach, factor > 0 ? Math.log(factor) - drift : 0, mu, Math.log1p(-mu), decay, Math.log(decay), order?.[i] ?? i];
      }),
    );
  }

  /** Brings m, momentum, weight decay and what a search has found to the GPU where the host has set them: at the start, or when a state was loaded. */
  sync(step: number): void {
    const { scheduler, memory, rates, optimizer } = this;
    if (scheduler.lr === this.#m && scheduler.optimizer === this.#point) return;
    this.#since = step;
    this.#m = scheduler.lr;
    this.#point = scheduler.optimizer;
    const { momentum, weightDecay } = presentPoint(scheduler, optimizer);
    const values = Float32Array.of(this.#m, momentum, weightDecay, scheduler.highestFound);
    memory.device.gpu.queue.writeBuffer(rates.buffer, rates.offset + 4, values);
  }

  get isFull(): boolean {
    return this.#waiting.length === this.#capacity;
  }

  /** Notes the event of a step that is about to be submitted; returns its slot. */
  note(step: number): number {
    const order = this.#order(step);
    const { buffer, offset } = this.#table;
    if (order) this.memory.device.gpu.queue.writeBuffer(buffer, offset, this.#rows(order) as Float32Array<ArrayBuffer>);
    this.#waiting.push(step);
    return this.#waiting.length - 1;
  }

  /** Copies the log aside; returns what reads it once that has been submitted, or null where there is nothing to read. */
  take(encoder: GPUCommandEncoder): (() => Promise<TrialEvent[]>) | null {
    const steps = this.#waiting;
    if (steps.length === 0) return null;
    this.#waiting = [];
    const sizeBytes = steps.length * this.#stride * 4;
    encoder.copyBufferToBuffer(this.#events.buffer, 0, this.#staging, 0, sizeBytes);
    return async () => {
      const bytes = await this.memory.device.readStaging(this.#staging, sizeBytes);
      return steps.flatMap((step, slot) => this.#decode(step, bytes, slot * this.#stride));
    };
  }

  /** No event where a flag had been set before the rule could run. */
  #decode(step: number, bytes: ArrayBuffer, at: number): TrialEvent[] {
    const [bits, nonFinite] = new Uint32Array(bytes, at * 4, 2);
    if ((bits & eventValid) === 0) return [];
    const { factors, score } = this.scheduler.options;
    const n = factors.length;
    const floats = new Float32Array(bytes, at * 4, this.#stride);
    const [, , before, after, logMultiplier, base] = floats;
    const [held, allNonFinite] = [(bits & eventHeld) !== 0, (bits & eventAllNonFinite) !== 0];
    // Σ = 1 in float64 too.
    const weights = [...floats.subarray(eventHead + n, eventHead + 2 * n)];
    const total = weights.reduce((sum, weight) => sum + weight, 0) || 1;
    const event: TrialEvent = {
      step,
      lrBefore: shortest(before),
      lrAfter: shortest(after),
      multiplier: held ? 1 : allNonFinite ? Math.min(...factors) : Math.exp(logMultiplier),
      weights: weights.map((weight) => weight / total),
      clamped: (bits & eventClamped) !== 0,
      nonFinite,
      held,
      allNonFinite,
      factors: [...factors],
      losses: [...floats.subarray(eventHead, eventHead + n)],
      baseLoss: hasBase(score) ? base : null,
      path: 'gpu',
      ...this.#looked(floats.subarray(eventHead + 2 * n)),
      ...this.#controlled(step),
    };
    const { momenta, weightDecays } = this.scheduler.options;
    if (!momenta && !weightDecays) return [event];
    const pointAt = (at: number): OptimizerPoint => ({
      momentum: momenta && shortest(floats[at]),
      weightDecay: weightDecays && shortest(floats[at + 2]),
    });
    return [{ ...event, optimizer: { momenta, weightDecays, before: pointAt(6), after: pointAt(7) } }];
  }

  #looked(evidence: Float32Array): Pick<TrialEvent, 'pairs' | 'slope'> {
    if (this.event.slope) return { slope: evidence[0] * reachOf(this.scheduler, this.optimizer) };
    if (!this.event.samples) return {};
    const every = (offset: number) => [...evidence].filter((_, i) => i % 2 === offset);
    return { pairs: { differences: every(0), standardErrors: every(1) } };
  }

  #controlled(step: number): Pick<TrialEvent, 'control' | 'order'> {
    const order = this.#order(step);
    return order ? { control: 'shuffledLosses', order } : {};
  }

  /** The scheduler takes an event over: host and GPU then hold the same m. */
  record(event: TrialEvent): void {
    // A state loaded since then stands.
    if (event.step < this.#since || this.scheduler.lr !== this.#m || this.scheduler.optimizer !== this.#point) return;
    this.scheduler.record(event);
    this.#m = event.lrAfter;
    this.#point = this.scheduler.optimizer;
  }
}
