/**
 * Prints one line of JSON about the adapter that Dawn gives in this environment, then exits. Run as a child process: a broken Vulkan driver
 * can take its process down, and VK_DRIVER_FILES is best set before the process starts.
 *
 * {found: true, software, vendor, architecture, device, description} | {found: false, reason, bindingFailed}
 */
import { writeSync } from 'node:fs';

/** What one requestAdapter() in a fresh Dawn instance gives, as the object above. */
async function probe() {
  let webgpu;
  try {
    webgpu = await import('webgpu');
  } catch (error) {
    return { found: false, bindingFailed: true, reason: String(error?.message ?? error).split('\n')[0] };
  }
  // Dawn aborts the process once this object is collected while adapters live.
  const gpu = webgpu.create([]);
  globalThis.keepAlive = gpu;
  const adapter = await gpu.requestAdapter({ powerPreference: 'high-performance' });
  if (!adapter) return { found: false, bindingFailed: false, reason: 'requestAdapter() gave null' };
  const { vendor, architecture, device, description, isFallbackAdapter } = adapter.info;
  const opened = await adapter.requestDevice();
  opened.destroy();
  return { found: true, software: Boolean(isFallbackAdapter), vendor, architecture, device, description };
}

let result;
try {
  result = await probe();
} catch (error) {
  result = { found: false, bindingFailed: false, reason: String(error?.message ?? error).split('\n')[0] };
}
writeSync(1, `${JSON.stringify(result)}\n`);
process.exit(0);
