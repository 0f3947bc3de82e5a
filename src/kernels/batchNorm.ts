/**
 * Batch normalisation over all dimensions but the last. x: [rows, C] with C padded to vec4s (`c4`); z = trial.
 *
 * Statistics never use E[x²] − E[x]²: a thread walks the rows of one chunk in groups of 4, takes each group's mean and sum of squared deviations,
 * and merges them by Chan's formula; the finishing kernel merges the chunks the same way, always in the same order.
 */
import { builtins, defineKernel, linearIndex, read, readFloats, relu4, treeStart, write, writeFloats, type Binding } from './contract.ts';
import { formPerturbed, perturbedName, readCoefficients } from './perturbed.ts';

export const mergeMoments = /* wgsl */ `
struct Moments { n: f32, mean: vec4f, m2: vec4f }
/** Chan, Golub & LeVeque: the moments of two sets together. */
fn merge(a: Moments, b: Moments) -> Moments {
  let n = a.n + b.n;
  let ratio = select(0.0, b.n / n, n > 0.0);
  let delta = b.mean - a.mean;
  return Moments(n, a.mean + delta * ratio, a.m2 + b.m2 + delta * delta * (a.n * ratio));
}`;

/** What rides behind partial moments: nothing; weight and bias; those of trials along one direction. */
export type Carried = null | 'plain' | { readonly scaled: boolean };

const carriedBindings = (carried: Carried): Record<string, Binding> => {
  if (carried === null) return {};
  if (carried === 'plain') return { weight: read('vec4f'), bias: read('vec4f') };
  return { weight: read('vec4f'), d_weight: read('vec4f'), bias: read('vec4f'), d_bias: read('vec4f'), coefficients: read('f32') };
};

const carriedName = (carried: Carried): string => {
  if (carried === null) return '';
  return `_carrying${carried === 'plain' ? '' : perturbedName(1, carried.scaled)}`;
};

/** WGSL that writes weight and bias behind the moments at `out` of the first chunk. */
function carriedWgsl(carried: Carried): string {
  if (carried === null) return '';
  const { scaled = false } = carried === 'plain' ? {} : carried;
  const directions = carried === 'plain' ? 0 : 1;
  return `if (chunk == 0u) {
    let behind = out + 2u * u.chunks * u.c4;
    ${readCoefficients(directions, scaled, 'wid.z')}
    var own_weight = weight[wid.z * u.weight_stride + channel];
    ${formPerturbed(directions, scaled, 'own_weight', () => 'd_weight[channel]')}
    var own_bias = bias[wid.z * u.bias_stride + channel];
    ${formPerturbed(directions, scaled, 'own_bias', () => 'd_bias[channel]')}
    partials[behind] = own_weight;
    partials[behind + u.c4] = own_bias;
  }`;
}

/**
 * partials[t, chunk, 0 | 1, c] = mean | Σ(x − mean)² of the chunk's rows; for a kernel that merges them itself, weight and bias as two more
 * rows behind, so that it has bindings left.
 */
export const batchNormPartials = (carried: Carried) => defineKernel({
  name: `batchNormPartials${carriedName(carried)}`,
  bindings: { x: readFloats('vec4f'), ...carriedBindings(carried), partials: write('vec4f') } as Record<string, Binding>,
  uniforms: {
    rows: 'u32', c4: 'u32', rows_per_chunk: 'u32', chunks: 'u32', partials_stride: 'u32', x_stride: 'u32', weight_stride: 'u32', bias_stride: 'u32',
  },
  wgsl: /* wgsl */ `${mergeMoments}
@compute @workgroup_size(64)
fn main(${builtins}) {
  let i = ${linearIndex};
  if (i >= u.chunks * u.c4) { return; }
  let chunk = i / u.c4;
  let channel = i % u.c4;
  let first = chunk * u.rows_per_chunk;
  let end = min(first + u.rows_per_chunk, u.rows);
  let start = wid.z * u.x_stride + channel;
  var all = Moments(0.0, vec4f(), vec4f());
  var row = first;
  for (; row + 4u <= end; row += 4u) {
    let at = start + row * u.c4;
    let a = load_x(at); let b = load_x(at + u.c4); let c = load_x(at + 2u * u.c4); let d = load_x(at + 3u * u.c4);
    let mean = ((a + b) + (c + d)) * 0.25;
    let da = a - mean; let db = b - mean; let dc = c - mean; let dd = d - mean;
    all = merge(all, Moments(4.0, mean, (da * da + db * db) + (dc * dc + dd * dd)));
  }
  for (; row < end; row += 1u) { all = merge(all, Moments(1.0, load_x(start + row * u.c4), vec4f())); }
  let out = wid.z * u.partials_stride + 2u * chunk * u.c4 + channel;
  partials[out] = all.mean;
  partials[out + u.c4] = all.m2;
  ${carriedWgsl(carried)}
}`,
});

