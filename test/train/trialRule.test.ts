/** The rule on the GPU against the rule in float64, `trialUpdate`, for every score and normalisation, on plain, wild and random losses. */
import { describe, expect, test } from 'vitest';
import { Control, floatBits } from '../../src/graph/control.ts';
import { Memory } from '../../src/graph/memory.ts';
import { emit } from '../../src/graph/lower/context.ts';
import { buildPlan, draft, upload } from '../../src/graph/plan.ts';
import { submit } from '../../src/graph/run.ts';
import type { Storage } from '../../src/graph/tensor.ts';
import { flagNonFiniteLoss } from '../../src/kernels/sgd.ts';
import { nextPass } from '../../src/kernels/trialRule.ts';
import { resolveSgdOptions, stepAsMove, type SgdOptions } from '../../src/optim/sgd.ts';
import { FLOAT32, holdUlps, shuffledTrials, TrialScheduler, trialUpdate } from '../../src/sched/index.ts';
import type { NormalizeName, TrialEvent, TrialOptions } from '../../src/sched/index.ts';
import { shortest } from '../../src/train/float32.ts';
import { coefficientForm, trialFactors, TrialRule, type EventSamples } from '../../src/train/trialRule.ts';
import { chunkTrials } from '../../src/trials/passes.ts';
import { useDevice } from '../support/device.ts';
import { minMax } from '../support/minMax.ts';
import { uniformStream } from '../support/random.ts';

const device = useDevice();

interface Outcome {
  readonly events: TrialEvent[];
  readonly scheduler: TrialScheduler;
  /** [η, m] after the rule and the rate. */
  readonly rates: Float32Array;
  /** Of each trial. */
  readonly coefficients: number[][];
  readonly flags: number;
}

interface Setting {
  readonly flags?: number;
  readonly slot?: number;
  readonly optimizer?: SgdOptions;
  readonly first?: number;
  /** Losses of single samples, trial by trial, in `batches` parts. */
  readonly samples?: readonly (readonly number[])[];
  readonly batches?: number;
  readonly slope?: number;
  readonly seed?: number;
  /** m after events that there were before, from step 0 on. */
  readonly earlier?: readonly number[];
}

/** As passes leave them: every part padded to whole vec4s, here by what must not count. */
function sampleStorage(memory: Memory, samples: readonly (readonly number[])[], batches: number): EventSamples {
  const images = samples[0].length / batches;
  const padded = 4 * Math.ceil(images / 4);
  const values = samples.flatMap((trial) =>
    Array.from({ length: batches }, (_, batch) =>
      Array.from({ length: padded }, (_, i) => (i < images ? trial[batch * images + i] : 1e6 * (i + 1)))).flat());
  return { storage: upload(memory, 'trials', 'samples', Float32Array.from(values)), images, padded, batches };
}

