/**
 * The three convolutions of `conv2d.ts` for software adapters: same layouts, same bindings, same uniforms' meanings, on the skeleton of
 * `igemmLanes.ts`. `lanes` is the adapter's subgroup size.
 */
import { defineKernel, fastDivide, read, readFloats, write, writeFloats, type Binding, type Kernel, type UniformType } from './contract.ts';
import { divide, gradientChunk, gradientParts, noChunk, tileIndices, weightParts } from './conv2d.ts';
import { declareVectors, inputArguments, inputBindings, inputFunctions, inputName, inputVectors, ofInput, pixelOfX, type ConvInput } from './convInput.ts';
import { noEpilogue, type Epilogue } from './epilogue.ts';
import { igemmLanesMain, laneRows } from './igemmLanes.ts';
import { igemmPanelMain } from './igemmPanel.ts';
import { directionNames, formPerturbed, perturbedName, readCoefficients } from './perturbed.ts';

export interface PanelVariant {
  readonly lanes: number;
  /** kW where the image keeps its size (stride 1), so that neighbouring pixels lie next to each other for every tap; else null. */
  readonly window: number | null;
  /** `transposed`: the gradient of the input of such a convolution, with dy for x, dx for y, taps and channels the other way round. */
  readonly weight: 'forward' | 'transposed';
  readonly directions?: number;
  readonly scaled?: boolean;
  /** @default plain */
  readonly input?: ConvInput;
  /** @default none */
  readonly epilogue?: Epilogue;
}

/** One vec4 of the weight that a lane fetches, by the layout [kH][kW][cin][cout4]; `cin`, `cout4` are those of the sum, not of the layer. */
function panelWeight(weight: PanelVariant['weight'], perturbed: string): (i: number) => string {
  const set = (i: number) => `var value = weight[select(0u, weight_start + index, inside)]; ${perturbed}
    mine_${i} = select(vec4f(), operand(value), inside); }`;
  return weight === 'forward'
    ? (i) => `{ let k = channel * 4u + slot_${i} / 4u; let n4 = n_tile * 4u + slot_${i} % 4u; let inside = k < u.cin && n4 < u.cout4;
    let index = ((tap_h * taps + tap) * u.cin + k) * u.cout4 + n4; ${set(i)}`
    : (i) => `{ let n = n_tile * 16u + slot_${i}; let inside = n < u.cout;
    let index = (((u.k_h - 1u - tap_h) * taps + taps - 1u - tap) * u.cout + n) * u.cin4 + channel; ${set(i)}`;
}

/**
 * As `conv2dForward`, by panels of the weight: a line is a row of taps at one vec4 of channels. Also the input gradient of a convolution that
 * keeps the size of its image.
 */
