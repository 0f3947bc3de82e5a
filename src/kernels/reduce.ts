/** Sums in a fixed order: same grid, same bits. */
import { builtins, defineKernel, linearIndex, read, treeStart, write } from './contract.ts';

/** y[i] = Σ_s partials[s · n + i], s in index order. Second pass of every split-K. */
export const sumPartials = defineKernel({
  name: 'sumPartials',
  bindings: { partials: read('vec4f'), y: write('vec4f') },
  uniforms: { n: 'u32', splits: 'u32' },
  wgsl: /* wgsl */ `
@compute @workgroup_size(64)
fn main(${builtins}) {
  let i = ${linearIndex};
  if (i >= u.n) { return; }
  let start = wid.z * u.splits * u.n + i;
  var total = vec4f();
  for (var s = 0u; s < u.splits; s += 1u) { total += partials[start + s * u.n]; }
  y[wid.z * u.n + i] = total;
}`,
});

/** partials[chunk, c] = Σ over the chunk's rows of x[row, c]. One thread a (chunk, vec4 of channels). */
export const columnSumPartials = defineKernel({
  name: 'columnSumPartials',
  bindings: { x: read('vec4f'), partials: write('vec4f') },
  uniforms: { rows: 'u32', c4: 'u32', rows_per_chunk: 'u32', chunks: 'u32' },
  wgsl: /* wgsl */ `
@compute @workgroup_size(64)
fn main(${builtins}) {
  let i = ${linearIndex};
  if (i >= u.chunks * u.c4) { return; }
  let first = i / u.c4 * u.rows_per_chunk;
  let end = min(first + u.rows_per_chunk, u.rows);
  var total = vec4f();
  for (var row = first; row < end; row += 1u) { total += x[row * u.c4 + i % u.c4]; }
  partials[i] = total;
}`,
});

/** vec4s that one workgroup of `sumAll` reduces. */
export const sumChunk = 4096;

/**
 * y[t, chunk] = Σ of a chunk of x[t]; in the last pass (`last` = 1) the four lanes are added too and multiplied by `factor`, in lane 0.
 * z = trial, x = chunk. 64 threads: a strided sum each, then a tree.
 */
export const sumAll = defineKernel({
  name: 'sumAll',
  bindings: { x: read('vec4f'), y: write('vec4f') },
  uniforms: { n: 'u32', chunks: 'u32', last: 'u32', factor: 'f32' },
  wgsl: /* wgsl */ `
var<workgroup> sums: array<vec4f, 64>;
@compute @workgroup_size(64)
fn main(${builtins}) {
  let chunk = wid.x + wid.y * nwg.x;
  let end = min((chunk + 1u) * ${sumChunk}u, u.n);
  var total = vec4f();
  for (var i = chunk * ${sumChunk}u + lid.x; i < end; i += 64u) { total += x[wid.z * u.n + i]; }
  sums[lid.x] = total;
  for (var half = ${treeStart('u.n')}; half > 0u; half /= 2u) {
    workgroupBarrier();
    if (lid.x < half) { sums[lid.x] += sums[lid.x + half]; }
  }
  if (lid.x == 0u && chunk < u.chunks) {
    let s = sums[0];
    y[wid.z * u.chunks + chunk] = select(s, vec4f((s.x + s.y + s.z + s.w) * u.factor, 0.0, 0.0, 0.0), u.last == 1u);
  }
}`,
});
