/** All perturbed copies of all parameters at once, as `vmap` materialises them: one launch a pair of segments. */
import { externalTensor } from '../../src/graph/ops.ts';
import { emit, type Ref } from '../../src/graph/lower/context.ts';
import { Arena, type Memory } from '../../src/graph/memory.ts';
import { upload } from '../../src/graph/plan.ts';
import { sizeBytes, type Storage, type Tensor, type Variable } from '../../src/graph/tensor.ts';
import type { VariableStore } from '../../src/graph/variables.ts';
import { builtins, defineKernel, grid1d, read, write, type Launch } from '../../src/kernels/contract.ts';

/** vec4s that a workgroup copies, of one parameter. */
const chunkVec4s = 64;

/**
 * stacked[t] = W + c_t · D.   A workgroup takes one chunk (where it lies in W and D, where trial 0 of it goes, how far the trials are
 * apart, how long it is, all in vec4s); z is the trial.
 */
const stackPerturbed = defineKernel({
  name: 'stackPerturbed',
  bindings: { weight: read('vec4f'), direction: read('vec4f'), coefficients: read('f32'), chunks: read('vec4u'), stacked: write('vec4f') },
  uniforms: { n: 'u32' },
  wgsl: /* wgsl */ `
@compute @workgroup_size(${chunkVec4s})
fn main(${builtins}) {
  let index = wid.x + wid.y * nwg.x;
  if (index >= u.n) { return; }
  let chunk = chunks[index];
  if (lid.x >= chunk.w) { return; }
  let source = chunk.x + lid.x;
  stacked[chunk.y + wid.z * chunk.z + lid.x] = weight[source] + coefficients[wid.z] * direction[source];
}`,
});

export interface Stack {
  readonly launches: Launch<Ref>[];
  /** Each parameter with a trial axis. */
  readonly weights: Map<Variable, Tensor>;
}

export function stackParameters(memory: Memory, store: VariableStore, directions: Arena, coefficients: Storage, trials: number): Stack {
  const { parameters, parameterArena } = store;
  const stacked = new Arena(memory, 'trials', 'stacked', parameters.map((variable) => trials * sizeBytes(variable)));
  const chunksOf = new Map<string, { from: number; to: number; chunks: number[] }>();
  parameters.forEach((variable, i) => {
    const [source, place] = [parameterArena.at(i), stacked.at(i)];
    const segment = (arena: Arena, { buffer }: Storage): number => arena.segments.findIndex((one) => one.buffer === buffer);
    const [from, to] = [segment(parameterArena, source), segment(stacked, place)];
    const key = `${from} ${to}`;
    if (!chunksOf.has(key)) chunksOf.set(key, { from, to, chunks: [] });
    const vec4s = sizeBytes(variable) / 16;
    for (let at = 0; at < vec4s; at += chunkVec4s) {
      chunksOf.get(key)!.chunks.push(source.offset / 16 + at, place.offset / 16 + at, vec4s, Math.min(chunkVec4s, vec4s - at));
    }
  });
  const launches = [...chunksOf.values()].map(({ from, to, chunks }) =>
    emit(stackPerturbed, {
      bindings: {
        weight: parameterArena.segments[from], direction: directions.segments[from], coefficients,
        chunks: upload(memory, 'trials', 'stack chunks', Uint32Array.from(chunks)), stacked: stacked.segments[to],
      },
      uniforms: { n: chunks.length / 4 }, grid: grid1d(chunks.length / 4, 1, trials),
    }),
  );
  const weights = new Map(
    parameters.map((variable, i) => [variable, externalTensor(stacked.at(i), { shape: variable.shape, dtype: 'f32', trials })]),
  );
  return { launches, weights };
}
