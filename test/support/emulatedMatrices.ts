/** A matrix unit in plain WGSL, for adapters without one: the same fragments at the same places, each product and sum by the invocations. */
import type { Tile } from '../../src/kernels/igemm.ts';
import type { FragmentPlace, MatrixSize, MatrixUnit } from '../../src/kernels/matrixUnit.ts';

function emulatedMatrices({ m, n, k }: MatrixSize, lanes: number): MatrixUnit {
  const each = (m * n) / lanes;
  // No compiler knows that the stride is below 65,536: loops are not unrolled, which lavapipe would compile for minutes.
  const upTo = (count: number): string => `${count}u + (u.stride >> 16u)`;
  const fragment = (name: string, { offset, stride }: FragmentPlace, along: 'k' | 'mn') =>
    `let ${name} = vec3u(${offset}, ${stride}u, ${along === 'k' ? 1 : 0}u);`;
  return {
    m,
    n,
    k,
    lanes,
    name: `emulated${m}x${n}x${k}`,
    enable: [],
    functions: /* wgsl */ `
alias Sums = array<f32, ${each}>;
fn fragment_place(fragment: vec3u, line: u32, depth: u32) -> u32 {
  return fragment.x + select(depth * fragment.y + line, line * fragment.y + depth, fragment.z == 1u);
}
fn multiply(before: Sums, left: vec3u, right: vec3u, lane: u32) -> Sums {
  var sums = before;
  for (var e = 0u; e < ${upTo(each)}; e += 1u) {
    let at = e * ${lanes}u + lane;
    for (var depth = 0u; depth < ${upTo(k)}; depth += 1u) {
      let a = f32(half_a[fragment_place(left, at / ${n}u, depth)]);
      sums[e] += a * f32(half_b[fragment_place(right, at % ${n}u, depth)]);
    }
  }
  return sums;
}`,
    attributes: '',
    zero: (name) => `var ${name} = Sums();`,
    left: fragment,
    right: fragment,
    multiply: (result, left, right) => `${result} = multiply(${result}, ${left}, ${right}, lane);`,
    store: (result, { array, offset, stride }) =>
      `{ let start = ${offset}; for (var e = 0u; e < ${upTo(each)}; e += 1u) { let at = e * ${lanes}u + lane; ${array}[start + at / ${n}u * ${stride}u + at % ${n}u] = ${result}[e]; } }`,
  };
}

/** Tiles that compile soon: two subgroups that take K in two steps; four that store in two strips, of fragments that are not square. */
export const emulatedTiles: readonly Tile[] = [
  { m: 32, n: 32, k: 16, rows: 4, columns: 4, unit: emulatedMatrices({ m: 16, n: 16, k: 8 }, 32) },
  { m: 64, n: 16, k: 8, rows: 8, columns: 4, unit: emulatedMatrices({ m: 16, n: 8, k: 8 }, 8) },
];
