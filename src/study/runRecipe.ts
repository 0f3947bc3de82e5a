/** One run of a study: a trainer made by the recipe, and what came of it. */
import { decodeCheckpoint, encodeCheckpoint, Trainer, type Checkpoint } from '../train/index.ts';
import { costOf } from './cost.ts';
import { methods, type ScheduledMethod } from './methods.ts';
import { runId } from './recipe.ts';
import type { FinishedRun } from './result.ts';
import { begin, checkpointEvery, resultOf, trainerOptions, type RunJob } from './runJob.ts';
import { RunLog, type RunNotes } from './runLog.ts';
import { runTree } from './runTree.ts';

/** Null where the signal ended it. @throws whatever the trainer throws */
export function runRecipe(job: RunJob): Promise<FinishedRun | null> {
  const method = methods[job.recipe.method];
  return 'tree' in method ? runTree(job, method) : runScheduled(job, method);
}

async function runScheduled(job: RunJob, method: ScheduledMethod): Promise<FinishedRun | null> {
  const { signal, onProgress, keeper, recipe } = job;
  const { lr, options, epochs } = recipe;
  const make = () => ({ ...trainerOptions(job), schedule: method.schedule({ lr, epochs, options }) });
  const goOn = async (kept: Uint8Array) => {
    const { checkpoint, notes } = decodeCheckpoint(kept);
    const trainer = await Trainer.create({ ...make(), resume: checkpoint });
    return { trainer, log: RunLog.from(JSON.parse(String(notes)) as RunNotes, trainer.stepsPerEpoch) };
  };
  const anew = async () => {
    const trainer = await Trainer.create(make());
    return { trainer, log: new RunLog(trainer.stepsPerEpoch) };
  };
  const { trainer, log } = await begin(job, goOn, anew);
  const before = trainer.step;
  const keep = (checkpoint: Checkpoint) => keeper?.save(runId(recipe), encodeCheckpoint(checkpoint, JSON.stringify(log.notes())));
  try {
    const { steps, divergence, aborted } = await trainer.run({
      signal,
      onSteps: (some) => {
        log.addSteps(some);
        onProgress?.(some[some.length - 1].step + 1, trainer.totalSteps, before);
      },
      onEvent: (event) => log.addEvent(event),
      onEvaluation: (evaluation) => log.addEvaluation(evaluation),
      ...(keeper && { checkpointEvery, onCheckpoint: keep }),
    });
    if (aborted && !divergence && steps < trainer.totalSteps) return null;
    const cost = costOf(trainer.options.schedule, recipe.batch, steps, log.eventCount);
    return resultOf(job, log, { steps, divergence, cost });
  } finally {
    await trainer.close();
  }
}