/** Runs the rule once on losses written from the host. */
async function runRule(
  options: TrialOptions, losses: readonly number[], base: number | null,
  { flags = 0, slot = 3, optimizer = {}, first = 0, samples: given, batches = 1, slope: along, seed, earlier = [] }: Setting = {},
): Promise<Outcome> {
  const memory = new Memory(device());
  try {
    const scheduler = new TrialScheduler(options);
    const like = earlier.length > 0 ? new TrialScheduler(options).apply(0, losses) : null;
    earlier.forEach((lrAfter, step) => scheduler.record({ ...like!, step, lrAfter }));
    const { queue } = device().gpu;
    const write = ({ buffer }: Storage, offset: number, data: Float32Array | Uint32Array) =>
      queue.writeBuffer(buffer, offset, data as Float32Array<ArrayBuffer>);
    const count = trialFactors(scheduler).length;
    const words = coefficientForm(scheduler, resolveSgdOptions(optimizer)) + 1;
    const coefficients = memory.storage('trials', 'coefficients', 4 * words * count);
    const lossStorage = memory.storage('trials', 'losses', 4 * count);
    const rates = memory.storage('slots', 'rates', 32);
    const flagStorage = memory.storage('slots', 'flags', 16);
    const control = new Control(memory);
    const samples = given ? sampleStorage(memory, given, batches) : null;
    const slope = along === undefined ? null : upload(memory, 'trials', 'slope', Float32Array.of(along, 0, 0, 0));
    const trials = { passes: [count], coefficients, losses: lossStorage, samples, slope };
    const rule = new TrialRule(memory, scheduler, resolveSgdOptions(optimizer), rates, trials, seed);
    const before = rule.coefficientsLaunch(control.at('first'), control);
    const launches = [before, ...rule.launches(control, flagStorage), rule.rateLaunch(control)];
    const plan = await buildPlan(memory, draft(memory, 'rule', [], launches), { slots: [], places: [] });
    rule.sync(0);
    const all = base === null ? losses : [...losses, base];
    write(lossStorage, 0, Float32Array.from(all));
    write(flagStorage, 0, Uint32Array.of(flags));
    // Earlier places of the log are other events': here they are noted and never run.
    for (let i = 0; i < slot; i++) rule.note(i);
    control.write({ first, eventSlot: rule.note(slot), envelope: floatBits(0.25), searching: Number(scheduler.isSearching(slot)) });
    const encoder = device().gpu.createCommandEncoder();
    const pass = encoder.beginComputePass();
    plan.encode(pass);
    pass.end();
    const take = rule.take(encoder)!;
    queue.submit([encoder.finish()]);
    const events = await take();
    const read = async ({ buffer }: Storage, size: number) => new Float32Array(await device().read(buffer, 0, size));
    const flat = await read(coefficients, 4 * words * count);
    return {
      events, scheduler, rates: await read(rates, 32), flags: new Uint32Array(await device().read(flagStorage.buffer, 0, 4))[0],
      coefficients: all.map((_, t) => [...flat.subarray(words * t, words * (t + 1))]),
    };
  } finally {
    memory.release();
  }
}

const f32 = Math.fround;
const close = (got: number, want: number, tolerance: number, what: string) =>
  expect(Math.abs(got - want) <= tolerance, `${what}: ${got}, in float64 ${want}`).toBe(true);

/** Relative to the rate, and of a weight, whose sum is 1. */
const tolerance = 1e-6;

async function check(
  overrides: Partial<TrialOptions>, given: readonly number[], givenBase = 1, setting: Setting = {},
): Promise<TrialEvent> {
  const options = minMax(overrides);
  const losses = given.map(f32);
  const baseLoss = options.score === 'relGain' || options.score === 'armijo' ? f32(givenBase) : null;
  const { events, scheduler, rates, coefficients, flags } = await runRule(options, losses, baseLoss, setting);
  const { factors, hold, bounds, control } = scheduler.options;
  const lr = f32(options.lr);
  const samples = setting.samples?.map((all) => all.map(f32));
  const slope = setting.slope === undefined ? undefined : f32(setting.slope);
  const order = control === 'shuffledLosses' ? shuffledTrials(setting.seed ?? 0, 3, factors.length) : null;
  const want = trialUpdate({
    ...scheduler.options, lr, losses, baseLoss, holdBelow: hold ? holdUlps : null, samples, slope, order,
    bounds: bounds === null ? [FLOAT32.least, FLOAT32.greatest] : [f32(bounds[0]), f32(bounds[1])],
  });
  expect(events).toHaveLength(1);
  const [event] = events;
  const rule = `${options.normalize}, ${String(options.score)}, τ ${options.tau}`;
  const what = `${rule}, factors ${factors.join()}, losses ${losses.join()}, base ${baseLoss}`;
  expect(event, what).toMatchObject({
    step: 3, losses, factors, baseLoss, path: 'gpu', lrBefore: shortest(lr),
    clamped: want.clamped, nonFinite: want.nonFinite, held: want.held, allNonFinite: want.allNonFinite,
  });
  expect([event.control ?? null, event.order ?? null]).toEqual([control, order]);
  expect(event.slope).toBe(slope);
  expect(event.pairs === undefined).toBe(want.pairs === undefined);
  want.pairs?.differences.forEach((d, i) => {
    const error = want.pairs!.standardErrors[i];
    const [gotD, gotError] = [event.pairs!.differences[i], event.pairs!.standardErrors[i]];
    if (Number.isNaN(d)) return expect([gotD, gotError], what).toEqual([NaN, NaN]);
    // The error is what is left of two sums of squares.
    const n = samples![i].length;
    close(gotD, d, 1e-6 * (Math.abs(d) + error), `${what}: difference ${i}`);
    close(gotError, error, 1e-6 * error + Math.abs(d) * Math.sqrt(1e-6 / n), `${what}: standard error ${i}`);
  });
  event.weights.forEach((weight, i) => close(weight, want.weights[i], tolerance, `${what}: weight ${i}`));
  // ln multiplier is a float32.
  const ofRate = tolerance * Math.max(1, Math.abs(Math.log(want.multiplier)));
  close(event.lrAfter / want.lrAfter, 1, ofRate, `${what}: rate`);
  close(event.multiplier / want.multiplier, 1, ofRate, `${what}: multiplier`);
  expect(f32(event.lrAfter)).toBe(rates[1]);
  if (want.held) expect(rates[1]).toBe(lr);
  expect(rates[0]).toBe(f32(rates[1] * 0.25));
  expect(coefficients).toEqual(trialFactors(scheduler).map((factor) => [f32(lr * -f32(factor))]));
  expect(flags).toBe(0);
  // What the scheduler takes over goes on from the same bits.
  scheduler.record(event);
  expect(f32(scheduler.lr)).toBe(rates[1]);
  return event;
}

