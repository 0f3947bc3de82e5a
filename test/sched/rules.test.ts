/** The rules' arithmetic on small quadratics, against closed forms and recurrences that are written out here; options; state. */
import { describe, expect, test } from 'vitest';
import { AttrError } from '../../src/gpu/errors.ts';
import {
  aliG, cdat, dog, epochs, hypergradient, pal, percent, scheduleFree, slsArmijo, sps, steps,
  type AdaptiveSchedule, type RuleRun, type RuleWords, type StepFacts,
} from '../../src/sched/index.ts';

const run: RuleRun = { stepsPerEpoch: 5, totalSteps: 50, startNorm: 2, hasStatistics: false };

/** L(θ) = ½ Σ h_i θ_i², its steepest descent by a rule in float64. */
class Quadratic {
  readonly start: number[];
  previous: number[] | null = null;
  words: RuleWords;

  constructor(readonly schedule: AdaptiveSchedule, readonly h: readonly number[], readonly theta: number[]) {
    this.start = [...theta];
    this.words = schedule.spec.words;
  }

  loss(at: readonly number[] = this.theta): number {
    return at.reduce((sum, value, i) => sum + 0.5 * this.h[i] * value * value, 0);
  }

  get gradient(): number[] {
    return this.theta.map((value, i) => this.h[i] * value);
  }

  phi(rate: number): number {
    const g = this.gradient;
    return this.loss(this.theta.map((value, i) => value - rate * g[i]));
  }

  get facts(): StepFacts {
    const g = this.gradient;
    const squared = dot(g, g);
    const gap = this.theta.map((value, i) => value - this.start[i]);
    return {
      loss: this.loss(), gradientSquared: squared, slope: squared, directionSquared: squared, distanceSquared: dot(gap, gap),
      hypergradient: this.previous ? dot(g, this.previous) : 0,
    };
  }

  /** Makes a step; its rate. */
  step(): number {
    const { spec } = this.schedule;
    const { facts } = this;
    const losses = (spec.trialRates?.(this.words, facts, run) ?? []).map((rate) => this.phi(rate));
    const { lr, words } = spec.next(this.words, facts, run, losses);
    this.words = words;
    this.previous = this.gradient;
    this.previous.forEach((g, i) => (this.theta[i] -= lr * g));
    return lr;
  }
}

const dot = (a: readonly number[], b: readonly number[]): number => a.reduce((sum, value, i) => sum + value * b[i], 0);
const h = [1, 4, 9];
const on = (schedule: AdaptiveSchedule, curvatures: readonly number[] = h): Quadratic =>
  new Quadratic(schedule, curvatures, curvatures.map((_, i) => 2 - i / 2));
/** The rate that minimises the loss along the gradient: g·g / g·Hg. */
const lineMinimum = ({ gradient: g, h: all }: Quadratic): number => dot(g, g) / dot(g, g.map((value, i) => all[i] * value));
const near = (got: number, want: number, rtol = 1e-12) =>
  expect(Math.abs(got - want), `${got} beside ${want}`).toBeLessThanOrEqual(rtol * Math.abs(want));

