/**
 * Rules that set a step's rate by the step's own numbers, one invocation each: facts → rate and the rule's words. What they compute, and
 * why, is said beside their twins in float64, src/sched/rules. A rule is a row of `rateRules`; `rateRule` and `ruleTrials` make kernels of
 * a row.
 */
import { defineKernel, nonFinite, read, write, type Kernel, type UniformType } from './contract.ts';
import { flagNonFiniteDirection, flagNonFiniteLoss } from './sgd.ts';
import { rootOf } from './trialEvidence.ts';

/** f32 of a record before its log: the rule's words. */
export const recordHead = 8;
/** f32 of a line of the log before words and trial losses: 1 where the rule has run, then the facts. */
export const lineHead = 6;

/**
 * Products that the facts are made of, g the gradient, b the momentum buffer (g without one), w the weights, d the direction, p the one
 * before, s w at the start.
 */
export const ruleProducts = ['gg', 'gb', 'gw', 'gp', 'wp', 'dd', 'distance'] as const;
export type RuleProduct = (typeof ruleProducts)[number];
/** Place of a product that nobody made. */
export const noProduct = 0xffffffff;

interface Row {
  readonly uniforms: Readonly<Record<string, UniformType>>;
  /** The names of its words, in their order: `w_NAME` in WGSL. */
  readonly words: readonly string[];
  /** WGSL of the rate, given `f`; it moves `record[w_NAME]` and returns the rate. */
  readonly rate: string;
  /** Functions that both use. @default none */
  readonly shared?: string;
  /** WGSL of where trial `t` is made, as a rate, given `f`. @default no trials */
  readonly trial?: string;
}

const wholeSpan = /* wgsl */ `
fn span_of(f: Facts) -> f32 {
  if (f.slope == 0.0) { return 0.0; }
  return u.span * f.loss / abs(f.slope);
}`;

const searchStart = /* wgsl */ `
fn start_of() -> f32 {
  if (u.fixed_start > 0.0) { return u.fixed_start; }
  return min(record[w_lr] * u.growth, u.most);
}
fn at_trial(start: f32, t: u32) -> f32 {
  var rate = start;
  for (var i = 0u; i < t; i += 1u) { rate *= u.beta; }
  return rate;
}`;

/** x^p for x > 0: exact where p is 0, 1 or 2. */
const powerOf = /* wgsl */ `
fn power_of(x: f32, p: f32) -> f32 {
  if (p == 0.0 || x == 1.0) { return 1.0; }
  if (p == 1.0) { return x; }
  if (p == 2.0) { return x * x; }
  return pow(x, p);
}`;

