/** Evaluation at another point than training's: there, and back again. */
import { Arena, type Memory } from '../graph/memory.ts';
import { fuse } from '../graph/fuse/index.ts';
import { emit, type LowerContext, type Ref } from '../graph/lower/context.ts';
import { draft, type Draft, type Output, type Plan } from '../graph/plan.ts';
import type { Storage, Tensor } from '../graph/tensor.ts';
import type { VariableStore } from '../graph/variables.ts';
import { grid1d, type Launch } from '../kernels/contract.ts';
import { averageStep } from '../kernels/secondPoint.ts';
import { trainingContext, type Module } from '../nn/module.ts';

/**
 * Gathers a model's running statistics anew: means over the statistics that batches have at the weights as they are, each weighing the
 * same.
 */
export class StatisticsGatherer {
  /** f32: 1/k for batch k. */
  readonly #share: Storage;
  readonly draft: Draft;

  /** @param batches how many are gathered from, at most */
  constructor(
    readonly memory: Memory,
    store: VariableStore,
    { x }: { readonly x: Tensor },
    model: Module,
    readonly batches: number,
    batchStatistics: Arena,
    lowering: LowerContext,
  ) {
    this.#share = memory.storage('schedule', 'share of a batch', 16);
    // Statistics are gathered after a divergence too: the flags that stop steps are not asked.
    const noFlags = memory.storage('schedule', 'no flags', 16);
    const context = trainingContext();
    model.forward(x, context);
    const outputs: Output[] = context.updates.flatMap(({ runningMean, runningVar, statistics: { mean, variance } }) => [
      { tensor: mean, storage: batchStatistics.at(store.statistics.indexOf(runningMean)) },
      { tensor: variance, storage: batchStatistics.at(store.statistics.indexOf(runningVar)) },
    ]);
    const fused = fuse(outputs.map(({ tensor }) => tensor));
    const averages = store.statisticArena.segments.map((average, i): Launch<Ref> => {
      const n = average.size / 16;
      const bindings = { value: batchStatistics.segments[i], record: this.#share, flags: noFlags, average };
      return emit(averageStep, { bindings, uniforms: { n, share_word: 0 }, grid: grid1d(n, 64) });
    });
    this.draft = draft(memory, 'gather statistics', outputs.map(({ storage }, i) => ({ tensor: fused[i], storage })), averages, lowering);
  }

  /** Before batch `index` is submitted, from 0. */
  prepare(index: number): void {
    this.memory.device.gpu.queue.writeBuffer(this.#share.buffer, this.#share.offset, Float32Array.of(1 / (index + 1)));
  }
}

/** Where evaluations are, and how to get there. */
export interface SecondPoint {
  readonly enter: Plan;
  readonly leave: Plan;
  /** Where running statistics are gathered there first. */
  readonly gather: { readonly plan: Plan; readonly gatherer: StatisticsGatherer } | null;
}

/**
 * Submits what brings the evaluation's point to where the weights are.
 * @param seek says which batch of the epoch comes, from 0 @param batches of an epoch
 */
export function enterSecondPoint(
  { enter, gather }: SecondPoint,
  submit: (plan: Plan) => void,
  seek: (index: number) => void,
  batches: number,
): void {
  submit(enter);
  if (!gather) return;
  for (let index = 0; index < Math.min(gather.gatherer.batches, batches); index++) {
    seek(index);
    gather.gatherer.prepare(index);
    submit(gather.plan);
  }
}