describe('on a quadratic', () => {
  test('of one curvature Polyak with c = ½ finds the minimum at once', () => {
    const bowl = on(sps({ gamma: null, eps: 1e-30 }), [4, 4]);
    near(bowl.step(), 0.25);
    expect(bowl.loss()).toBeLessThan(1e-25);
    // At the minimum itself: nothing to gain.
    expect(bowl.step()).toBe(0);
  });

  test('SPS grows by γ an epoch at most, from initLr', () => {
    const bowl = on(sps({ initLr: 1e-4 }));
    const rates = Array.from({ length: 10 }, () => bowl.step());
    rates.forEach((rate, i) => near(rate, 1e-4 * 2 ** ((i + 1) / 5)));
  });

  test('ALI-G is Polyak up to maxLr', () => {
    const bowl = on(aliG({ maxLr: 0.07, eps: 1e-3 }));
    for (let i = 0; i < 20; i++) {
      const { loss, gradientSquared } = bowl.facts;
      near(bowl.step(), Math.min(0.07, loss / (gradientSquared + 1e-3)));
    }
  });

  test('the hypergradient raises a rate that is too low and lowers one that is too high', () => {
    for (const [lr, sign] of [[0.01, 1], [0.21, -1]] as const) {
      const bowl = on(hypergradient({ lr, hypergradLr: 1e-4 }));
      const first = bowl.gradient;
      near(bowl.step(), lr);
      const want = lr + 1e-4 * dot(bowl.gradient, first);
      expect(Math.sign(want - lr)).toBe(sign);
      near(bowl.step(), want);
    }
  });

  test('PAL with factor 1 lands in the minimum of the line, with 1/0.6 as far beyond as it says, and stops at maxStep', () => {
    for (const [factor, maxStep] of [[1, null], [1 / 0.6, null], [1, 0.01]] as const) {
      const bowl = on(pal({ updateFactor: factor, maxStep, measuringStep: 0.3 }));
      const norm = Math.sqrt(bowl.facts.gradientSquared);
      const want = maxStep === null ? factor * lineMinimum(bowl) : maxStep / norm;
      near(bowl.step(), want, 1e-9);
      near(bowl.words.step, want * norm, 1e-9);
    }
  });

  test('PAL goes as far as it has looked where the line is curved downwards, and nowhere uphill', () => {
    const hill = on(pal({ measuringStep: 0.5 }), [-1, -2]);
    const norm = Math.sqrt(hill.facts.gradientSquared);
    near(hill.step(), 0.5 / norm);
    const { spec } = pal();
    const facts = { ...hill.facts, slope: -1 };
    expect(spec.next(spec.words, facts, run, [1, 2])).toEqual({ lr: 0, words: { step: 0, curvature: 0 } });
    expect(spec.next(spec.words, { ...facts, slope: 0, directionSquared: 0 }, run, [2, 2]).lr).toBe(0);
    expect(spec.trialRates!(spec.words, { ...facts, directionSquared: 0 }, run)).toEqual([0, 0]);
  });

  test('SLS takes the largest trial of at most 2(1 − c) line minima', () => {
    for (const c of [0.1, 0.5, 0.9]) {
      const bowl = on(slsArmijo({ c, beta: 0.9, trials: 60, reset: 'init' }));
      const limit = 2 * (1 - c) * lineMinimum(bowl);
      const taken = Array.from({ length: 60 }, (_, i) => 0.9 ** i).findIndex((rate) => rate <= limit);
      expect(taken).toBeGreaterThan(0);
      near(bowl.step(), 0.9 ** taken);
      expect(bowl.words).toEqual({ lr: 0.9 ** taken, accepted: taken });
    }
  });

  test('SLS begins where it ended, grown by γ an epoch, below maxLr', () => {
    const flat = on(slsArmijo({ gamma: 32, maxLr: 5 }), [1e-6, 1e-6]);
    // All is accepted where the loss is almost a line.
    expect([0, 1, 2, 3].map(() => flat.step())).toEqual([2, 4, 5, 5]);
    const kept = on(slsArmijo({ reset: 'keep', initLr: 0.5 }), [1e-6, 1e-6]);
    expect([kept.step(), kept.step()]).toEqual([0.5, 0.5]);
  });

  test('SLS goes on searching at the next step where no trial was accepted', () => {
    const bowl = on(slsArmijo({ trials: 2, beta: 0.5, reset: 'keep' }), [300, 300]);
    const rates = Array.from({ length: 5 }, () => bowl.step());
    // 1, ½ | ¼, ⅛ | … are too long until 2^-8 < 1.8/300 < 2^-7; few of them: the fallback makes no way.
    expect(rates.slice(0, 4)).toEqual([1e-6, 1e-6, 1e-6, 1e-6]);
    expect(rates[4]).toBe(2 ** -8);
    expect(bowl.words.accepted).toBe(0);
  });

  test('SLS makes the fallback step uphill, and its search stays', () => {
    const { spec } = slsArmijo();
    const facts = { ...on(slsArmijo()).facts, slope: -1 };
    const step = spec.next({ lr: 0.3, accepted: 2 }, facts, run, Array<number>(11).fill(1));
    expect(step).toEqual({ lr: 1e-6, words: { lr: 0.3, accepted: -1 } });
  });

  test('CDAT with σ = 1 and no average takes the line minimum, with σ = 2 twice that', () => {
    for (const sigma of [1, 2]) {
      const bowl = on(cdat({ sigma, beta: 0, eps: 1e-20 }));
      for (let i = 0; i < 5; i++) {
        const want = sigma * lineMinimum(bowl);
        near(bowl.step(), want, 1e-9);
      }
    }
  });

  test('CDAT averages slope and curvature apart, and the first ones count whole', () => {
    const bowl = on(cdat({ sigma: 1, beta: 0.75, eps: 1e-20 }));
    let [top, bottom] = [0, 0];
    for (let i = 0; i < 6; i++) {
      const g = bowl.gradient;
      top = 0.75 * top + 0.25 * dot(g, g);
      bottom = 0.75 * bottom + 0.25 * dot(g, g.map((value, k) => h[k] * value));
      near(bowl.step(), top / bottom, 1e-9);
    }
  });

  test('DoG: distance over gradients, from r̄ = repsRel·(1 + ‖θ₀‖)', () => {
    const bowl = on(dog({ repsRel: 1e-3 }));
    let reach = 1e-3 * (1 + run.startNorm);
    let squares = 1e-8;
    for (let t = 1; t <= 30; t++) {
      reach = Math.max(reach, Math.sqrt(dot(bowl.theta.map((v, i) => v - bowl.start[i]), bowl.theta.map((v, i) => v - bowl.start[i]))));
      squares += dot(bowl.gradient, bowl.gradient);
      near(bowl.step(), reach / Math.sqrt(squares));
      near(bowl.words.share, 9 / (t + 8));
    }
  });

  test("DoG's first distance goes by the model: 1e-6, with batch norms 1e-4", () => {
    const { spec } = dog();
    const { facts } = on(dog());
    const [plain, normed] = [false, true].map((hasStatistics) => spec.next(spec.words, facts, { ...run, hasStatistics }, []).words.reach);
    near(plain, 3e-6);
    near(normed, 3e-4);
  });
});