/** Twins of src/sched/rules. */
export const rateRules = {
  sps: {
    uniforms: { c: 'f32', eps: 'f32', least: 'f32', growth: 'f32', most: 'f32' },
    words: ['bound'],
    rate: /* wgsl */ `
  if (f.loss <= u.least) { return 0.0; }
  var rate = min((f.loss - u.least) / (u.c * f.gradient_squared + u.eps), u.most);
  if (u.growth > 0.0) { rate = min(rate, u.growth * record[w_bound]); }
  record[w_bound] = rate;
  return rate;`,
  },
  aliG: {
    uniforms: { eps: 'f32', most: 'f32' },
    words: [],
    rate: /* wgsl */ `
  return min(f.loss / (f.gradient_squared + u.eps), u.most);`,
  },
  hypergradient: {
    uniforms: { beta: 'f32', least: 'f32', most: 'f32' },
    words: ['lr'],
    rate: /* wgsl */ `
  record[w_lr] = clamp(record[w_lr] + u.beta * f.hypergradient, u.least, u.most);
  return record[w_lr];`,
  },
  dog: {
    uniforms: { first_reach: 'f32', eps: 'f32', gamma: 'f32' },
    words: ['steps', 'reach', 'squares', 'share'],
    rate: /* wgsl */ `
  if (record[w_steps] == 0.0) {
    record[w_reach] = u.first_reach;
    record[w_squares] = u.eps + f.direction_squared;
  } else {
    record[w_reach] = max(record[w_reach], root(f.distance_squared));
    record[w_squares] += f.direction_squared;
  }
  record[w_steps] += 1.0;
  record[w_share] = (1.0 + u.gamma) / (record[w_steps] + u.gamma);
  return record[w_reach] / root(record[w_squares]);`,
  },
  scheduleFree: {
    uniforms: { lr: 'f32', warmup: 'f32', r: 'f32', power: 'f32' },
    words: ['steps', 'total', 'share'],
    shared: powerOf,
    rate: /* wgsl */ `
  let steps = record[w_steps] + 1.0;
  var rise = 1.0;
  if (steps < u.warmup) { rise = steps / u.warmup; }
  let weight = power_of(steps, u.r) * power_of(rise, u.power);
  record[w_steps] = steps;
  record[w_total] += weight;
  record[w_share] = weight / record[w_total];
  return u.lr * rise;`,
  },
  slsArmijo: {
    uniforms: { c: 'f32', beta: 'f32', n: 'u32', growth: 'f32', most: 'f32', fallback: 'f32', fixed_start: 'f32' },
    words: ['lr', 'accepted'],
    shared: searchStart,
    trial: /* wgsl */ `
  return select(at_trial(start_of(), t), 0.0, t == u.n);`,
    rate: /* wgsl */ `
  record[w_accepted] = -1.0;
  if (f.slope <= 0.0) { return u.fallback; }
  let start = start_of();
  let base = trial_losses[u.n];
  for (var t = 0u; t < u.n; t += 1u) {
    let rate = at_trial(start, t);
    if (!non_finite(trial_losses[t]) && trial_losses[t] - base <= -u.c * rate * f.slope) {
      record[w_lr] = rate;
      record[w_accepted] = f32(t);
      return rate;
    }
  }
  record[w_lr] = max(at_trial(start, u.n), u.fallback);
  return u.fallback;`,
  },
  pal: {
    uniforms: { mu: 'f32', most: 'f32', factor: 'f32' },
    words: ['step', 'curvature'],
    trial: /* wgsl */ `
  if (t > 0u || f.direction_squared == 0.0) { return 0.0; }
  return u.mu / root(f.direction_squared);`,
    rate: /* wgsl */ `
  record[w_step] = 0.0;
  record[w_curvature] = 0.0;
  if (f.slope <= 0.0 || f.direction_squared == 0.0 || non_finite(trial_losses[0])) { return 0.0; }
  let norm = root(f.direction_squared);
  let descent = f.slope / norm;
  let half_curvature = ((trial_losses[0] - trial_losses[1]) + descent * u.mu) / (u.mu * u.mu);
  var step = u.mu;
  if (half_curvature > 0.0) { step = u.factor * descent / (2.0 * half_curvature); }
  record[w_step] = min(step, u.most);
  record[w_curvature] = 2.0 * half_curvature;
  return record[w_step] / norm;`,
  },
  cdat: {
    uniforms: { sigma: 'f32', beta: 'f32', eps: 'f32', span: 'f32', most: 'f32' },
    words: ['lr', 'slope', 'curvature'],
    shared: wholeSpan,
    trial: /* wgsl */ `
  let h = span_of(f);
  return select(select(-h, 0.0, t == 2u), h, t == 0u);`,
    rate: /* wgsl */ `
  let h = span_of(f);
  if (h <= 0.0 || non_finite(h) || non_finite(trial_losses[0]) || non_finite(trial_losses[1])) { return record[w_lr]; }
  let rise = (trial_losses[0] - trial_losses[2]) + (trial_losses[1] - trial_losses[2]);
  // By h twice, as its square may leave float32.
  let curvature = abs(rise / h / h) + u.eps;
  record[w_slope] = u.beta * record[w_slope] + (1.0 - u.beta) * max(f.slope, 0.0);
  record[w_curvature] = u.beta * record[w_curvature] + (1.0 - u.beta) * curvature;
  record[w_lr] = min(u.sigma * record[w_slope] / record[w_curvature], u.most);
  return record[w_lr];`,
  },
} as const satisfies Record<string, Row>;

export type RateRuleName = keyof typeof rateRules;

const productUniforms = {
  ...(Object.fromEntries(ruleProducts.map((name) => [name, 'u32'])) as Record<RuleProduct, 'u32'>),
  of_gradient: 'f32', of_first_gradient: 'f32', of_buffer: 'f32', weight_decay: 'f32', first_word: 'u32',
} as const;

