/** What an adapter can do at most, as a kernel of this engine sees it: yardsticks for profiles. Training runs neither. */
import { builtins, defineKernel, linearIndex, read, write } from './contract.ts';

const chains = 4;
const stepsPerRound = 8;

/** Floating-point operations of one thread of `fmaPeak` in one round. */
export const fmaPeakFlops = 2 * 4 * chains * stepsPerRound;

const eachChain = (statement: (chain: number) => string): string => Array.from({ length: chains }, (_, k) => statement(k)).join(' ');

/**
 * y[i] = Σ_k x_k of 4 chains x ← a·x + b of vec4s, which begin at i mod 64 + (0, 1, 2, 3) + 4k and take 8 steps a round: nothing but
 * multiply-adds that do not wait for one another. y vec4f[threads], a multiple of 64 of them.
 *
 * Chains and steps are what was fastest on lavapipe (40 GFLOP/s a core; 16 steps a round 29, one chain 27); GPUs have other warps to hide
 * the latency of a chain behind.
 */
export const fmaPeak = defineKernel({
  name: 'fmaPeak',
  bindings: { y: write('vec4f') },
  uniforms: { rounds: 'u32', a: 'f32', b: 'f32' },
  wgsl: /* wgsl */ `
@compute @workgroup_size(64)
fn main(${builtins}) {
  let a = vec4f(u.a);
  let b = vec4f(u.b);
  ${eachChain((k) => `var x${k} = vec4f(f32(lid.x)) + vec4f(${[0, 1, 2, 3].map((c) => `${4 * k + c}.0`).join(', ')});`)}
  for (var round = 0u; round < u.rounds; round++) {
    ${Array.from({ length: stepsPerRound }, () => eachChain((k) => `x${k} = fma(x${k}, a, b);`)).join('\n    ')}
  }
  y[${linearIndex}] = ${Array.from({ length: chains }, (_, k) => `x${k}`).join(' + ')};
}`,
});

/**
 * y = x, bit for bit, two vec4s a thread 64 apart; `n` counts vec4s, the grid has ⌈n / 128⌉ workgroups. Two loads on the way at a time: on
 * lavapipe 1.6 times as fast as one (`copyKernel`) and 1.4 times as four.
 */
export const copyPeak = defineKernel({
  name: 'copyPeak',
  bindings: { x: read('vec4f'), y: write('vec4f') },
  uniforms: { n: 'u32' },
  wgsl: /* wgsl */ `
@compute @workgroup_size(64)
fn main(${builtins}) {
  let first = (wid.x + wid.y * nwg.x) * 128u + lid.x;
  if (first < u.n) { y[first] = x[first]; }
  let second = first + 64u;
  if (second < u.n) { y[second] = x[second]; }
}`,
});
