/** Sums in a fixed order: same grid, same bits. */
import { builtins, defineKernel, linearIndex, maxGridDimension, read, readFloats, treeStart, write, writeFloats, type Binding, type UniformType } from './contract.ts';
import type { Epilogue } from './epilogue.ts';
import { tree } from './fragments.ts';

/** y[i] = Σ_s partials[s · n + i], s in index order. Second pass of every split-K. */
export const sumPartials = defineKernel({
  name: 'sumPartials',
  bindings: { partials: read('vec4f'), y: writeFloats('vec4f') },
  uniforms: { n: 'u32', splits: 'u32' },
  wgsl: /* wgsl */ `
@compute @workgroup_size(64)
fn main(${builtins}) {
  let i = ${linearIndex};
  if (i >= u.n) { return; }
  let start = wid.z * u.splits * u.n + i;
  var total = vec4f();
  for (var s = 0u; s < u.splits; s += 1u) { total += partials[start + s * u.n]; }
  store_y(wid.z * u.n + i, total);
}`,
});

/** Rows that one workgroup of `sumPartialsThen` adds: the chunk of its sums. */
export const sumRows = 64;

/**
 * As `sumPartials`, with what a convolution's epilogue does beside storing. A workgroup has 64 rows of 4 vec4s of columns: a thread adds rows
 * slot, slot + 16, …; the sums of a column are added in a tree. x and y as `igemmGrid` has them for
 * chunks × 4 column groups, z = trial. y [rows][c4].
 */
export const sumPartialsThen = (epilogue: Epilogue) => {
  const four = [0, 1, 2, 3];
  const { change, sums } = epilogue;
  const add = sums === null || sums === 'moments' ? '' : `first += ${sums.first}; second += ${sums.second};`;
  const moments = `first = add_slots(lid.x, grid, v_0 + v_1 + v_2 + v_3) / f32(max(min(u.rows - first_row, ${sumRows}u), 1u));
  ${four.map((i) => `if (first_row + slot + ${16 * i}u < u.rows) { second += (v_${i} - first) * (v_${i} - first); }`).join(' ')}
  second = add_slots(lid.x, grid, second);`;
  const finish = `${sums === 'moments' ? moments : 'first = add_slots(lid.x, grid, first); second = add_slots(lid.x, grid, second);'}
  if (slot == 0u && n4 < u.c4 && chunk < u.chunks) {
    let at = (wid.z * u.chunks + chunk) * 2u * u.c4 + n4;
    sums[at] = first;
    sums[at + u.c4] = second;
  }`;
  return defineKernel({
    name: `sumPartials${epilogue.name}`,
    bindings: { partials: read('vec4f'), ...epilogue.bindings, y: writeFloats('vec4f') } as Record<string, Binding>,
    uniforms: { rows: 'u32', c4: 'u32', splits: 'u32', chunks: 'u32', ...epilogue.uniforms } as Record<string, UniformType>,
    wgsl: /* wgsl */ `
var<workgroup> added: array<vec4f, 64>;
/** Σ of the value over the 16 slots of a column, in every thread of it. */
fn add_slots(thread: u32, grid: vec3u, value: vec4f) -> vec4f {
  workgroupBarrier();
  added[thread] = value;
  ${tree(32, 2, 'added[thread] += added[thread + apart];')}
  return added[thread % 4u];
}
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wid: vec3u, @builtin(local_invocation_id) lid: vec3u, @builtin(num_workgroups) grid: vec3u) {
  let groups = (u.c4 + 3u) / 4u;
  let chunk = wid.x + wid.y / groups * ${maxGridDimension}u;
  let n4 = wid.y % groups * 4u + lid.x % 4u;
  let slot = lid.x / 4u;
  let first_row = chunk * ${sumRows}u;
  let n = u.rows * u.c4;
  let trial = wid.z;
  var first = vec4f();
  var second = vec4f();
  ${four.map((i) => `var v_${i} = vec4f();
  { let row = first_row + slot + ${16 * i}u;
    if (row < u.rows && n4 < u.c4) {
      let at = trial * n + row * u.c4 + n4;
      var value = vec4f();
      for (var s = 0u; s < u.splits; s += 1u) { value += partials[(trial * (u.splits - 1u) + s) * n + at]; }
      ${change}
      store_y(at, value);
      ${add}
      v_${i} = value;
    } }`).join('\n  ')}
  ${sums === null ? '' : finish}
}`,
  });
};

/** partials[t, chunk, c] = Σ over the chunk's rows of x[t, row, c]. One thread a (chunk, vec4 of channels), z = trial. */
export const columnSumPartials = defineKernel({
  name: 'columnSumPartials',
  bindings: { x: readFloats('vec4f'), partials: write('vec4f') },
  uniforms: { rows: 'u32', c4: 'u32', rows_per_chunk: 'u32', chunks: 'u32' },
  wgsl: /* wgsl */ `
@compute @workgroup_size(64)
fn main(${builtins}) {
  let i = ${linearIndex};
  if (i >= u.chunks * u.c4) { return; }
  let first = i / u.c4 * u.rows_per_chunk;
  let end = min(first + u.rows_per_chunk, u.rows);
  var total = vec4f();
  for (var row = first; row < end; row += 1u) { total += load_x((wid.z * u.rows + row) * u.c4 + i % u.c4); }
  partials[wid.z * u.chunks * u.c4 + i] = total;
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
  bindings: { x: readFloats('vec4f'), y: write('vec4f') },
  uniforms: { n: 'u32', chunks: 'u32', last: 'u32', factor: 'f32' },
  wgsl: /* wgsl */ `
var<workgroup> sums: array<vec4f, 64>;
@compute @workgroup_size(64)
fn main(${builtins}) {
  let chunk = wid.x + wid.y * nwg.x;
  let end = min((chunk + 1u) * ${sumChunk}u, u.n);
  var total = vec4f();
  for (var i = chunk * ${sumChunk}u + lid.x; i < end; i += 64u) { total += load_x(wid.z * u.n + i); }
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