/** Facts of products: `slope` = g·d for d = a·(g + λw) + m·b, on the optimizer's first step with another a; its buffer is 0 then. */
const factsOf = /* wgsl */ `
struct Facts {
  loss: f32, gradient_squared: f32, slope: f32, direction_squared: f32, hypergradient: f32, distance_squared: f32,
}
fn product(at: u32) -> f32 {
  if (at == ${noProduct}u) { return 0.0; }
  return products[at];
}
fn facts_of() -> Facts {
  let of_gradient = select(u.of_gradient, u.of_first_gradient, first[u.first_word] == 1u);
  let slope = of_gradient * (product(u.gg) + u.weight_decay * product(u.gw)) + u.of_buffer * product(u.gb);
  let hypergradient = product(u.gp) + u.weight_decay * product(u.wp);
  return Facts(loss[0], product(u.gg), slope, product(u.dd), hypergradient, product(u.distance));
}
${rootOf}`;

const wordsOf = ({ words }: Row): string => words.map((name, i) => `const w_${name} = ${i}u;`).join('\n');

/** Uniforms that every rule's kernels have beside its own. */
export type RuleUniforms = Record<keyof typeof productUniforms, number>;

/**
 * rates[0] = the rule's rate; record = the rule's words, then a log of lines `[1, facts, words, trial losses]`, line control[slot_word].
 * With a flag set before, the rate and the words stay and the line begins with 0. A fact that is not finite (a square may leave float32
 * where no gradient does) sets the flag of gradients, a loss at the weights that is not finite the loss's. `trials` losses, the last one
 * that at 0.
 */
export const rateRule = (name: RateRuleName): Kernel => {
  const row: Row = rateRules[name];
  const { length } = row.words;
  return defineKernel({
    name: `rateRule_${name}`,
    bindings: {
      loss: read('f32'), products: read('f32'), trial_losses: read('f32'), control: read('u32'), first: read('u32'), flags: write('u32'),
      rates: write('f32'), record: write('f32'),
    },
    uniforms: { ...row.uniforms, ...productUniforms, slot_word: 'u32', trials: 'u32' } as Record<string, UniformType>,
    wgsl: /* wgsl */ `${nonFinite}${factsOf}
${wordsOf(row)}${row.shared ?? ''}
fn rate_of(f: Facts) -> f32 {${row.rate}
}
@compute @workgroup_size(1)
fn main() {
  let at = ${recordHead}u + control[u.slot_word] * (${lineHead + length}u + u.trials);
  record[at] = 0.0;
  // Whatever the facts of such a step are, they say nothing more: it may be one that is skipped.
  if (flags[0] != 0u) { return; }
  let f = facts_of();
  let facts = array(f.gradient_squared, f.slope, f.direction_squared, f.hypergradient, f.distance_squared);
  if (u.trials > 0u && non_finite(trial_losses[u.trials - 1u])) { flags[0] |= ${flagNonFiniteLoss}u; }
  for (var i = 0u; i < 5u; i += 1u) {
    record[at + 1u + i] = facts[i];
    if (non_finite(facts[i])) { flags[0] |= ${flagNonFiniteDirection}u; }
  }
  if (flags[0] != 0u) { return; }
  rates[0] = rate_of(f);
  record[at] = 1.0;
  for (var i = 0u; i < ${length}u; i += 1u) { record[at + ${lineHead}u + i] = record[i]; }
  for (var t = 0u; t < u.trials; t += 1u) { record[at + ${lineHead + length}u + t] = trial_losses[t]; }
}`,
  }) as Kernel;
};

/** coefficients[t] = −rate of trial t. One invocation. @throws for a rule without trials, as a mistake of the caller's */
export const ruleTrials = (name: RateRuleName): Kernel => {
  const row: Row = rateRules[name];
  if (row.trial === undefined) throw new Error(`ruleTrials: ${name} makes no trials`);
  return defineKernel({
    name: `ruleTrials_${name}`,
    bindings: { loss: read('f32'), products: read('f32'), first: read('u32'), record: read('f32'), coefficients: write('f32') },
    uniforms: { ...row.uniforms, ...productUniforms, trials: 'u32' } as Record<string, UniformType>,
    wgsl: /* wgsl */ `${factsOf}
${wordsOf(row)}${row.shared ?? ''}
fn rate_of_trial(t: u32, f: Facts) -> f32 {${row.trial}
}
@compute @workgroup_size(1)
fn main() {
  let f = facts_of();
  for (var t = 0u; t < u.trials; t += 1u) { coefficients[t] = -rate_of_trial(t, f); }
}`,
  }) as Kernel;
};
