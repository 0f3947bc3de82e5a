/**
 * Element by element, over vec4s. z = trial; an operand shared by all trials has stride 0. `n` counts the vec4s of one trial's block.
 * All overwrite y.
 */
import { builtins, defineKernel, linearIndex, read, readFloats, relu4, write, writeFloats, type Binding } from './contract.ts';
import { directionNames, formPerturbed, perturbedName, readCoefficients } from './perturbed.ts';

const body = (statement: string): string => /* wgsl */ `
@compute @workgroup_size(64)
fn main(${builtins}) {
  let i = ${linearIndex};
  if (i >= u.n) { return; }
  ${statement}
}`;

/** y = max(x, 0); NaN stays NaN. */
export const reluForward = defineKernel({
  name: 'reluForward',
  bindings: { x: readFloats('vec4f'), y: writeFloats('vec4f') },
  uniforms: { n: 'u32' },
  wgsl: `${relu4}${body('store_y(wid.z * u.n + i, relu4(load_x(wid.z * u.n + i)));')}`,
});

/** dx = dy · [y > 0], over all trials at once: `n` counts the vec4s of them all. */
export const reluBackward = defineKernel({
  name: 'reluBackward',
  bindings: { dy: readFloats('vec4f'), y: readFloats('vec4f'), dx: writeFloats('vec4f') },
  uniforms: { n: 'u32' },
  wgsl: body('store_dx(i, select(vec4f(), load_dy(i), load_y(i) > vec4f()));'),
});

const binary = (name: string, operator: string) =>
  defineKernel({
    name,
    bindings: { a: readFloats('vec4f'), b: readFloats('vec4f'), y: writeFloats('vec4f') },
    uniforms: { n: 'u32', a_stride: 'u32', b_stride: 'u32' },
    wgsl: body(`store_y(wid.z * u.n + i, load_a(wid.z * u.a_stride + i) ${operator} load_b(wid.z * u.b_stride + i));`),
  });

export const addForward = binary('addForward', '+');
export const subForward = binary('subForward', '-');
export const mulForward = binary('mulForward', '*');

/** y = x · factor */
export const scaleForward = defineKernel({
  name: 'scaleForward',
  bindings: { x: readFloats('vec4f'), y: writeFloats('vec4f') },
  uniforms: { n: 'u32', factor: 'f32' },
  wgsl: body('store_y(wid.z * u.n + i, load_x(wid.z * u.n + i) * u.factor);'),
});

/** y[row, c] = x[row, c] + bias[c]; `c4` is the row length in vec4s. */
export const addBiasForward = defineKernel({
  name: 'addBiasForward',
  bindings: { x: readFloats('vec4f'), bias: read('vec4f'), y: writeFloats('vec4f') },
  uniforms: { n: 'u32', c4: 'u32', x_stride: 'u32', bias_stride: 'u32' },
  wgsl: body('store_y(wid.z * u.n + i, load_x(wid.z * u.x_stride + i) + bias[wid.z * u.bias_stride + i % u.c4]);'),
});

/** y = x, rounded to f16 where y is. */
export const castKernel = defineKernel({
  name: 'cast',
  bindings: { x: readFloats('vec4f'), y: writeFloats('vec4f') },
  uniforms: { n: 'u32' },
  wgsl: body('store_y(i, load_x(i));'),
});

/** y = x, bit for bit. */
export const copyKernel = defineKernel({
  name: 'copy',
  bindings: { x: read('vec4u'), y: write('vec4u') },
  uniforms: { n: 'u32' },
  wgsl: body('y[i] = x[i];'),
});

/** y[t, row, c] = x[t, 0] · factor in the `c` logical elements of each row, 0 in the padding; the trial's x is a vec4 of one number. */
export const broadcastScalar = defineKernel({
  name: 'broadcastScalar',
  bindings: { x: read('f32'), y: writeFloats('vec4f') },
  uniforms: { n: 'u32', c: 'u32', c4: 'u32', factor: 'f32' },
  wgsl: body(`let column = i % u.c4 * 4u;
  store_y(wid.z * u.n + i, select(vec4f(), vec4f(x[4u * wid.z] * u.factor), vec4u(column) + vec4u(0u, 1u, 2u, 3u) < vec4u(u.c)));`),
});

/** y holds x's elements in the same order, rows cut anew: `c_in` and `c` logical elements a row, `n` vec4s of y. */
export const reshapeKernel = defineKernel({
  name: 'reshape',
  bindings: { x: readFloats('f32'), y: writeFloats('vec4f') },
  uniforms: { n: 'u32', c_in: 'u32', stride_in: 'u32', c: 'u32', c4: 'u32', x_block: 'u32' },
  wgsl: body(`let row = i / u.c4;
  var value = vec4f();
  for (var lane = 0u; lane < 4u; lane += 1u) {
    let column = i % u.c4 * 4u + lane;
    if (column < u.c) {
      let element = row * u.c + column;
      value[lane] = load_x(wid.z * u.x_block + element / u.c_in * u.stride_in + element % u.c_in);
    }
  }
  store_y(wid.z * u.n + i, value);`),
});

/** y[t] = a·base + Σ_k c_k·direction_k: the perturbed parameter, for ops that cannot form it while loading. See `perturbed.ts`. */
export const perturb = (directions: number, scaled = false) => {
  const names = directionNames(directions);
  return defineKernel({
    name: `perturb${perturbedName(directions, scaled)}`,
    bindings: {
      base: read('vec4f'), ...Object.fromEntries(names.map((name) => [name, read('vec4f')])), coefficients: read('f32'), y: write('vec4f'),
    } as Record<string, Binding>,
    uniforms: { n: 'u32' },
    wgsl: body(`${readCoefficients(directions, scaled, 'wid.z')}
  var value = base[i];
  ${formPerturbed(directions, scaled, 'value', (k) => `${names[k]}[i]`)}
  y[wid.z * u.n + i] = value;`),
  });
};
