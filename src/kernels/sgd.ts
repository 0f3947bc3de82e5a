/**
 * SGD over the flat parameter memory, PyTorch's semantics: first the direction, then the step, so that trials can look along the direction
 * in between. z is unused; `n` counts vec4s. `flags[0]` ≠ 0 (a non-finite loss, gradient or weight was seen) stops both: the last good state stays.
 */
import { builtins, defineKernel, linearIndex, nonFinite, read, write } from './contract.ts';

export const flagNonFiniteLoss = 1;
export const flagNonFiniteDirection = 2;
export const flagNonFiniteWeight = 4;
export const flagNonFiniteStatistics = 8;
/** In the step log alone: gradients overflowed, so nothing was made and the loss scale went down. */
export const flagSkipped = 16;

/** Uniforms that `directionOf` reads. */
export const directionUniforms = { momentum: 'f32', weight_decay: 'f32', first_word: 'u32' } as const;

/** WGSL of μ·buffer + (gradient + λ·weight), on the first step without the buffer, given that of its terms; reads `control` and `u`. */
export const directionOf = ({ gradient, weight, buffer }: Record<'gradient' | 'weight' | 'buffer', string>): string =>
  `select(u.momentum, 0.0, control[u.first_word] == 1u) * ${buffer} + (${gradient} + u.weight_decay * ${weight})`;

const directionWgsl = (target: 'direction' | 'gradient'): string => /* wgsl */ `
@compute @workgroup_size(64)
fn main(${builtins}) {
  let i = ${linearIndex};
  if (i < u.n) { ${target}[i] = ${directionOf({ gradient: 'gradient[i]', weight: 'weight[i]', buffer: 'buffer[i]' })}; }
}`;

/**
 * direction = momentum·buffer + (gradient + weightDecay·weight), to where the gradient is not: the buffer stays as it is until the step is
 * made, by `sgdStepKeeping`.
 */
export const sgdDirection = defineKernel({
  name: 'sgdDirection',
  bindings: { gradient: read('vec4f'), weight: read('vec4f'), buffer: read('vec4f'), control: read('u32'), direction: write('vec4f') },
  uniforms: { n: 'u32', ...directionUniforms },
  wgsl: directionWgsl('direction'),
});

/** As `sgdDirection`, in the gradient's place. */
export const sgdDirectionInPlace = defineKernel({
  name: 'sgdDirectionInPlace',
  bindings: { weight: read('vec4f'), buffer: read('vec4f'), control: read('u32'), gradient: write('vec4f') },
  uniforms: { n: 'u32', ...directionUniforms },
  wgsl: directionWgsl('gradient'),
});

const momentumWgsl = (momentum: string, weightDecay: string): string => /* wgsl */ `
@compute @workgroup_size(64)
fn main(${builtins}) {
  let i = ${linearIndex};
  if (i >= u.n || flags[0] != 0u) { return; }
  let g = gradient[i] + ${weightDecay} * weight[i];
  let kept = select(${momentum} * buffer[i] + (1.0 - u.dampening) * g, g, control[u.first_word] == 1u);
  buffer[i] = kept;
  if (u.nesterov == 1u) { gradient[i] = g + ${momentum} * kept; }
}`;

const decayWgsl = (weightDecay: string): string => /* wgsl */ `
@compute @workgroup_size(64)
fn main(${builtins}) {
  let i = ${linearIndex};
  if (i >= u.n || flags[0] != 0u) { return; }
  gradient[i] += ${weightDecay} * weight[i];
}`;

/**
 * g ← gradient + weightDecay·w;  buffer ← g on the first step, else momentum·buffer + (1 − dampening)·g;
 * the direction is `buffer`, or g + momentum·buffer with nesterov, left in the gradient's memory.
 * Runs after `checkFinite` has set the flags.
 */
export const sgdMomentum = defineKernel({
  name: 'sgdMomentum',
  bindings: { weight: read('vec4f'), control: read('u32'), flags: read('u32'), gradient: write('vec4f'), buffer: write('vec4f') },
  uniforms: { n: 'u32', momentum: 'f32', dampening: 'f32', weight_decay: 'f32', nesterov: 'u32', first_word: 'u32' },
  wgsl: momentumWgsl('u.momentum', 'u.weight_decay'),
});

