/** What a run costs, before it is made: in forwards of one image, which do not depend on the machine, and roughly in time. */
import { AdaptiveSchedule, AlrTree, TrialScheduler, type Schedule } from '../sched/index.ts';
import { trialFactors } from '../train/trialRule.ts';
import { methods } from './methods.ts';
import type { Recipe } from './recipe.ts';

/** Forwards of one image. A backward pass counts as two. */
export interface Cost {
  /** 3 an image of every step. */
  readonly training: number;
  /** One an image that a trial is scored on; 3 an image of every step of a branch beside the one that goes on. */
  readonly trials: number;
}

export const totalCost = ({ training, trials }: Cost): number => training + trials;

/** Forwards of one image in one event, or where every step makes trials, in one step. */
export function eventForwards(schedule: Schedule, batch: number): number {
  if (schedule instanceof AdaptiveSchedule) return (schedule.spec.trials ?? 0) * batch;
  if (!(schedule instanceof TrialScheduler)) return 0;
  const { scoreBatch, batch: which, control } = schedule.options;
  if (control === 'blindDrift') return 0;
  return trialFactors(schedule).length * (scoreBatch ?? batch) * (which === 'both' ? 2 : 1);
}

/** Steps of the run, none diverging: an incomplete last batch of an epoch is left out. */
export function lengthOf({ train, batch, epochs }: Pick<Recipe, 'train' | 'batch' | 'epochs'>): { stepsPerEpoch: number; totalSteps: number } {
  const stepsPerEpoch = Math.floor(train / batch);
  return { stepsPerEpoch, totalSteps: stepsPerEpoch * epochs };
}

/** What was made of a run: so many steps, so many events. */
export function costOf(schedule: Schedule, batch: number, steps: number, events: number): Cost {
  // Trials of every step are no events that anybody is told of.
  const tried = schedule instanceof AdaptiveSchedule ? steps : events;
  return { training: 3 * batch * steps, trials: tried * eventForwards(schedule, batch) };
}

/** What was made of a tree: so many steps, so many forwards of a batch by all branches. What those cost that do not go on is of trials. */
export const treeCost = (batch: number, steps: number, forwards: number): Cost =>
  ({ training: 3 * batch * steps, trials: batch * (forwards - 3 * steps) });

export function expectedCost(recipe: Recipe): Cost {
  const { lr, epochs, options, batch } = recipe;
  const method = methods[recipe.method];
  const { stepsPerEpoch, totalSteps } = lengthOf(recipe);
  if ('tree' in method) {
    const { branchesPerEpoch } = new AlrTree(method.tree({ lr, epochs, options }));
    return treeCost(batch, totalSteps, 3 * totalSteps * branchesPerEpoch);
  }
  const schedule = method.schedule({ lr, epochs, options });
  let events = 0;
  for (let step = 0; step < totalSteps; step++) events += Number(schedule.isDue(step, stepsPerEpoch));
  return costOf(schedule, batch, totalSteps, events);
}

/** Multiply-adds of one image's forward pass through ResNet18, convolutions alone. Images are 32 × 32, of 3 channels. */
export function forwardMacs({ stem, width }: Pick<Recipe, 'stem' | 'width'>): number {
  let size = stem === 'cifar' ? 32 : 16;
  const first = stem === 'cifar' ? 3 * 3 : 7 * 7;
  let macs = size * size * first * 3 * width;
  if (stem === 'imagenet') size = 8;
  for (let stage = 0; stage < 4; stage++) {
    const channels = width * 2 ** stage;
    const before = stage === 0 ? width : channels / 2;
    if (stage > 0) size = Math.ceil(size / 2);
    const downsample = stage === 0 ? 0 : before * channels;
    macs += size * size * (9 * before * channels + 3 * 9 * channels * channels + downsample);
  }
  return macs;
}

/**
 * What a run takes on 2 cores without a GPU: a fixed part a step, and the arithmetic. Of two steps on lavapipe: 551 ms with the CIFAR stem and
 * width 16 (bench/results/peers.json), some 40 ms with the ImageNet stem and width 8. On other machines it is the finished runs that tell.
 */
const software = { secondsPerStep: 0.027, macsPerSecond: 6.2e9 } as const;

export function roughSeconds(recipe: Recipe): number {
  const evaluation = recipe.test * recipe.epochs;
  const forwards = totalCost(expectedCost(recipe)) + evaluation;
  return lengthOf(recipe).totalSteps * software.secondsPerStep + (forwards * forwardMacs(recipe)) / software.macsPerSecond;
}
