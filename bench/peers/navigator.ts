import { summarizeAdapter, type AdapterSummary } from '../../src/gpu/device.ts';

export interface Offered {
  /** Waits for the device that was asked for last. */
  fence(): Promise<void>;
  /** The adapter that it was asked of. */
  adapter(): AdapterSummary;
}

/** Dawn as `navigator.gpu`, where the peers look for it. */
export async function offerNavigator(): Promise<Offered> {
  const { create } = await import('webgpu');
  const gpu = create([]) as GPU;
  let device: GPUDevice | null = null;
  let adapter: GPUAdapter | null = null;
  const { requestDevice } = GPUAdapter.prototype;
  GPUAdapter.prototype.requestDevice = async function (...args) {
    adapter = this;
    return (device = await requestDevice.apply(this, args));
  };
  Object.defineProperty(globalThis, 'navigator', {
    value: { gpu, userAgent: 'node', platform: process.platform, hardwareConcurrency: 1 },
    configurable: true,
  });
  return { fence: async () => void (await device?.queue.onSubmittedWorkDone()), adapter: () => summarizeAdapter(adapter!) };
}
