/**
 * Softmax cross-entropy over rows of logits [N, C] (row stride `stride`, a multiple of 4), labels u32 [N] shared by all trials.
 * Target q = (1 − s)·onehot + s/C with label smoothing s, as PyTorch.
 */
import { builtins, defineKernel, linearIndex, read, readFloats, write, writeFloats } from './contract.ts';

const logSumExp = /* wgsl */ `
/** log Σ exp(logits) of a row, with the largest taken out first. */
fn log_sum_exp(start: u32) -> f32 {
  var largest = load_logits(start);
  for (var c = 1u; c < u.classes; c += 1u) { largest = max(largest, load_logits(start + c)); }
  var total = 0.0;
  for (var c = 0u; c < u.classes; c += 1u) { total += exp(load_logits(start + c) - largest); }
  return largest + log(total);
}`;

/** losses[t, n] = −Σ_c q_c·log softmax(logits)_c; 0 in the padding up to `padded`. One thread a row. */
export const crossEntropyForward = defineKernel({
  name: 'crossEntropyForward',
  bindings: { logits: readFloats('f32'), labels: read('u32'), losses: write('f32') },
  uniforms: { rows: 'u32', padded: 'u32', classes: 'u32', stride: 'u32', logits_block: 'u32', smoothing: 'f32' },
  wgsl: /* wgsl */ `${logSumExp}
@compute @workgroup_size(64)
fn main(${builtins}) {
  let row = ${linearIndex};
  if (row >= u.padded) { return; }
  var loss = 0.0;
  if (row < u.rows) {
    let start = wid.z * u.logits_block + row * u.stride;
    let lse = log_sum_exp(start);
    loss = (1.0 - u.smoothing) * (lse - load_logits(start + labels[row]));
    if (u.smoothing > 0.0) {
      var total = 0.0;
      for (var c = 0u; c < u.classes; c += 1u) { total += lse - load_logits(start + c); }
      loss += u.smoothing * total / f32(u.classes);
    }
  }
  losses[wid.z * u.padded + row] = loss;
}`,
});

/** dLogits = dLosses · (softmax(logits) − q). One thread a vec4 of dLogits; z = trial, each with `padded` dLosses. */
export const crossEntropyBackward = defineKernel({
  name: 'crossEntropyBackward',
  bindings: { d_losses: read('f32'), logits: readFloats('f32'), labels: read('u32'), d_logits: writeFloats('vec4f') },
  uniforms: { rows: 'u32', padded: 'u32', classes: 'u32', stride: 'u32', smoothing: 'f32' },
  wgsl: /* wgsl */ `${logSumExp}
@compute @workgroup_size(64)
fn main(${builtins}) {
  let i = ${linearIndex};
  let row = i / (u.stride / 4u);
  if (row >= u.rows) { return; }
  let start = (wid.z * u.rows + row) * u.stride;
  let lse = log_sum_exp(start);
  let first = i % (u.stride / 4u) * 4u;
  var value = vec4f();
  for (var lane = 0u; lane < 4u; lane += 1u) {
    let c = first + lane;
    if (c < u.classes) {
      let target_ = u.smoothing / f32(u.classes) + select(0.0, 1.0 - u.smoothing, c == labels[row]);
      value[lane] = d_losses[wid.z * u.padded + row] * (exp(load_logits(start + c) - lse) - target_);
    }
  }
  store_d_logits(wid.z * u.rows * (u.stride / 4u) + i, value);
}`,
});

/**
 * Evaluation: adds a batch's summed loss and its number of right answers to totals = [Σ loss, right, seen], in row order.
 * One thread; rows from `rows` on (the padding of the last batch) are left out by the control word.
 */
export const accumulateEvaluation = defineKernel({
  name: 'accumulateEvaluation',
  bindings: { logits: readFloats('f32'), labels: read('u32'), losses: read('f32'), control: read('u32'), totals: write('f32') },
  uniforms: { classes: 'u32', stride: 'u32', rows_word: 'u32' },
  wgsl: /* wgsl */ `
@compute @workgroup_size(1)
fn main(@builtin(workgroup_id) wid: vec3u) {
  let rows = control[u.rows_word];
  var loss = totals[0];
  var right = totals[1];
  for (var row = 0u; row < rows; row += 1u) {
    loss += losses[row];
    var best = 0u;
    for (var c = 1u; c < u.classes; c += 1u) {
      if (load_logits(row * u.stride + c) > load_logits(row * u.stride + best)) { best = c; }
    }
    right += select(0.0, 1.0, best == labels[row]);
  }
  totals[0] = loss;
  totals[1] = right;
  totals[2] += f32(rows);
}`,
});
