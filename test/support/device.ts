/** The one GPU device of all test files: opening a second one costs seconds, and a software adapter has no core to spare. */
import { afterEach, beforeEach } from 'vitest';
import { openDevice, setDefaultDevice, type Device } from '../../src/gpu/device.ts';

let opened: Promise<Device> | null = null;

/** Opens the device at the first call and makes it the default one. No adapter is a failure, not a skip. */
export async function testDevice(): Promise<Device> {
  opened ??= openDevice();
  const device = await opened;
  setDefaultDevice(device);
  return device;
}

/**
 * For the top of a test file: gives every test the shared device, and fails the test that leaves a GPU error or a live buffer behind.
 * A device that has seen an error is replaced, so that one failure does not fail the tests after it.
 */
export function useDevice(): () => Device {
  let device: Device;
  let bytesBefore = 0;
  beforeEach(async () => {
    device = await testDevice();
    bytesBefore = device.liveBytes;
  });
  afterEach(async () => {
    try {
      await device.idle();
    } catch (error) {
      opened = null;
      throw error;
    }
    const left = device.liveBytes - bytesBefore;
    if (left !== 0) throw new Error(`the test left ${left} bytes in live GPU buffers`);
  });
  return () => device;
}
