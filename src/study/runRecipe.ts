/** One run of a study: a trainer made by the recipe, and what came of it. */
import { limitSet, type ImageDataset } from '../data/dataset.ts';
import type { Device } from '../gpu/device.ts';
import { resnet18 } from '../nn/index.ts';
import { eventToJson, type TrialEvent } from '../sched/index.ts';
import { Trainer, type Divergence, type Evaluation, type LoggedStep } from '../train/index.ts';
import { costOf } from './cost.ts';
import { methods } from './methods.ts';
import { runId, type Recipe } from './recipe.ts';
import { evenly, resultFormat, thinTrace, type EpochResult, type FinishedRun } from './result.ts';

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

/** Most points of a trace of rates, and events, that a result keeps. */
const most = { rates: 200, events: 100 } as const;

/** What is logged while a run goes on. */
class RunLog {
  readonly steps: LoggedStep[] = [];
  readonly events: TrialEvent[] = [];
  readonly epochs: EpochResult[] = [];
  trainMs = 0;
  evaluationMs = 0;
  #since = performance.now();

  constructor(readonly stepsPerEpoch: number) {}

  #lap(): number {
    const before = this.#since;
    this.#since = performance.now();
    return this.#since - before;
  }

  addSteps(steps: readonly LoggedStep[]): void {
    this.trainMs += this.#lap();
    this.steps.push(...steps);
  }

  /** Comes right after the steps before it, so that the time since then is its own. */
  addEvaluation({ step, testLoss, testAccuracy }: Evaluation): void {
    this.evaluationMs += this.#lap();
    const own = this.steps.slice(-this.stepsPerEpoch);
    const trainLoss = own.reduce((sum, { loss }) => sum + loss, 0) / own.length;
    this.epochs.push({ epoch: Math.round(step / this.stepsPerEpoch), step, trainLoss, testLoss, testAccuracy });
  }
}

/** Null where the signal ended it. @throws whatever the trainer throws */
export async function runRecipe({ recipe, dataset, device, version, signal, onProgress }: RunJob): Promise<FinishedRun | null> {
  const { method, lr, options, epochs, seed, batch, stem, width, optimizer, augment } = recipe;
  const schedule = methods[method].schedule({ lr, epochs, options });
  const trainer = await Trainer.create({
    model: resnet18({ stem, width, numClasses: dataset.train.classes.length, seed }),
    dataset: { ...dataset, train: limitSet(dataset.train, recipe.train), test: limitSet(dataset.test, recipe.test) },
    schedule, device, batchSize: batch, epochs, optimizer, augment, seed,
  });
  try {
    const log = new RunLog(trainer.stepsPerEpoch);
    const { steps, divergence, aborted } = await trainer.run({
      signal,
      onSteps: (some) => {
        log.addSteps(some);
        onProgress?.(some[some.length - 1].step + 1, trainer.totalSteps);
      },
      onEvent: (event) => void log.events.push(event),
      onEvaluation: (evaluation) => log.addEvaluation(evaluation),
    });
    if (aborted && !divergence && steps < trainer.totalSteps) return null;
    const cost = costOf(schedule, batch, steps, log.events.length);
    const adapter = device.adapter.description || device.adapter.device;
    return { format: resultFormat, id: runId(recipe), ...endOf(log, divergence), recipe, version, adapter, steps, cost };
  } finally {
    await trainer.close();
  }
}

function endOf({ steps, events, epochs, trainMs, evaluationMs }: RunLog, divergence: Divergence | null) {
  // An evaluation that is not finite is a divergence, and JSON holds no such number.
  const whole = epochs.filter(({ testLoss }) => Number.isFinite(testLoss));
  const last = divergence ? undefined : whole.at(-1);
  return {
    status: divergence ? ('diverged' as const) : ('done' as const),
    testAccuracy: last?.testAccuracy ?? null,
    testLoss: last?.testLoss ?? null,
    epochs: whole,
    divergence,
    lr: thinTrace(steps, most.rates),
    events: evenly(events, most.events).map(eventToJson),
    eventCount: events.length,
    trainMs: Math.round(trainMs),
    evaluationMs: Math.round(evaluationMs),
  };
}
