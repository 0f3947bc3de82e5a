/** A browser's side of the device seam (`#gpu-host`). Node gets `host.node.ts`; both export the same names. */

export async function requestAdapter(): Promise<GPUAdapter | null> {
  if (typeof navigator === 'undefined' || !navigator.gpu) return null;
  return (await navigator.gpu.requestAdapter({ powerPreference: 'high-performance' })) ?? (await navigator.gpu.requestAdapter());
}

export function adapterAdvice(): string {
  return 'use a browser with WebGPU (Chrome or Edge ≥ 113, Firefox ≥ 141, Safari ≥ 26), over https or on localhost';
}

/** What runs the kernels beside the driver: a measured choice holds for it. */
export function runtimeName(): string {
  return navigator.userAgent;
}

/** A page cannot tell its CPU time. */
export function cpuTimeMs(): number | null {
  return null;
}

/** Browsers deliver promises without polling. */
export async function politely<T>(promise: Promise<T>): Promise<T> {
  return promise;
}
