/**
 * What a convolution does with its outputs while it has them in registers, beside storing them. The skeletons (`igemm.ts`, `igemmLanes.ts`,
 * `igemmPanel.ts`) and the second pass of a split sum (`sumPartialsThen`) take these fragments alike.
 *
 *   moments    of each channel over the chunk's rows, for the batch norm behind: sums[chunk, 0 | 1, c] = mean | Σ(y − mean)², the mean first and
 *              the deviations from it after, so that nothing cancels
 *   direction  of SGD, from a weight's gradient: μ·buffer + (dw + λ·weight) is stored
 *   gradient   of the batch norm before: dz = (dx + addend)·[z > 0] is stored, sums[chunk, 0 | 1, c] = Σ dz | Σ dz·x̂
 *
 * A chunk is the rows of one workgroup's block, or 64 rows of the second pass. All sums have a fixed order.
 */
import { read, readFloats, write, type Binding, type UniformType } from './contract.ts';
import { directionOf, directionUniforms } from './sgd.ts';

export interface Epilogue {
  /** Of a kernel's name: which variant it is. */
  readonly name: string;
  readonly bindings: Readonly<Record<string, Binding>>;
  readonly uniforms: Readonly<Record<string, UniformType>>;
  /** WGSL that changes `value`, a vec4f of `trial`, output row `m` and column group `n4` at place `at`; may declare what `second` reads. */
  readonly change: string;
  /** Two sums a column; null without. `moments`: of the values and of their squared deviations from the mean; else of the two expressions. */
  readonly sums: 'moments' | { readonly first: string; readonly second: string } | null;
}

export const noEpilogue: Epilogue = { name: '', bindings: {}, uniforms: {}, change: '', sums: null };

export const momentsEpilogue: Epilogue = {
  name: '_moments',
  bindings: { sums: write('vec4f') },
  uniforms: {},
  change: '',
  sums: 'moments',
};

export const directionEpilogue: Epilogue = {
  name: '_direction',
  bindings: { weight: read('vec4f'), buffer: read('vec4f'), control: read('u32') },
  uniforms: directionUniforms,
  change: `value = ${directionOf({ gradient: 'value', weight: 'weight[at]', buffer: 'buffer[at]' })};`,
  sums: null,
};

export interface GradientEpilogue {
  readonly addend: boolean;
  /** How [z > 0] is known: there is no activation; from y = relu(z); from x, by the norm's affine map. No sums without a norm. */
  readonly mask: 'none' | 'output' | 'affine' | null;
}

/** `norm_affine` [T][4][c4] = mean | scale | bias | invStd of the norm of x; `c4` is the WGSL of its row length in vec4s. */
export function gradientEpilogue({ addend, mask }: GradientEpilogue, c4: string): Epilogue {
  const change = [
    ...(addend ? ['value += load_addend(at);'] : []),
    ...(mask === 'output' ? ['value = select(vec4f(), value, load_norm_y(at) > vec4f());'] : []),
    ...(mask === null ? [] : [`let of_norm = trial * 4u * ${c4} + n4; let centered = load_norm_x(at) - norm_affine[of_norm];`]),
    ...(mask === 'affine'
      ? [`value = select(vec4f(), value, centered * norm_affine[of_norm + ${c4}] + norm_affine[of_norm + 2u * ${c4}] > vec4f());`]
      : []),
  ];
  return {
    name: `${addend ? '_addend' : ''}${mask === null ? '' : `_sums_${mask}`}`,
    bindings: {
      ...(addend ? { addend: readFloats('vec4f') } : {}),
      ...(mask === null ? {} : { norm_x: readFloats('vec4f'), norm_affine: read('vec4f') }),
      ...(mask === 'output' ? { norm_y: readFloats('vec4f') } : {}),
      ...(mask === null ? {} : { sums: write('vec4f') }),
    },
    uniforms: {},
    change: change.join('\n    '),
    sums: mask === null ? null : { first: 'value', second: `value * (centered * norm_affine[of_norm + 3u * ${c4}])` },
  };
}