/** Merges the chunks of one (trial, vec4 of channels): a strided run a thread, then a tree over 64 threads. Result in `moments[0]`. */
const mergeChunks = /* wgsl */ `
var<workgroup> moments: array<Moments, 64>;
fn merge_chunks(trial: u32, channel: u32, thread: u32) {
  var all = Moments(0.0, vec4f(), vec4f());
  for (var chunk = thread; chunk < u.chunks; chunk += 64u) {
    let at = trial * u.partials_stride + 2u * chunk * u.c4 + channel;
    let n = f32(min(u.rows_per_chunk, u.rows - chunk * u.rows_per_chunk));
    all = merge(all, Moments(n, partials[at], partials[at + u.c4]));
  }
  moments[thread] = all;
  for (var half = ${treeStart('u.chunks')}; half > 0u; half /= 2u) {
    workgroupBarrier();
    if (thread < half) { moments[thread] = merge(moments[thread], moments[thread + half]); }
  }
}`;

const finishUniforms = { rows: 'u32', c4: 'u32', rows_per_chunk: 'u32', chunks: 'u32', partials_stride: 'u32', eps: 'f32' } as const;

/** One workgroup a (vec4 of channels, trial). affine[t] = mean | invStd·weight | bias | invStd, each [c4]; `variance` is the unbiased one. */
export const batchNormFinish = defineKernel({
  name: 'batchNormFinish',
  bindings: {
    partials: read('vec4f'), weight: read('vec4f'), bias: read('vec4f'),
    mean: write('vec4f'), inv_std: write('vec4f'), variance: write('vec4f'), affine: write('vec4f'),
  },
  uniforms: { ...finishUniforms, weight_stride: 'u32', bias_stride: 'u32' },
  wgsl: /* wgsl */ `${mergeMoments}${mergeChunks}
@compute @workgroup_size(64)
fn main(${builtins}) {
  let channel = wid.x;
  merge_chunks(wid.z, channel, lid.x);
  if (lid.x != 0u) { return; }
  let all = moments[0];
  let inv = 1.0 / sqrt(all.m2 / f32(u.rows) + u.eps);
  let at = wid.z * u.c4 + channel;
  mean[at] = all.mean;
  inv_std[at] = inv;
  variance[at] = all.m2 / max(f32(u.rows) - 1.0, 1.0);
  let out = wid.z * 4u * u.c4 + channel;
  affine[out] = all.mean;
  affine[out + u.c4] = inv * weight[wid.z * u.weight_stride + channel];
  affine[out + 2u * u.c4] = bias[wid.z * u.bias_stride + channel];
  affine[out + 3u * u.c4] = inv;
}`,
});

/** WGSL that writes scale and bias of the trial, its weight and bias formed from their directions; uses `inv`, `out` and `channel`. */
const perturbedAffine = (scaled: boolean): string => `${readCoefficients(1, scaled, 'wid.z')}
  var own_weight = weight[channel];
  ${formPerturbed(1, scaled, 'own_weight', () => 'd_weight[channel]')}
  var own_bias = bias[channel];
  ${formPerturbed(1, scaled, 'own_bias', () => 'd_bias[channel]')}
  affine[out + u.c4] = inv * own_weight;
  affine[out + 2u * u.c4] = own_bias;
  affine[out + 3u * u.c4] = inv;`;

