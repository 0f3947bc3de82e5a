/**
 * The rule of the trial scheduler as one invocation: losses → normalise → score → weights → weighted geometric mean → bounds → the scale m,
 * and with it the coefficients of the next event. The rule and its reasons are `trialUpdate` in src/sched/update.ts, in float64; this is
 * its twin in float32, made so that float32 costs no digits:
 *   - exp and relGain are e^(−(L − min L) / (τ·divisor)): the smallest loss is subtracted before anything else, where that is exact;
 *     of ranks the best is, so that some weight is 1; paired noise and the gate look at differences formed before (trialEvidence.ts);
 *   - losses that are normalised are first brought to about 1 by a power of two, so that no square or sum leaves float32;
 *   - e^x and √x are computed here, to about one unit in the last place, as WGSL's own may be off by many;
 *   - NaN and Inf are found by their bits.
 */
import { builtins, defineKernel, linearIndex, nonFinite, read, write } from './contract.ts';
import { flagNonFiniteLoss } from './sgd.ts';
import { isLost, rootOf } from './trialEvidence.ts';

/** Values of the uniforms `normalize` and `score`. */
export const ruleNormalize = { minMax: 0, zScore: 1, mean: 2, sum: 3, l2: 4, none: 5 } as const;
export const ruleScore = { exp: 0, relGain: 1, rank: 2, pairedNoise: 3, armijo: 4 } as const;

/** Bits of an event's first word: the rule has run; a bound changed m; losses equal within rounding; no finite loss. */
export const eventValid = 1;
export const eventClamped = 2;
export const eventHeld = 4;
export const eventAllNonFinite = 8;

/**
 * Words of an event before its N losses, N weights and evidence: bits, trials that are not finite, m before, m after, ln multiplier, base
 * loss, momentum before and after, weight decay before and after.
 */
export const eventHead = 10;

/** f32 of a trial in `trials`: −factor, ln factor less the anchor, μ, ln(1 − μ), λ, ln λ, which trial's loss it is scored by. */
export const trialWords = 7;
/** Place of the last of them. */
export const sourceWord = 6;

/** Forms of a trial's coefficients: c of the direction; a − 1, c of the gradient; a − 1, c of the momentum buffer, c of the gradient. */
export const coefficientForms = { direction: 0, gradient: 1, bufferAndGradient: 2 } as const;

/** e^x for x in ±87 to about one unit in the last place: x = k·ln 2 + r, e^r by Taylor's series, 2^k by its bits. */
const expOf = /* wgsl */ `
fn exp_of(x: f32) -> f32 {
  let k = round(clamp(x, -87.0, 87.0) * 1.44269504);
  // ln 2 in two parts: k times the first, of 12 bits, is exact.
  let r = (clamp(x, -87.0, 87.0) - k * 0.693115234375) - k * 3.19461849e-5;
  let series = 1.0 / 6.0 + r * (1.0 / 24.0 + r * (1.0 / 120.0 + r * (1.0 / 720.0 + r * (1.0 / 5040.0))));
  return (1.0 + (r + r * r * (0.5 + r * series))) * bitcast<f32>(u32(i32(k) + 127) << 23u);
}`;

/**
 * Coefficients of the trials at m = rates[1], or at base · m with the base's bits in the control's envelope, one thread a trial. In a grid
 * (form > 0) those of the whole step with the trial's own momentum and weight decay, or rates[2] and [3] where these are not tried: `stepAsMove` in src/optim/sgd.ts.
 */
export const trialCoefficients = defineKernel({
  name: 'trialCoefficients',
  bindings: { trials: read('f32'), first: read('u32'), control: read('u32'), rates: read('f32'), coefficients: write('f32') },
  uniforms: {
    envelope_word: 'u32', has_base: 'u32', count: 'u32', form: 'u32', tries_momentum: 'u32', tries_decay: 'u32', dampening: 'f32',
    nesterov: 'u32', first_word: 'u32',
  },
  wgsl: /* wgsl */ `
@compute @workgroup_size(64)
fn main(${builtins}) {
  let t = ${linearIndex};
  if (t >= u.count) { return; }
  let row = ${trialWords}u * t;
  let c = rates[1] * trials[row] * select(1.0, bitcast<f32>(control[u.envelope_word]), u.has_base == 1u);
  let at = t * (u.form + 1u);
  if (u.form == ${coefficientForms.direction}u) {
    coefficients[at] = c;
    return;
  }
  let is_first = first[u.first_word] == 1u;
  let momentum = select(rates[2], trials[row + 2u], u.tries_momentum == 1u);
  let decay = select(rates[3], trials[row + 4u], u.tries_decay == 1u);
  let of_gradient = c * select(select(1.0 - u.dampening, 1.0, is_first), 1.0 + momentum, u.nesterov == 1u);
  coefficients[at] = of_gradient * decay;
  coefficients[at + u.form] = of_gradient;
  if (u.form == ${coefficientForms.bufferAndGradient}u) {
    coefficients[at + 1u] = c * select(select(momentum, momentum * momentum, u.nesterov == 1u), 0.0, is_first);
  }
}`,
});

