/** What a run leaves behind, as JSON holds it, and the thinning that keeps it small. */
import { DataError } from '../gpu/errors.ts';
import type { TrialEventJson } from '../sched/index.ts';
import type { Cost } from './cost.ts';
import { runId, type Recipe } from './recipe.ts';

/** Of the files; one that has another is refused. */
export const resultFormat = 1;

export interface EpochResult {
  /** From 1: so many were made. */
  readonly epoch: number;
  readonly step: number;
  /** Mean over the epoch's steps; null where that is not finite, as a branch of a tree may go on from such a loss. */
  readonly trainLoss: number | null;
  readonly testLoss: number;
  /** 0…1 */
  readonly testAccuracy: number;
}

interface Common {
  readonly format: typeof resultFormat;
  readonly id: string;
  readonly recipe: Recipe;
  /** Of forkstep. */
  readonly version: string;
  readonly adapter: string;
}

export interface FinishedRun extends Common {
  readonly status: 'done' | 'diverged';
  /** At the end of the run, 0…1; null where it diverged. */
  readonly testAccuracy: number | null;
  readonly testLoss: number | null;
  /** Those that were finished. */
  readonly epochs: readonly EpochResult[];
  readonly steps: number;
  readonly divergence: { readonly step: number; readonly reason: string } | null;
  /** [step, rate in force], thinned. */
  readonly lr: readonly (readonly [number, number])[];
  /** Scheduling events, of all evenly chosen by step. */
  readonly events: readonly TrialEventJson[];
  readonly eventCount: number;
  /** Forwards of one image, of what was made. Evaluations are not in it. */
  readonly cost: Cost;
  /** Wall-clock: steps and events; evaluations. */
  readonly trainMs: number;
  readonly evaluationMs: number;
}

export interface FailedRun extends Common {
  readonly status: 'failed';
  readonly error: string;
}

export type StudyResult = FinishedRun | FailedRun;

export const isFinished = (result: StudyResult): result is FinishedRun => result.status !== 'failed';

/**
 * The first of every so many steps, and the last; all where there are no more than `most`. By step and not by place in the list, and so many are
 * a power of two: what was thinned before and goes on is thinned to what it would be, had it been thinned once.
 */
export function evenly<T extends { readonly step: number }>(all: readonly T[], most: number): T[] {
  if (all.length <= most) return [...all];
  const cell = ({ step }: T, width: number) => Math.floor(step / width);
  let width = 1;
  while (cell(all[all.length - 1], width) - cell(all[0], width) + 2 > most) width *= 2;
  return all.filter((one, i) => i === 0 || i === all.length - 1 || cell(one, width) !== cell(all[i - 1], width));
}

/** A trace of rates without the points between equal neighbours, then at most `most` of it. */
export function thinTrace(steps: readonly { step: number; lr: number }[], most: number): [number, number][] {
  const corners = steps.filter(({ lr }, i) => i === 0 || i === steps.length - 1 || lr !== steps[i - 1].lr || lr !== steps[i + 1].lr);
  return evenly(corners, most).map(({ step, lr }) => [step, lr]);
}

/** Mean rate of the steps that a trace is of, between its points by a straight line; null of an empty one. */
export function meanRate(trace: readonly (readonly [number, number])[]): number | null {
  if (trace.length === 0) return null;
  let [sum, steps] = [trace[0][1], 1];
  for (let i = 1; i < trace.length; i++) {
    const [[from, first], [to, last]] = [trace[i - 1], trace[i]];
    // The steps after `from`, up to and with `to`.
    const count = to - from;
    sum += count * first + ((last - first) * (count + 1)) / 2;
    steps += count;
  }
  return sum / steps;
}

/**
 * A result from its file's text.
 * @throws DataError where it is no JSON, of another format, or of another recipe than its name says
 */
export function parseResult(text: string, file: string): StudyResult {
  const refuse = (rule: string, got: unknown): never => {
    throw new DataError({ op: 'study', arg: file, rule, got, fix: 'move it away; the run is then made anew' });
  };
  let result: StudyResult;
  try {
    result = JSON.parse(text) as StudyResult;
  } catch (error) {
    return refuse('must be JSON', (error as Error).message);
  }
  if (typeof result !== 'object' || result?.format !== resultFormat) refuse(`must be a result of format ${resultFormat}`, result?.format);
  if (!['done', 'diverged', 'failed'].includes(result.status)) refuse('must be of a run that ended', result.status);
  if (typeof result.recipe !== 'object' || result.recipe === null) refuse('must hold its recipe', result.recipe);
  const id = runId(result.recipe);
  if (result.id !== id) refuse(`must bear its recipe's id, ${id}`, result.id);
  if (isFinished(result)) {
    const missing = (['epochs', 'lr', 'events'] as const).find((name) => !Array.isArray(result[name]));
    if (missing) refuse(`must have a list of ${missing}`, result[missing]);
    const isTrace = result.lr.every((point) => Array.isArray(point) && point.length === 2 && point.every((value) => typeof value === 'number'));
    if (!isTrace) refuse('must have rates by step', JSON.stringify(result.lr));
    if (![result.cost?.training, result.cost?.trials].every(Number.isFinite)) refuse('must have its cost', JSON.stringify(result.cost));
  }
  return result;
}
