/** Pooling over NHWC images, channels in vec4s. z = trial. All overwrite their outputs. */
import { builtins, defineKernel, linearIndex, read, readFloats, write, writeFloats } from './contract.ts';

const windowUniforms = {
  n: 'u32', h: 'u32', w: 'u32', c4: 'u32', h_out: 'u32', w_out: 'u32', kernel_size: 'u32', stride: 'u32', padding: 'u32', x_block: 'u32',
} as const;

/**
 * y = max over the window, position = row · kernelSize + column of the first maximum in row-major order, as PyTorch; a NaN in the
 * window wins. One thread a vec4 of y.
 */
export const maxPool2dForward = defineKernel({
  name: 'maxPool2dForward',
  bindings: { x: readFloats('vec4f'), y: writeFloats('vec4f'), position: write('vec4u') },
  uniforms: windowUniforms,
  wgsl: /* wgsl */ `
@compute @workgroup_size(64)
fn main(${builtins}) {
  let i = ${linearIndex};
  if (i >= u.n) { return; }
  let channel = i % u.c4;
  let ow = i / u.c4 % u.w_out;
  let oh = i / (u.c4 * u.w_out) % u.h_out;
  let image = i / (u.c4 * u.w_out * u.h_out);
  var best = vec4f();
  var where_ = vec4u();
  var found = false;
  for (var a = 0u; a < u.kernel_size; a += 1u) {
    let ih = oh * u.stride + a - u.padding;
    if (ih >= u.h) { continue; }
    for (var b = 0u; b < u.kernel_size; b += 1u) {
      let iw = ow * u.stride + b - u.padding;
      if (iw >= u.w) { continue; }
      let value = load_x(wid.z * u.x_block + ((image * u.h + ih) * u.w + iw) * u.c4 + channel);
      // Found by its bits: no comparison need tell it.
      let is_nan = (bitcast<vec4u>(value) & vec4u(0x7fffffffu)) > vec4u(0x7f800000u);
      let better = vec4<bool>(!found) | (value > best) | is_nan;
      best = select(best, value, better);
      where_ = select(where_, vec4u(a * u.kernel_size + b), better);
      found = true;
    }
  }
  store_y(wid.z * u.n + i, best);
  position[wid.z * u.n + i] = where_;
}`,
});

/** dx[n,i,j,c] = Σ of dy over the windows whose maximum is that pixel. One thread a vec4 of dx, a gather: nothing is scattered. */
export const maxPool2dBackward = defineKernel({
  name: 'maxPool2dBackward',
  bindings: { dy: readFloats('vec4f'), position: read('vec4u'), dx: writeFloats('vec4f') },
  uniforms: windowUniforms,
  wgsl: /* wgsl */ `
/** First window that covers padded coordinate p. */
fn first_window(p: u32) -> u32 { return select(0u, (p + u.stride - u.kernel_size) / u.stride, p >= u.kernel_size); }
@compute @workgroup_size(64)
fn main(${builtins}) {
  let i = ${linearIndex};
  if (i >= u.n) { return; }
  let channel = i % u.c4;
  let pw = i / u.c4 % u.w + u.padding;
  let ph = i / (u.c4 * u.w) % u.h + u.padding;
  let image = i / (u.c4 * u.w * u.h);
  var total = vec4f();
  for (var oh = first_window(ph); oh < u.h_out && oh * u.stride <= ph; oh += 1u) {
    for (var ow = first_window(pw); ow < u.w_out && ow * u.stride <= pw; ow += 1u) {
      let at = ((image * u.h_out + oh) * u.w_out + ow) * u.c4 + channel;
      let here = (ph - oh * u.stride) * u.kernel_size + pw - ow * u.stride;
      total += select(vec4f(), load_dy(at), position[at] == vec4u(here));
    }
  }
  store_dx(i, total);
}`,
});

/** y[n, c] = mean over the image. One thread a vec4 of y; `plane` pixels an image. */
export const globalAvgPool2dForward = defineKernel({
  name: 'globalAvgPool2dForward',
  bindings: { x: readFloats('vec4f'), y: writeFloats('vec4f') },
  uniforms: { n: 'u32', c4: 'u32', plane: 'u32' },
  wgsl: /* wgsl */ `
@compute @workgroup_size(64)
fn main(${builtins}) {
  let i = ${linearIndex};
  if (i >= u.n) { return; }
  let start = (wid.z * (u.n / u.c4) + i / u.c4) * u.plane * u.c4 + i % u.c4;
  var total = vec4f();
  for (var pixel = 0u; pixel < u.plane; pixel += 1u) { total += load_x(start + pixel * u.c4); }
  store_y(wid.z * u.n + i, total / f32(u.plane));
}`,
});

/** dx[n,i,j,c] = dy[n,c] / plane. `n` counts the vec4s of dx. */
export const globalAvgPool2dBackward = defineKernel({
  name: 'globalAvgPool2dBackward',
  bindings: { dy: readFloats('vec4f'), dx: writeFloats('vec4f') },
  uniforms: { n: 'u32', c4: 'u32', plane: 'u32' },
  wgsl: /* wgsl */ `
@compute @workgroup_size(64)
fn main(${builtins}) {
  let i = ${linearIndex};
  if (i >= u.n) { return; }
  store_dx(i, load_dy(i / (u.c4 * u.plane) * u.c4 + i % u.c4) / f32(u.plane));
}`,
});
