/** Evaluation: one batch of the test set in inference mode, added to the totals Σ loss, right answers, images seen. */
import type { Device } from '../gpu/device.ts';
import { controlWords, type Control } from '../graph/control.ts';
import { crossEntropy } from '../graph/functional.ts';
import { fuse } from '../graph/fuse/index.ts';
import { emit, type LowerContext } from '../graph/lower/context.ts';
import type { Memory } from '../graph/memory.ts';
import { draft, type Draft, type Plan } from '../graph/plan.ts';
import { submit } from '../graph/run.ts';
import { ceil4, type Storage, type Tensor } from '../graph/tensor.ts';
import { accumulateEvaluation } from '../kernels/crossEntropy.ts';
import { inferenceContext, type Module } from '../nn/module.ts';
import type { Batch } from './feed.ts';
import type { Evaluation } from './trainerOptions.ts';

export interface EvaluationGraph {
  readonly batch: Batch;
  readonly logits: Tensor;
  readonly losses: Tensor;
}

export function evaluationGraph(model: Module, batch: Batch): EvaluationGraph {
  const [logits] = fuse([model.forward(batch.x, inferenceContext())]);
  return { batch, logits, losses: crossEntropy(logits, batch.labels) };
}

export function draftEvaluation(
  { batch, logits, losses }: EvaluationGraph,
  { memory, control, totals, lowering }: { memory: Memory; control: Control; totals: Storage; lowering: LowerContext },
): Draft {
  const { labels } = batch;
  const [, classes] = logits.shape;
  return draft(
    memory,
    'evaluation',
    [logits, losses].map((tensor) => ({ tensor, storage: null })),
    [
      emit(accumulateEvaluation, {
        bindings: { logits, labels, losses, control: control.storage, totals },
        uniforms: { classes, stride: ceil4(classes), rows_word: controlWords.rows },
        grid: [1, 1, 1],
      }),
    ],
    lowering,
  );
}

export interface Evaluated {
  readonly device: Device;
  readonly control: Control;
  readonly plan: Plan;
  readonly totals: Storage;
  /** Images of the test set, and of a batch. */
  readonly count: number;
  readonly batchSize: number;
}

/** Mean loss and accuracy over the test images. Waits for the GPU. */
export async function evaluateTest({ device, control, plan, totals, count, batchSize }: Evaluated): Promise<Omit<Evaluation, 'step'>> {
  device.gpu.queue.writeBuffer(totals.buffer, totals.offset, new Float32Array(3));
  for (let cursor = 0; cursor < count; cursor += batchSize) {
    control.write({ cursor, counter: 0, rows: Math.min(batchSize, count - cursor) });
    submit(device, plan);
  }
  const [loss, right, seen] = new Float32Array(await device.read(totals.buffer, totals.offset, 12));
  return { testLoss: loss / seen, testAccuracy: right / seen };
}
