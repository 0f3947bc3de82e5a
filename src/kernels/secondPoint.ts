/**
 * Flat memory of a second point beside the weights: averages, Schedule-Free's z, and what changes places with the weights for an
 * evaluation.
 */
import { builtins, defineKernel, linearIndex, nonFinite, read, write } from './contract.ts';
import { flagNonFiniteWeight } from './sgd.ts';

/**
 * average ← (1 − w)·average + w·value, w = record[share_word]; with w = 1 value, whatever the average held. Nothing when a flag is set. n
 * vec4s.
 */
export const averageStep = defineKernel({
  name: 'averageStep',
  bindings: { value: read('vec4f'), record: read('f32'), flags: read('u32'), average: write('vec4f') },
  uniforms: { n: 'u32', share_word: 'u32' },
  wgsl: /* wgsl */ `
@compute @workgroup_size(64)
fn main(${builtins}) {
  let i = ${linearIndex};
  if (i >= u.n || flags[0] != 0u) { return; }
  let share = record[u.share_word];
  average[i] = select((1.0 - share) * average[i] + share * value[i], value[i], share == 1.0);
}`,
});

/** kept ← value; nothing when a flag is set. n vec4s. */
export const keepStep = defineKernel({
  name: 'keepStep',
  bindings: { value: read('vec4f'), flags: read('u32'), kept: write('vec4f') },
  uniforms: { n: 'u32' },
  wgsl: /* wgsl */ `
@compute @workgroup_size(64)
fn main(${builtins}) {
  let i = ${linearIndex};
  if (i < u.n && flags[0] == 0u) { kept[i] = value[i]; }
}`,
});

/** a and b change places, bit for bit. n vec4s. */
export const exchange = defineKernel({
  name: 'exchange',
  bindings: { a: write('vec4u'), b: write('vec4u') },
  uniforms: { n: 'u32' },
  wgsl: /* wgsl */ `
@compute @workgroup_size(64)
fn main(${builtins}) {
  let i = ${linearIndex};
  if (i >= u.n) { return; }
  let before = a[i];
  a[i] = b[i];
  b[i] = before;
}`,
});

/**
 * What the step makes of y and z: y' = y + c·(z − y) − η·(1 − β·(1 − c))·d,  z' = z − η·d: x' = (1 − c)·x + c·z', y' = (1 − β)·z' + β·x'.
 */
const freeStep = /* wgsl */ `
fn next_weight(i: u32) -> vec4f {
  let share = record[u.share_word];
  return weight[i] + share * (z[i] - weight[i]) - rates[0] * (1.0 - u.beta * (1.0 - share)) * direction[i];
}
fn next_z(i: u32) -> vec4f { return z[i] - rates[0] * direction[i]; }`;

const freeUniforms = { n: 'u32', beta: 'f32', share_word: 'u32' } as const;

/** Sets a flag when a weight or z of the step would be Inf or NaN, as `sgdCheck` does. */
export const scheduleFreeCheck = defineKernel({
  name: 'scheduleFreeCheck',
  bindings: {
    direction: read('vec4f'), rates: read('f32'), record: read('f32'), weight: read('vec4f'), z: read('vec4f'), flags: write('atomic<u32>'),
  },
  uniforms: freeUniforms,
  wgsl: /* wgsl */ `${nonFinite}${freeStep}
@compute @workgroup_size(64)
fn main(${builtins}) {
  let i = ${linearIndex};
  if (i < u.n && (non_finite4(next_weight(i)) || non_finite4(next_z(i)))) { atomicOr(&flags[0], ${flagNonFiniteWeight}u); }
}`,
});

/**
 * weight (y) and z of Schedule-Free SGD move along the direction at η = rates[0], c = record[share_word]. Runs after `scheduleFreeCheck`.
 */
export const scheduleFreeStep = defineKernel({
  name: 'scheduleFreeStep',
  bindings: {
    direction: read('vec4f'), rates: read('f32'), record: read('f32'), flags: read('u32'), weight: write('vec4f'), z: write('vec4f'),
  },
  uniforms: freeUniforms,
  wgsl: /* wgsl */ `${freeStep}
@compute @workgroup_size(64)
fn main(${builtins}) {
  let i = ${linearIndex};
  if (i >= u.n || flags[0] != 0u) { return; }
  let moved = next_weight(i);
  z[i] = next_z(i);
  weight[i] = moved;
}`,
});

/** x = z + (y − z)/β, where Schedule-Free SGD is evaluated, y being the weights. n vec4s. */
export const scheduleFreePoint = defineKernel({
  name: 'scheduleFreePoint',
  bindings: { weight: read('vec4f'), z: read('vec4f'), x: write('vec4f') },
  uniforms: { n: 'u32', beta: 'f32' },
  wgsl: /* wgsl */ `
@compute @workgroup_size(64)
fn main(${builtins}) {
  let i = ${linearIndex};
  if (i < u.n) { x[i] = z[i] + (weight[i] - z[i]) / u.beta; }
}`,
});