describe('Schedule-Free', () => {
  const words = (schedule: AdaptiveSchedule, count: number) => {
    const { spec } = schedule;
    const seen: { lr: number; share: number }[] = [];
    let state = spec.words;
    for (let i = 0; i < count; i++) {
      const { lr, words: next } = spec.next(state, on(schedule).facts, run, []);
      state = next;
      seen.push({ lr, share: next.share });
    }
    return seen;
  };

  test('averages all z alike without a warm-up', () => {
    words(scheduleFree({ lr: 0.3 }), 20).forEach(({ lr, share }, t) => {
      expect(lr).toBe(0.3);
      near(share, 1 / (t + 1));
    });
  });

  test('with a warm-up, weighs by the rate and by the step', () => {
    const powers = { r: 2, weightLrPower: 3 };
    for (const warmupSteps of [steps(8), epochs(1.6), percent(16)]) {
      const rates = Array.from({ length: 12 }, (_, t) => 0.3 * Math.min(1, (t + 1) / 8));
      const weights = rates.map((rate, t) => (t + 1) ** 2 * rate ** 3);
      words(scheduleFree({ lr: 0.3, warmupSteps, ...powers }), 12).forEach(({ lr, share }, t) => {
        near(lr, rates[t]);
        near(share, weights[t] / weights.slice(0, t + 1).reduce((a, b) => a + b));
      });
    }
  });
});

const all = [
  sps(), aliG(), hypergradient({ lr: 0.1 }), dog(), scheduleFree(), slsArmijo(), pal(), cdat(),
] as const;