export function conv2dPanel({ lanes, window, weight, directions = 0, scaled = false, input = 'plain', epilogue = noEpilogue }: PanelVariant): Kernel {
  const names = directionNames(directions);
  const perturbed = formPerturbed(directions, scaled, 'value', (j) => `${names[j]}[select(0u, index, inside)]`);
  const rowAt = `let image_i = divide(px_i, u.h_out * u.w_out, u.inv_plane); let rest_i = px_i - image_i * (u.h_out * u.w_out);
    let oh_i = divide(rest_i, u.w_out, u.inv_w_out); let top_i = i32(oh_i * u.stride) - i32(u.padding);`;
  return defineKernel({
    name: `conv2d_panel${lanes}_${weight}${window === null ? '' : `_window${window}`}${perturbedName(directions, scaled)}${inputName[input]}${epilogue.name}`,
    bindings: {
      x: readFloats('vec4f'),
      ...inputBindings(input),
      weight: read('vec4f'),
      ...Object.fromEntries(names.map((name) => [name, read('vec4f')])),
      ...(directions > 0 ? { coefficients: read('f32') } : {}),
      ...epilogue.bindings,
      y: writeFloats('vec4f'),
    } as Record<string, Binding>,
    hasProduct: true,
    uniforms: {
      h: 'u32', w: 'u32', cin: 'u32', cin4: 'u32', h_out: 'u32', w_out: 'u32', cout: 'u32', cout4: 'u32', k_h: 'u32', k_w: 'u32', stride: 'u32',
      padding: 'u32', m: 'u32', m_tiles: 'u32', tiles_per_group: 'u32', n_tiles: 'u32', splits: 'u32', lines: 'u32', lines_per_split: 'u32',
      fetch_rounds: 'u32', lane_rows: 'u32', lane_groups: 'u32', x_trial_stride: 'u32', weight_trial_stride: 'u32', affine_trial_stride: 'u32',
      inv_cin4: 'f32', inv_plane: 'f32', inv_w_out: 'f32',
    },
    enable: ['subgroups'],
    wgsl: /* wgsl */ `${fastDivide}${divide}${inputFunctions(input)}${window === null ? pixelOfX(input) : ''}
${igemmPanelMain({
  lanes,
  window,
  prologue: `${tileIndices} let trial = wid.z / u.splits; let split = wid.z % u.splits; let taps = u.k_w;
  let m_begin = m_tile * u.tiles_per_group; let m_end = min(m_begin + u.tiles_per_group, u.m_tiles);
  let line_begin = split * u.lines_per_split; let line_end = min(line_begin + u.lines_per_split, u.lines);
  let x_start = trial * u.x_trial_stride; let x_size = u.m * u.cin4; let weight_start = trial * u.weight_trial_stride;
  let affine_start = trial * u.affine_trial_stride;
  ${readCoefficients(directions, scaled, 'trial')}`,
  ofLine: inputVectors(input, 'affine_start + channel'),
  line: `let tap_h = fast_divide(line, u.inv_cin4); let channel = line - tap_h * u.cin4; let dh = i32(tap_h);
    let offset = (dh * i32(u.w) ${window === null ? '' : '- i32(u.padding * (u.w + 1u))'}) * i32(u.cin4) + i32(channel);`,
  b: { along: weight === 'forward' ? 'n' : 'k', load: panelWeight(weight, perturbed) },
  rowState: ['base', 'ih', 'iw'],
  prepare: (i) => `let px_i = first_row + ${i}u; ${rowAt}
    var iw_i = i32((rest_i - oh_i * u.w_out) * u.stride) - i32(u.padding); var ih_i = select(-0x40000000, top_i, px_i < u.m);
    ${window === null ? 'var base_i = i32(x_start) + ((i32(image_i * u.h) + top_i) * i32(u.w) + iw_i) * i32(u.cin4);' : ''}`.replaceAll('_i', `_${i}`),
  fetch: window === null
    ? ({ i }) => `pixel_of_x(base_${i} + offset + i32(tap * u.cin4), ih_${i} + dh, iw_${i} + i32(tap), true${inputArguments(input)})`
    : ({ q }) => ofInput(input, `load_x(x_start + min(u32(max(i32((first_row + ${q}) * u.cin4) + offset, 0)), x_size - 1u))`),
  inside: (i) => `u32(ih_${i} + dh) < u.h && u32(iw_${i} + i32(tap)) < u.w`,
  out: {
    storeRow: 'let row = (wid.z * u.m + m) * u.cout4;',
    place: 'row + n4',
    exists: 'm < u.m && n4 < u.cout4',
    put: 'store_y(at, value);',
    hasRow: 'm < u.m',
    epilogue,
    chunk: {
      rows: `min(u.m - m_tile * ${lanes * laneRows}u, ${lanes * laneRows}u)`,
      exists: 'm_tile < u.m_tiles',
      index: 'trial * u.m_tiles + m_tile',
      c4: 'u.cout4',
    },
  },
  readBack: (at) => `load_y(${at})`,
})}`,
  });
}

