/** Events whose rule runs here: a score of one's own, or a scheduler that overrides the rule. Their losses are read back. */
import type { Memory } from '../graph/memory.ts';
import type { Storage } from '../graph/tensor.ts';
import { stepAsMove } from '../optim/sgd.ts';
import type { TrialEvent, TrialScheduler } from '../sched/index.ts';
import type { StepPlans } from './stepPlans.ts';
import { coefficientForm, presentPoint, reachOf, samplesOf, trialFactors } from './trialRule.ts';

export class HostRule {
  readonly #staging: GPUBuffer;

  constructor(
    readonly memory: Memory,
    readonly scheduler: TrialScheduler,
    readonly plans: StepPlans,
    /** Of the run, by which a control shuffles losses. */
    readonly seed: number,
  ) {
    this.sync();
    const sizeBytes = this.#copied.reduce((sum, { size }) => sum + size, 0);
    this.#staging = memory.create('trials', 'trial staging', sizeBytes, GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST);
  }

  /** What an event reads back, one behind the other. */
  get #copied(): Storage[] {
    const { trials, flags } = this.plans;
    const { losses, slope, samples } = trials!;
    return [losses, flags, ...(slope ? [slope] : []), ...(samples ? [samples.storage] : [])];
  }

  /**
   * Runs the trials of a step by `submit`, which also records the copy it is given, and moves the rate by their losses; null, and nothing moved,
   * where the step is lost already.
   * @param base of this step: trials are made at base · m · f
   */
  async run(step: number, base: number, isFirst: boolean, submit: (copy: (encoder: GPUCommandEncoder) => void) => void): Promise<TrialEvent | null> {
    const { scheduler, plans, memory } = this;
    const { queue } = memory.device.gpu;
    const rates = scheduler.trialRates(base);
    const rows = trialFactors(scheduler).map((_, i) => this.#coefficients(i, rates[i] ?? 0, isFirst));
    const { coefficients, losses, slope, samples } = plans.trials!;
    queue.writeBuffer(coefficients.buffer, coefficients.offset, Float32Array.from(rows.flat()));
    submit((encoder) => {
      let at = 0;
      for (const { buffer, offset, size } of this.#copied) {
        encoder.copyBufferToBuffer(buffer, offset, this.#staging, at, size);
        at += size;
      }
    });
    const bytes = await memory.device.readStaging(this.#staging);
    if (new Uint32Array(bytes, losses.size)[0] !== 0) return null;
    const values = [...new Float32Array(bytes, 0, rows.length)];
    const rest = new Float32Array(bytes, losses.size + plans.flags.size);
    const looked = { slope: slope && rest[0] * reachOf(scheduler, plans.sgd.options), samples: samples && samplesOf(samples, rest, rates.length) };
    const evidence = { baseRate: base, seed: this.seed, ...looked };
    return scheduler.apply(step, values.slice(0, rates.length), values[rates.length] ?? null, evidence);
  }

  /** Brings momentum and weight decay to the GPU, where the steps of a grid read them. */
  sync(): void {
    const { scheduler, plans, memory } = this;
    const { momentum, weightDecay } = presentPoint(scheduler, plans.sgd.options);
    memory.device.gpu.queue.writeBuffer(plans.rates.buffer, plans.rates.offset + 8, Float32Array.of(momentum, weightDecay));
  }

  /** Of a trial: c of the direction, or those of the whole step where momentum and weight decay are tried. */
  #coefficients(trial: number, lr: number, isFirst: boolean): number[] {
    const { scheduler, plans } = this;
    const { momenta, weightDecays } = scheduler.options;
    const { options } = plans.sgd;
    const form = coefficientForm(scheduler, options);
    if (form === 0) return [-lr * reachOf(scheduler, options)];
    const present = presentPoint(scheduler, options);
    const point = { momentum: momenta?.[trial] ?? present.momentum, weightDecay: weightDecays?.[trial] ?? present.weightDecay };
    const { decay, ofBuffer, ofGradient } = stepAsMove(options, { lr, ...point, isFirst });
    return form === 1 ? [decay, ofGradient] : [decay, ofBuffer, ofGradient];
  }
}