/**
 * What stands between two passes of an event: the window's losses (a vec4 each) are put to those of all trials, f32 each, and the next pass's
 * coefficients into the window. state[0] counts the trials that are done, state[1] those of the pass that has just run; both are 0 before an
 * event and after it. Passes of `small` trials come first, `smalls` of them, then passes of one more. One workgroup.
 */
export const nextPass = defineKernel({
  name: 'nextPass',
  bindings: {
    coefficients: read('f32'), window_losses: read('f32'), state: write('u32'), window_coefficients: write('f32'), losses: write('f32'),
  },
  uniforms: { count: 'u32', words: 'u32', small: 'u32', smalls: 'u32' },
  wgsl: /* wgsl */ `
@compute @workgroup_size(64)
fn main(@builtin(local_invocation_id) lid: vec3u) {
  let before = state[0];
  let ran = state[1];
  storageBarrier();
  for (var t = lid.x; t < ran; t += 64u) { losses[before + t] = window_losses[4u * t]; }
  let done = before + ran;
  let is_end = done >= u.count;
  let next = select(select(u.small + 1u, u.small, done < u.smalls * u.small), 0u, is_end);
  for (var i = lid.x; i < next * u.words; i += 64u) { window_coefficients[i] = coefficients[done * u.words + i]; }
  if (lid.x == 0u) {
    state[0] = select(done, 0u, is_end);
    state[1] = next;
  }
}`,
});

/**
 * rates[1] = m is moved by the trials' losses, and rates[2], rates[3] where momentum and weight decay are tried; events[slot] tells how.
 * One invocation, any n. With `has_base` trial n is the one at 0. A flag set before: the rates stay and the event's first word is 0.
 * `hold` < 0 never holds. rates[4] is the highest m that events have left where the control's word `search_word` was 1, and bounds m at the
 * others; 0 for none. `parameter` is the score's: τ, pairedNoise's κ, armijo's c. The first `evidence_words` of `evidence` are what the
 * score looked at (pairedNoise: `pairedDifferences`; armijo: `directionSlope`), which the event keeps.
 */