/** As `conv2dBackwardInput`; a step is one vec4 of output channels of one tap of the parity class. */
export function conv2dBackwardInputLanes(lanes: number, epilogue: Epilogue = noEpilogue): Kernel {
  return defineKernel({
    name: `conv2dBackwardInput_lanes${lanes}${epilogue.name}`,
    bindings: { dy: readFloats('vec4f'), weight: read('vec4f'), ...epilogue.bindings, dx: writeFloats('vec4f') } as Record<string, Binding>,
    hasProduct: true,
    uniforms: {
      images: 'u32', h: 'u32', w: 'u32', cin: 'u32', cin4: 'u32', h_out: 'u32', w_out: 'u32', cout4: 'u32', k_h: 'u32', k_w: 'u32',
      stride: 'u32', padding: 'u32', m_tiles: 'u32', n_tiles: 'u32', splits: 'u32', fetch_rounds: 'u32', lane_rows: 'u32', lane_groups: 'u32',
      dy_trial_stride: 'u32', weight_trial_stride: 'u32', inv_cout4: 'f32',
    },
    enable: ['subgroups'],
    wgsl: /* wgsl */ `${fastDivide}${divide}
fn pixel_of_dy(index: i32, oh: i32, ow: i32) -> vec4f {
  let inside = u32(oh) < u.h_out && u32(ow) < u.w_out;
  return select(vec4f(), load_dy(select(0u, u32(index), inside)), inside);
}
fn taps_of(first: u32, size: u32) -> u32 { return select(0u, (size + u.stride - 1u - first) / u.stride, first < size); }
${igemmLanesMain({
  lanes,
  prologue: `${tileIndices} ${gradientParts}
  let ph = parity / u.stride; let pw = parity % u.stride;
  let first_h = (ph + u.padding) % u.stride; let first_w = (pw + u.padding) % u.stride;
  let taps_h = taps_of(first_h, u.k_h); let taps_w = taps_of(first_w, u.k_w);
  let inv_taps_w = 1.0 / f32(max(taps_w, 1u));
  let h_class = (u.h + u.stride - 1u - ph) / u.stride; let w_class = max((u.w + u.stride - 1u - pw) / u.stride, 1u);
  let plane = max(h_class * w_class, 1u); let inv_plane = 1.0 / f32(plane); let inv_w_class = 1.0 / f32(w_class);
  let m_class = u.images * h_class * select(0u, w_class, pw < u.w); let steps = taps_h * taps_w * u.cout4;
  let steps_per_split = (steps + u.splits - 1u) / u.splits;
  let k_begin = split * steps_per_split; let k_end = min(k_begin + steps_per_split, steps);
  let shift_h = i32((ph + u.padding - first_h) / u.stride); let shift_w = i32((pw + u.padding - first_w) / u.stride);`,
  step: `let tap = fast_divide(t, u.inv_cout4); let channel = t - tap * u.cout4;
    let tap_h = fast_divide(tap, inv_taps_w); let tap_w = tap - tap_h * taps_w; let dh = i32(tap_h); let dw = i32(tap_w);
    let offset = i32(channel) - (dh * i32(u.w_out) + dw) * i32(u.cout4);
    let tap_start = ((first_h + tap_h * u.stride) * u.k_w + first_w + tap_w * u.stride) * u.cin;`,
  a: {
    along: 'k',
    prepare: (i) => `let px_${i} = first_row + ${i}u;
    let image_${i} = divide(px_${i}, plane, inv_plane); let rest_${i} = px_${i} - image_${i} * plane;
    let row_${i} = divide(rest_${i}, w_class, inv_w_class); let column_${i} = rest_${i} - row_${i} * w_class;
    let top_${i} = i32(row_${i}) + shift_h; var ow_${i} = i32(column_${i}) + shift_w;
    var base_${i} = dy_start + ((i32(image_${i} * u.h_out) + top_${i}) * i32(u.w_out) + ow_${i}) * i32(u.cout4);
    var oh_${i} = select(-0x40000000, top_${i}, px_${i} < m_class);`,
    rowState: ['base', 'oh', 'ow'],
    load: (i) => `pixel_of_dy(base_${i} + offset, oh_${i} - dh, ow_${i} - dw)`,
  },
  b: {
    along: 'k',
    load: (i) => `{ let n = n_tile * 16u + slot_${i}; let inside = n < u.cin;
    mine_${i} = select(vec4f(), operand(weight[select(0u, weight_start + (tap_start + n) * u.cout4 + channel, inside)]), inside); }`,
  },
  out: {
    storeRow: `let in_m = m < m_class; let image = divide(m, plane, inv_plane); let rest = m - image * plane;
    let row_in = divide(rest, w_class, inv_w_class);
    let line = ((trial * u.splits + split) * u.images + image) * u.h + ph + row_in * u.stride;
    let row = (line * u.w + pw + (rest - row_in * w_class) * u.stride) * u.cin4;`,
    place: 'row + n4',
    exists: 'in_m && n4 < u.cin4',
    put: 'store_dx(at, value);',
    hasRow: 'm < m_class',
    epilogue,
    chunk: gradientChunk,
  },
})}`,
  });
}

