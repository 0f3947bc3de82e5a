/**
 * The three convolutions as implicit GEMM. Layouts: x [N, H, W, Cin], weight [kH][kW][Cin][Cout], y [N, hOut, wOut, Cout],
 * the last dimension padded with zeros to a multiple of 4 (`cin4`, `cout4` count vec4s; `cin` is the weight's own, unpadded). All overwrite their output.
 *
 *   forward          y[n,i,j,o]  = Σ_{a,b,c} x[n, i·s+a−p, j·s+b−p, c] · weight[a,b,c,o]         M = N·hOut·wOut  N = Cout  K = kH·kW·Cin
 *   backward input   dx[n,i,j,c] = Σ_{a,b,o} dy[n, (i+p−a)/s, (j+p−b)/s, o] · weight[a,b,c,o]    M = N·H·W        N = Cin   K = taps·Cout
 *   backward weight  dw[a,b,c,o] = Σ_{n,i,j} x[n, i·s+a−p, j·s+b−p, c] · dy[n,i,j,o]             M = kH·kW·Cin    N = Cout  K = N·hOut·wOut
 *
 * Each can split K over `splits` workgroups in z; the partial results [splits][…] are then added in index order by `sumPartials`.
 * A forward, and a weight gradient, may normalise x while they load it (`convInput.ts`); all may do more with their
 * outputs than store them (`epilogue.ts`), where K is not split.
 * A perturbed forward forms a·weight + Σ_j c_j·direction_j while it loads the weight tile, for the trial of its z; see `perturbed.ts`.
 */
import { defineKernel, fastDivide, maxGridDimension, read, readFloats, write, writeFloats, type Binding, type Kernel, type UniformType } from './contract.ts';
import { declareVectors, inputArguments, inputBindings, inputFunctions, inputName, pixelOfX, type ConvInput } from './convInput.ts';
import { noEpilogue, type Epilogue } from './epilogue.ts';
import { igemmMain, tileName, type Igemm, type Tile } from './igemm.ts';
import { matrixMain } from './igemmMatrix.ts';
import { directionNames, formPerturbed, perturbedName, readCoefficients } from './perturbed.ts';

const rows = [0, 1, 2, 3];
const perRow = (line: (r: number) => string): string => rows.map(line).join('\n    ');

/** (m_tile, n_tile) from a grid whose m tiles spill from x into y past 65,535. */
export const tileIndices = 'let m_tile = wid.x + (wid.y / u.n_tiles) * 65535u; let n_tile = wid.y % u.n_tiles;';

/** Grid for `mTiles × nTiles × z` workgroups, as `tileIndices` reads it. */
export function igemmGrid(mTiles: number, nTiles: number, z: number): [number, number, number] {
  return [Math.min(mTiles, maxGridDimension), Math.ceil(mTiles / maxGridDimension) * nTiles, z];
}

export const maxDirections = 3;

/** The entry point, by matrix units where the tile is theirs, and the WGSL features that it takes. */
const mainOf = (spec: Igemm): string => (spec.tile.unit ? matrixMain(spec, spec.tile.unit) : igemmMain(spec));
const enabledBy = ({ unit }: Tile): readonly string[] => (unit ? ['f16', ...unit.enable] : []);

const forwardUniforms = {
  h: 'u32', w: 'u32', cin: 'u32', cin4: 'u32', h_out: 'u32', w_out: 'u32', cout4: 'u32', k_w: 'u32', stride: 'u32', padding: 'u32',
  m: 'u32', k4: 'u32', m_tiles: 'u32', n_tiles: 'u32', splits: 'u32', tiles: 'u32', tiles_per_split: 'u32',
  x_trial_stride: 'u32', weight_trial_stride: 'u32', affine_trial_stride: 'u32',
  inv_cin4: 'f32', inv_k_w: 'f32',
} as const;

