/** Rules on the GPU against the same rules in float64, over random numbers: rates, words, log and trials; and what stops them. */
import { describe, expect, test } from 'vitest';
import { controlWords } from '../../src/graph/control.ts';
import { emit } from '../../src/graph/lower/context.ts';
import { lineHead, noProduct, rateRule, rateRules, recordHead, ruleProducts, ruleTrials } from '../../src/kernels/rateRules.ts';
import { flagNonFiniteDirection, flagNonFiniteLoss } from '../../src/kernels/sgd.ts';
import {
  aliG, cdat, dog, hypergradient, pal, scheduleFree, slsArmijo, sps, steps,
  type AdaptiveSchedule, type RuleRun, type RuleWords, type StepFacts,
} from '../../src/sched/index.ts';
import { useDevice } from '../support/device.ts';
import { runLaunches } from '../support/launch.ts';
import { uniformStream } from '../support/random.ts';

const device = useDevice();
const f32 = Math.fround;
const run: RuleRun = { stepsPerEpoch: 7, totalSteps: 70, startNorm: 3.7, hasStatistics: true };

/** Where the test puts each product. */
const places = Object.fromEntries(ruleProducts.map((name, i) => [name, 2 * i + 1]));

interface Given {
  readonly facts: StepFacts;
  readonly words: RuleWords;
  readonly losses: readonly number[];
  readonly flags?: number;
}

interface Outcome {
  readonly rate: number;
  readonly words: RuleWords;
  readonly flags: number;
  /** The line of the log, and those beside it. */
  readonly line: number[];
  readonly others: number[];
  readonly coefficients: number[];
}

const slot = 2;
const oldRate = 77;
const guard = -5;

/** Runs the trials' kernel and the rule's once, on numbers written from the host. */
async function runRule({ spec }: AdaptiveSchedule, { facts, words, losses, flags = 0 }: Given): Promise<Outcome> {
  const { kind, trials = 0 } = spec;
  const names: readonly string[] = rateRules[kind].words;
  expect(names).toEqual(Object.keys(spec.words));
  const stride = lineHead + names.length + trials;
  const products = new Float32Array(2 * ruleProducts.length + 1).fill(NaN);
  // The slope's parts: a·(gg + λ·gw) + m·gb; the hypergradient's gp + λ·wp. Half is exact.
  const [ofGradient, ofBuffer, decay] = [2, 0.5, 0.25];
  const put = (name: string, value: number) => (products[places[name]] = value);
  put('gg', facts.gradientSquared);
  put('gw', 8 * facts.slope);
  put('gb', -4 * facts.gradientSquared - 6 * facts.slope);
  put('gp', 3 * facts.hypergradient);
  put('wp', -8 * facts.hypergradient);
  put('dd', facts.directionSquared);
  put('distance', facts.distanceSquared);
  const shared = {
    ...spec.uniforms(run), ...places, of_gradient: ofGradient, of_first_gradient: NaN, of_buffer: ofBuffer, weight_decay: decay,
    first_word: 1, trials,
  };
  const control = new Uint32Array(16);
  control[controlWords.slot] = slot;
  const [flagWords, rates, record, coefficients] = await runLaunches(device(), ({ input, output }) => {
    const filled = (data: Float32Array | Uint32Array) => {
      const storage = output(data.length);
      device().gpu.queue.writeBuffer(storage.buffer, 0, data as Float32Array<ArrayBuffer>);
      return storage;
    };
    const bindings = { loss: input(Float32Array.of(facts.loss)), products: input(products), first: input(Uint32Array.of(1, 0)) };
    const flagStorage = filled(Uint32Array.of(flags));
    const rateStorage = filled(Float32Array.of(oldRate));
    const before = new Float32Array(recordHead + (slot + 2) * stride).fill(guard);
    before.set(names.map((name) => words[name]));
    const recordStorage = filled(before);
    const rule = emit(rateRule(kind), {
      bindings: {
        ...bindings, trial_losses: input(Float32Array.from([...losses, 0])), control: input(control), flags: flagStorage,
        rates: rateStorage, record: recordStorage,
      },
      uniforms: { ...shared, slot_word: controlWords.slot },
      grid: [1, 1, 1],
    });
    const target = filled(new Float32Array(trials + 1).fill(guard));
    if (trials === 0) return [rule];
    const ofTrials = { ...bindings, record: recordStorage, coefficients: target };
    return [emit(ruleTrials(kind), { bindings: ofTrials, uniforms: shared, grid: [1, 1, 1] }), rule];
  });
  const floats = (all: Uint32Array) => [...new Float32Array(all.buffer, all.byteOffset, all.length)];
  const values = floats(record);
  const at = recordHead + slot * stride;
  return {
    rate: floats(rates)[0], flags: flagWords[0], line: values.slice(at, at + stride),
    others: [...values.slice(recordHead, at), ...values.slice(at + stride)],
    words: Object.fromEntries(names.map((name, i) => [name, values[i]])),
    coefficients: floats(coefficients),
  };
}

