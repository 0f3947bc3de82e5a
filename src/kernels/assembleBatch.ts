/**
 * A training batch made on the GPU: images picked by index from bytes, normalised, and randomly cropped and flipped if asked.
 * Images are planar bytes [count][C][H][W], four to a u32 word, in segments that fit a binding; one dispatch a segment, each writing the
 * images it holds. x [B, H, W, C] in vec4s, at most 4 channels; labels u32 [B].
 */
import { builtins, defineKernel, linearIndex, read, write, writeFloats } from './contract.ts';

/** WGSL twin of `hash32` in `random.ts`. */
export const hash32Wgsl = /* wgsl */ `
fn hash32(seed: u32, counter: u32, stream: u32) -> u32 {
  var a = counter * 1664525u + 1013904223u;
  var b = stream * 1664525u + 1013904223u;
  var c = seed * 1664525u + 1013904223u;
  for (var round = 0u; round < 2u; round += 1u) {
    a += b * c; b += c * a; c += a * b;
    a ^= a >> 16u; b ^= b >> 16u; c ^= c >> 16u;
  }
  a += b * c;
  return a ^ (a >> 16u);
}`;

/** Pixels of black border that a random crop may move into: PyTorch's `RandomCrop(32, padding=4)`. */
export const cropPadding = 4;

/**
 * x = (byte / 255 − mean) / std. control[cursor_word] is where in `indices` the batch begins, control[counter_word] the number of samples drawn before
 * it, control[seed_word] the seed: with `augment` = 1 draw k uses hash32(seed, k, stream): crop offset (h % 9, h / 9 % 9), flip bit 16.
 */
export const assembleBatch = defineKernel({
  name: 'assembleBatch',
  bindings: {
    images: read('u32'), all_labels: read('u32'), indices: read('u32'), control: read('u32'), x: writeFloats('vec4f'), labels: write('u32'),
  },
  uniforms: {
    n: 'u32', h: 'u32', w: 'u32', channels: 'u32', first_image: 'u32', segment_images: 'u32', augment: 'u32', stream: 'u32',
    cursor_word: 'u32', counter_word: 'u32', seed_word: 'u32',
    mean0: 'f32', mean1: 'f32', mean2: 'f32', mean3: 'f32', std0: 'f32', std1: 'f32', std2: 'f32', std3: 'f32',
  },
  wgsl: /* wgsl */ `${hash32Wgsl}
@compute @workgroup_size(64)
fn main(${builtins}) {
  let i = ${linearIndex};
  if (i >= u.n) { return; }
  let sample = i / (u.h * u.w);
  let index = indices[control[u.cursor_word] + sample];
  if (index - u.first_image >= u.segment_images) { return; }
  var row = i32(i / u.w % u.h);
  var column = i32(i % u.w);
  if (u.augment == 1u) {
    let draw = hash32(control[u.seed_word], control[u.counter_word] + sample, u.stream);
    if ((draw & 0x10000u) != 0u) { column = i32(u.w) - 1 - column; }
    row += i32(draw % ${2 * cropPadding + 1}u) - ${cropPadding};
    column += i32(draw / ${2 * cropPadding + 1}u % ${2 * cropPadding + 1}u) - ${cropPadding};
  }
  let inside = row >= 0 && row < i32(u.h) && column >= 0 && column < i32(u.w);
  var value = vec4f();
  for (var c = 0u; c < u.channels; c += 1u) {
    let at = (((index - u.first_image) * u.channels + c) * u.h + u32(clamp(row, 0, i32(u.h) - 1))) * u.w + u32(clamp(column, 0, i32(u.w) - 1));
    let byte = (images[at / 4u] >> (at % 4u * 8u)) & 255u;
    value[c] = select(0.0, f32(byte), inside) / 255.0;
  }
  let lane = vec4u(0u, 1u, 2u, 3u) < vec4u(u.channels);
  let normalized = (value - vec4f(u.mean0, u.mean1, u.mean2, u.mean3)) / vec4f(u.std0, u.std1, u.std2, u.std3);
  store_x(i, select(vec4f(), normalized, lane));
  if (i % (u.h * u.w) == 0u) {
    labels[sample] = all_labels[index];
    let batch = u.n / (u.h * u.w);
    if (sample + 1u == batch) { for (var padding = batch; padding % 4u != 0u; padding += 1u) { labels[padding] = 0u; } }
  }
}`,
});