/** Tap and channel of the k index `kt` (in vec4 of channels), shared by the rows of a slot. */
const forwardAddress = `let tap = fast_divide(kt, u.inv_cin4); let channel = kt - tap * u.cin4;
    let tap_h = fast_divide(tap, u.inv_k_w); let tap_w = tap - tap_h * u.k_w;
    let dh = i32(tap_h); let dw = i32(tap_w); let offset = (dh * i32(u.w) + dw) * i32(u.cin4) + i32(channel); let in_k = kt < u.k4;`;

/** floor(x / d) for any x < 2^31 where the quotient is below 2^22: a float estimate and one correction each way. */
export const divide = /* wgsl */ `
fn divide(x: u32, d: u32, inv: f32) -> u32 {
  let q = u32(f32(x) * inv); let r = i32(x) - i32(q * d);
  return q + select(select(0u, 1u, r >= i32(d)), 0xffffffffu, r < 0);
}`;

/** Chunks of an input gradient are those of its parity classes, one class after the other; their number of rows is nobody's business. */
export const gradientChunk = { rows: '0u', exists: 'm_tile < u.m_tiles', index: 'part * u.m_tiles + m_tile', c4: 'u.cin4' } as const;

/** WGSL that takes z apart where an input gradient is cut by trial, parity class and split, in this order. */
export const gradientParts = `let part = wid.z / u.splits; let split = wid.z % u.splits;
  let classes = u.stride * u.stride; let trial = part / classes; let parity = part % classes;
  let dy_start = i32(trial * u.dy_trial_stride); let weight_start = trial * u.weight_trial_stride;`;

/** WGSL that takes z apart where a weight gradient is cut by trial and split. */
export const weightParts = `let trial = wid.z / u.splits; let split = wid.z % u.splits;
  let k_begin = split * u.tiles_per_split; let k_end = min(k_begin + u.tiles_per_split, u.tiles);
  let x_start = i32(trial * u.x_trial_stride); let dy_start = trial * u.dy_trial_stride; let affine_start = trial * u.affine_trial_stride;`;

/** Of a kernel without sums. */
export const noChunk = { rows: '0u', exists: 'false', index: '0u', c4: '0u' } as const;

export interface ForwardVariant {
  /** Directions of which the kernel forms the weights of its trials. @default 0 */
  readonly directions?: number;
  /** @default false */
  readonly scaled?: boolean;
  /** @default plain */
  readonly input?: ConvInput;
  /** @default none */
  readonly epilogue?: Epilogue;
}

/**
 * Forward convolution. Bindings: x and weight (shared by all trials where their `trial_stride` is 0), then for each direction `d0…` with
 * `coefficients`, and y [T · splits][m][cout4].
 */
