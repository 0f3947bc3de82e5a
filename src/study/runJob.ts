/** What every run of a study begins and ends with, whatever sets its rate. */
import { limitSet, type ImageDataset } from '../data/dataset.ts';
import type { Device } from '../gpu/device.ts';
import { AttrError, DataError, ShapeError } from '../gpu/errors.ts';
import { resnet18 } from '../nn/index.ts';
import { runId, type Recipe } from './recipe.ts';
import { resultFormat, type FinishedRun } from './result.ts';
import type { RunLog } from './runLog.ts';

/** Where a run that is broken off is kept. */
export interface RunKeeper {
  /** What was kept of the run of that name; null where nothing was. */
  load(id: string): Uint8Array | null;
  save(id: string, checkpoint: Uint8Array): void;
}

export interface RunJob {
  readonly recipe: Recipe;
  /** The whole set: the recipe says how much of it is used. */
  readonly dataset: ImageDataset;
  readonly device: Device;
  /** Of forkstep. */
  readonly version: string;
  /** Ends the run after the step in progress: it then has no result. */
  readonly signal?: AbortSignal;
  /** Called as steps are logged: steps done, of all, and those that a checkpoint had. */
  readonly onProgress?: (done: number, total: number, before: number) => void;
  /**
   * Takes a checkpoint now and then and where the signal ends the run, of a tree of trainings at the end of an epoch alone: the run goes on
   * from it bit for bit.
   * @default none is made
   */
  readonly keeper?: RunKeeper;
  /** Called where there is a checkpoint that cannot be gone on from, with why: the run begins anew, which has the same result. */
  readonly onAnew?: (why: string) => void;
}

/** What every trainer of a recipe is made with. */
export const trainerOptions = ({ recipe, dataset, device }: RunJob) => ({
  model: resnet18({ stem: recipe.stem, width: recipe.width, numClasses: dataset.train.classes.length, seed: recipe.seed }),
  dataset: { ...dataset, train: limitSet(dataset.train, recipe.train), test: limitSet(dataset.test, recipe.test) },
  device, batchSize: recipe.batch, epochs: recipe.epochs, optimizer: recipe.optimizer, augment: recipe.augment, seed: recipe.seed,
});

/** A run of an hour loses little; one of a minute makes none before its end. */
export const checkpointEvery = { minutes: 5 } as const;

/** A run as it was kept, or where that is nothing, or nothing to go on from, a new one. */
export async function begin<Begun>({ keeper, recipe, onAnew }: RunJob, goOn: (kept: Uint8Array) => Promise<Begun>, anew: () => Promise<Begun>): Promise<Begun> {
  const kept = keeper?.load(runId(recipe)) ?? null;
  if (!kept) return anew();
  try {
    return await goOn(kept);
  } catch (error) {
    // Damaged, or of another version. A device that is lost or out of memory says nothing of the checkpoint, which stays.
    if (!(error instanceof DataError || error instanceof AttrError || error instanceof ShapeError)) throw error;
    onAnew?.(error.message);
  }
  return anew();
}

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
