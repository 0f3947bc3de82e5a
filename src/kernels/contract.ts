/**
 * What a kernel is: WGSL plus the contract that the rest of the engine needs to launch it. Pure data, no GPU calls.
 *
 * The declarations of bindings and uniforms are generated from the contract, so their order and types stand in one place only.
 * `kernel.source` is the whole WGSL, as it is compiled.
 *
 * Activations and their gradients may be stored as f16. A kernel does not see it: it computes in f32 and reaches them by generated functions,
 * `load_x(i)` and `store_y(i, value)`, which convert where `withHalves` says so. Beyond ±65504 is ±Inf, whichever way the adapter rounds.
 */
export type Access = 'read' | 'write';
export type UniformType = 'u32' | 'i32' | 'f32';

export interface Binding {
  /** `write` covers read-write too: WGSL has no write-only storage buffers. */
  readonly access: Access;
  /** WGSL type of one element of the runtime array as the kernel sees it, e.g. `vec4f`. */
  readonly type: string;
  /** Reached by `load_NAME` and `store_NAME`, whether stored as f32 or f16. */
  readonly isFloats?: true;
}

export interface KernelContract<B extends string, U extends string> {
  /** Label of module, pipeline and dispatch: op + direction + variant. */
  readonly name: string;
  /** Key order is `@binding` order in `@group(0)`; the uniform buffer comes last. */
  readonly bindings: Readonly<Record<B, Binding>>;
  /** Key order is member order of `struct Uniforms`; every member is 4 bytes wide. */
  readonly uniforms: Readonly<Record<U, UniformType>>;
  /** WGSL language features it needs. @default none */
  readonly enable?: readonly string[];
  /**
   * Declares `operand(vec4f)`: what enters a product, rounded to f16 in variants with halves, as matrix units take it; less than 2^-14 may be 0.
   * @default false
   */
  readonly hasProduct?: boolean;
  /** WGSL without binding declarations; uniforms are read as `u.name`. */
  readonly wgsl: string;
}

export interface Kernel<B extends string = string, U extends string = string> extends KernelContract<B, U> {
  /** The complete WGSL, declarations included: also the pipeline cache key. */
  readonly source: string;
  /** Bindings that are stored as f16. */
  readonly halves: readonly B[];
}

export const read = (type: string): Binding => ({ access: 'read', type });
export const write = (type: string): Binding => ({ access: 'write', type });

type FloatType = 'f32' | 'vec4f';
/** Activations and their gradients, never weights, statistics, losses or partial sums: `load_NAME(i)`. */
export const readFloats = (type: FloatType): Binding => ({ access: 'read', type, isFloats: true });
/** As `readFloats`, with `store_NAME(i, value)` too. */
export const writeFloats = (type: 'vec4f'): Binding => ({ access: 'write', type, isFloats: true });

const halfTypes: Record<FloatType, string> = { f32: 'f16', vec4f: 'vec4h' };

/** Adapters may cut numbers beyond f16 to its largest: here they are Inf before. */
const halfFunctions = /* wgsl */ `
fn in_half(value: vec4f) -> vec4f { return select(value, value * 1e38, abs(value) >= vec4f(65520.0)); }`;

/** `quantizeToF16`, as compilers drop a conversion to f16 and back. */
const operandFunction = (hasHalves: boolean): string =>
  `fn operand(value: vec4f) -> vec4f { return ${hasHalves ? 'quantizeToF16(in_half(value))' : 'value'}; }`;

/** Declaration of a binding, with the functions that reach it. */
function declare(name: string, index: number, { access, type, isFloats }: Binding, isHalf: boolean): string {
  const mode = access === 'read' ? 'read' : 'read_write';
  const stored = isHalf ? halfTypes[type as FloatType] : type;
  const functions = [
    `fn load_${name}(i: u32) -> ${type} { return ${isHalf ? `${type}(${name}[i])` : `${name}[i]`}; }`,
    ...(access === 'write' ? [`fn store_${name}(i: u32, value: ${type}) { ${name}[i] = ${isHalf ? `vec4h(in_half(value))` : 'value'}; }`] : []),
  ];
  return [`@group(0) @binding(${index}) var<storage, ${mode}> ${name}: array<${stored}>;`, ...(isFloats ? functions : [])].join('\n');
}

/** Completes a contract with its generated declarations. */
export function defineKernel<B extends string, U extends string>(contract: KernelContract<B, U>): Kernel<B, U> {
  return generate(contract, []);
}

/** The variant of a kernel that finds some of its float bindings stored as f16. */
export function withHalves<B extends string, U extends string>(kernel: Kernel<B, U>, halves: readonly NoInfer<B>[]): Kernel<B, U> {
  return halves.length === 0 ? kernel : generate({ ...kernel, name: `${kernel.name}_f16_${halves.join('_')}` }, halves);
}