/** As `sgdMomentum`, with momentum = rates[2] and weightDecay = rates[3], which trials have found. */
export const sgdMomentumTried = defineKernel({
  name: 'sgdMomentumTried',
  bindings: {
    weight: read('vec4f'), control: read('u32'), flags: read('u32'), rates: read('f32'), gradient: write('vec4f'), buffer: write('vec4f'),
  },
  uniforms: { n: 'u32', dampening: 'f32', nesterov: 'u32', first_word: 'u32' },
  wgsl: momentumWgsl('rates[2]', 'rates[3]'),
});

/** gradient ← gradient + weightDecay·w: the direction of SGD without momentum. */
export const sgdDecay = defineKernel({
  name: 'sgdDecay',
  bindings: { weight: read('vec4f'), flags: read('u32'), gradient: write('vec4f') },
  uniforms: { n: 'u32', weight_decay: 'f32' },
  wgsl: decayWgsl('u.weight_decay'),
});

/** As `sgdDecay`, with weightDecay = rates[3]. */
export const sgdDecayTried = defineKernel({
  name: 'sgdDecayTried',
  bindings: { weight: read('vec4f'), flags: read('u32'), rates: read('f32'), gradient: write('vec4f') },
  uniforms: { n: 'u32' },
  wgsl: decayWgsl('rates[3]'),
});

/** Sets `bit` in the flags when any element of x is Inf or NaN. Which thread comes first makes no difference. */
export const checkFinite = defineKernel({
  name: 'checkFinite',
  bindings: { x: read('vec4f'), flags: write('atomic<u32>') },
  uniforms: { n: 'u32', bit: 'u32' },
  wgsl: /* wgsl */ `${nonFinite}
@compute @workgroup_size(64)
fn main(${builtins}) {
  let i = ${linearIndex};
  if (i < u.n && non_finite4(x[i])) { atomicOr(&flags[0], u.bit); }
}`,
});

/**
 * x ← x / S: gradients of S times the loss, exactly, as S is a power of two (but for what leaves float32's normal numbers). Before that as
 * `checkFinite`. scale = S, 1/S.
 */
export const unscale = defineKernel({
  name: 'unscale',
  bindings: { scale: read('f32'), flags: write('atomic<u32>'), x: write('vec4f') },
  uniforms: { n: 'u32', bit: 'u32' },
  wgsl: /* wgsl */ `${nonFinite}
@compute @workgroup_size(64)
fn main(${builtins}) {
  let i = ${linearIndex};
  if (i >= u.n) { return; }
  let value = x[i];
  if (non_finite4(value)) { atomicOr(&flags[0], u.bit); }
  x[i] = value * scale[1];
}`,
});

/** Sets a flag when any weight of w − lr·direction would be Inf or NaN: the step after it is made by all weights or by none. */
export const sgdCheck = defineKernel({
  name: 'sgdCheck',
  bindings: { direction: read('vec4f'), rates: read('f32'), weight: read('vec4f'), flags: write('atomic<u32>') },
  uniforms: { n: 'u32' },
  wgsl: /* wgsl */ `${nonFinite}
@compute @workgroup_size(64)
fn main(${builtins}) {
  let i = ${linearIndex};
  if (i < u.n && non_finite4(weight[i] - rates[0] * direction[i])) { atomicOr(&flags[0], ${flagNonFiniteWeight}u); }
}`,
});

/** w ← w − lr·direction, lr = rates[0]. Runs after `sgdCheck` has seen all weights. */
export const sgdStep = defineKernel({
  name: 'sgdStep',
  bindings: { direction: read('vec4f'), rates: read('f32'), flags: read('u32'), weight: write('vec4f') },
  uniforms: { n: 'u32' },
  wgsl: /* wgsl */ `
@compute @workgroup_size(64)
fn main(${builtins}) {
  let i = ${linearIndex};
  if (i >= u.n || flags[0] != 0u) { return; }
  weight[i] -= rates[0] * direction[i];
}`,
});

