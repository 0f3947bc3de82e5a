/** Events whose rule runs here: a score of one's own, or a scheduler that overrides the rule. Their losses are read back. */
import type { Memory } from '../graph/memory.ts';
import type { TrialEvent, TrialScheduler } from '../sched/index.ts';
import { trialFactors, writeCoefficients, type TrialChunk } from './trialRule.ts';

export class HostRule {
  readonly #staging: GPUBuffer;

  constructor(
    readonly memory: Memory,
    readonly scheduler: TrialScheduler,
    readonly chunks: readonly TrialChunk[],
  ) {
    const sizeBytes = chunks.reduce((sum, { losses }) => sum + losses.size, 0);
    this.#staging = memory.create('trials', 'trial staging', sizeBytes, GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST);
  }

  /** Runs the trials of a step by `submit`, which also records the copy it is given, and moves the rate by their losses. */
  async run(step: number, submit: (copy: (encoder: GPUCommandEncoder) => void) => void): Promise<TrialEvent> {
    const { memory, scheduler, chunks } = this;
    const rates = scheduler.trialRates();
    const coefficients = trialFactors(scheduler).map((_, i) => rates[i] ?? 0);
    writeCoefficients(memory, chunks, 1, coefficients);
    submit((encoder) => {
      let at = 0;
      for (const { losses } of chunks) {
        encoder.copyBufferToBuffer(losses.buffer, losses.offset, this.#staging, at, losses.size);
        at += losses.size;
      }
    });
    const values = new Float32Array(await memory.device.readStaging(this.#staging));
    const losses = coefficients.map((_, trial) => values[trial * 4]);
    return scheduler.apply(step, losses.slice(0, rates.length), losses[rates.length] ?? null);
  }
}
