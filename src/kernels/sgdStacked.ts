/**
 * SGD of several models side by side over one flat memory: what `sgd.ts` has, for models that each have a learning rate, a first step and
 * divergence flags of their own. A model with a flag stays as it is, momentum and statistics too; the others go on.
 *
 * Which model a vec4 of the memory belongs to is told by `owners`, a byte a vec4. settings[m] = (learning rate, 1 before the model's first
 * step); flags[m] are its divergence bits. Models of one launch begin at `first_model` of both. `n` counts vec4s of all models; z is
 * unused.
 */
import { builtins, defineKernel, linearIndex, nonFinite, read, write, type Binding, type UniformType } from './contract.ts';
import { flagNonFiniteDirection, flagNonFiniteLoss, flagNonFiniteWeight } from './sgd.ts';

/** Most models of one launch: what a byte can tell apart. */
export const mostOwners = 256;

const ownerOf = /* wgsl */ `
fn model_of(i: u32) -> u32 { return u.first_model + ((owners[i / 4u] >> (8u * (i % 4u))) & 0xffu); }`;

/** Sets `bit` of a model when any element of its x is Inf or NaN. */
export const checkFiniteStacked = defineKernel({
  name: 'checkFiniteStacked',
  bindings: { x: read('vec4f'), owners: read('u32'), flags: write('atomic<u32>') },
  uniforms: { n: 'u32', first_model: 'u32', bit: 'u32' },
  wgsl: /* wgsl */ `${nonFinite}${ownerOf}
@compute @workgroup_size(64)
fn main(${builtins}) {
  let i = ${linearIndex};
  if (i < u.n && non_finite4(x[i])) { atomicOr(&flags[model_of(i)], u.bit); }
}`,
});

const stepUniforms = (momentum: boolean): Record<string, UniformType> => ({
  n: 'u32', first_model: 'u32', weight_decay: 'f32', ...(momentum ? { momentum: 'f32', dampening: 'f32', nesterov: 'u32' } : {}),
});
const bufferBinding = (momentum: boolean, binding: Binding): Record<string, Binding> => (momentum ? { buffer: binding } : {});

/**
 * WGSL that sets `kept`, the next buffer, and `direction`:   g = ∇L + λ·w;  kept = g at first, then μ·buffer + (1 − dampening)·g;
 * direction = kept, or g + μ·kept with nesterov, or g without momentum
 */
const directionWgsl = (momentum: boolean): string => /* wgsl */ `let setting = settings[model];
  let g = gradient[i] + u.weight_decay * weight[i];
  ${momentum
    ? `let kept = select(u.momentum * buffer[i] + (1.0 - u.dampening) * g, g, setting.y == 1.0);
  let direction = select(kept, g + u.momentum * kept, u.nesterov == 1u);`
    : 'let direction = g;'}`;

/** Sets a model's flags when any of its gradients is Inf or NaN, or any weight of w − lr·direction would be. */
export const sgdCheckStacked = (momentum: boolean) => defineKernel({
  name: `sgdCheckStacked${momentum ? '_momentum' : ''}`,
  bindings: {
    gradient: read('vec4f'), weight: read('vec4f'), ...bufferBinding(momentum, read('vec4f')), settings: read('vec4f'), owners: read('u32'),
    flags: write('atomic<u32>'),
  } as Record<string, Binding>,
  uniforms: stepUniforms(momentum),
  wgsl: /* wgsl */ `${nonFinite}${ownerOf}
@compute @workgroup_size(64)
fn main(${builtins}) {
  let i = ${linearIndex};
  if (i >= u.n) { return; }
  let model = model_of(i);
  ${directionWgsl(momentum)}
  if (non_finite4(gradient[i])) { atomicOr(&flags[model], ${flagNonFiniteDirection}u); }
  if (non_finite4(weight[i] - setting.x * direction)) { atomicOr(&flags[model], ${flagNonFiniteWeight}u); }
}`,
});

/** w ← w − lr·direction, buffer ← kept, of models without a flag. Runs after `sgdCheckStacked` has seen all their weights. */
export const sgdStepStacked = (momentum: boolean) => defineKernel({
  name: `sgdStepStacked${momentum ? '_momentum' : ''}`,
  bindings: {
    gradient: read('vec4f'), settings: read('vec4f'), owners: read('u32'), flags: read('u32'), weight: write('vec4f'),
    ...bufferBinding(momentum, write('vec4f')),
  } as Record<string, Binding>,
  uniforms: stepUniforms(momentum),
  wgsl: /* wgsl */ `${ownerOf}
@compute @workgroup_size(64)
fn main(${builtins}) {
  let i = ${linearIndex};
  if (i >= u.n) { return; }
  let model = model_of(i);
  if (flags[model] != 0u) { return; }
  ${directionWgsl(momentum)}
  weight[i] -= setting.x * direction;
  ${momentum ? 'buffer[i] = kept;' : ''}
}`,
});

/** running ← (1 − momentum)·running + momentum·batch, of models without a flag. */
export const updateRunningStacked = defineKernel({
  name: 'updateRunningStacked',
  bindings: { batch: read('vec4f'), owners: read('u32'), flags: read('u32'), running: write('vec4f') },
  uniforms: { n: 'u32', first_model: 'u32', momentum: 'f32' },
  wgsl: /* wgsl */ `${ownerOf}
@compute @workgroup_size(64)
fn main(${builtins}) {
  let i = ${linearIndex};
  if (i >= u.n || flags[model_of(i)] != 0u) { return; }
  running[i] = (1.0 - u.momentum) * running[i] + u.momentum * batch[i];
}`,
});

/** Sets the flag of each of `n` models whose loss, the first number of its vec4, is Inf or NaN. One workgroup. */
export const checkLossStacked = defineKernel({
  name: 'checkLossStacked',
  bindings: { loss: read('vec4f'), flags: write('u32') },
  uniforms: { n: 'u32', first_model: 'u32' },
  wgsl: /* wgsl */ `${nonFinite}
@compute @workgroup_size(64)
fn main(@builtin(local_invocation_index) thread: u32) {
  for (var i = thread; i < u.n; i += 64u) {
    if (non_finite(loss[i].x)) { flags[u.first_model + i] |= ${flagNonFiniteLoss}u; }
  }
}`,
});

/** log[slot][m] = (loss, flags, learning rate, 0) of each of `n` models, slot = control[slot_word], lines of `models`. One workgroup. */
export const logStepStacked = defineKernel({
  name: 'logStepStacked',
  bindings: { loss: read('vec4f'), flags: read('u32'), settings: read('vec4f'), control: read('u32'), log: write('vec4f') },
  uniforms: { n: 'u32', first_model: 'u32', models: 'u32', slot_word: 'u32' },
  wgsl: /* wgsl */ `
@compute @workgroup_size(64)
fn main(@builtin(local_invocation_index) thread: u32) {
  for (var i = thread; i < u.n; i += 64u) {
    let model = u.first_model + i;
    log[control[u.slot_word] * u.models + model] = vec4f(loss[i].x, f32(flags[model]), settings[model].x, 0.0);
  }
}`,
});