const rules: [NormalizeName, 'exp' | 'relGain' | 'rank'][] = [
  ...(['minMax', 'zScore', 'mean', 'sum', 'l2', 'none'] as const).map((name): [NormalizeName, 'exp'] => [name, 'exp']),
  ['none', 'relGain'], ['none', 'rank'],
];

const curves: [string, number[]][] = [
  ['a usual line', [2.61, 2.3, 2.14, 2.11, 2.15, 2.2, 2.26]],
  ['falling', [1, 2, 3, 4, 5, 6, 7]],
  ['equal', Array(7).fill(2.3)],
  ['equal within rounding', [2.3, 2.3 + 2 ** -22, 2.3, 2.3, 2.3 - 2 ** -22, 2.3, 2.3]],
  ['not quite equal within rounding', [2.3, 2.3 + 2 ** -19, 2.3, 2.3, 2.3 - 2 ** -19, 2.3, 2.3]],
  ['near together', [2.30001, 2.30002, 2.3, 2.30004, 2.300005, 2.30003, 2.300021]],
  ['the best ones equal', [2.4, 2.1, 2.3, 2.1, 2.5, 2.1, 2.2]],
  ['zeros', Array(7).fill(0)],
  ['one zero', [0, 1, 2, 3, 4, 5, 6]],
  ['negative', [-3, -2, -1, 0, 1, 2, 3]],
  ['a NaN', [NaN, 3, 2, 1, 1.5, 2, 2.5]],
  ['both infinities', [Infinity, -Infinity, 2, 1, 1.5, 2, 2.5]],
  ['one finite', [NaN, NaN, NaN, NaN, 4, NaN, Infinity]],
  ['equal, and a NaN', [NaN, 2, 2, 2, 2, 2, 2]],
  ['none finite', Array(7).fill(NaN)],
  ['great', [3e38, 2e38, 1e38, 1e37, 1e36, 5, 1]],
  ['greatly apart', [1e30, 1e20, 1e10, 1, 1e-10, 1e-20, 1e-30]],
  ['small', [8e-37, 7e-37, 6e-37, 5e-37, 4e-37, 3e-37, 2e-37]],
];

describe.each(rules)('%s, %s', (normalize, score) => {
  test.each(curves)('%s', async (_, losses) => {
    for (const tau of [1, 0.1, 1e-4]) await check({ normalize, score, tau }, losses, 2.35);
    await check({ normalize, score, anchor: false, hold: false, bounds: null, lr: 3 }, losses, 0.5);
  });
});

/** Samples whose means are about the given losses, all trials sharing what is hard about a sample. */
function samplesAround(losses: readonly number[], n: number, own: number, uniform: () => number): number[][] {
  const hard = Array.from({ length: n }, () => 2 * uniform());
  return losses.map((loss) => hard.map((h) => (Number.isFinite(loss) ? f32(loss + h + own * (uniform() - 0.5)) : loss)));
}

const meanOf = (xs: readonly number[]): number => xs.reduce((sum, x) => sum + x, 0) / xs.length;