/** As `sgdStep`, and buffer ← direction: for directions that were made without touching the buffer. */
export const sgdStepKeeping = defineKernel({
  name: 'sgdStepKeeping',
  bindings: { direction: read('vec4f'), rates: read('f32'), flags: read('u32'), weight: write('vec4f'), buffer: write('vec4f') },
  uniforms: { n: 'u32' },
  wgsl: /* wgsl */ `
@compute @workgroup_size(64)
fn main(${builtins}) {
  let i = ${linearIndex};
  if (i >= u.n || flags[0] != 0u) { return; }
  let moved = direction[i];
  weight[i] -= rates[0] * moved;
  buffer[i] = moved;
}`,
});

/** running ← (1 − momentum)·running + momentum·batch, over all running statistics at once; nothing when a flag is set. */
export const updateRunning = defineKernel({
  name: 'updateRunning',
  bindings: { batch: read('vec4f'), flags: read('u32'), running: write('vec4f') },
  uniforms: { n: 'u32', momentum: 'f32' },
  wgsl: /* wgsl */ `
@compute @workgroup_size(64)
fn main(${builtins}) {
  let i = ${linearIndex};
  if (i >= u.n || flags[0] != 0u) { return; }
  running[i] = (1.0 - u.momentum) * running[i] + u.momentum * batch[i];
}`,
});

/** Words of a line of the step log: loss, flags, learning rate, loss scale (0 without one). */
export const logWords = 4;

/** log[slot] = (loss, flags, rates[0]), slot = control[slot_word]: the host reads the log later, many steps at a time. */
export const logStep = defineKernel({
  name: 'logStep',
  bindings: { loss: read('f32'), flags: read('u32'), rates: read('f32'), control: read('u32'), log: write('vec4f') },
  uniforms: { slot_word: 'u32' },
  wgsl: /* wgsl */ `
@compute @workgroup_size(1)
fn main() { log[control[u.slot_word]] = vec4f(loss[0], f32(flags[0]), rates[0], 0.0); }`,
});

/**
 * As `logStep`, of a step with its loss scaled by S = scale[0], and what becomes of S:
 *   gradients not finite, loss and statistics finite, S > 1:  the flags are taken back, as nothing was made (`flagSkipped` in the log);  S ← S / 2
 *   no flag:  state[0] = 0: the next step is not the optimizer's first;  S ← 2·S after `growth_interval` such steps in a row, up to 2^126
 *   else  the run has diverged: all stays
 * scale = S, 1/S (exact: powers of two); state = 1 before the first step that was made, steps made since S changed, steps skipped. PyTorch's
 * `GradScaler`, but for S ≥ 1.
 */
export const logScaledStep = defineKernel({
  name: 'logScaledStep',
  bindings: {
    loss: read('f32'), rates: read('f32'), control: read('u32'), flags: write('u32'), scale: write('f32'), state: write('u32'), log: write('vec4f'),
  },
  uniforms: { slot_word: 'u32', growth_interval: 'u32' },
  wgsl: /* wgsl */ `
fn multiply(up: f32, down: f32) {
  scale[0] *= up;
  scale[1] *= down;
  state[1] = 0u;
}
@compute @workgroup_size(1)
fn main() {
  let is_lost = (flags[0] & ${flagNonFiniteLoss | flagNonFiniteStatistics}u) != 0u;
  let skipped = (flags[0] & ${flagNonFiniteDirection}u) != 0u && !is_lost && scale[0] > 1.0;
  log[control[u.slot_word]] = vec4f(loss[0], f32(select(flags[0], ${flagSkipped}u, skipped)), rates[0], scale[0]);
  if (skipped) {
    flags[0] = 0u;
    state[2] += 1u;
    multiply(0.5, 2.0);
  } else if (flags[0] == 0u) {
    state[0] = 0u;
    state[1] += 1u;
    if (state[1] >= u.growth_interval && scale[0] < ${2 ** 126}f) { multiply(2.0, 0.5); }
  }
}`,
});
