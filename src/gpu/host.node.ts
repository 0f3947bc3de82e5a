/**
 * Node's side of the device seam (`#gpu-host`): Dawn through the npm package `webgpu`. Browsers get `host.browser.ts`.
 */
import { existsSync, readdirSync } from 'node:fs';
import { createRequire } from 'node:module';
import { cpus } from 'node:os';
import { join } from 'node:path';

/** Dawn aborts the process when the object that `create()` returned is collected: every one made stays reachable here. */
const instances: GPU[] = [];
let software: GPU | null = null;
let standard: GPU | null = null;

const toggles = ['enable-dawn-features=vulkan_enable_f16_on_nvidia,allow_unsafe_apis', 'disable-dawn-features=timestamp_quantization'];

async function createInstance(): Promise<GPU> {
  const { create, globals } = await import('webgpu');
  for (const [name, value] of Object.entries(globals)) {
    if (!(name in globalThis)) Object.defineProperty(globalThis, name, { value, configurable: true, writable: true });
  }
  const instance = create(toggles) as GPU;
  instances.push(instance);
  return instance;
}

/** Manifests of Mesa's lavapipe, the software Vulkan, where Debian, Ubuntu, Fedora and Arch put them. */
function lavapipeManifests(): string[] {
  return ['/usr/share/vulkan/icd.d', '/etc/vulkan/icd.d'].flatMap((folder) =>
    existsSync(folder)
      ? readdirSync(folder)
          .filter((name) => /^lvp_icd.*\.json$/.test(name))
          .map((name) => join(folder, name))
      : [],
  );
}

/**
 * The best adapter: a GPU where there is one, else whatever the system's Vulkan offers, else lavapipe asked for by name.
 * @returns null when there is none at all
 */
export async function requestAdapter(): Promise<GPUAdapter | null> {
  standard ??= await createInstance();
  const adapter = (await standard.requestAdapter({ powerPreference: 'high-performance' })) ?? (await standard.requestAdapter());
  if (adapter) return adapter;
  const manifests = lavapipeManifests();
  if (manifests.length === 0 || process.env.VK_DRIVER_FILES) return null;
  process.env.VK_DRIVER_FILES = manifests.join(':');
  software ??= await createInstance();
  return software.requestAdapter();
}

/** What a person on this machine has to do when `requestAdapter` finds nothing. */
export function adapterAdvice(): string {
  return process.platform === 'linux'
    ? "install a Vulkan driver: your GPU's own, or Mesa's software one ≥ 25 (Debian 12: mesa-vulkan-drivers from bookworm-backports; `npm start` in a checkout does it)"
    : 'install or update the GPU driver; WebGPU needs Vulkan, Metal or Direct3D 12';
}

/** What runs the kernels beside the driver: Dawn, and for a software adapter the processors. A measured choice holds for it. */
export function runtimeName(isSoftware: boolean): string {
  const { version } = createRequire(import.meta.url)('webgpu/package.json') as { version: string };
  const processors = cpus();
  return isSoftware ? `webgpu ${version}, ${processors.length} × ${processors[0]?.model ?? 'processor'}` : `webgpu ${version}`;
}

/** Milliseconds of processor time, user and system, of all threads of this process. */
export function cpuTimeMs(): number | null {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
}

const polled = globalThis as unknown as { setImmediate: typeof setImmediate };
const realSetImmediate = polled.setImmediate;
/** Never written: what the sleeps wait for. */
const sleeper = new Int32Array(new SharedArrayBuffer(4));
let waiting = 0;
/** When a wait last began or ended. */
let lastChange = 0;

/** Longer the longer nothing has happened, so that a wait is noticed late by 3 % of it at most: 0.05 … 1 ms. */
const sleepMs = (now: number): number => Math.min(1, Math.max(0.05, (now - lastChange) / 32));

/**
 * Awaits a GPU promise on a software adapter without burning a core. Dawn's bindings poll through `globalThis.setImmediate`, looked up at
 * every poll; while a wait is pending each poll sleeps, so that the adapter's own threads get the processor.
 */
export async function politely<T>(promise: Promise<T>): Promise<T> {
  lastChange = performance.now();
  if (waiting++ === 0) {
    polled.setImmediate = ((callback: (...args: unknown[]) => void, ...args: unknown[]) => {
      Atomics.wait(sleeper, 0, 0, sleepMs(performance.now()));
      return realSetImmediate(callback, ...args);
    }) as typeof setImmediate;
  }
  try {
    return await promise;
  } finally {
    lastChange = performance.now();
    if (--waiting === 0) polled.setImmediate = realSetImmediate;
  }
}
