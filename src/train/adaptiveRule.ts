/**
 * A rule of src/sched/rules on the GPU: what it reads and writes there, the memory that it needs beside the optimizer's, and what the host
 * takes from its log later. All of a step's launches are in the step's own submit; η never leaves the GPU on its way to the update.
 */
import { AttrError } from '../gpu/errors.ts';
import { controlWords, type Control, type Word } from '../graph/control.ts';
import { dotLaunches } from '../graph/dot.ts';
import { emit, type Ref } from '../graph/lower/context.ts';
import { Arena, type Memory } from '../graph/memory.ts';
import { sizeBytes, type Storage } from '../graph/tensor.ts';
import type { VariableStore } from '../graph/variables.ts';
import { grid1d, type Launch } from '../kernels/contract.ts';
import { distancePartials } from '../kernels/dot.ts';
import {
  lineHead, noProduct, rateRule, rateRules, recordHead, ruleProducts, ruleTrials, type RuleProduct, type RuleUniforms,
} from '../kernels/rateRules.ts';
import {
  averageStep, exchange, keepStep, scheduleFreeCheck, scheduleFreePoint, scheduleFreeStep,
} from '../kernels/secondPoint.ts';
import type { Sgd } from '../optim/sgd.ts';
import { factNames, type AdaptiveSchedule, type RuleRun, type RuleWords } from '../sched/index.ts';
import { logCapacity, type RuleLine } from './stepLog.ts';
import type { EventTrials } from './trialRule.ts';

/** What of the trainer a rule works with. */
export interface RuleParts {
  readonly memory: Memory;
  readonly control: Control;
  readonly store: VariableStore;
  readonly sgd: Sgd;
  /** f32: η */
  readonly rates: Storage;
  readonly flags: Storage;
  readonly loss: Storage;
  /** 1 on the optimizer's first step. */
  readonly first: Word;
}

/** Length of the run, which rules that grow by the epoch or rise for a share of it go by. */
export type RunOfRule = Pick<RuleRun, 'stepsPerEpoch' | 'totalSteps'>;

/** Bytes between two results of dot products: each is a binding of its own. */
const productsStride = 256;

/** ‖θ‖ of what the variables hold on the host. */
const normOf = (values: readonly Float32Array[]): number =>
  Math.sqrt(values.reduce((sum, data) => data.reduce((square, value) => square + value * value, sum), 0));

export class AdaptiveRule {
  readonly run: RuleRun;
  /** f32: the rule's words, then its log. */
  readonly #record: Storage;
  readonly #staging: GPUBuffer;
  readonly #products: Storage;
  readonly #places: Partial<Record<RuleProduct, number>> = {};
  readonly #before: Launch<Ref>[];
  readonly #after: Launch<Ref>[];
  readonly #previous: Arena | null;
  readonly #start: Arena | null;
  /** The average, or z. */
  readonly #second: Arena | null;
  readonly #secondStatistics: Arena | null;
  readonly #lineWords: number;
  /** What the GPU's words are made of, as the host knows it. */
  #words: RuleWords | null = null;
  /** Step at which the host set them last. */
  #since = 0;

