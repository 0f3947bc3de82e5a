/**
 * Dot products and distances over flat memory such as an arena's, in a fixed order: same sizes, same bits. Two launches, partial sums and
 * `dotFinish`; several products, or one over several pieces of memory, leave their partial sums in one list and share the second.
 */
import { builtins, defineKernel, read, treeStart, write } from './contract.ts';

/** vec4s that one workgroup of partial sums takes. */
export const dotChunk = 4096;

/**
 * partials[first + chunk] = Σ over the chunk of a term of x and y, f32 [4n]: padding counts, so its term has to be zero. One workgroup a chunk:
 * each of 64 threads adds every 64th vec4, then a tree adds the threads. Overwrites its partials. z is unused.
 * @param term WGSL of the vec4f of terms, given the index `i`
 */
const pairPartials = (name: string, term: string) =>
  defineKernel({
    name,
    bindings: { x: read('vec4f'), y: read('vec4f'), partials: write('f32') },
    uniforms: { n: 'u32', chunks: 'u32', first: 'u32' },
    wgsl: /* wgsl */ `
var<workgroup> sums: array<vec4f, 64>;
@compute @workgroup_size(64)
fn main(${builtins}) {
  let chunk = wid.x + wid.y * nwg.x;
  let end = min((chunk + 1u) * ${dotChunk}u, u.n);
  var total = vec4f();
  for (var i = chunk * ${dotChunk}u + lid.x; i < end; i += 64u) { total += ${term}; }
  sums[lid.x] = total;
  for (var half = ${treeStart('u.n')}; half > 0u; half /= 2u) {
    workgroupBarrier();
    if (lid.x < half) { sums[lid.x] += sums[lid.x + half]; }
  }
  if (lid.x == 0u && chunk < u.chunks) {
    let s = sums[0];
    partials[u.first + chunk] = (s.x + s.y) + (s.z + s.w);
  }
}`,
  });

/** x·y */
export const dotPartials = pairPartials('dotPartials', 'x[i] * y[i]');

/** (x − y)²: x·x − 2·x·y + y·y would leave few digits where x is near y. */
export const distancePartials = pairPartials('distancePartials', '(x[i] - y[i]) * (x[i] - y[i])');

/** result[row] = Σ of the row's partials, f32 [rows][count]. One workgroup a row, x = row: strided sums, then a tree. Overwrites result. */
export const dotFinish = defineKernel({
  name: 'dotFinish',
  bindings: { partials: read('f32'), result: write('f32') },
  uniforms: { count: 'u32' },
  wgsl: /* wgsl */ `
var<workgroup> sums: array<f32, 64>;
@compute @workgroup_size(64)
fn main(${builtins}) {
  var total = 0.0;
  for (var i = lid.x; i < u.count; i += 64u) { total += partials[wid.x * u.count + i]; }
  sums[lid.x] = total;
  for (var half = ${treeStart('u.count')}; half > 0u; half /= 2u) {
    workgroupBarrier();
    if (lid.x < half) { sums[lid.x] += sums[lid.x + half]; }
  }
  if (lid.x == 0u) { result[wid.x] = sums[0]; }
}`,
});
