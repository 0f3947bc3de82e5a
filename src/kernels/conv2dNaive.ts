/**
 * The three convolutions as their definitions say: one thread a vec4 of the output, one loop over the sum, nothing shared. Slow, and
 * plainly right: the oracle of `conv2d.ts` on the GPU, and the baseline of its benches. Layouts and equations as there; each is one launch of
 * `grid1d(n, 64)`, `n` the vec4s of the output, which it overwrites.
 */
import { builtins, defineKernel, linearIndex, read, write } from './contract.ts';

const uniforms = {
  n: 'u32', h: 'u32', w: 'u32', cin: 'u32', cin4: 'u32', h_out: 'u32', w_out: 'u32', cout4: 'u32', k_h: 'u32', k_w: 'u32',
  stride: 'u32', padding: 'u32', images: 'u32',
} as const;

/** A vec4 of x or of the weight by its logical place; x is 0 outside the image. */
const access = /* wgsl */ `
fn x_at(image: u32, ih: u32, iw: u32, c4: u32) -> vec4f {
  if (ih >= u.h || iw >= u.w) { return vec4f(); }
  return x[((image * u.h + ih) * u.w + iw) * u.cin4 + c4];
}`;

/** y[n,i,j,o] = Σ_{a,b,c} x[n, i·s+a−p, j·s+b−p, c] · weight[a,b,c,o] */
export const conv2dNaiveForward = defineKernel({
  name: 'conv2dNaiveForward',
  bindings: { x: read('vec4f'), weight: read('vec4f'), y: write('vec4f') },
  uniforms,
  wgsl: /* wgsl */ `${access}
@compute @workgroup_size(64)
fn main(${builtins}) {
  let i = ${linearIndex};
  if (i >= u.n) { return; }
  let o4 = i % u.cout4;
  let ow = i / u.cout4 % u.w_out;
  let oh = i / (u.cout4 * u.w_out) % u.h_out;
  let image = i / (u.cout4 * u.w_out * u.h_out);
  var total = vec4f();
  for (var a = 0u; a < u.k_h; a += 1u) {
    for (var b = 0u; b < u.k_w; b += 1u) {
      for (var c = 0u; c < u.cin; c += 1u) {
        let value = x_at(image, oh * u.stride + a - u.padding, ow * u.stride + b - u.padding, c / 4u)[c % 4u];
        total += value * weight[((a * u.k_w + b) * u.cin + c) * u.cout4 + o4];
      }
    }
  }
  y[i] = total;
}`,
});

/** dx[n,i,j,c] = Σ_{a,b,o} dy[n, (i+p−a)/s, (j+p−b)/s, o] · weight[a,b,c,o], over the a, b that make both quotients whole and inside dy */
export const conv2dNaiveBackwardInput = defineKernel({
  name: 'conv2dNaiveBackwardInput',
  bindings: { dy: read('vec4f'), weight: read('vec4f'), dx: write('vec4f') },
  uniforms,
  wgsl: /* wgsl */ `
@compute @workgroup_size(64)
fn main(${builtins}) {
  let i = ${linearIndex};
  if (i >= u.n) { return; }
  let c4 = i % u.cin4;
  let iw = i / u.cin4 % u.w;
  let ih = i / (u.cin4 * u.w) % u.h;
  let image = i / (u.cin4 * u.w * u.h);
  var total = vec4f();
  for (var a = 0u; a < u.k_h; a += 1u) {
    for (var b = 0u; b < u.k_w; b += 1u) {
      let top = i32(ih + u.padding) - i32(a);
      let left = i32(iw + u.padding) - i32(b);
      if (top < 0 || left < 0 || u32(top) % u.stride != 0u || u32(left) % u.stride != 0u) { continue; }
      let oh = u32(top) / u.stride;
      let ow = u32(left) / u.stride;
      if (oh >= u.h_out || ow >= u.w_out) { continue; }
      for (var lane = 0u; lane < 4u; lane += 1u) {
        let c = c4 * 4u + lane;
        if (c >= u.cin) { continue; }
        for (var o4 = 0u; o4 < u.cout4; o4 += 1u) {
          total[lane] += dot(dy[((image * u.h_out + oh) * u.w_out + ow) * u.cout4 + o4], weight[((a * u.k_w + b) * u.cin + c) * u.cout4 + o4]);
        }
      }
    }
  }
  dx[i] = total;
}`,
});

/** dWeight[a,b,c,o] = Σ_{n,i,j} x[n, i·s+a−p, j·s+b−p, c] · dy[n,i,j,o] */
export const conv2dNaiveBackwardWeight = defineKernel({
  name: 'conv2dNaiveBackwardWeight',
  bindings: { x: read('vec4f'), dy: read('vec4f'), dw: write('vec4f') },
  uniforms,
  wgsl: /* wgsl */ `${access}
@compute @workgroup_size(64)
fn main(${builtins}) {
  let i = ${linearIndex};
  if (i >= u.n) { return; }
  let o4 = i % u.cout4;
  let c = i / u.cout4 % u.cin;
  let b = i / (u.cout4 * u.cin) % u.k_w;
  let a = i / (u.cout4 * u.cin * u.k_w);
  var total = vec4f();
  for (var image = 0u; image < u.images; image += 1u) {
    for (var oh = 0u; oh < u.h_out; oh += 1u) {
      for (var ow = 0u; ow < u.w_out; ow += 1u) {
        let value = x_at(image, oh * u.stride + a - u.padding, ow * u.stride + b - u.padding, c / 4u)[c % 4u];
        total += value * dy[((image * u.h_out + oh) * u.w_out + ow) * u.cout4 + o4];
      }
    }
  }
  dw[i] = total;
}`,
});
