/** One run of a study: a trainer made by the recipe, and what came of it. */
import { limitSet, type ImageDataset } from '../data/dataset.ts';
import type { Device } from '../gpu/device.ts';
import { resnet18 } from '../nn/index.ts';
import { Trainer } from '../train/index.ts';
import { costOf } from './cost.ts';
import { methods } from './methods.ts';
import { runId, type Recipe } from './recipe.ts';
import { resultFormat, type FinishedRun } from './result.ts';
import { RunLog } from './runLog.ts';

export interface RunJob {
  readonly recipe: Recipe;
  /** The whole set: the recipe says how much of it is used. */
  readonly dataset: ImageDataset;
  readonly device: Device;
  /** Of forkstep. */
  readonly version: string;
  /** Ends the run after the step in progress: it then has no result. */
  readonly signal?: AbortSignal;
  /** Called as steps are logged. */
  readonly onProgress?: (done: number, total: number) => void;
}

/** What every trainer of a recipe is made with. */
export const trainerOptions = ({ recipe, dataset, device }: RunJob) => ({
  model: resnet18({ stem: recipe.stem, width: recipe.width, numClasses: dataset.train.classes.length, seed: recipe.seed }),
  dataset: { ...dataset, train: limitSet(dataset.train, recipe.train), test: limitSet(dataset.test, recipe.test) },
  device, batchSize: recipe.batch, epochs: recipe.epochs, optimizer: recipe.optimizer, augment: recipe.augment, seed: recipe.seed,
});

/** The result of a run whose log has ended. */
export function resultOf(
  { recipe, version, device }: RunJob,
  log: RunLog,
  { steps, divergence, cost }: Pick<FinishedRun, 'steps' | 'divergence' | 'cost'>,
): FinishedRun {
  const kept = log.end();
  const last = divergence ? undefined : kept.epochs.at(-1);
  return {
    format: resultFormat, id: runId(recipe), status: divergence ? 'diverged' : 'done', testAccuracy: last?.testAccuracy ?? null,
    testLoss: last?.testLoss ?? null, ...kept, recipe, version, adapter: device.adapter.description || device.adapter.device, steps, divergence, cost,
  };
}

/** Null where the signal ended it. @throws whatever the trainer throws */
export async function runRecipe(job: RunJob): Promise<FinishedRun | null> {
  const { recipe, signal, onProgress } = job;
  const { method, lr, options, epochs, batch } = recipe;
  const schedule = methods[method].schedule({ lr, epochs, options });
  const trainer = await Trainer.create({ ...trainerOptions(job), schedule });
  try {
    const log = new RunLog(trainer.stepsPerEpoch);
    const { steps, divergence, aborted } = await trainer.run({
      signal,
      onSteps: (some) => {
        log.addSteps(some);
        onProgress?.(some[some.length - 1].step + 1, trainer.totalSteps);
      },
      onEvent: (event) => log.addEvent(event),
      onEvaluation: (evaluation) => log.addEvaluation(evaluation),
    });
    if (aborted && !divergence && steps < trainer.totalSteps) return null;
    return resultOf(job, log, { steps, divergence, cost: costOf(schedule, batch, steps, log.eventCount) });
  } finally {
    await trainer.close();
  }
}