describe('paired noise', () => {
  const line = [2.61, 2.3, 2.14, 2.11, 2.15, 2.2, 2.26];

  test.each([2, 3, 32, 65, 200])('%d samples: means of differences, their errors and the weights', async (n) => {
    const uniform = uniformStream(n);
    for (const own of [0.01, 0.3, 2]) {
      const samples = samplesAround(line, n, own, uniform);
      for (const kappa of [null, 2]) await check({ score: 'pairedNoise', kappa }, samples.map(meanOf), 1, { samples });
    }
  });

  test('of two batches, the padding of neither counts', async () => {
    const samples = samplesAround(line, 26, 0.2, uniformStream(5));
    const one = await check({ score: 'pairedNoise' }, samples.map(meanOf), 1, { samples });
    expect(await check({ score: 'pairedNoise' }, samples.map(meanOf), 1, { samples, batches: 2 })).toEqual(one);
  });

  test('differences far below the losses\' own digits count, and those of equal samples do not', async () => {
    const uniform = uniformStream(7);
    const hard = Array.from({ length: 32 }, () => 2 + uniform());
    // Two units in the last place apart, every sample by the same: t is infinite, whatever their mean says in float32.
    const apart = line.map((_, i) => hard.map((h) => h + (i === 3 ? 0 : 2 ** -21)));
    const event = await check({ score: 'pairedNoise', hold: false }, apart.map(meanOf), 1, { samples: apart });
    expect(event.weights).toEqual([0, 0, 0, 1, 0, 0, 0]);
    const equal = line.map(() => hard);
    const tied = await check({ score: 'pairedNoise', hold: false }, equal.map(meanOf), 1, { samples: equal });
    tied.weights.forEach((weight) => close(weight, 1 / 7, 1e-7, 'weight'));
    close(tied.multiplier, 1, 1e-6, 'multiplier');
  });

  test('lost trials, great and small losses', async () => {
    const uniform = uniformStream(9);
    const lost = [NaN, 2.3, Infinity, 2.11, 2.15, 2.2, 2.26];
    const samples = samplesAround(lost, 16, 0.2, uniform);
    const event = await check({ score: 'pairedNoise' }, samples.map(meanOf), 1, { samples });
    expect(event.nonFinite).toBe(2);
    for (const scale of [1e30, 1e-25]) {
      const scaled = samplesAround(line, 16, 0.2, uniform).map((all) => all.map((x) => x * scale));
      await check({ score: 'pairedNoise', hold: false }, scaled.map(meanOf), 1, { samples: scaled });
    }
    // One sample alone far off, and the last one.
    const far = samplesAround(line, 16, 1e-6, uniform).map((all, i) => [...all.slice(0, 15), i === 5 ? 1e25 : all[15]]);
    await check({ score: 'pairedNoise' }, far.map(meanOf), 1, { samples: far });
    const gone = line.map(() => [NaN, 1]);
    await check({ score: 'pairedNoise' }, line.map(() => NaN), 1, { samples: gone });
  });

  test('random ones, anchored or not', async () => {
    const uniform = uniformStream(11);
    for (let i = 0; i < 60; i++) {
      const factors = Array.from({ length: 1 + Math.floor(uniform() * 12) }, () => 2 ** (6 * uniform() - 3));
      const level = 10 ** (uniform() * 4 - 2);
      const losses = factors.map(() => level * (1 + 10 ** (uniform() * 3 - 3) * uniform()));
      const samples = samplesAround(losses, 2 + Math.floor(uniform() * 80), level * 10 ** (uniform() * 4 - 3), uniform);
      const kappa = 10 ** (uniform() - 0.5);
      await check({ score: 'pairedNoise', kappa, factors, anchor: uniform() < 0.5 }, samples.map(meanOf), 1, { samples });
    }
  });
});

