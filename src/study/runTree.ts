/** A run whose rate is searched as a tree of trainings, side by side. */
import type { TrialEvent } from '../sched/index.ts';
import { AlrTrainer, decodeAlrCheckpoint, encodeCheckpoint, type AlrCheckpoint, type AlrEpoch, type Evaluation } from '../train/index.ts';
import { treeCost } from './cost.ts';
import type { TreeMethod } from './methods.ts';
import { runId } from './recipe.ts';
import { begin, checkpointEvery, resultOf, trainerOptions, type RunJob } from './runJob.ts';
import type { FinishedRun } from './result.ts';
import { RunLog, type RunNotes } from './runLog.ts';

/** The end of an epoch as an event of trials: branches are trials of a whole epoch, and those that are kept weigh alike. */
function asEvent({ step, candidates, kept, rates, allNonFinite }: AlrEpoch, stepsPerEpoch: number): TrialEvent {
  const factors = candidates.map(({ factor }) => factor);
  const lrBefore = candidates[0].lr / factors[0];
  return {
    step: step - stepsPerEpoch, lrBefore, lrAfter: rates[0], multiplier: rates[0] / lrBefore, factors, losses: candidates.map(({ loss }) => loss),
    weights: candidates.map((_, i) => (kept.includes(i) ? 1 / kept.length : 0)), baseLoss: null, clamped: false,
    nonFinite: candidates.filter(({ loss }) => !Number.isFinite(loss)).length, held: false, allNonFinite, path: 'host',
  };
}

/** As of other runs: one whose last test loss is not finite has diverged, whatever earlier epochs had. */
const divergenceOf = (last: Evaluation | null): FinishedRun['divergence'] =>
  (last && !Number.isFinite(last.testLoss) ? { step: last.step, reason: `the test loss is not finite (${last.testLoss})` } : null);

/** Null where the signal ended it. @throws whatever the trainer throws */
export async function runTree(job: RunJob, method: TreeMethod): Promise<FinishedRun | null> {
  const { signal, onProgress, keeper, recipe } = job;
  const { lr, epochs, options, batch } = recipe;
  const create = (resume?: AlrCheckpoint) => AlrTrainer.create({ ...trainerOptions(job), ...method.tree({ lr, epochs, options }), resume });
  const goOn = async (kept: Uint8Array) => {
    const { checkpoint, notes } = decodeAlrCheckpoint(kept);
    const trainer = await create(checkpoint);
    return { trainer, log: RunLog.from(JSON.parse(String(notes)) as RunNotes, trainer.stepsPerEpoch) };
  };
  const anew = async () => {
    const trainer = await create();
    return { trainer, log: new RunLog(trainer.stepsPerEpoch) };
  };
  const { trainer, log } = await begin(job, goOn, anew);
  const before = trainer.step;
  const keep = (checkpoint: AlrCheckpoint) => keeper?.save(runId(recipe), encodeCheckpoint(checkpoint, JSON.stringify(log.notes())));
  try {
    const { steps, forwards, aborted, evaluation } = await trainer.run({
      signal,
      onProgress: ({ step }) => onProgress?.(step + 1, trainer.totalSteps, before),
      onSteps: (some) => log.addSteps(some),
      onEvent: (event) => log.addEvent(asEvent(event, trainer.stepsPerEpoch)),
      onEvaluation: (evaluation) => log.addEvaluation(evaluation),
      ...(keeper && { checkpointEvery, onCheckpoint: keep }),
    });
    if (aborted && steps < trainer.totalSteps) return null;
    // A run that was kept at its very end has nothing left to do but this.
    const last = before === trainer.totalSteps ? await trainer.evaluate() : evaluation;
    return resultOf(job, log, { steps, divergence: divergenceOf(last), cost: treeCost(batch, steps, forwards) });
  } finally {
    await trainer.close();
  }
}
