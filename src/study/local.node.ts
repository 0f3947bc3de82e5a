/** Runs made in this process, on one device, with the data read once. */
import { readCifar10, readCifar100 } from '../data/cifar.node.ts';
import type { ImageDataset } from '../data/dataset.ts';
import { proceduralDataset } from '../data/procedural.ts';
import { AttrError, FileError } from '../gpu/errors.ts';
import { openDevice, type Device } from '../gpu/device.ts';
import { runId, type Recipe } from './recipe.ts';
import { resultFormat } from './result.ts';
import type { RunKeeper } from './runJob.ts';
import { runRecipe } from './runRecipe.ts';
import type { Executor, ShareListener } from './runner.ts';

/** Reads data sets, each once. */
export class Datasets {
  readonly #read = new Map<string, ImageDataset>();

  /** @param folder of CIFAR's files; needed by recipes on CIFAR alone */
  constructor(readonly folder: string | undefined) {}

  /** The set that a recipe takes its images from. @throws DataError where it is not there */
  of({ dataset, seed, train, test }: Pick<Recipe, 'dataset' | 'seed' | 'train' | 'test'>): ImageDataset {
    if (dataset === 'procedural') return proceduralDataset({ seed, train, test });
    if (this.folder === undefined) {
      throw new AttrError({ op: 'study', arg: 'data', rule: `must be the folder of ${dataset}`, got: this.folder, fix: 'give --data' });
    }
    if (!this.#read.has(dataset)) this.#read.set(dataset, dataset === 'cifar10' ? readCifar10(this.folder) : readCifar100(this.folder));
    return this.#read.get(dataset)!;
  }
}

/** The device is opened by the first run, and anew after one that failed, which may have lost it. */
export class LocalExecutor implements Executor {
  #device: Device | null = null;

  constructor(
    readonly datasets: Datasets,
    readonly version: string,
    /** Of runs that are broken off. */
    readonly keeper: RunKeeper,
    /** Takes a line that is no result. */
    readonly tell: (line: string) => void,
  ) {}

  /**
   * @throws DataError, AttrError, DeviceError where data or adapter are not there, FileError where a checkpoint cannot be written: no other run
   * would fare better
   */
  async run(recipe: Recipe, signal: AbortSignal, onProgress: ShareListener) {
    const { version, keeper } = this;
    const dataset = this.datasets.of(recipe);
    this.#device ??= await openDevice();
    const adapter = this.#device.adapter.description;
    try {
      const onSteps = (done: number, total: number, before: number) => onProgress(done / total, before / total);
      const onAnew = (why: string) => this.tell(`${runId(recipe)} begins anew: ${why}`);
      return await runRecipe({ recipe, dataset, device: this.#device, version, signal, keeper, onAnew, onProgress: onSteps });
    } catch (error) {
      await this.close();
      if (error instanceof FileError) throw error;
      const message = error instanceof Error ? error.message : String(error);
      return { format: resultFormat, id: runId(recipe), status: 'failed' as const, recipe, version, adapter, error: message } as const;
    }
  }

  async close(): Promise<void> {
    this.#device?.close();
    this.#device = null;
  }
}