const perturbedBindings = {
  weight: read('vec4f'), d_weight: read('vec4f'), bias: read('vec4f'), d_bias: read('vec4f'), coefficients: read('f32'), affine: write('vec4f'),
} as const;

/** As `batchNormFinish` for trials along one direction: the perturbed weight and bias are formed here; only `affine` is written. */
export const batchNormFinishPerturbed = (scaled: boolean) =>
  defineKernel({
    name: `batchNormFinish${perturbedName(1, scaled)}`,
    bindings: { partials: read('vec4f'), ...perturbedBindings },
    uniforms: finishUniforms,
    wgsl: /* wgsl */ `${mergeMoments}${mergeChunks}
@compute @workgroup_size(64)
fn main(${builtins}) {
  let channel = wid.x;
  merge_chunks(wid.z, channel, lid.x);
  if (lid.x != 0u) { return; }
  let all = moments[0];
  let inv = 1.0 / sqrt(all.m2 / f32(u.rows) + u.eps);
  let out = wid.z * 4u * u.c4 + channel;
  affine[out] = all.mean;
  ${perturbedAffine(scaled)}
}`,
  });

/** Inference: the same four vectors from the running statistics. */
export const batchNormFromRunning = defineKernel({
  name: 'batchNormFromRunning',
  bindings: {
    weight: read('vec4f'), bias: read('vec4f'), running_mean: read('vec4f'), running_var: read('vec4f'),
    mean: write('vec4f'), inv_std: write('vec4f'), affine: write('vec4f'),
  },
  uniforms: { c4: 'u32', eps: 'f32', weight_stride: 'u32', bias_stride: 'u32', mean_stride: 'u32', var_stride: 'u32' },
  wgsl: /* wgsl */ `
@compute @workgroup_size(64)
fn main(${builtins}) {
  let channel = ${linearIndex};
  if (channel >= u.c4) { return; }
  let inv = 1.0 / sqrt(running_var[wid.z * u.var_stride + channel] + u.eps);
  let center = running_mean[wid.z * u.mean_stride + channel];
  let at = wid.z * u.c4 + channel;
  mean[at] = center;
  inv_std[at] = inv;
  let out = wid.z * 4u * u.c4 + channel;
  affine[out] = center;
  affine[out + u.c4] = inv * weight[wid.z * u.weight_stride + channel];
  affine[out + 2u * u.c4] = bias[wid.z * u.bias_stride + channel];
  affine[out + 3u * u.c4] = inv;
}`,
});

/** As `batchNormFromRunning` for trials along one direction: the perturbed weight and bias are formed here; only `affine` is written. */
export const batchNormFromRunningPerturbed = (scaled: boolean) =>
  defineKernel({
    name: `batchNormFromRunning${perturbedName(1, scaled)}`,
    bindings: { running_mean: read('vec4f'), running_var: read('vec4f'), ...perturbedBindings },
    uniforms: { c4: 'u32', eps: 'f32', mean_stride: 'u32', var_stride: 'u32' },
    wgsl: /* wgsl */ `
@compute @workgroup_size(64)
fn main(${builtins}) {
  let channel = ${linearIndex};
  if (channel >= u.c4) { return; }
  let inv = 1.0 / sqrt(running_var[wid.z * u.var_stride + channel] + u.eps);
  let out = wid.z * 4u * u.c4 + channel;
  affine[out] = running_mean[wid.z * u.mean_stride + channel];
  ${perturbedAffine(scaled)}
}`,
  });

