/** Watching the WebGPU calls of everything that runs in the process: how often each is made, and which buffers are alive. */

const watched = {
  GPUDevice: [
    'createBuffer', 'createBindGroup', 'createBindGroupLayout', 'createPipelineLayout', 'createShaderModule', 'createComputePipeline',
    'createComputePipelineAsync', 'createRenderPipeline', 'createRenderPipelineAsync', 'createTexture', 'createSampler', 'createQuerySet',
    'createRenderBundleEncoder',
  ],
  GPUBuffer: ['mapAsync', 'destroy'],
  GPUQueue: ['submit', 'writeBuffer'],
  GPUCommandEncoder: ['beginComputePass', 'copyBufferToBuffer', 'clearBuffer'],
  GPUComputePassEncoder: ['dispatchWorkgroups', 'dispatchWorkgroupsIndirect'],
} as const;

type Method = (this: object, ...args: unknown[]) => unknown;
type OnCall = (name: string, self: object, result: unknown) => void;

/** Calls `onCall` after each watched call until the returned function puts the real methods back. */
function watch(onCall: OnCall): () => void {
  const undo: (() => void)[] = [];
  for (const [className, names] of Object.entries(watched)) {
    const prototype = (globalThis as unknown as Record<string, { prototype: Record<string, Method> }>)[className].prototype;
    for (const name of names) {
      const real = prototype[name];
      if (typeof real !== 'function') throw new Error(`gpuCalls: ${className}.${name} must exist on this WebGPU`);
      prototype[name] = function (...args) {
        const result = real.apply(this, args);
        onCall(name, this, result);
        return result;
      };
      undo.push(() => (prototype[name] = real));
    }
  }
  return () => undo.forEach((restore) => restore());
}

export type Calls = Readonly<Record<string, number>>;

/** The calls that `run` makes, by name; those never made are 0. */
export async function countCalls(run: () => Promise<void>): Promise<Calls> {
  const counts: Record<string, number> = Object.fromEntries(Object.values(watched).flat().map((name) => [name, 0]));
  const restore = watch((name) => counts[name]++);
  try {
    await run();
  } finally {
    restore();
  }
  return counts;
}

/** Calls that make something: none of them belongs in a step. */
export const creations = (calls: Calls): Calls =>
  Object.fromEntries(Object.entries(calls).filter(([name, n]) => name.startsWith('create') && n > 0));

/** The buffers made and not destroyed while `run` runs; it may ask at any time. */
export async function withLiveBuffers<T>(run: (live: ReadonlySet<GPUBuffer>) => Promise<T>): Promise<T> {
  const live = new Set<GPUBuffer>();
  const restore = watch((name, self, result) => {
    if (name === 'createBuffer') live.add(result as GPUBuffer);
    if (name === 'destroy') live.delete(self as GPUBuffer);
  });
  try {
    return await run(live);
  } finally {
    restore();
  }
}

export const totalBytes = (buffers: Iterable<GPUBuffer>): number => [...buffers].reduce((sum, { size }) => sum + size, 0);