describe('the Armijo gate', () => {
  /** L(η) = 2 − s·η + h·η²/2, least at η = s/h, accepted up to 2(1 − c)·s/h. */
  const along = (lr: number, factors: readonly number[], s: number, h: number) =>
    factors.map((f) => 2 - s * f * lr + (h / 2) * (f * lr) ** 2);
  const factors = [0.5, 4, 1, 8, 0.125, 2, 0.25];

  test.each([[0.1, 2], [0.5, 1], [0.76, 0.5], [0.91, 0.125]])('c = %d: the largest accepted factor alone is %d', async (c, chosen) => {
    // Least at η = 1.25: accepted up to 2.5·(1 − c).
    const event = await check({ score: 'armijo', c, factors, lr: 1 }, along(1, factors, 2, 1.6), 2, { slope: 2 });
    expect(event.weights.map((weight, i) => weight * factors[i]).filter((x) => x > 0)).toEqual([chosen]);
    expect(event.multiplier).toBeCloseTo(chosen, 6);
    expect(event.slope).toBe(2);
  });

  test('none accepted: the smallest that is not lost', async () => {
    const rising = [2.1, 2.3, NaN, 2.5, NaN, 2.2, 2.05];
    const event = await check({ score: 'armijo', factors, lr: 0.1 }, rising, 2, { slope: 1 });
    expect(event.multiplier).toBeCloseTo(0.25, 6);
    for (const slope of [NaN, Infinity, -Infinity]) {
      const { events: [none] } = await runRule(minMax({ score: 'armijo', factors, lr: 0.1 }), [2, 1, 2, 0, 2, 2, 2], 2, { slope });
      expect(none.weights).toEqual([0, 0, 0, 0, 1, 0, 0]);
    }
  });

  test('a lost trial is not accepted, a slope below 0 asks for no rise beyond its own', async () => {
    await check({ score: 'armijo', factors, lr: 0.1 }, [1.9, NaN, 1.8, -Infinity, 1.9, 1.7, 1.9], 2, { slope: 1 });
    await check({ score: 'armijo', factors, lr: 0.1 }, [2.1, 2.01, 2.2, 2.1, 2.3, 2.4, 2.5], 2, { slope: -1 });
  });

  test('a base loss that is not finite sets a flag', async () => {
    const { events, flags } = await runRule(minMax({ score: 'armijo' }), Array(7).fill(1), NaN, { slope: 1 });
    expect(events).toEqual([]);
    expect(flags).toBe(flagNonFiniteLoss);
  });
});

describe('shuffled losses', () => {
  const losses = [2.61, NaN, 2.14, 2.11, 2.15, 2.2, 2.26];

  test.each([...rules, ['none', 'armijo'], ['none', 'pairedNoise']] as [NormalizeName, 'exp'][])('%s, %s', async (normalize, score) => {
    const samples = samplesAround(losses, 16, 0.2, uniformStream(3));
    const needs: Setting = (score as string) === 'pairedNoise' ? { samples } : (score as string) === 'armijo' ? { slope: 0.5 } : {};
    const orders = new Set<string>();
    for (const seed of [0, 1, 2, 3, 0xfffffff1]) {
      const event = await check({ normalize, score, control: 'shuffledLosses' }, losses, 2.35, { ...needs, seed });
      orders.add(String(event.order));
      // The lost trial's weight goes where its loss went.
      expect(event.weights[event.order!.indexOf(1)]).toBe(0);
    }
    expect(orders.size).toBeGreaterThan(3);
  });
});