export const trialRule = defineKernel({
  name: 'trialRule',
  bindings: {
    trials: read('f32'), losses: read('f32'), coefficients: read('f32'), control: read('u32'), flags: write('u32'), rates: write('f32'),
    events: write('u32'), evidence: read('f32'),
  },
  uniforms: {
    n: 'u32', has_base: 'u32', normalize: 'u32', score: 'u32', parameter: 'f32', hold: 'f32', least_factor: 'f32', low: 'f32', high: 'f32',
    slot_word: 'u32', search_word: 'u32', stride: 'u32', form: 'u32', tries_momentum: 'u32', tries_decay: 'u32', evidence_words: 'u32',
  },
  wgsl: /* wgsl */ `${nonFinite}${expOf}${rootOf}${isLost('(u.form + 1u)')}
// By whose loss trial t is scored: its own, unless losses are shuffled.
fn source_of(t: u32) -> u32 { return u32(trials[${trialWords}u * t + ${sourceWord}u]); }
fn difference(loss: f32, lowest: f32, unit: f32) -> f32 { return loss * unit - lowest * unit; }

// Place of a loss among the finite ones, from 0; equal losses share the mean of theirs.
fn rank_of(loss: f32) -> f32 {
  var below = 0.0;
  var equal = 0.0;
  for (var other = 0u; other < u.n; other += 1u) {
    if (is_lost(other)) { continue; }
    if (losses[other] < loss) { below += 1.0; }
    if (losses[other] == loss) { equal += 1.0; }
  }
  return below + (equal - 1.0) / 2.0;
}

// What differences of losses are divided by, in the same unit.
fn divisor_of(lowest: f32, highest: f32, base: f32, unit: f32, finite: f32) -> f32 {
  if (u.score == ${ruleScore.relGain}u) { return max(difference(base, lowest, unit), ${4 * 2 ** -23} * abs(base * unit)); }
  if (u.normalize == ${ruleNormalize.none}u) { return 1.0; }
  if (u.normalize == ${ruleNormalize.minMax}u) { return difference(highest, lowest, unit); }
  var absolute = 0.0;
  var squares = 0.0;
  var pairs = 0.0;
  for (var t = 0u; t < u.n; t += 1u) {
    if (is_lost(t)) { continue; }
    let loss = losses[t] * unit;
    absolute += abs(loss);
    squares += loss * loss;
    for (var other = 0u; other < t; other += 1u) {
      if (is_lost(other)) { continue; }
      let gap = difference(losses[t], losses[other], unit);
      pairs += gap * gap;
    }
  }
  if (u.normalize == ${ruleNormalize.mean}u) { return absolute / finite; }
  if (u.normalize == ${ruleNormalize.sum}u) { return absolute; }
  if (u.normalize == ${ruleNormalize.l2}u) { return root(squares); }
  // The standard deviation from differences of pairs: L − min L − mean may be taken as L − (min L + mean), which leaves no digits.
  return root(pairs) / finite;
}

// The largest factor whose loss has come down by what is asked, else the smallest one, of trials that are not lost; u.n where all are.
fn accepted_trial(base: f32) -> u32 {
  var largest = u.n;
  var smallest = u.n;
  let slope = evidence[0];
  for (var t = 0u; t < u.n; t += 1u) {
    let source = source_of(t);
    if (is_lost(source)) { continue; }
    // Factors are there with a minus, as is the coefficient: −η·f.
    let factor = -trials[${trialWords}u * t];
    if (smallest == u.n || factor < -trials[${trialWords}u * min(smallest, u.n - 1u)]) { smallest = t; }
    let asked = u.parameter * coefficients[t] * slope;
    if (non_finite(slope) || non_finite(asked) || losses[source] - base > asked) { continue; }
    if (largest == u.n || factor > -trials[${trialWords}u * min(largest, u.n - 1u)]) { largest = t; }
  }
  return select(largest, smallest, largest == u.n);
}

fn weight_of(t: u32, lowest: f32, best_rank: f32, unit: f32, divisor: f32, accepted: u32) -> f32 {
  let source = source_of(t);
  if (is_lost(source)) { return 0.0; }
  if (u.score == ${ruleScore.armijo}u) { return select(0.0, 1.0, t == accepted); }
  let gap = difference(losses[source], lowest, unit);
  var x = 0.0;
  if (u.score == ${ruleScore.rank}u) {
    x = (rank_of(losses[source]) - best_rank) / u.parameter;
  } else if (u.score == ${ruleScore.pairedNoise}u) {
    let d = abs(evidence[2u * source]);
    // Asked as a product, as the error may be 0; e^(−½·14²) is no weight in float32.
    let within = u.parameter * evidence[2u * source + 1u];
    if (d > 0.0 && d >= 14.0 * within) { return 0.0; }
    if (d > 0.0) { x = 0.5 * (d / within) * (d / within); }
  } else if (gap > 0.0) {
    x = gap / divisor / u.parameter;
  }
  if (x < 87.0) { return exp_of(-x); }
  return 0.0;
}

@compute @workgroup_size(1)
fn main() {
  let at = control[u.slot_word] * u.stride;
  var base = 0.0;
  if (u.has_base == 1u) {
    base = losses[u.n];
    // Where the step is lost already the loss at the weights may be 0 · Inf: that a gradient overflowed is no loss.
    if (flags[0] == 0u && non_finite(base)) { flags[0] |= ${flagNonFiniteLoss}u; }
  }
  if (flags[0] != 0u) {
    events[at] = 0u;
    return;
  }
  var finite = 0u;
  var lowest = 0.0;
  var highest = 0.0;
  for (var t = 0u; t < u.n; t += 1u) {
    if (is_lost(t)) { continue; }
    lowest = select(min(lowest, losses[t]), losses[t], finite == 0u);
    highest = select(max(highest, losses[t]), losses[t], finite == 0u);
    finite += 1u;
  }
  let largest = max(abs(lowest), abs(highest));
  let exponent = clamp((bitcast<u32>(largest) >> 23u) & 255u, 1u, 253u);
  let unit = select(bitcast<f32>((254u - exponent) << 23u), 1.0, u.normalize == ${ruleNormalize.none}u);
  let divisor = max(divisor_of(lowest, highest, base, unit, f32(finite)), 1.2e-38);

  var best_rank = 0.0;
  if (u.score == ${ruleScore.rank}u) { best_rank = rank_of(lowest); }
  var accepted = u.n;
  if (u.score == ${ruleScore.armijo}u) { accepted = accepted_trial(base); }
  let weights_at = at + ${eventHead}u + u.n;
  var total = 0.0;
  var moved = 0.0;
  var ln_rest = 0.0;
  var ln_decay = 0.0;
  for (var t = 0u; t < u.n; t += 1u) {
    let weight = weight_of(t, lowest, best_rank, unit, divisor, accepted);
    total += weight;
    moved += weight * trials[${trialWords}u * t + 1u];
    ln_rest += weight * trials[${trialWords}u * t + 3u];
    ln_decay += weight * trials[${trialWords}u * t + 5u];
    events[at + ${eventHead}u + t] = bitcast<u32>(losses[t]);
    events[weights_at + t] = bitcast<u32>(weight);
  }
  for (var i = 0u; i < u.evidence_words; i += 1u) { events[weights_at + u.n + i] = bitcast<u32>(evidence[i]); }
  let is_gone = finite == 0u;
  let log_multiplier = select(moved / max(total, 1e-30), 0.0, is_gone);
  for (var t = 0u; t < u.n; t += 1u) {
    events[weights_at + t] = bitcast<u32>(bitcast<f32>(events[weights_at + t]) / max(total, 1e-30));
  }

  let is_held = u.hold >= 0.0 && finite == u.n && difference(highest, lowest, unit) <= u.hold * (largest * unit);
  let before = rates[1];
  // By halves, so that the multiplier itself may leave float32.
  let half = exp_of(0.5 * log_multiplier);
  var asked = before * half * half;
  if (is_held) { asked = before; }
  if (is_gone) { asked = before * u.least_factor; }
  let searching = control[u.search_word] == 1u;
  let high = select(min(rates[4], u.high), u.high, searching || rates[4] == 0.0);
  var after = clamp(asked, u.low, high);
  if (non_finite(asked)) { after = high; }
  rates[1] = after;
  if (searching) { rates[4] = max(rates[4], after); }
  events[at + 6u] = bitcast<u32>(rates[2]);
  events[at + 8u] = bitcast<u32>(rates[3]);
  if (!is_held && !is_gone) {
    if (u.tries_momentum == 1u) { rates[2] = 1.0 - exp_of(ln_rest / total); }
    if (u.tries_decay == 1u) { rates[3] = exp_of(ln_decay / total); }
  }

  events[at] = ${eventValid}u | select(0u, ${eventClamped}u, after != asked) | select(0u, ${eventHeld}u, is_held)
    | select(0u, ${eventAllNonFinite}u, is_gone);
  events[at + 1u] = u.n - finite;
  events[at + 2u] = bitcast<u32>(before);
  events[at + 3u] = bitcast<u32>(after);
  events[at + 4u] = bitcast<u32>(log_multiplier);
  events[at + 5u] = bitcast<u32>(base);
  events[at + 7u] = bitcast<u32>(rates[2]);
  events[at + 9u] = bitcast<u32>(rates[3]);
}`,
});

