/**
 * Matrix units of an adapter (tensor cores): a subgroup multiplies fragments left [m][k] · right [k][n] of f16 and adds them to f32.
 *
 * A unit is WGSL fragments, so that the skeleton in `igemmMatrix.ts` stands once: `subgroupMatrices` are WGSL's own, by the extension
 * chromium_experimental_subgroup_matrix; tests put plain WGSL in their place, which runs on any adapter.
 */
export interface MatrixSize {
  /** Rows of left and result. */
  readonly m: number;
  /** Columns of right and result. */
  readonly n: number;
  /** Columns of left, rows of right. */
  readonly k: number;
}

/** Arrays in workgroup memory that fragments are loaded from and stored to. */
export type MatrixArray = 'half_a' | 'half_b' | 'sheet';

export interface MatrixUnit extends MatrixSize {
  /** Of a kernel's name. */
  readonly name: string;
  /** Invocations of a subgroup. */
  readonly lanes: number;
  /** WGSL language features beside f16. */
  readonly enable: readonly string[];
  /** WGSL before the entry point, and attributes of it. */
  readonly functions: string;
  readonly attributes: string;
  /** WGSL statement that declares a result of zeros as a variable. */
  readonly zero: (name: string) => string;
  /**
   * WGSL statements that declare a fragment, from f16 at `offset` on, in lines that are `stride` apart: lines of k where `along` is 'k', else of m (left) or
   * n (right).
   */
  readonly left: (name: string, at: FragmentPlace, along: 'k' | 'mn') => string;
  readonly right: (name: string, at: FragmentPlace, along: 'k' | 'mn') => string;
  /** WGSL statement: result += left · right. */
  readonly multiply: (result: string, left: string, right: string) => string;
  /** WGSL statement that stores a result row by row. */
  readonly store: (result: string, at: FragmentPlace) => string;
}

export interface FragmentPlace {
  readonly array: MatrixArray;
  /** WGSL of the first element's index. */
  readonly offset: string;
  /** Elements between lines. */
  readonly stride: number;
}

/**
 * WGSL's subgroup matrices. Subgroups are taken to be `lanes` invocations in a row, as they are where pipelines demand full ones of one size.
 * @source the WGSL extension chromium_experimental_subgroup_matrix, as in Dawn of the npm package webgpu 0.6.2
 */
export function subgroupMatrices({ m, n, k }: MatrixSize, lanes: number): MatrixUnit {
  const load = (name: string, type: string, { array, offset, stride }: FragmentPlace, order: 'row_major' | 'col_major'): string =>
    `let ${name} = subgroupMatrixLoad<${type}, ${order}>(&${array}, ${offset}, ${stride}u);`;
  return {
    m,
    n,
    k,
    lanes,
    name: `matrix${m}x${n}x${k}`,
    enable: ['chromium_experimental_subgroup_matrix'],
    functions: '',
    // The compiler cannot tell that the invocations of a subgroup agree on which fragments are theirs.
    attributes: '@diagnostic(off, chromium.subgroup_matrix_uniformity)',
    zero: (name) => `var ${name} = subgroup_matrix_result<f32, ${n}, ${m}>();`,
    left: (name, at, along) => load(name, `subgroup_matrix_left<f16, ${k}, ${m}>`, at, along === 'k' ? 'row_major' : 'col_major'),
    right: (name, at, along) => load(name, `subgroup_matrix_right<f16, ${n}, ${k}>`, at, along === 'k' ? 'col_major' : 'row_major'),
    multiply: (result, left, right) => `${result} = subgroupMatrixMultiplyAccumulate(${left}, ${right}, ${result});`,
    store: (result, { array, offset, stride }) => `subgroupMatrixStore<row_major>(&${array}, ${offset}, ${result}, ${stride}u);`,
  };
}
