/**
 * The rate of a step where the host does not know which update it is: overflows skip updates, and the host hears of them later. It gives the
 * rates for every number of skips that there may have been since the log was read; the GPU, which counts them, takes its own.
 */
import { controlWords, floatBits, type Control } from '../graph/control.ts';
import { emit, type Ref } from '../graph/lower/context.ts';
import type { Memory } from '../graph/memory.ts';
import type { Storage } from '../graph/tensor.ts';
import type { Launch } from '../kernels/contract.ts';
import { rateOfUpdate } from '../kernels/trialRule.ts';
import type { LossScaler } from './lossScaler.ts';

export class RateAhead {
  readonly #table: Storage;

  /** @param steps that may be submitted and not yet read from the log */
  constructor(
    readonly memory: Memory,
    readonly scaler: LossScaler,
    readonly control: Control,
    readonly rates: Storage,
    readonly steps: number,
  ) {
    this.#table = memory.storage('slots', 'rates ahead', (steps + 1) * 4);
  }

  /** Takes the rate where the event and the update look for it. Before both. */
  launch(): Launch<Ref> {
    return emit(rateOfUpdate, {
      bindings: { table: this.#table, scaling: this.scaler.state, control: this.control.storage, rates: this.rates },
      uniforms: { last: this.steps, skipped_word: controlWords.skipped, envelope_word: controlWords.envelope },
      grid: [1, 1, 1],
    });
  }

  /**
   * Before a step is submitted, after `unread` others of which the log has not been read.
   * @param made updates that are known to be made @param skipped and to be skipped
   */
  write(made: number, unread: number, skipped: number, rateAt: (update: number) => number): void {
    const rates = Float32Array.from({ length: unread + 1 }, (_, skips) => rateAt(made + unread - skips));
    this.memory.device.gpu.queue.writeBuffer(this.#table.buffer, this.#table.offset, rates);
    this.control.write({ skipped, envelope: floatBits(rates[0]) });
  }
}
