/**
 * Batch normalisation in two launches each way, where chunks are so few that each workgroup can merge those of its channels itself: the
 * partial sums of `batchNorm.ts`, then a kernel that merges and applies. A workgroup has 4 vec4s of channels and a range of rows: thread =
 * slot · 4 + channel, 16 slots. x = range of rows, y = 4 channel vec4s, z = trial. Saves a launch each way over finishing apart.
 */
import { mergeMoments, maskBindings, maskName, maskWgsl, type MaskBy } from './batchNorm.ts';
import { defineKernel, read, readFloats, relu4, write, writeFloats, type Binding } from './contract.ts';
import { tree } from './fragments.ts';

/** Most chunks that each workgroup merges. */
export const mostMergedChunks = 128;

const where = /* wgsl */ `let channel = wid.y * 4u + thread % 4u;
  let slot = thread / 4u;
  let is_channel = channel < u.c4;`;

/** WGSL of a tree over the 16 slots of each channel. */
const overSlots = (add: string): string => tree(32, 2, add);

const entry = `@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wid: vec3u, @builtin(local_invocation_index) thread: u32, @builtin(num_workgroups) grid: vec3u)`;

/** y = act((x − mean)·invStd·weight + bias [+ residual]); mean, invStd and the unbiased variance [c4]. act is relu when `relu` = 1; NaN stays NaN. */
export const batchNormMergeApply = (residual: boolean) =>
  defineKernel({
    name: `batchNormMergeApply${residual ? 'Residual' : ''}`,
    bindings: {
      x: readFloats('vec4f'), partials: read('vec4f'), ...(residual ? { residual: readFloats('vec4f') } : {}),
      mean: write('vec4f'), inv_std: write('vec4f'), variance: write('vec4f'), y: writeFloats('vec4f'),
    } as Record<string, Binding>,
    uniforms: {
      rows: 'u32', c4: 'u32', rows_per_chunk: 'u32', chunks: 'u32', partials_stride: 'u32', x_stride: 'u32', residual_stride: 'u32',
      rows_per_group: 'u32', relu: 'u32', eps: 'f32',
    },
    wgsl: /* wgsl */ `${mergeMoments}${relu4}
var<workgroup> moments: array<Moments, 64>;
${entry} {
  ${where}
  let start = wid.z * u.partials_stride + channel;
  var own = Moments(0.0, vec4f(), vec4f());
  for (var chunk = slot; is_channel && chunk < u.chunks; chunk += 16u) {
    let at = start + 2u * chunk * u.c4;
    own = merge(own, Moments(f32(min(u.rows_per_chunk, u.rows - chunk * u.rows_per_chunk)), partials[at], partials[at + u.c4]));
  }
  moments[thread] = own;
  ${overSlots('moments[thread] = merge(moments[thread], moments[thread + apart]);')}
  if (!is_channel) { return; }
  let all = moments[thread % 4u];
  let inv = 1.0 / sqrt(all.m2 / f32(u.rows) + u.eps);
  let behind = start + 2u * u.chunks * u.c4;
  let factor = inv * partials[behind];
  let shift = partials[behind + u.c4];
  if (wid.x == 0u && slot == 0u) {
    let at = wid.z * u.c4 + channel;
    mean[at] = all.mean;
    inv_std[at] = inv;
    variance[at] = all.m2 / max(f32(u.rows) - 1.0, 1.0);
  }
  let end = min((wid.x + 1u) * u.rows_per_group, u.rows);
  for (var row = wid.x * u.rows_per_group + slot; row < end; row += 16u) {
    let at = row * u.c4 + channel;
    var value = (load_x(wid.z * u.x_stride + at) - all.mean) * factor + shift;
    ${residual ? 'value += load_residual(wid.z * u.residual_stride + at);' : ''}
    store_y(wid.z * u.rows * u.c4 + at, select(value, relu4(value), u.relu == 1u));
  }
}`,
  });

/**
 * dx = weight·invStd·(dz − [Σdz + x̂·Σdz·x̂]·invRows), dWeight = Σ dz·x̂, dBias = Σ dz, and dz itself where a residual needs it; `inv_rows` is 0
 * in inference.
 */
export const batchNormBackwardMergeApply = (mask: MaskBy, residual: boolean) =>
  defineKernel({
    name: `batchNormBackwardMergeApply${maskName[mask]}${residual ? '_residual' : ''}`,
    bindings: {
      dy: readFloats('vec4f'), x: readFloats('vec4f'), ...maskBindings[mask], partials: read('vec4f'),
      d_weight: write('vec4f'), d_bias: write('vec4f'), dx: writeFloats('vec4f'), ...(residual ? { dz: writeFloats('vec4f') } : {}),
    } as Record<string, Binding>,
    uniforms: { rows: 'u32', c4: 'u32', chunks: 'u32', partials_stride: 'u32', x_stride: 'u32', rows_per_group: 'u32', inv_rows: 'f32' },
    wgsl: /* wgsl */ `
var<workgroup> sums: array<vec4f, 64>;
var<workgroup> dots: array<vec4f, 64>;
${entry} {
  ${where}
  var own_sum = vec4f();
  var own_dot = vec4f();
  let start = wid.z * u.partials_stride + channel;
  for (var chunk = slot; is_channel && chunk < u.chunks; chunk += 16u) {
    let at = start + 2u * chunk * u.c4;
    own_sum += partials[at];
    own_dot += partials[at + u.c4];
  }
  sums[thread] = own_sum;
  dots[thread] = own_dot;
  ${overSlots('sums[thread] += sums[thread + apart]; dots[thread] += dots[thread + apart];')}
  if (!is_channel) { return; }
  let sum = sums[thread % 4u];
  let dot = dots[thread % 4u];
  if (wid.x == 0u && slot == 0u) {
    let own = wid.z * u.c4 + channel;
    d_bias[own] = sum;
    d_weight[own] = dot;
  }
  let behind = start + 2u * u.chunks * u.c4;
  let center = partials[behind];
  let inv = partials[behind + u.c4];
  let factor = partials[behind + 2u * u.c4] * inv;
  let end = min((wid.x + 1u) * u.rows_per_group, u.rows);
  for (var row = wid.x * u.rows_per_group + slot; row < end; row += 16u) {
    let at = (wid.z * u.rows + row) * u.c4 + channel;
    let value = load_x(wid.z * u.x_stride + row * u.c4 + channel);
    var dz = load_dy(at);
    ${maskWgsl[mask]}
    let normalized = (value - center) * inv;
    store_dx(at, factor * (dz - sum * u.inv_rows - normalized * (dot * u.inv_rows)));
    ${residual ? 'store_dz(at, dz);' : ''}
  }
}`,
  });
