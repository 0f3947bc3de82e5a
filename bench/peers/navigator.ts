/** Dawn as `navigator.gpu`, where the peers look for it. @returns waits for the device that was asked for last */
export async function offerNavigator(): Promise<() => Promise<void>> {
  const { create } = await import('webgpu');
  const gpu = create([]) as GPU;
  let device: GPUDevice | null = null;
  const { requestDevice } = GPUAdapter.prototype;
  GPUAdapter.prototype.requestDevice = async function (...args) {
    return (device = await requestDevice.apply(this, args));
  };
  Object.defineProperty(globalThis, 'navigator', {
    value: { gpu, userAgent: 'node', platform: process.platform, hardwareConcurrency: 1 },
    configurable: true,
  });
  return async () => void (await device?.queue.onSubmittedWorkDone());
}