export function conv2dForward(tile: Tile, { directions = 0, scaled = false, input = 'plain', epilogue = noEpilogue }: ForwardVariant = {}): Kernel {
  const names = directionNames(directions);
  const perturbed = formPerturbed(directions, scaled, 'value', (j) => `${names[j]}[select(0u, index, inside)]`);
  const wgsl = /* wgsl */ `${fastDivide}${inputFunctions(input)}${pixelOfX(input)}
${mainOf({
  tile,
  prologue: `${tileIndices} let trial = wid.z / u.splits; let split = wid.z % u.splits;
  let k_begin = split * u.tiles_per_split; let k_end = min(k_begin + u.tiles_per_split, u.tiles);
  let x_start = i32(trial * u.x_trial_stride); let weight_start = trial * u.weight_trial_stride;
  let affine_start = trial * u.affine_trial_stride;
  ${readCoefficients(directions, scaled, 'trial')}`,
  a: {
    along: 'k',
    prepare: (i) => perRow((r) => `let px${i}_${r} = group_a${i} * 4u + ${r}u; let image${i}_${r} = px${i}_${r} / (u.h_out * u.w_out);
    let rest${i}_${r} = px${i}_${r} % (u.h_out * u.w_out);
    let top${i}_${r} = i32(rest${i}_${r} / u.w_out * u.stride) - i32(u.padding); let iw${i}_${r} = i32(rest${i}_${r} % u.w_out * u.stride) - i32(u.padding);
    let base${i}_${r} = x_start + ((i32(image${i}_${r} * u.h) + top${i}_${r}) * i32(u.w) + iw${i}_${r}) * i32(u.cin4);
    let ih${i}_${r} = select(-0x40000000, top${i}_${r}, px${i}_${r} < u.m);`),
    address: () => `${forwardAddress} ${declareVectors(input, 'affine_start + channel')}`,
    load: (i, r) => `pixel_of_x(base${i}_${r} + offset, ih${i}_${r} + dh, iw${i}_${r} + dw, in_k${inputArguments(input)})`,
  },
  b: {
    along: 'mn',
    prepare: () => '',
    address: (i) => `let tap = fast_divide(kt, u.inv_cin4 * 0.25); let channel = kt - tap * u.cin4 * 4u;
    let inside = kt < u.k4 * 4u && channel < u.cin && group_b${i} < u.cout4; let index = (tap * u.cin + channel) * u.cout4 + group_b${i};
    var value = select(vec4f(), weight[select(0u, weight_start + index, inside)], inside);
    ${perturbed}`,
    load: () => 'select(vec4f(), operand(value), inside)',
  },
  storeRow: 'let row = (wid.z * u.m + m) * u.cout4; let in_m = m < u.m;',
  place: 'row + n4',
  exists: 'in_m && n4 < u.cout4',
  put: 'store_y(at, value);',
  hasRow: 'm < u.m',
  epilogue,
  chunk: {
    rows: `min(u.m - m_tile * ${tile.m}u, ${tile.m}u)`, exists: 'm_tile < u.m_tiles', index: 'trial * u.m_tiles + m_tile', c4: 'u.cout4',
  },
})}`;
  const directionBindings = Object.fromEntries(names.map((name) => [name, read('vec4f')]));
  return defineKernel({
    name: `conv2dForward_${tileName(tile)}${perturbedName(directions, scaled)}${inputName[input]}${epilogue.name}`,
    bindings: {
      x: readFloats('vec4f'),
      ...inputBindings(input),
      weight: read('vec4f'),
      ...directionBindings,
      ...(directions ? { coefficients: read('f32') } : {}),
      ...epilogue.bindings,
      y: writeFloats('vec4f'),
    } as Record<string, Binding>,
    uniforms: forwardUniforms,
    hasProduct: true,
    enable: enabledBy(tile),
    wgsl,
  });
}

const backwardInputUniforms = {
  images: 'u32', h: 'u32', w: 'u32', cin: 'u32', cin4: 'u32', h_out: 'u32', w_out: 'u32', cout4: 'u32', k_h: 'u32', k_w: 'u32', stride: 'u32', padding: 'u32',
  m_tiles: 'u32', n_tiles: 'u32', splits: 'u32', dy_trial_stride: 'u32', weight_trial_stride: 'u32', inv_cout4: 'f32',
} as const;

/**
 * Input gradient. z = (trial · classes + parity class) · splits + split: the input pixels of one class (i mod s, j mod s) meet the same
 * taps, so no tap is tested and dropped; a class without taps (1×1 at stride 2) writes zeros. dx [T · splits][N·H·W][cin4].
 */