/** As `conv2dBackwardWeight`; a step is four neighbouring output pixels of one image row. */
export function conv2dBackwardWeightLanes(lanes: number, input: ConvInput = 'plain', epilogue: Epilogue = noEpilogue): Kernel {
  return defineKernel({
    name: `conv2dBackwardWeight_lanes${lanes}${inputName[input]}${epilogue.name}`,
    bindings: { x: readFloats('vec4f'), ...inputBindings(input), dy: readFloats('vec4f'), ...epilogue.bindings, dw: write('vec4f') } as Record<string, Binding>,
    uniforms: {
      h: 'u32', w: 'u32', cin: 'u32', cin4: 'u32', h_out: 'u32', w_out: 'u32', cout4: 'u32', k_w: 'u32', stride: 'u32', padding: 'u32',
      m4: 'u32', n_tiles: 'u32', splits: 'u32', quads: 'u32', tiles: 'u32', tiles_per_split: 'u32', fetch_rounds: 'u32', lane_rows: 'u32', lane_groups: 'u32',
      x_trial_stride: 'u32', dy_trial_stride: 'u32', affine_trial_stride: 'u32', inv_quads: 'f32', inv_h_out: 'f32',
      ...epilogue.uniforms,
    } as Record<string, UniformType>,
    enable: ['subgroups'],
    hasProduct: true,
    wgsl: /* wgsl */ `${divide}${inputFunctions(input)}${pixelOfX(input)}
${igemmLanesMain({
  lanes,
  prologue: `${tileIndices} ${weightParts}`,
  step: `let line = divide(t, u.quads, u.inv_quads); let ow = (t - line * u.quads) * 4u; let image = divide(line, u.h_out, u.inv_h_out);
    let top = i32((line - image * u.h_out) * u.stride); let left = i32(ow * u.stride);
    let base = x_start + ((i32(image * u.h) + top) * i32(u.w) + left) * i32(u.cin4);`,
  a: {
    along: 'm',
    prepare: (i) => `let group_${i} = first_row / 4u + ${i}u; let tap_${i} = group_${i} / u.cin4; let tap_h_${i} = tap_${i} / u.k_w;
    let dw_${i} = i32(tap_${i} - tap_h_${i} * u.k_w) - i32(u.padding); let shift_${i} = i32(tap_h_${i}) - i32(u.padding);
    let offset_${i} = (shift_${i} * i32(u.w) + dw_${i}) * i32(u.cin4) + i32(group_${i} - tap_${i} * u.cin4);
    let dh_${i} = select(-0x40000000, shift_${i}, group_${i} < u.m4);
    ${declareVectors(input, `affine_start + group_${i} - tap_${i} * u.cin4`, `_${i}`)}`,
    // Pixels past the row's last place are out: a tap of them may be in the image, though no place sees it, and 0 · NaN is NaN.
    load: (i) => `pixel_of_x(base + offset_${i} + i32(round * u.stride * u.cin4), select(-0x40000000, top, ow + round < u.w_out) + dh_${i},
      left + dw_${i} + i32(round * u.stride), true${inputArguments(input, `_${i}`)})`,
  },
  b: {
    along: 'n',
    load: (i) => `{ let column = ow + slot_${i} / 4u; let n4 = n_tile * 4u + slot_${i} % 4u; let inside = column < u.w_out && n4 < u.cout4;
    mine_${i} = select(vec4f(), load_dy(select(0u, dy_start + (line * u.w_out + column) * u.cout4 + n4, inside)), inside); }`,
  },
  out: {
    storeRow: `let channel = m % (u.cin4 * 4u); let in_m = m < u.m4 * 4u && channel < u.cin;
    let row = (wid.z * (u.m4 / u.cin4 * u.cin) + m / (u.cin4 * 4u) * u.cin + channel) * u.cout4;`,
    place: 'row + n4',
    exists: 'in_m && n4 < u.cout4',
    put: 'dw[at] = value;',
    hasRow: 'in_m',
    epilogue,
    chunk: noChunk,
  },
})}`,
  });
}