describe('factors and passes', () => {
  const line = (n: number) => Array.from({ length: n }, (_, i) => 2 + Math.cos(i));

  test.each([1, 2, 3, 16, 33])('%d trials', async (n) => {
    const factors = Array.from({ length: n }, (_, i) => 2 ** ((i - n / 2) / 4));
    await check({ factors }, line(n));
    await check({ factors, score: 'relGain', normalize: 'none' }, line(n), 2.5);
  });

  test.each([
    [1, 1, 1], [7, 4, 1], [7, 4, 3], [10, 3, 2], [200, 1, 2], [130, 65, 3], [131, 66, 1],
  ])('%d trials in passes of at most %d with %d coefficients each: every pass gets its own, and its losses go to their places', async (count, most, words) => {
    const memory = new Memory(device());
    try {
      const sizes = chunkTrials(count, most);
      const storage = (label: string, length: number) => memory.storage('trials', label, 4 * length);
      const coefficients = storage('coefficients', count * words);
      const losses = storage('losses', count);
      // The window holds one vec4 more than the largest pass: it must stay as it is.
      const window = { coefficients: storage('window coefficients', most * words + 4), losses: storage('window losses', 4 * most) };
      const state = storage('state', 2);
      const next = emit(nextPass, {
        bindings: { coefficients, losses, window_coefficients: window.coefficients, window_losses: window.losses, state },
        uniforms: { count, words, small: sizes[0], smalls: sizes.filter((size) => size === sizes[0]).length },
        grid: [1, 1, 1],
      });
      const plan = await buildPlan(memory, draft(memory, 'next', [], [next]), { slots: [], places: [] });
      const { queue } = device().gpu;
      const floats = async ({ buffer, size }: Storage) => [...new Float32Array(await device().read(buffer, 0, size))];
      const guard = [77, 78, 79, 80];
      for (const event of [1, 2]) {
        const all = Array.from({ length: count * words }, (_, i) => event * 1000 + i);
        queue.writeBuffer(coefficients.buffer, 0, Float32Array.from(all));
        queue.writeBuffer(window.coefficients.buffer, 4 * most * words, Float32Array.from(guard));
        submit(device(), plan);
        let done = 0;
        for (const size of sizes) {
          const given = await floats(window.coefficients);
          expect(given.slice(0, size * words)).toEqual(all.slice(done * words, (done + size) * words));
          expect(given.slice(most * words, most * words + 4)).toEqual(guard);
          const made = Array.from({ length: most }, (_, i) => (i < size ? event * 100 + done + i : NaN));
          queue.writeBuffer(window.losses.buffer, 0, Float32Array.from(made.flatMap((loss) => [loss, NaN, NaN, NaN])));
          submit(device(), plan);
          done += size;
        }
        expect((await floats(losses)).slice(0, count)).toEqual(Array.from({ length: count }, (_, t) => event * 100 + t));
        expect([...new Uint32Array(await device().read(state.buffer, 0, 8))]).toEqual([0, 0]);
      }
    } finally {
      memory.release();
    }
  });

  test('unbalanced ones, with and without an anchor', async () => {
    for (const anchor of [true, false]) await check({ factors: 'factor5', anchor }, line(5));
  });

  test('far apart: the multiplier may leave float32, the rate may not', async () => {
    const factors = [1e36, 1e-30];
    expect((await check({ factors, lr: 1e-30, bounds: null, anchor: false }, [1, 2])).lrAfter).toBeGreaterThan(1e-12);
    await check({ factors: [1e30, 1e20], lr: 1e-38 * 2, bounds: null, anchor: false }, [1, 2]);
  });
});

describe('bounds', () => {
  test('stop m, and say so', async () => {
    const up = await check({ lr: 9 }, [1, 2, 2, 2, 2, 2, 2]);
    expect(up).toMatchObject({ lrAfter: 10, clamped: true });
    const down = await check({ lr: 1.2e-8 }, [2, 2, 2, 2, 2, 2, 1]);
    expect(down).toMatchObject({ lrAfter: 1e-8, clamped: true });
  });

  test('without any, m stays in float32', async () => {
    const losses = [1, 9];
    expect(await check({ lr: 3e38, factors: [1, 1e-3], bounds: null }, losses)).toMatchObject({ clamped: true });
    expect(await check({ lr: 2e-38, factors: [0.1, 1], anchor: false, bounds: null }, losses)).toMatchObject({ clamped: true });
  });
});

describe('a search', () => {
  const up = [1, 2, 2, 2, 2, 2, 2];
  const [most, last] = [0.6, 0.4].map((m) => shortest(f32(m)));
  const options = (events: number, more: Partial<TrialOptions> = {}) => minMax({ search: { events, every: 1 }, bounds: null, ...more });

  test('bounds the events after it by the highest m that it left behind', async () => {
    const { events: [event], rates } = await runRule(options(2), up, null, { earlier: [most, last] });
    expect(event).toMatchObject({ lrBefore: last, lrAfter: most, clamped: true });
    expect([...rates.subarray(1, 2), ...rates.subarray(4, 5)]).toEqual([f32(most), f32(most)]);
    const below = await runRule(options(2), [...up].reverse(), null, { earlier: [most, last] });
    expect(below.events[0]).toMatchObject({ clamped: false });
    expect(below.rates[4]).toBe(f32(most));
    // Events after the search do not raise what it has found, whatever they were told to be.
    const later = await runRule(options(2), up, null, { earlier: [last, last, most] });
    expect(later.events[0]).toMatchObject({ lrBefore: most, lrAfter: last, clamped: true });
  });

  test('bounds none of its own events, and bounds closer than it stay', async () => {
    const { events: [event], rates } = await runRule(options(4), up, null, { earlier: [most, last] });
    expect(event.lrAfter).toBeGreaterThan(most);
    expect(event.clamped).toBe(false);
    expect(rates[4]).toBe(f32(event.lrAfter));
    const bounded = await runRule(options(2, { bounds: [1e-3, 0.5] }), up, null, { earlier: [most, last] });
    expect(bounded.events[0]).toMatchObject({ lrAfter: 0.5, clamped: true });
  });

  test('whose trials all diverged has found what is left of m', async () => {
    const { events: [event], rates } = await runRule(options(4, { lr: 0.5 }), Array(7).fill(NaN), null);
    expect(event).toMatchObject({ allNonFinite: true, lrAfter: 0.0625 });
    expect(rates[4]).toBe(0.0625);
  });

  test('that has found nothing bounds nothing', async () => {
    const { events: [event] } = await runRule(options(1, { lr: 0.5 }), up, null);
    expect(event.lrAfter).toBeGreaterThan(0.5);
  });
});

