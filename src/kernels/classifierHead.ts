/**
 * The end of a classifier in one kernel: mean over each image, a linear layer, softmax cross-entropy, and the gradient of the logits.
 *   pooled[n, c] = mean over the image of x;  logits[n, m] = bias[m] + Σ_c pooled[n, c]·weight[c, m]
 *   losses[t, n] = −Σ_m q_m·log softmax(logits)_m;  dLogits = dLosses·(softmax(logits) − q), q as in `crossEntropy.ts`
 * x [T, N, plane, C], weight [C, M], labels u32 [N]; rows padded to vec4s (`c4`, `m4`). One workgroup an image and trial; every sum has a
 * fixed order. Overwrites all its outputs; losses 0 in the padding up to `padded`.
 */
import { defineKernel, read, readFloats, write, writeFloats, type Binding } from './contract.ts';
import { tree } from './fragments.ts';
import { directionNames, formPerturbed, perturbedName, readCoefficients } from './perturbed.ts';

/** Most channels and classes: what workgroup memory holds. */
export const mostHeadChannels = 2048;
export const mostHeadClasses = 1024;

export interface HeadVariant {
  /** Directions `d0`, … along which the weight of the workgroup's trial is formed. @default 0: it is bound as it is */
  readonly directions?: number;
  /** Trials scale what is formed. @default false */
  readonly scaled?: boolean;
  /** The bias is formed along `bias_d0`, by the same coefficients. @default false: it is bound as it is */
  readonly formsBias?: boolean;
  /** Writes pooled and dLogits too, of every trial; each has its own dLosses. @default false */
  readonly gradient?: boolean;
}

const gradientWgsl = /* wgsl */ `
  let slope = d_losses[wid.z * u.padded + image];
  for (var g = thread; g < u.m4; g += 64u) {
    var value = vec4f();
    for (var lane = 0u; lane < 4u; lane += 1u) {
      let m = 4u * g + lane;
      if (m < u.classes) {
        let target_ = u.smoothing / f32(u.classes) + select(0.0, 1.0 - u.smoothing, m == labels[image]);
        value[lane] = slope * (exp(logits[g][lane] - lse) - target_);
      }
    }
    store_d_logits((wid.z * u.images + image) * u.m4 + g, value);
  }
  for (var c = thread; c < u.c4; c += 64u) { store_pooled((wid.z * u.images + image) * u.c4 + c, means[c]); }`;

export function classifierHead({ directions = 0, scaled = false, formsBias = false, gradient = false }: HeadVariant = {}) {
  const names = directionNames(directions);
  const weightAt = (index: string) =>
    `var own_weight = weight[wid.z * u.weight_stride + ${index}]; ${formPerturbed(directions, scaled, 'own_weight', (k) => `${names[k]}[${index}]`)}`;
  const biasAt = (index: string) =>
    `var own_bias = bias[wid.z * u.bias_stride + ${index}]; ${formsBias ? formPerturbed(1, scaled, 'own_bias', () => `bias_d0[${index}]`) : ''}`;
  return defineKernel({
    name: `classifierHead${perturbedName(directions, scaled)}${formsBias ? '_bias' : ''}${gradient ? '_gradient' : ''}`,
    bindings: {
      x: readFloats('vec4f'), weight: read('vec4f'), ...Object.fromEntries(names.map((name) => [name, read('vec4f')])),
      ...(directions ? { coefficients: read('f32') } : {}), bias: read('vec4f'), ...(formsBias ? { bias_d0: read('vec4f') } : {}),
      labels: read('u32'), ...(gradient ? { d_losses: read('f32') } : {}), losses: write('f32'),
      ...(gradient ? { pooled: writeFloats('vec4f'), d_logits: writeFloats('vec4f') } : {}),
    } as Record<string, Binding>,
    uniforms: {
      images: 'u32', padded: 'u32', plane: 'u32', c: 'u32', c4: 'u32', classes: 'u32', m4: 'u32', x_stride: 'u32', weight_stride: 'u32', bias_stride: 'u32',
      smoothing: 'f32',
    },
    wgsl: /* wgsl */ `
var<workgroup> means: array<vec4f, ${mostHeadChannels / 4}>;
var<workgroup> logits: array<vec4f, ${mostHeadClasses / 4}>;
var<workgroup> parts: array<vec4f, 64>;
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wid: vec3u, @builtin(local_invocation_index) thread: u32, @builtin(num_workgroups) grid: vec3u) {
  let image = wid.x;
  ${readCoefficients(directions, scaled, 'wid.z')}
  for (var c = thread; c < u.c4; c += 64u) {
    let start = wid.z * u.x_stride + image * u.plane * u.c4 + c;
    var total = vec4f();
    for (var pixel = 0u; pixel < u.plane; pixel += 1u) { total += load_x(start + pixel * u.c4); }
    means[c] = total / f32(u.plane);
  }
  workgroupBarrier();
  for (var g = 0u; g < u.m4; g += 1u) {
    var total = vec4f();
    for (var c = thread; c < u.c; c += 64u) {
      ${weightAt('c * u.m4 + g')}
      total += means[c / 4u][c % 4u] * own_weight;
    }
    parts[thread] = total;
    ${tree(32, 0, 'parts[thread] += parts[thread + apart];')}
    if (thread == 0u) {
      ${biasAt('g')}
      logits[g] = parts[0] + own_bias;
    }
    workgroupBarrier();
  }
  var largest = logits[0].x;
  for (var m = 1u; m < u.classes; m += 1u) { largest = max(largest, logits[m / 4u][m % 4u]); }
  var total = 0.0;
  for (var m = 0u; m < u.classes; m += 1u) { total += exp(logits[m / 4u][m % 4u] - largest); }
  let lse = largest + log(total);
  ${gradient ? gradientWgsl : ''}
  if (thread != 0u) { return; }
  let label = labels[image];
  var loss = (1.0 - u.smoothing) * (lse - logits[label / 4u][label % 4u]);
  if (u.smoothing > 0.0) {
    var rest = 0.0;
    for (var m = 0u; m < u.classes; m += 1u) { rest += lse - logits[m / 4u][m % 4u]; }
    loss += u.smoothing * rest / f32(u.classes);
  }
  losses[wid.z * u.padded + image] = loss;
  if (image + 1u == u.images) {
    for (var row = u.images; row < u.padded; row += 1u) { losses[wid.z * u.padded + row] = 0.0; }
  }
}`,
  });
}