export function conv2dBackwardInput(tile: Tile, epilogue: Epilogue = noEpilogue): Kernel {
  const wgsl = /* wgsl */ `${fastDivide}
fn pixel_of_dy(index: i32, oh: i32, ow: i32, ok: bool) -> vec4f {
  let inside = ok && u32(oh) < u.h_out && u32(ow) < u.w_out;
  return select(vec4f(), load_dy(select(0u, u32(index), inside)), inside);
}
fn weight_at(index: u32, ok: bool) -> vec4f { return select(vec4f(), operand(weight[select(0u, index, ok)]), ok); }
fn taps_of(first: u32, size: u32) -> u32 { return select(0u, (size + u.stride - 1u - first) / u.stride, first < size); }
${mainOf({
  tile,
  prologue: `${tileIndices} ${gradientParts}
  let ph = parity / u.stride; let pw = parity % u.stride;
  let first_h = (ph + u.padding) % u.stride; let first_w = (pw + u.padding) % u.stride;
  let taps_h = taps_of(first_h, u.k_h); let taps_w = taps_of(first_w, u.k_w);
  let inv_taps_w = 1.0 / f32(max(taps_w, 1u));
  let h_class = (u.h + u.stride - 1u - ph) / u.stride; let w_class = (u.w + u.stride - 1u - pw) / u.stride;
  let m_class = u.images * h_class * w_class;
  let k4 = taps_h * taps_w * u.cout4; let tiles = (k4 + ${tile.k / 4 - 1}u) / ${tile.k / 4}u;
  let tiles_per_split = (tiles + u.splits - 1u) / u.splits;
  let k_begin = split * tiles_per_split; let k_end = min(k_begin + tiles_per_split, tiles);
  let shift_h = i32((ph + u.padding - first_h) / u.stride); let shift_w = i32((pw + u.padding - first_w) / u.stride);`,
  a: {
    along: 'k',
    prepare: (i) => perRow((r) => `let px${i}_${r} = group_a${i} * 4u + ${r}u; let image${i}_${r} = px${i}_${r} / max(h_class * w_class, 1u);
    let rest${i}_${r} = px${i}_${r} % max(h_class * w_class, 1u);
    let top${i}_${r} = i32(rest${i}_${r} / max(w_class, 1u)) + shift_h; let ow${i}_${r} = i32(rest${i}_${r} % max(w_class, 1u)) + shift_w;
    let base${i}_${r} = dy_start + ((i32(image${i}_${r} * u.h_out) + top${i}_${r}) * i32(u.w_out) + ow${i}_${r}) * i32(u.cout4);
    let oh${i}_${r} = select(-0x40000000, top${i}_${r}, px${i}_${r} < m_class);`),
    address: () => `let tap = fast_divide(kt, u.inv_cout4); let channel = kt - tap * u.cout4;
    let tap_h = fast_divide(tap, inv_taps_w); let tap_w = tap - tap_h * taps_w;
    let dh = i32(tap_h); let dw = i32(tap_w); let offset = i32(channel) - (dh * i32(u.w_out) + dw) * i32(u.cout4); let in_k = kt < k4;`,
    load: (i, r) => `pixel_of_dy(base${i}_${r} + offset, oh${i}_${r} - dh, ow${i}_${r} - dw, in_k)`,
  },
  b: {
    along: 'k',
    prepare: () => '',
    address: (i) => `let tap = fast_divide(kt, u.inv_cout4); let channel = kt - tap * u.cout4;
    let tap_h = fast_divide(tap, inv_taps_w); let tap_w = tap - tap_h * taps_w;
    let tap_index = (first_h + tap_h * u.stride) * u.k_w + first_w + tap_w * u.stride;
    let first = group_b${i} * 4u; let index = weight_start + (tap_index * u.cin + first) * u.cout4 + channel;`,
    load: (_, r) => `weight_at(index + ${r}u * u.cout4, kt < k4 && first + ${r}u < u.cin)`,
  },
  storeRow: `let in_m = m < m_class; let image = m / max(h_class * w_class, 1u); let rest = m % max(h_class * w_class, 1u);
    let ih = ph + rest / max(w_class, 1u) * u.stride; let iw = pw + rest % max(w_class, 1u) * u.stride;
    let row = ((((trial * u.splits + split) * u.images + image) * u.h + ih) * u.w + iw) * u.cin4;`,
  place: 'row + n4',
  exists: 'in_m && n4 < u.cin4',
  put: 'store_dx(at, value);',
  hasRow: 'in_m',
  epilogue,
  chunk: gradientChunk,
})}`;
  return defineKernel({
    name: `conv2dBackwardInput_${tileName(tile)}${epilogue.name}`,
    bindings: { dy: readFloats('vec4f'), weight: read('vec4f'), ...epilogue.bindings, dx: writeFloats('vec4f') } as Record<string, Binding>,
    uniforms: backwardInputUniforms,
    hasProduct: true,
    enable: enabledBy(tile),
    wgsl,
  });
}

