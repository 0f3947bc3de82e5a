/** What the scores of trials look at beside the trials' mean losses: differences sample by sample, and the slope along the direction. */
import { builtins, defineKernel, linearIndex, nonFinite, read, write } from './contract.ts';
import { tree } from './fragments.ts';

/** √x to about one unit in the last place, as WGSL's own may be off by many. */
export const rootOf = /* wgsl */ `
fn root(x: f32) -> f32 {
  let guess = sqrt(x);
  return select(0.5 * (guess + x / guess), 0.0, guess == 0.0);
}`;

/** Whether trial t says nothing: its loss or one of its `words` coefficients is NaN or infinite. Reads `losses` and `coefficients`. */
export const isLost = (words: string): string => /* wgsl */ `
fn is_lost(t: u32) -> bool {
  for (var k = 0u; k < ${words}; k += 1u) {
    if (non_finite(coefficients[t * ${words} + k])) { return true; }
  }
  return non_finite(losses[t]);
}`;

/**
 * After a pass and before `nextPass`: the pass's losses of single samples, [trials of the pass][padded], go to those of all trials,
 * `stride` f32 a trial, from `column` on. state as in `nextPass`. One thread a sample.
 */
export const keepSamples = defineKernel({
  name: 'keepSamples',
  bindings: { window: read('f32'), state: read('u32'), samples: write('f32') },
  uniforms: { padded: 'u32', stride: 'u32', column: 'u32' },
  wgsl: /* wgsl */ `
@compute @workgroup_size(64)
fn main(${builtins}) {
  let i = ${linearIndex};
  let row = i / u.padded;
  if (row >= state[1]) { return; }
  samples[(state[0] + row) * u.stride + u.column + i % u.padded] = window[i];
}`,
});

/**
 * pairs[2t] = mean_j d_j, pairs[2t + 1] = √((Σ d_j² − (Σ d_j)²/J) / (J (J − 1))), d_j = samples[t][j] − samples[best][j]; NaN of a lost
 * trial. best: the first of those with the least loss. samples [n][batches · padded], of which the first `images` of each batch count, J in
 * all, J ≥ 2. One workgroup a trial, x = t; every sum in a fixed order. Differences are brought to at most 2 by a power of two, so that no
 * square leaves float32. Overwrites pairs (f32, by its bits).
 * The difference of squares costs digits of the standard error where the mean is many times as large (t ≫ √J); the mean may not be taken
 * off first, as a compiler may reorder (l − l_best) − mean, which loses what the difference was formed for.
 */
export const pairedDifferences = defineKernel({
  name: 'pairedDifferences',
  bindings: { samples: read('f32'), losses: read('f32'), coefficients: read('f32'), pairs: write('u32') },
  uniforms: { n: 'u32', words: 'u32', images: 'u32', padded: 'u32', batches: 'u32' },
  wgsl: /* wgsl */ `${nonFinite}${rootOf}${isLost('u.words')}
var<workgroup> parts: array<f32, 64>;
fn sum_of(thread: u32, grid: vec3u, value: f32) -> f32 {
  workgroupBarrier();
  parts[thread] = value;
  ${tree(32, 0, 'parts[thread] += parts[thread + apart];')}
  return parts[0];
}
fn largest_of(thread: u32, grid: vec3u, value: f32) -> f32 {
  workgroupBarrier();
  parts[thread] = value;
  ${tree(32, 0, 'parts[thread] = max(parts[thread], parts[thread + apart]);')}
  return parts[0];
}
fn sample_of(t: u32, j: u32) -> f32 {
  let batch = j / u.images;
  return samples[(t * u.batches + batch) * u.padded + j - batch * u.images];
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wid: vec3u, @builtin(local_invocation_index) thread: u32, @builtin(num_workgroups) grid: vec3u) {
  let t = wid.x;
  var best = u.n;
  for (var k = 0u; k < u.n; k += 1u) {
    if (is_lost(k)) { continue; }
    if (best == u.n) { best = k; }
    if (losses[k] < losses[best]) { best = k; }
  }
  let lost = is_lost(t);
  let other = select(best, t, lost);
  let count = u.images * u.batches;
  var most = 0.0;
  for (var j = thread; j < count; j += 64u) { most = max(most, abs(sample_of(t, j) - sample_of(other, j))); }
  let exponent = clamp((bitcast<u32>(largest_of(thread, grid, most)) >> 23u) & 255u, 1u, 253u);
  let unit = bitcast<f32>((254u - exponent) << 23u);
  var sum = 0.0;
  var squares = 0.0;
  for (var j = thread; j < count; j += 64u) {
    let d = (sample_of(t, j) - sample_of(other, j)) * unit;
    sum += d;
    squares += d * d;
  }
  sum = sum_of(thread, grid, sum);
  squares = sum_of(thread, grid, squares);
  if (thread != 0u) { return; }
  let number = f32(count);
  let variance = max(squares - sum * sum / number, 0.0) / (number * (number - 1.0));
  let scale = bitcast<f32>(exponent << 23u);
  pairs[2u * t] = select(bitcast<u32>(sum / number * scale), 0x7fc00000u, lost);
  pairs[2u * t + 1u] = select(bitcast<u32>(root(variance) * scale), 0x7fc00000u, lost);
}`,
});

/**
 * slope[0] = g·u, u = ofBuffer·b + ofGradient·(g + λ·w) the direction that SGD is about to make (`stepAsMove` in src/optim/sgd.ts), from
 * dots = [g·g, then g·b with momentum, then g·w with weight decay]. So the gradient need not outlive the direction that takes its place.
 */
export const directionSlope = defineKernel({
  name: 'directionSlope',
  bindings: { dots: read('f32'), first: read('u32'), slope: write('f32') },
  uniforms: { momentum: 'f32', dampening: 'f32', weight_decay: 'f32', nesterov: 'u32', first_word: 'u32' },
  wgsl: /* wgsl */ `
@compute @workgroup_size(1)
fn main() {
  let is_first = first[u.first_word] == 1u;
  let has_buffer = u.momentum > 0.0;
  var along = dots[0];
  if (u.weight_decay > 0.0) { along += u.weight_decay * dots[select(1u, 2u, has_buffer)]; }
  var damped = 1.0;
  if (has_buffer && !is_first) { damped = 1.0 - u.dampening; }
  var result = select(damped, 1.0 + u.momentum, u.nesterov == 1u) * along;
  if (has_buffer && !is_first) { result += select(u.momentum, u.momentum * u.momentum, u.nesterov == 1u) * dots[1]; }
  slope[0] = result;
}`,
});