/** rates[0] = rates[1] · envelope: the rate of this step. The envelope's value is a control word, as the bits of an f32. */
export const trialRate = defineKernel({
  name: 'trialRate',
  bindings: { control: read('u32'), rates: write('f32') },
  uniforms: { envelope_word: 'u32' },
  wgsl: /* wgsl */ `
@compute @workgroup_size(1)
fn main() { rates[0] = rates[1] * bitcast<f32>(control[u.envelope_word]); }`,
});

/**
 * The rate of the update that comes next: table[k], k of the steps since the host last heard having been skipped. It goes to rates[0], and as
 * bits to the control's envelope, from which `trialRate` makes the rate where there is a scale m. scaling[2] counts skipped steps.
 */
export const rateOfUpdate = defineKernel({
  name: 'rateOfUpdate',
  bindings: { table: read('f32'), scaling: read('u32'), control: write('u32'), rates: write('f32') },
  uniforms: { last: 'u32', skipped_word: 'u32', envelope_word: 'u32' },
  wgsl: /* wgsl */ `
@compute @workgroup_size(1)
fn main() {
  let rate = table[min(scaling[2] - control[u.skipped_word], u.last)];
  control[u.envelope_word] = bitcast<u32>(rate);
  rates[0] = rate;
}`,
});