function generate<B extends string, U extends string>(contract: KernelContract<B, U>, halves: readonly B[]): Kernel<B, U> {
  const uniformNames = Object.keys(contract.uniforms) as U[];
  const bindingNames = Object.keys(contract.bindings) as B[];
  const hasHalves = halves.length > 0;
  const declarations = [
    ...[...new Set([...(contract.enable ?? []), ...(hasHalves ? ['f16'] : [])])].map((feature) => `enable ${feature};`),
    `struct Uniforms {\n${uniformNames.map((name) => `  ${name}: ${contract.uniforms[name]},`).join('\n')}\n}`,
    ...bindingNames.map((name, index) => declare(name, index, contract.bindings[name], halves.includes(name))),
    `@group(0) @binding(${bindingNames.length}) var<uniform> u: Uniforms;`,
    ...(hasHalves ? [halfFunctions] : []),
    ...(contract.hasProduct ? [operandFunction(hasHalves)] : []),
  ];
  return { ...contract, halves, source: `// ${contract.name}\n${declarations.join('\n')}\n${contract.wgsl}` };
}

/** One launch: a kernel, what its bindings hold (`R` is the caller's idea of a buffer), its uniform values and its grid in workgroups. */
export interface Launch<R> {
  readonly kernel: Kernel;
  readonly bindings: Readonly<Record<string, R>>;
  readonly uniforms: Readonly<Record<string, number>>;
  readonly grid: readonly [number, number, number];
  /** Floating-point operations that its result needs, where they are what it costs: padding does not count, a multiply-add is two. */
  readonly flops?: number;
  /** Bytes that it touches, where these are not all of its bindings. */
  readonly bytes?: number;
  /** Whose work it is, for profiles. */
  readonly owner?: Owner;
}

export interface Owner {
  /** `layer1.0.conv1`; empty for what is of no layer. */
  readonly layer: string;
  /** Null outside of a network. */
  readonly direction: 'forward' | 'backward' | null;
}

/** What a launch is made of, beside its kernel; names are those of the kernel's contract. */
export interface LaunchArgs<R, B extends string, U extends string> extends Pick<Launch<R>, 'grid' | 'flops' | 'bytes'> {
  readonly bindings: Readonly<Record<B, R>>;
  readonly uniforms: Readonly<Record<U, number>>;
}

/** Builds a launch with names checked against the kernel's contract by the compiler. */
export function launch<R, B extends string, U extends string>(
  kernel: Kernel<B, U>,
  args: LaunchArgs<R, NoInfer<B>, NoInfer<U>>,
): Launch<R> {
  return { kernel: kernel as unknown as Kernel, ...args };
}

/** Most workgroups in one grid dimension that every WebGPU device allows. */
export const maxGridDimension = 65535;

/** Workgroups for `n` threads of 1-D work; spills into y past 65,535. Threads read their index with `linearIndex`. */
export function grid1d(n: number, workgroupSize: number, z = 1): [number, number, number] {
  const workgroups = Math.max(1, Math.ceil(n / workgroupSize));
  const x = Math.min(workgroups, maxGridDimension);
  return [x, Math.ceil(workgroups / x), z];
}

/** Index of the thread in a `grid1d` launch of 64-thread workgroups. Needs `wid`, `lid` and `nwg` in scope. */
export const linearIndex = '(wid.x + wid.y * nwg.x) * 64u + lid.x';

/** The builtins every 1-D kernel takes. */
export const builtins =
  '@builtin(workgroup_id) wid: vec3u, @builtin(local_invocation_id) lid: vec3u, @builtin(num_workgroups) nwg: vec3u';

/** floor(x / d) through one float multiplication: exact for x < 2^20 with `inv` = f32(1 / d). */
export const fastDivide = /* wgsl */ `
fn fast_divide(x: u32, inv: f32) -> u32 { return u32((f32(x) + 0.5) * inv); }`;

/**
 * Where a tree over 64 threads begins, of which the first `count` hold anything: half of the next power of two, 0 for a single one. Levels
 * without anything to add are left out, and as no compiler knows the loop's length none unrolls it, which made lavapipe compile a copy of
 * the kernel a barrier: 2.5 s for a merge of moments, 0.8 s like this.
 * @param count a WGSL u32, uniform over the workgroup
 */
export const treeStart = (count: string): string => `select(0u, 1u << firstLeadingBit(min(${count}, 64u) - 1u), ${count} > 1u)`;

/**
 * max(x, 0), but NaN of NaN, by bits: `max` may give 0 there, and the loss of a trial whose signal is lost would be that of logits of 0, a
 * better one than many. All floats from −0 to −Inf become 0; a NaN has bits above Inf's, whatever its sign.
 */
export const relu4 = /* wgsl */ `
fn relu4(x: vec4f) -> vec4f {
  let bits = bitcast<vec4u>(x);
  return bitcast<vec4f>(select(bits, vec4u(), (bits ^ vec4u(0x80000000u)) <= vec4u(0x7f800000u)));
}`;

/** Bit test for Inf and NaN: WGSL may assume neither exists, so comparisons cannot tell. */
export const nonFinite = /* wgsl */ `
fn non_finite(x: f32) -> bool { return (bitcast<u32>(x) & 0x7f800000u) == 0x7f800000u; }
fn non_finite4(x: vec4f) -> bool { return any((bitcast<vec4u>(x) & vec4u(0x7f800000u)) == vec4u(0x7f800000u)); }`;