/** y = act((x − mean)·scale + bias [+ residual]); act is relu when `relu` = 1; NaN stays NaN. */
export const batchNormApply = (residual: boolean) =>
  defineKernel({
    name: residual ? 'batchNormApplyResidual' : 'batchNormApply',
    bindings: {
      x: readFloats('vec4f'), affine: read('vec4f'), ...(residual ? { residual: readFloats('vec4f') } : {}), y: writeFloats('vec4f'),
    } as Record<string, Binding>,
    uniforms: { n: 'u32', c4: 'u32', relu: 'u32', x_stride: 'u32', affine_stride: 'u32', residual_stride: 'u32' },
    wgsl: /* wgsl */ `${relu4}
@compute @workgroup_size(64)
fn main(${builtins}) {
  let i = ${linearIndex};
  if (i >= u.n) { return; }
  let at = wid.z * u.affine_stride + i % u.c4;
  var value = (load_x(wid.z * u.x_stride + i) - affine[at]) * affine[at + u.c4] + affine[at + 2u * u.c4];
  ${residual ? 'value += load_residual(wid.z * u.residual_stride + i);' : ''}
  store_y(wid.z * u.n + i, select(value, relu4(value), u.relu == 1u));
}`,
  });

/** How [y > 0] is known behind the activation: there is none; from y; or from x, by the affine map. */
export type MaskBy = 'none' | 'output' | 'affine';

export const maskBindings: Record<MaskBy, Record<string, Binding>> = { none: {}, output: { y: readFloats('vec4f') }, affine: { affine: read('vec4f') } };

/**
 * WGSL that masks `dz`, a vec4 of dy at `at`, where there is an activation; `value` is the vec4 of x, `channel` that of the trial `wid.z`.
 */
export const maskWgsl: Record<MaskBy, string> = {
  none: '',
  output: 'dz = select(vec4f(), dz, load_y(at) > vec4f());',
  affine: `let of_norm = wid.z * 4u * u.c4 + channel;
    dz = select(vec4f(), dz, (value - affine[of_norm]) * affine[of_norm + u.c4] + affine[of_norm + 2u * u.c4] > vec4f());`,
};

export const maskName: Record<MaskBy, string> = { none: '', output: '_masked', affine: '_maskedByX' };

/**
 * partials[t, chunk, 0 | 1, c] = Σ dz | Σ dz·x̂ over the chunk's rows; dz = dy·[y > 0]. For a kernel that adds them itself, `carries` mean,
 * invStd and weight as three more rows behind. Here and in what follows x and the weight may be one for all trials; all else has the trial
 * axis.
 */
export const batchNormBackwardPartials = (mask: MaskBy, carries: boolean) =>
  defineKernel({
    name: `batchNormBackwardPartials${maskName[mask]}${carries ? '_carrying' : ''}`,
    bindings: {
      dy: readFloats('vec4f'), x: readFloats('vec4f'), ...maskBindings[mask], mean: read('vec4f'), inv_std: read('vec4f'),
      ...(carries ? { weight: read('vec4f') } : {}), partials: write('vec4f'),
    } as Record<string, Binding>,
    uniforms: {
      rows: 'u32', c4: 'u32', rows_per_chunk: 'u32', chunks: 'u32', partials_stride: 'u32', x_stride: 'u32', weight_stride: 'u32',
    },
    wgsl: /* wgsl */ `
@compute @workgroup_size(64)
fn main(${builtins}) {
  let i = ${linearIndex};
  if (i >= u.chunks * u.c4) { return; }
  let chunk = i / u.c4;
  let channel = i % u.c4;
  let first = chunk * u.rows_per_chunk;
  let end = min(first + u.rows_per_chunk, u.rows);
  let m = mean[wid.z * u.c4 + channel];
  let inv = inv_std[wid.z * u.c4 + channel];
  var sum = vec4f();
  var dot = vec4f();
  for (var row = first; row < end; row += 1u) {
    let at = (wid.z * u.rows + row) * u.c4 + channel;
    let value = load_x(wid.z * u.x_stride + row * u.c4 + channel);
    var dz = load_dy(at);
    ${maskWgsl[mask]}
    sum += dz;
    dot += dz * ((value - m) * inv);
  }
  let out = wid.z * u.partials_stride + 2u * chunk * u.c4 + channel;
  partials[out] = sum;
  partials[out + u.c4] = dot;
  ${carries ? `if (chunk == 0u) {
    let behind = out + 2u * u.chunks * u.c4;
    partials[behind] = m;
    partials[behind + u.c4] = inv;
    partials[behind + 2u * u.c4] = weight[wid.z * u.weight_stride + channel];
  }` : ''}
}`,
  });

