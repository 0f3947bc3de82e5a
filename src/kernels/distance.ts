/** How far flat memory is from other: partial sums as those of src/kernels/dot.ts, which `dotFinish` adds. */
import { builtins, defineKernel, read, treeStart, write } from './contract.ts';
import { dotChunk } from './dot.ts';

/**
 * partials[first + chunk] = Σ over the chunk of (x − y)². As `dotPartials` in all else; x·x − 2·x·y + y·y would leave few digits where x is
 * near y.
 */
export const distancePartials = defineKernel({
  name: 'distancePartials',
  bindings: { x: read('vec4f'), y: read('vec4f'), partials: write('f32') },
  uniforms: { n: 'u32', chunks: 'u32', first: 'u32' },
  wgsl: /* wgsl */ `
var<workgroup> sums: array<vec4f, 64>;
@compute @workgroup_size(64)
fn main(${builtins}) {
  let chunk = wid.x + wid.y * nwg.x;
  let end = min((chunk + 1u) * ${dotChunk}u, u.n);
  var total = vec4f();
  for (var i = chunk * ${dotChunk}u + lid.x; i < end; i += 64u) {
    let gap = x[i] - y[i];
    total += gap * gap;
  }
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