describe('what stops the rule', () => {
  const losses = [3, 2, 1, 1.5, 2, 2.5, 2.7];

  test('a flag that is set: m and flags stay, no event is told', async () => {
    const { events, rates, flags } = await runRule(minMax({ lr: 0.5 }), losses, null, { flags: 8 });
    expect(events).toEqual([]);
    expect(rates[1]).toBe(0.5);
    expect(flags).toBe(8);
  });

  test('a flag that is set stays as it is, whatever the base loss', async () => {
    const { events, flags } = await runRule(minMax({ score: 'armijo' }), losses, NaN, { flags: 8, slope: 1 });
    expect(events).toEqual([]);
    expect(flags).toBe(8);
  });

  test.each([NaN, Infinity])('a base loss of %s: a flag is set, as the weights themselves are lost', async (base) => {
    const { events, rates, flags } = await runRule(minMax({ lr: 0.5, score: 'relGain', normalize: 'none' }), losses, base);
    expect(events).toEqual([]);
    expect(rates[1]).toBe(0.5);
    expect(flags).toBe(flagNonFiniteLoss);
  });

  test('a coefficient beyond float32 loses its trial, whatever the loss says', async () => {
    const { events: [event] } = await runRule(minMax({ lr: 1, factors: [1e48, 1, 0.5], anchor: false }), [0, 2, 1], null);
    expect(event).toMatchObject({ nonFinite: 1, allNonFinite: false });
    expect(event.weights[0]).toBe(0);
    expect(event.lrAfter).toBeLessThan(1);
  });

  test('in a grid any of a trial\'s coefficients does', async () => {
    const factors = { lr: [1], momentum: [0.9, 0.5], weightDecay: [1e-4, 1e39] };
    const { events: [event] } = await runRule(minMax({ lr: 0.5, factors }), [2, 0, 1, 0], null, { optimizer: { momentum: 0.9 } });
    expect(event.nonFinite).toBe(2);
    expect(event.weights.map((weight) => weight > 0)).toEqual([true, false, true, false]);
  });
});