  /** @throws AttrError where the rule does not go with the optimizer */
  constructor(
    readonly parts: RuleParts,
    readonly schedule: AdaptiveSchedule,
    run: RunOfRule,
  ) {
    const { memory, store, sgd } = parts;
    const { spec } = schedule;
    if (spec.isPlain && sgd.buffer) {
      const [rule, got] = [`must be 0 with ${spec.kind}`, sgd.options.momentum];
      throw new AttrError({ op: 'Trainer', arg: 'optimizer.momentum', rule, got, fix: 'leave momentum out' });
    }
    const startNorm = normOf(store.parameters.map(({ data }) => data));
    this.run = { ...run, startNorm, hasStatistics: store.statistics.length > 0 };
    this.#lineWords = lineHead + rateRules[spec.kind].words.length + (spec.trials ?? 0);
    const logBytes = logCapacity * this.#lineWords * 4;
    this.#record = memory.storage('schedule', 'rule record', recordHead * 4 + logBytes);
    this.#staging = memory.create('schedule', 'rule log staging', logBytes, GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST);
    this.#products = memory.storage('schedule', 'rule products', 3 * productsStride);
    const like = (label: string) => new Arena(memory, 'schedule', label, store.parameters.map(sizeBytes), store.parameterOrder);
    const { nesterov } = sgd.options;
    const wants = (fact: (typeof spec.facts)[number]) => spec.facts.includes(fact);
    this.#previous = wants('hypergradient') && (!sgd.buffer || nesterov) ? like('direction before') : null;
    this.#start = wants('distanceSquared') ? like('start') : null;
    this.#second = spec.second ? like(spec.second.kind === 'free' ? 'z' : 'average') : null;
    const hasSecond = store.statistics.length > 0 && (spec.second?.kind === 'average' || this.gatheredBatches > 0);
    this.#secondStatistics = hasSecond ? new Arena(memory, 'schedule', 'second statistics', store.statistics.map(sizeBytes)) : null;
    this.#copyStart();
    this.#before = this.#productLaunches(0, this.#productsBefore());
    this.#after = [...this.#productLaunches(1, this.#productsAfter()), ...this.#distanceLaunches()];
    // Of plain SGD the direction is the gradient.
    if (!sgd.buffer && sgd.options.weightDecay === 0 && this.#places.gg !== undefined) this.#places.dd ??= this.#places.gg;
  }

  /** Training batches that running statistics are gathered from at the point of evaluation, at most; 0 where nothing is gathered. */
  get gatheredBatches(): number {
    const { second } = this.schedule.spec;
    return second?.kind === 'free' && this.parts.store.statistics.length > 0 ? second.statisticBatches : 0;
  }

  /** Second points begin at the weights. */
  #copyStart(): void {
    const { memory, store } = this.parts;
    const encoder = memory.device.gpu.createCommandEncoder({ label: 'start' });
    const copies: [Arena, Arena | null][] = [
      [store.parameterArena, this.#start], [store.parameterArena, this.#second], [store.statisticArena, this.#secondStatistics],
    ];
    for (const [from, to] of copies) {
      to?.segments.forEach(({ buffer, size }, i) => encoder.copyBufferToBuffer(from.segments[i].buffer, 0, buffer, 0, size));
    }
    memory.device.gpu.queue.submit([encoder.finish()]);
  }

  /** Products with the gradient as the batch gave it: decay and momentum are added to it in its place. */
  #productsBefore(): Partial<Record<RuleProduct, readonly [Arena, Arena]>> {
    const { sgd, store } = this.parts;
    const { facts } = this.schedule.spec;
    const { gradients, buffer } = sgd;
    const weights = store.parameterArena;
    const hasDecay = sgd.options.weightDecay > 0;
    const slope = facts.includes('slope');
    const hyper = facts.includes('hypergradient');
    const before = this.#previous ?? buffer;
    return {
      ...((slope || facts.includes('gradientSquared')) && { gg: [gradients, gradients] as const }),
      ...(slope && buffer && { gb: [gradients, buffer] as const }),
      ...(slope && hasDecay && { gw: [gradients, weights] as const }),
      ...(hyper && { gp: [gradients, before!] as const }),
      ...(hyper && hasDecay && { wp: [weights, before!] as const }),
    };
  }

