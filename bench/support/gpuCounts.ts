/**
 * What a process asks of WebGPU, counted at the API itself, so that the same figures hold for any library: the prototypes are wrapped
 * before the first device is opened. Every GPU error, and the loss of the device, ends the process with code 1: a bench that computes
 * nothing is fast.
 */
export interface GpuCounts {
  dispatches: number;
  submits: number;
  pipelines: number;
  bindGroups: number;
  buffers: number;
  liveBytes: number;
  peakBytes: number;
}

const counts: GpuCounts = { dispatches: 0, submits: 0, pipelines: 0, bindGroups: 0, buffers: 0, liveBytes: 0, peakBytes: 0 };

export const gpuCounts = (): GpuCounts => ({ ...counts });

/** From here on, `peakBytes` is the peak since now. */
export function restartPeak(): void {
  counts.peakBytes = counts.liveBytes;
}

type Method = (this: object, ...args: never[]) => unknown;

/** Runs `after` with the arguments and the result of every call. */
function wrap(type: { prototype: object }, name: string, after: (result: unknown, args: never[], self: object) => void): void {
  const methods = type.prototype as Record<string, Method>;
  const original = methods[name];
  methods[name] = function (...args) {
    const result = original.apply(this, args);
    after(result, args, this);
    return result;
  };
}

function stop(message: string): void {
  process.stderr.write(`GPU error: ${message.slice(0, 1000)}\n`);
  process.exit(1);
}

function stopAtErrors(device: GPUDevice): void {
  device.addEventListener('uncapturederror', (event) => stop((event as GPUUncapturedErrorEvent).error.message));
  void device.lost.then(({ reason, message }) => {
    if (reason !== 'destroyed') stop(`the device is lost: ${message}`);
  });
}

function countBuffers(): void {
  const sizes = new WeakMap<object, number>();
  wrap(GPUDevice, 'createBuffer', (buffer) => {
    const { size } = buffer as GPUBuffer;
    sizes.set(buffer as GPUBuffer, size);
    counts.buffers++;
    counts.liveBytes += size;
    counts.peakBytes = Math.max(counts.peakBytes, counts.liveBytes);
  });
  wrap(GPUBuffer, 'destroy', (_, __, buffer) => {
    counts.liveBytes -= sizes.get(buffer) ?? 0;
    sizes.delete(buffer);
  });
}

/** Makes WebGPU's classes global and counts from here on. Call it once, before any device is opened. */
export async function countGpu(): Promise<void> {
  const { globals } = await import('webgpu');
  for (const [name, value] of Object.entries(globals)) {
    Object.defineProperty(globalThis, name, { value, configurable: true, writable: true });
  }
  countBuffers();
  wrap(GPUQueue, 'submit', () => counts.submits++);
  wrap(GPUComputePassEncoder, 'dispatchWorkgroups', () => counts.dispatches++);
  wrap(GPUComputePassEncoder, 'dispatchWorkgroupsIndirect', () => counts.dispatches++);
  wrap(GPUDevice, 'createComputePipeline', () => counts.pipelines++);
  wrap(GPUDevice, 'createComputePipelineAsync', () => counts.pipelines++);
  wrap(GPUDevice, 'createBindGroup', () => counts.bindGroups++);
  wrap(GPUAdapter, 'requestDevice', (device) => void (device as Promise<GPUDevice>).then(stopAtErrors));
}