describe('a grid over learning rate, momentum and weight decay', () => {
  const factors = { lr: [2, 0.5], momentum: [0.95, 0.8, 0], weightDecay: [1e-4, 1e-3] };
  const losses = [2.2, 2.1, 2.6, 2.05, 2.4, 2.3, 2.31, 2.29, NaN, 2, 2.5, 2.45];
  const damped = { momentum: 0.9, dampening: 0.3, weightDecay: 5e-4 };
  const optimizers: SgdOptions[] = [{ momentum: 0.9 }, damped, { momentum: 0.9, nesterov: true }];

  test.each(optimizers)('%j: coefficients are those of the whole step, and each number takes its weighted mean', async (optimizer) => {
    for (const first of [0, 1]) {
      for (const grid of [factors, { ...factors, momentum: [0.95, 0.9, 0.8, 0.7, 0.6, 0], weightDecay: undefined }]) {
        const { events: [event], coefficients, rates, scheduler } = await runRule(minMax({ lr: 0.5, factors: grid }), losses, null, {
          optimizer, first,
        });
        const own = resolveSgdOptions(optimizer);
        const { factors: all, momenta, weightDecays } = scheduler.options;
        all.forEach((factor, i) => {
          const numbers = { momentum: momenta![i], weightDecay: weightDecays?.[i] ?? own.weightDecay };
          const { decay, ofBuffer, ofGradient } = stepAsMove(own, { lr: 0.5 * factor, ...numbers, isFirst: first === 1 });
          const want = [decay, ofBuffer, ofGradient];
          want.forEach((c, k) => close(coefficients[i][k], c, 3e-7 * Math.abs(c), `trial ${i}, number ${k}`));
        });
        const want = new TrialScheduler(minMax({ lr: 0.5, factors: grid })).apply(3, losses.map(f32));
        close(event.lrAfter / want.lrAfter, 1, tolerance, 'rate');
        const { before, after } = event.optimizer!;
        close(after.momentum!, want.optimizer!.after.momentum!, tolerance, 'momentum');
        expect(f32(after.momentum!)).toBe(rates[2]);
        expect(before.momentum).toBe(0.9);
        if (weightDecays) close(after.weightDecay! / want.optimizer!.after.weightDecay!, 1, 5e-6, 'weight decay');
        else expect(after.weightDecay).toBeNull();
        expect(f32(after.weightDecay ?? own.weightDecay)).toBe(rates[3]);
      }
    }
  });

  test('equal losses and none at all leave momentum and weight decay as they are', async () => {
    const optimizer = { momentum: 0.9, weightDecay: 5e-4 };
    for (const loss of [2, NaN]) {
      const { events: [event] } = await runRule(minMax({ factors }), Array(12).fill(loss), null, { optimizer });
      expect(event.optimizer!.after).toEqual({ momentum: 0.9, weightDecay: 5e-4 });
    }
  });

  test('without momentum there is no buffer to try it on; weight decay goes by the gradient alone', async () => {
    const made = runRule(minMax({ factors }), losses, null);
    await expect(made).rejects.toThrow(expect.objectContaining({ arg: 'factors.momentum' }));
    const { coefficients } = await runRule(minMax({ lr: 0.5, factors: { lr: [2, 1], weightDecay: [0.25, 0.125] } }), [1, 2, 3, 4], null);
    expect(coefficients).toEqual([[-0.25, -1], [-0.125, -1], [-0.125, -0.5], [-0.0625, -0.5]]);
  });
});

test('random losses, factors and temperatures', async () => {
  const seed = Number(process.env.FORKSTEP_FUZZ_SEED ?? Date.now() % 2 ** 31);
  console.log(`trial rule: FORKSTEP_FUZZ_SEED=${seed}`);
  const uniform = uniformStream(seed);
  const int = (most: number) => Math.floor(uniform() * most);
  const pick = <T>(list: readonly T[]): T => list[int(list.length)];
  for (let i = 0; i < 250; i++) {
    const [normalize, score] = pick(rules);
    const n = 1 + int(20);
    const spread = 10 ** (uniform() * 6 - 5);
    const level = 10 ** (uniform() * 8 - 4);
    // Of few values some are equal.
    const value = uniform() < 0.3 ? () => int(4) / 4 : uniform;
    const losses = Array.from({ length: n }, () => (uniform() < 0.05 ? NaN : level * (1 + spread * value())));
    const factors = Array.from({ length: n }, () => 2 ** (6 * uniform() - 3));
    const tau = 10 ** (4 * uniform() - 3);
    await check({
      normalize, score, tau, factors, lr: 10 ** (-5 * uniform()), anchor: uniform() < 0.5, hold: uniform() < 0.5,
      bounds: uniform() < 0.3 ? null : [1e-8, 10],
    }, losses, level * (1 + spread * uniform()));
  }
});

test('the shortest decimal of a float32', () => {
  for (const x of [0.005, 0.1, 1e-8, 10, 3e-45, 0.03, 1 / 3, Math.PI, 123456789, 1e38, 0, -0.7]) {
    expect(f32(shortest(f32(x)))).toBe(f32(x));
    expect(shortest(f32(x)).toString().length).toBeLessThanOrEqual(x.toString().length);
  }
  expect([0.005, 0.1, 1e-8].map((x) => shortest(f32(x)))).toEqual([0.005, 0.1, 1e-8]);
  expect([NaN, Infinity, -Infinity].map(shortest)).toEqual([NaN, Infinity, -Infinity]);
});