const close = (got: number, want: number, tolerance: number, what: string) =>
  expect(Math.abs(got - want) <= tolerance, `${what}: ${got}, in float64 ${want}, may differ by ${tolerance}`).toBe(true);

async function check(schedule: AdaptiveSchedule, given: Given, rtol: number): Promise<void> {
  const { spec } = schedule;
  const got = await runRule(schedule, given);
  const { facts, words, losses } = given;
  const want = spec.next(words, facts, run, losses);
  const what = `${spec.kind}, facts ${JSON.stringify(facts)}, words ${JSON.stringify(words)}, losses ${losses.join()}`;
  expect(got.flags, what).toBe(0);
  // A rate that is moved by a sum may end near 0.
  const size = spec.kind === 'hypergradient' ? words.lr : 0;
  close(got.rate, want.lr, rtol * (Math.abs(want.lr) + size), `${what}: rate`);
  for (const [name, value] of Object.entries(want.words)) {
    close(got.words[name], value, rtol * (Math.abs(value) + size), `${what}: ${name}`);
  }
  const logged = [facts.gradientSquared, facts.slope, facts.directionSquared, facts.hypergradient, facts.distanceSquared];
  expect(got.line[0]).toBe(1);
  logged.forEach((value, i) => close(got.line[1 + i], value, rtol * (Math.abs(value) + facts.gradientSquared), `${what}: fact ${i}`));
  expect(got.line.slice(lineHead)).toEqual([...Object.values(got.words), ...losses]);
  expect(got.others.every((value) => value === guard)).toBe(true);
  const rates = spec.trialRates?.(words, facts, run) ?? [];
  expect(rates).toHaveLength(spec.trials ?? 0);
  rates.forEach((rate, i) => close(got.coefficients[i], -rate, rtol * Math.abs(rate), `${what}: coefficient ${i}`));
  expect(got.coefficients[rates.length]).toBe(guard);
}

interface Row {
  readonly name: string;
  readonly make: () => AdaptiveSchedule;
  /** Words as they may be before a step. */
  readonly words: (uniform: () => number) => RuleWords;
  /** Losses of the trials where the slope and the rates are known. */
  readonly losses?: (base: number, uniform: () => number) => number[];
}

const log = (uniform: () => number, low: number, high: number) => f32(low * (high / low) ** uniform());
const ofDog = (uniform: () => number): RuleWords => {
  const isFirst = uniform() < 0.3;
  const [reach, squares] = [log(uniform, 1e-5, 10), log(uniform, 1e-3, 1e4)];
  if (isFirst) return { steps: 0, reach: 0, squares: 0, share: 0 };
  return { steps: 1 + Math.floor(uniform() * 1e5), reach, squares, share: f32(0.1) };
};
const ofFree = (uniform: () => number): RuleWords => {
  const made = Math.floor(uniform() * 20);
  return { steps: made, total: made === 0 ? 0 : log(uniform, 0.1, 20), share: f32(0.3) };
};
const ofSearch = (uniform: () => number): RuleWords => ({ lr: log(uniform, 1e-4, 5), accepted: 0 });
const around = (count: number) => (base: number, uniform: () => number) =>
  [...Array.from({ length: count }, () => (uniform() < 0.05 ? NaN : f32(base * (0.7 + 0.6 * uniform())))), base];