describe('state and load', () => {
  const make: Record<string, () => AdaptiveSchedule> = {
    sps, aliG, hypergradient: () => hypergradient({ lr: 0.01, hypergradLr: 1e-4 }), dog: () => dog({ repsRel: 1e-3 }),
    scheduleFree: () => scheduleFree({ lr: 0.01, warmupSteps: steps(4) }), slsArmijo: () => slsArmijo({ trials: 4 }), pal, cdat,
  };

  test.each(Object.keys(make))('%s: a fresh schedule goes on from every step', (name) => {
    for (let stop = 0; stop < 6; stop++) {
      const whole = on(make[name]());
      for (let i = 0; i < stop; i++) whole.schedule.record({ lr: whole.step(), words: whole.words });
      const fresh = make[name]();
      fresh.load(JSON.parse(JSON.stringify(whole.schedule.state())) as ReturnType<AdaptiveSchedule['state']>);
      expect(fresh.lr).toBe(whole.schedule.lr);
      const rest = new Quadratic(fresh, h, [...whole.theta]);
      rest.words = fresh.words;
      rest.previous = whole.previous;
      rest.start.splice(0, 3, ...whole.start);
      expect([0, 1, 2].map(() => rest.step())).toEqual([0, 1, 2].map(() => whole.step()));
    }
  });

  test.each(all)('$spec.kind refuses the state of another rule, of other options, and what is no state', (schedule) => {
    const state = schedule.state();
    const before = JSON.stringify(state);
    const refused = (wrong: object, arg: string) => {
      expect(() => schedule.load({ ...state, ...wrong })).toThrow(expect.objectContaining({ constructor: AttrError, arg }));
    };
    refused({ kind: 'constant' }, 'state.kind');
    refused({ parameters: { ...schedule.spec.parameters, more: 1 } }, 'state.parameters');
    refused({ lr: NaN }, 'state.lr');
    refused({ words: { ...schedule.words, more: 1 } }, 'state.words');
    const [first] = Object.keys(schedule.words);
    if (first) refused({ words: { ...schedule.words, [first]: 'x' } }, 'state.words');
    expect(JSON.stringify(schedule.state())).toBe(before);
  });
});

describe('options', () => {
  const wrong: [string, () => unknown, string][] = [
    ['sps', () => sps({ c: 0 }), 'c'], ['sps', () => sps({ gamma: 0.5 }), 'gamma'], ['sps', () => sps({ fStar: -1 }), 'fStar'],
    ['sps', () => sps({ lr: 1 } as object), 'lr'], ['sps', () => sps({ eps: 1e-40 }), 'eps'], ['sps', () => sps({ maxLr: 0 }), 'maxLr'],
    ['aliG', () => aliG({ maxLr: NaN }), 'maxLr'], ['aliG', () => aliG({ eps: 0 }), 'eps'],
    ['hypergradient', () => hypergradient({} as { lr: number }), 'lr'], ['hypergradient', () => hypergradient({ lr: 1, maxLr: 0.5 }), 'lr'],
    ['hypergradient', () => hypergradient({ lr: 1, hypergradLr: -1 }), 'hypergradLr'],
    ['sps', () => sps({ gamma: null, initLr: 2 }), 'initLr'], ['slsArmijo', () => slsArmijo({ reset: 'keep', gamma: 2 }), 'gamma'],
    ['dog', () => dog({ average: false, gamma: 8 }), 'gamma'],
    ['dog', () => dog({ repsRel: 0 }), 'repsRel'], ['dog', () => dog({ gamma: -1 }), 'gamma'],
    ['dog', () => dog({ average: 1 as never }), 'average'],
    ['scheduleFree', () => scheduleFree({ beta: 1 }), 'beta'], ['scheduleFree', () => scheduleFree({ lr: 0 }), 'lr'],
    ['scheduleFree', () => scheduleFree({ warmupSteps: 5 as never }), 'warmupSteps'],
    ['slsArmijo', () => slsArmijo({ trials: 1.5 }), 'trials'], ['slsArmijo', () => slsArmijo({ trials: 0 }), 'trials'],
    ['slsArmijo', () => slsArmijo({ reset: 'none' as never }), 'reset'], ['slsArmijo', () => slsArmijo({ initLr: 11 }), 'initLr'],
    ['slsArmijo', () => slsArmijo({ beta: 1 }), 'beta'], ['pal', () => pal({ measuringStep: 0 }), 'measuringStep'],
    ['pal', () => pal({ maxStep: -1 }), 'maxStep'], ['cdat', () => cdat({ sigma: 0 }), 'sigma'], ['cdat', () => cdat({ span: 0 }), 'span'],
  ];
  test.each(wrong)('%s: what is out of range is refused', (op, make, arg) => {
    expect(make).toThrow(expect.objectContaining({ constructor: AttrError, op, arg }));
  });

  test('undefined is the default', () => expect(sps({ c: undefined }).spec.parameters).toEqual(sps().spec.parameters));
});
