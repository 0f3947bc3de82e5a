/** Running kernels that no op lowers to: oracles, and snippets under test. */
import type { Device } from '../../src/gpu/device.ts';
import type { Ref } from '../../src/graph/lower/context.ts';
import { Memory } from '../../src/graph/memory.ts';
import { allocateSlots, buildPlan, draft, placeDrafts, upload } from '../../src/graph/plan.ts';
import type { Storage } from '../../src/graph/tensor.ts';
import type { Launch } from '../../src/kernels/contract.ts';

/** What a launch can bind: data to upload, or so many words to write and read back. */
export interface Bench {
  readonly input: (data: Float32Array | Uint32Array) => Storage;
  readonly output: (words: number) => Storage;
}

/** Makes launches, runs them, and returns the words of all outputs, in the order of their making. */
export async function runLaunches(device: Device, make: (bench: Bench) => Launch<Ref>[]): Promise<Uint32Array[]> {
  const memory = new Memory(device);
  try {
    const outputs: { storage: Storage; words: number }[] = [];
    const launches = make({
      input: (data) => upload(memory, 'data', 'input', data),
      output: (words) => {
        const storage = memory.storage('data', 'output', words * 4);
        outputs.push({ storage, words });
        return storage;
      },
    });
    const one = draft(memory, 'launches', [], launches);
    const placement = placeDrafts(device, [one]);
    const plan = await buildPlan(memory, one, { slots: allocateSlots(memory, placement), places: placement.places[0] });
    const encoder = device.gpu.createCommandEncoder();
    const pass = encoder.beginComputePass();
    plan.encode(pass);
    pass.end();
    device.gpu.queue.submit([encoder.finish()]);
    const words: Uint32Array[] = [];
    for (const { storage, words: size } of outputs) words.push(new Uint32Array(await device.read(storage.buffer, 0, size * 4)));
    return words;
  } finally {
    memory.release();
  }
}