const rows: Row[] = [
  { name: 'sps', make: () => sps(), words: (uniform) => ({ bound: log(uniform, 1e-4, 10) }) },
  {
    name: 'sps, bounded', make: () => sps({ c: 2, gamma: null, maxLr: 0.1, fStar: 1 }),
    words: (uniform) => ({ bound: log(uniform, 1e-4, 10) }),
  },
  { name: 'aliG', make: () => aliG(), words: () => ({}) },
  { name: 'hypergradient', make: () => hypergradient({ lr: 0.1, hypergradLr: 0.01 }), words: (uniform) => ({ lr: log(uniform, 1e-3, 1) }) },
  {
    name: 'hypergradient, bounded', make: () => hypergradient({ lr: 0.1, hypergradLr: 0.01, minLr: 0, maxLr: 0.3 }),
    words: (uniform) => ({ lr: log(uniform, 1e-3, 0.3) }),
  },
  { name: 'dog', make: () => dog(), words: ofDog },
  { name: 'dog, options', make: () => dog({ repsRel: 1e-2, eps: 1, average: false }), words: ofDog },
  { name: 'scheduleFree', make: () => scheduleFree(), words: ofFree },
  { name: 'scheduleFree, rising', make: () => scheduleFree({ lr: 3, warmupSteps: steps(12), r: 1, weightLrPower: 1 }), words: ofFree },
  { name: 'slsArmijo', make: () => slsArmijo(), words: ofSearch, losses: around(10) },
  { name: 'slsArmijo, one trial', make: () => slsArmijo({ trials: 1, reset: 'keep' }), words: ofSearch, losses: around(1) },
  {
    name: 'slsArmijo, anew', make: () => slsArmijo({ trials: 33, reset: 'init', initLr: 0.5, c: 0.7, beta: 0.8 }),
    words: ofSearch, losses: around(33),
  },
  { name: 'pal', make: () => pal(), words: () => ({ step: 1, curvature: 2 }), losses: around(1) },
  {
    name: 'pal, options', make: () => pal({ measuringStep: 0.1, maxStep: null, updateFactor: 1 }),
    words: () => ({ step: 1, curvature: 2 }), losses: around(1),
  },
  {
    name: 'cdat', make: () => cdat(), losses: around(2),
    words: (uniform) => {
      const moved = { lr: f32(0.2), slope: log(uniform, 0.1, 9), curvature: log(uniform, 1, 90) };
      return uniform() < 0.3 ? { lr: 0, slope: 0, curvature: 0 } : moved;
    },
  },
  {
    name: 'cdat, options', make: () => cdat({ sigma: 1, beta: 0, span: 0.1, maxLr: 0.2 }),
    words: () => ({ lr: f32(0.1), slope: 1, curvature: 5 }), losses: around(2),
  },
];

const zeroFacts = { loss: 2, gradientSquared: 1, slope: 1, directionSquared: 1, hypergradient: 0, distanceSquared: 0 };

/** How near Armijo's decisions are, relative to the losses. */
function margin({ spec }: AdaptiveSchedule, { facts, words, losses }: Given): number {
  if (spec.kind !== 'slsArmijo') return Infinity;
  const { c } = spec.parameters as { c: number };
  const base = losses[losses.length - 1];
  const rates = spec.trialRates!(words, facts, run);
  return Math.min(...losses.slice(0, -1).map((loss, i) => Math.abs(loss - base + c * rates[i] * facts.slope) / base).filter(Number.isFinite), 1);
}