/**
 * dBias = Σ dz, dWeight = Σ dz·x̂: 64 strided sums, then a tree. One workgroup a (vec4 of channels, trial).
 * factors = mean | invStd | weight·invStd | Σdz·invRows | Σdz·x̂·invRows, each [c4], for `batchNormBackwardApply`; `inv_rows` is 0 in inference.
 */
export const batchNormBackwardFinish = defineKernel({
  name: 'batchNormBackwardFinish',
  bindings: {
    partials: read('vec4f'), mean: read('vec4f'), inv_std: read('vec4f'), weight: read('vec4f'),
    d_weight: write('vec4f'), d_bias: write('vec4f'), factors: write('vec4f'),
  },
  uniforms: { c4: 'u32', chunks: 'u32', partials_stride: 'u32', weight_stride: 'u32', inv_rows: 'f32' },
  wgsl: /* wgsl */ `
var<workgroup> sums: array<vec4f, 64>;
var<workgroup> dots: array<vec4f, 64>;
@compute @workgroup_size(64)
fn main(${builtins}) {
  let channel = wid.x;
  var sum = vec4f();
  var dot = vec4f();
  for (var chunk = lid.x; chunk < u.chunks; chunk += 64u) {
    let at = wid.z * u.partials_stride + 2u * chunk * u.c4 + channel;
    sum += partials[at];
    dot += partials[at + u.c4];
  }
  sums[lid.x] = sum;
  dots[lid.x] = dot;
  for (var half = ${treeStart('u.chunks')}; half > 0u; half /= 2u) {
    workgroupBarrier();
    if (lid.x < half) {
      sums[lid.x] += sums[lid.x + half];
      dots[lid.x] += dots[lid.x + half];
    }
  }
  if (lid.x != 0u) { return; }
  let own = wid.z * u.c4 + channel;
  d_bias[own] = sums[0];
  d_weight[own] = dots[0];
  let inv = inv_std[own];
  let out = wid.z * 5u * u.c4 + channel;
  factors[out] = mean[own];
  factors[out + u.c4] = inv;
  factors[out + 2u * u.c4] = weight[wid.z * u.weight_stride + channel] * inv;
  factors[out + 3u * u.c4] = sums[0] * u.inv_rows;
  factors[out + 4u * u.c4] = dots[0] * u.inv_rows;
}`,
});

/** dx = weight·invStd·(dz − [Σdz + x̂·Σdz·x̂]/rows) with the sums of `batchNormBackwardFinish`; also writes dz where a residual needs it. */
export const batchNormBackwardApply = (mask: MaskBy, residual: boolean) =>
  defineKernel({
    name: `batchNormBackwardApply${maskName[mask]}${residual ? '_residual' : ''}`,
    bindings: {
      dy: readFloats('vec4f'), x: readFloats('vec4f'), ...maskBindings[mask], factors: read('vec4f'),
      dx: writeFloats('vec4f'), ...(residual ? { dz: writeFloats('vec4f') } : {}),
    } as Record<string, Binding>,
    uniforms: { n: 'u32', c4: 'u32', x_stride: 'u32' },
    wgsl: /* wgsl */ `
@compute @workgroup_size(64)
fn main(${builtins}) {
  let i = ${linearIndex};
  if (i >= u.n) { return; }
  let channel = i % u.c4;
  let at = wid.z * u.n + i;
  let value = load_x(wid.z * u.x_stride + i);
  var dz = load_dy(at);
  ${maskWgsl[mask]}
  let first = wid.z * 5u * u.c4 + channel;
  let normalized = (value - factors[first]) * factors[first + u.c4];
  store_dx(at, factors[first + 2u * u.c4] * (dz - factors[first + 3u * u.c4] - normalized * factors[first + 4u * u.c4]));
  ${residual ? 'store_dz(at, dz);' : ''}
}`,
  });