const backwardWeightUniforms = {
  h: 'u32', w: 'u32', cin: 'u32', cin4: 'u32', h_out: 'u32', w_out: 'u32', cout4: 'u32', k_w: 'u32', stride: 'u32', padding: 'u32',
  m4: 'u32', k: 'u32', n_tiles: 'u32', splits: 'u32', tiles: 'u32', tiles_per_split: 'u32',
  x_trial_stride: 'u32', dy_trial_stride: 'u32', affine_trial_stride: 'u32', inv_plane: 'f32', inv_w_out: 'f32',
} as const;

/**
 * Weight gradient: rows are (tap, input channel), k runs over output pixels. z = trial · splits + split; dw [T · splits][kH·kW·Cin][cout4].
 */
export function conv2dBackwardWeight(tile: Tile, input: ConvInput = 'plain', epilogue: Epilogue = noEpilogue): Kernel {
  const wgsl = /* wgsl */ `${divide}${inputFunctions(input)}${pixelOfX(input)}
${mainOf({
  tile,
  prologue: `${tileIndices} ${weightParts}`,
  a: {
    along: 'mn',
    prepare: (i) => `let tap${i} = group_a${i} / u.cin4; let channel${i} = i32(group_a${i} % u.cin4);
    let dh${i} = i32(tap${i} / u.k_w) - i32(u.padding); let dw${i} = i32(tap${i} % u.k_w) - i32(u.padding);
    ${declareVectors(input, `affine_start + group_a${i} % u.cin4`, `_${i}`)}`,
    address: (i) => `let image = divide(kt, u.h_out * u.w_out, u.inv_plane); let rest = kt - image * (u.h_out * u.w_out);
    let oh = divide(rest, u.w_out, u.inv_w_out); let ow = rest - oh * u.w_out;
    let ih = i32(oh * u.stride) + dh${i}; let iw = i32(ow * u.stride) + dw${i};
    let index = x_start + ((i32(image * u.h) + ih) * i32(u.w) + iw) * i32(u.cin4) + channel${i};`,
    load: (i) => `pixel_of_x(index, ih, iw, kt < u.k && group_a${i} < u.m4${inputArguments(input, `_${i}`)})`,
  },
  b: {
    along: 'mn',
    prepare: () => '',
    address: (i) => `let inside = kt < u.k && group_b${i} < u.cout4;`,
    load: (i) => `select(vec4f(), load_dy(select(0u, dy_start + kt * u.cout4 + group_b${i}, inside)), inside)`,
  },
  storeRow: `let channel = m % (u.cin4 * 4u); let in_m = m < u.m4 * 4u && channel < u.cin;
    let row = (wid.z * (u.m4 / u.cin4 * u.cin) + m / (u.cin4 * 4u) * u.cin + channel) * u.cout4;`,
  place: 'row + n4',
  exists: 'in_m && n4 < u.cout4',
  put: 'dw[at] = value;',
  hasRow: 'in_m',
  epilogue,
  chunk: noChunk,
})}`;
  return defineKernel({
    name: `conv2dBackwardWeight_${tileName(tile)}${inputName[input]}${epilogue.name}`,
    bindings: { x: readFloats('vec4f'), ...inputBindings(input), dy: readFloats('vec4f'), ...epilogue.bindings, dw: write('vec4f') } as Record<string, Binding>,
    uniforms: { ...backwardWeightUniforms, ...epilogue.uniforms } as Record<string, UniformType>,
    hasProduct: true,
    enable: enabledBy(tile),
    wgsl,
  });
}