describe.each(rows)('$name', ({ make, words, losses = () => [] }) => {
  test('rate, words, log and trials over random numbers are those of float64', async () => {
    const seed = Number(process.env.FORKSTEP_FUZZ_SEED ?? 11);
    const uniform = uniformStream(seed);
    const schedule = make();
    let checked = 0;
    for (let i = 0; i < 40; i++) {
      const loss = log(uniform, 0.01, 5);
      const sign = uniform() < 0.2 ? -1 : 1;
      const facts: StepFacts = {
        loss, gradientSquared: log(uniform, 1e-4, 100), slope: sign * log(uniform, 1e-3, 50), directionSquared: log(uniform, 1e-4, 100),
        hypergradient: f32(40 * (uniform() - 0.5)), distanceSquared: log(uniform, 1e-8, 100),
      };
      const given = { facts, words: words(uniform), losses: losses(loss, uniform) };
      if (margin(schedule, given) < 1e-4) continue;
      checked++;
      // Facts are sums here, whose parts may be larger; losses differ by some tenths, so that a second difference keeps its digits.
      const parts = facts.gradientSquared / Math.abs(facts.slope);
      await check(schedule, given, 2e-6 * Math.max(1, parts) + (schedule.spec.kind === 'cdat' ? 1e-4 : 0) + (schedule.spec.kind === 'pal' ? 2e-5 : 0));
    }
    expect(checked).toBeGreaterThan(25);
  });

  test('a flag that is set stops it: rate and words stay, the log says nothing', async () => {
    const uniform = uniformStream(3);
    const before = words(uniform);
    const got = await runRule(make(), { facts: zeroFacts, words: before, losses: losses(2, uniform), flags: 8 });
    expect(got).toMatchObject({ rate: oldRate, flags: 8, words: before });
    expect(got.line[0]).toBe(0);
  });

  test('a fact that is not finite sets a flag', async () => {
    const uniform = uniformStream(3);
    for (const name of ['gradientSquared', 'directionSquared', 'distanceSquared'] as const) {
      const before = words(uniform);
      const facts = { ...zeroFacts, [name]: Infinity };
      const got = await runRule(make(), { facts, words: before, losses: losses(2, uniform).map(() => 2) });
      expect(got).toMatchObject({ rate: oldRate, flags: flagNonFiniteDirection, words: before });
      expect(got.line[0]).toBe(0);
    }
  });
});

describe('trials', () => {
  test.each([slsArmijo(), pal(), cdat()])('whose loss at the weights is not finite set a flag ($spec.kind)', async (schedule) => {
    const count = schedule.spec.trials!;
    const losses = [...Array<number>(count - 1).fill(2), NaN];
    const got = await runRule(schedule, { facts: zeroFacts, words: schedule.spec.words, losses });
    expect(got).toMatchObject({ rate: oldRate, flags: flagNonFiniteLoss });
  });

  test('none of which is finite: no step of PAL, the fallback of SLS, the rate before of CDAT', async () => {
    const facts = { ...zeroFacts, loss: 2 };
    const lost = (count: number) => [...Array<number>(count).fill(Infinity), 2];
    expect(await runRule(pal(), { facts, words: pal().spec.words, losses: lost(1) })).toMatchObject({ rate: 0, flags: 0 });
    const search = await runRule(slsArmijo({ beta: 0.5, trials: 3 }), { facts, words: { lr: 1, accepted: 0 }, losses: lost(3) });
    expect(search.rate).toBe(f32(1e-6));
    expect(search.words.accepted).toBe(-1);
    close(search.words.lr, 2 ** (1 / 7) / 8, 1e-7, 'where the next search begins');
    const words = { lr: 0.5, slope: 1, curvature: 4 };
    expect(await runRule(cdat(), { facts, words, losses: lost(2) })).toMatchObject({ rate: 0.5, words, flags: 0 });
  });
});

test('facts that nobody asked for are 0, whatever lies there', async () => {
  const { spec } = aliG();
  const control = new Uint32Array(16);
  const absent = Object.fromEntries(ruleProducts.map((name) => [name, name === 'gg' ? 0 : noProduct]));
  const [, record] = await runLaunches(device(), ({ input, output }) => {
    const rates = output(1);
    return [
      emit(rateRule('aliG'), {
        bindings: {
          loss: input(Float32Array.of(3)), products: input(Float32Array.of(4, NaN)), trial_losses: input(Float32Array.of(NaN)),
          control: input(control), first: input(Uint32Array.of(0)), flags: input(Uint32Array.of(0)), rates, record: output(recordHead + lineHead),
        },
        uniforms: {
          ...spec.uniforms(run), ...absent, of_gradient: 1, of_first_gradient: 1, of_buffer: 0, weight_decay: 0, first_word: 0, trials: 0,
          slot_word: controlWords.slot,
        },
        grid: [1, 1, 1],
      }),
    ];
  });
  expect([...new Float32Array(record.buffer, record.byteOffset, record.length)].slice(recordHead)).toEqual([1, 4, 4, 0, 0, 0]);
});