  /** Of plain SGD g·g is known already where the slope is. */
  #productsAfter(): Partial<Record<RuleProduct, readonly [Arena, Arena]>> {
    const { sgd } = this.parts;
    const isGradient = !sgd.buffer && sgd.options.weightDecay === 0 && this.#places.gg !== undefined;
    return this.schedule.spec.facts.includes('directionSquared') && !isGradient ? { dd: [sgd.directions, sgd.directions] } : {};
  }

  /** Results of a list of products lie one behind the other, from `index` strides on. */
  #resultAt(index: number): Storage {
    return { ...this.#products, offset: index * productsStride, size: productsStride };
  }

  #productLaunches(index: number, products: Partial<Record<RuleProduct, readonly [Arena, Arena]>>): Launch<Ref>[] {
    const names = ruleProducts.filter((name) => products[name] !== undefined);
    if (names.length === 0) return [];
    names.forEach((name, i) => (this.#places[name] = (index * productsStride) / 4 + i));
    return dotLaunches(this.parts.memory, 'schedule', names.map((name) => products[name]!), this.#resultAt(index));
  }

  #distanceLaunches(): Launch<Ref>[] {
    if (!this.#start) return [];
    this.#places.distance = (2 * productsStride) / 4;
    const { memory, store } = this.parts;
    return dotLaunches(memory, 'schedule', [[store.parameterArena, this.#start]], this.#resultAt(2), distancePartials);
  }

  #uniforms(): RuleUniforms & Record<string, number> {
    const { momentum, dampening, nesterov, weightDecay } = this.parts.sgd.options;
    const places = Object.fromEntries(ruleProducts.map((name) => [name, this.#places[name] ?? noProduct])) as Record<RuleProduct, number>;
    return {
      ...this.schedule.spec.uniforms(this.run), ...places,
      of_gradient: nesterov ? 1 + momentum : momentum > 0 ? 1 - dampening : 1,
      of_first_gradient: nesterov ? 1 + momentum : 1,
      of_buffer: nesterov ? momentum * momentum : momentum,
      weight_decay: weightDecay,
      first_word: this.parts.first.word,
      trials: this.schedule.spec.trials ?? 0,
    };
  }

  /** Launches after the gradient and before the direction. */
  before(): readonly Launch<Ref>[] {
    return this.#before;
  }

  /** Launches once the direction is there, and of the trials' coefficients where there are trials. */
  after(trials: EventTrials | null): Launch<Ref>[] {
    if (!trials) return this.#after;
    const { loss, first } = this.parts;
    const bindings = { loss, products: this.#products, first: first.storage, record: this.#record, coefficients: trials.coefficients };
    return [...this.#after, emit(ruleTrials(this.schedule.spec.kind), { bindings, uniforms: this.#uniforms(), grid: [1, 1, 1] })];
  }

  /** The rule: η to rates[0]. */
  rate(trials: EventTrials | null): Launch<Ref> {
    const { loss, first, control, flags, rates } = this.parts;
    return emit(rateRule(this.schedule.spec.kind), {
      bindings: {
        loss, products: this.#products, trial_losses: trials?.losses ?? this.#products, control: control.storage, first: first.storage,
        flags, rates, record: this.#record,
      },
      uniforms: { ...this.#uniforms(), slot_word: controlWords.slot },
      grid: [1, 1, 1],
    });
  }

  /** The step, with what comes of it for the rule's own memory. `sgdStep` gives the optimizer's. */
  step(sgdStep: () => Launch<Ref>[]): Launch<Ref>[] {
    const { second } = this.schedule.spec;
    return second?.kind === 'free' ? this.#freeStep(second.beta) : [...sgdStep(), ...this.#keep()];
  }

  #keep(): Launch<Ref>[] {
    const { sgd, flags } = this.parts;
    if (!this.#previous) return [];
    return this.#previous.segments.map((kept, i) => {
      const n = kept.size / 16;
      return emit(keepStep, { bindings: { value: sgd.directions.segments[i], flags, kept }, uniforms: { n }, grid: grid1d(n, 64) });
    });
  }

  #shareWord(): number {
    return (rateRules[this.schedule.spec.kind].words as readonly string[]).indexOf('share');
  }

  #freeStep(beta: number): Launch<Ref>[] {
    const { sgd, store, rates, flags } = this.parts;
    const launches = sgd.directions.segments.map((direction, i) => {
      const n = direction.size / 16;
      const weight = store.parameterArena.segments[i];
      const bindings = { direction, rates, record: this.#record, weight, z: this.#second!.segments[i], flags };
      const sizes = { uniforms: { n, beta, share_word: this.#shareWord() }, grid: grid1d(n, 64) };
      return [emit(scheduleFreeCheck, { bindings, ...sizes }), emit(scheduleFreeStep, { bindings, ...sizes })] as const;
    });
    return [...launches.map(([check]) => check), ...launches.map(([, step]) => step)];
  }

  /** Averages, after the step and after the running statistics have moved. */
  average(): Launch<Ref>[] {
    if (this.schedule.spec.second?.kind !== 'average') return [];
    const { store, flags } = this.parts;
    const pairs: [Arena, Arena | null][] = [[store.parameterArena, this.#second], [store.statisticArena, this.#secondStatistics]];
    return pairs.flatMap(([from, to]) =>
      (to?.segments ?? []).map((average, i) => {
        const n = average.size / 16;
        const bindings = { value: from.segments[i], record: this.#record, flags, average };
        return emit(averageStep, { bindings, uniforms: { n, share_word: this.#shareWord() }, grid: grid1d(n, 64) });
      }),
    );
  }

  /**
   * Launches that put the point of evaluation where the weights are, and those that bring the weights back, bit for bit; null with one
   * point. Between steps the gradients' memory is free: Schedule-Free's x is made there.
   */
  evaluation(): { enter: Launch<Ref>[]; leave: Launch<Ref>[] } | null {
    const { second } = this.schedule.spec;
    if (!second) return null;
    const { sgd, store } = this.parts;
    const swap = (from: Arena, to: Arena | null) =>
      (to?.segments ?? []).map((b, i) => {
        const n = b.size / 16;
        return emit(exchange, { bindings: { a: from.segments[i], b }, uniforms: { n }, grid: grid1d(n, 64) });
      });
    if (second.kind === 'average') {
      const both = [...swap(store.parameterArena, this.#second), ...swap(store.statisticArena, this.#secondStatistics)];
      return { enter: both, leave: both };
    }
    const points = sgd.gradients.segments.map((x, i) => {
      const n = x.size / 16;
      const bindings = { weight: store.parameterArena.segments[i], z: this.#second!.segments[i], x };
      return emit(scheduleFreePoint, { bindings, uniforms: { n, beta: second.beta }, grid: grid1d(n, 64) });
    });
    const leave = [...swap(store.parameterArena, sgd.gradients), ...swap(store.statisticArena, this.#secondStatistics)];
    return { enter: [...points, ...leave], leave };
  }

  /**
   * What the rule holds beside weights and momentum, whole buffers by name: with the schedule's `state()` all that a run needs to go on.
   */
  get storages(): { readonly name: string; readonly storage: Storage }[] {
    const arenas = { previous: this.#previous, start: this.#start, second: this.#second, secondStatistics: this.#secondStatistics };
    return Object.entries(arenas).flatMap(([name, arena]) =>
      (arena?.segments ?? []).map((storage, i) => ({ name: `${this.schedule.spec.kind}.${name}.${i}`, storage })),
    );
  }

  /** Brings the words to the GPU where the host has set them: at the start, or when a state was loaded. */
  sync(step: number): void {
    const { schedule } = this;
    if (schedule.words === this.#words) return;
    this.#since = step;
    this.#words = schedule.words;
    const { queue } = this.parts.memory.device.gpu;
    const { rates } = this.parts;
    // A step that is skipped is logged with the rate before it.
    queue.writeBuffer(rates.buffer, rates.offset, Float32Array.of(schedule.lr));
    const words = Float32Array.from(rateRules[schedule.spec.kind].words, (name) => schedule.words[name]);
    if (words.length > 0) queue.writeBuffer(this.#record.buffer, this.#record.offset, words);
  }

  /**
   * Copies the log of so many steps aside; returns what reads it once that has been submitted, a line a step, null where the rule has not
   * run.
   */
  take(encoder: GPUCommandEncoder, steps: number): () => Promise<(RuleLine | null)[]> {
    const size = steps * this.#lineWords * 4;
    encoder.copyBufferToBuffer(this.#record.buffer, recordHead * 4, this.#staging, 0, size);
    return async () => {
      const values = new Float32Array(await this.parts.memory.device.readStaging(this.#staging, size));
      const lineAt = (slot: number) => values.subarray(slot * this.#lineWords, (slot + 1) * this.#lineWords);
      return Array.from({ length: steps }, (_, slot) => this.#decode(lineAt(slot)));
    };
  }

  #decode(line: Float32Array): RuleLine | null {
    if (line[0] !== 1) return null;
    const { kind, facts, trials = 0 } = this.schedule.spec;
    const names: readonly string[] = rateRules[kind].words;
    const known = factNames.map((name, i) => [name, line[1 + i]] as const).filter(([name]) => facts.includes(name));
    return {
      facts: Object.fromEntries(known),
      words: Object.fromEntries(names.map((name, i) => [name, line[lineHead + i]])),
      ...(trials > 0 && { losses: [...line.subarray(lineHead + names.length)] }),
    };
  }

  /** The schedule takes a step over: host and GPU then hold the same words. */
  record({ step, lr, rule }: { readonly step: number; readonly lr: number; readonly rule?: RuleLine }): void {
    // A state loaded since then stands.
    if (!rule || step < this.#since || this.schedule.words !== this.#words) return;
    this.schedule.record({ lr, words: rule.words });
    this.#words = rule.words;
  }
}
