/**
 * A run of a study: what a checkout of the same version needs to make the same weights again. Plain data, and its name. A method stands in it by
 * name, not by what that means: where an entry of methods.ts, or a preset of the schedules, is changed, results that are there stay as they were.
 */
import type { DatasetName } from '../data/dataset.ts';
import type { Stem } from '../nn/resnet.ts';
import type { SgdOptions } from '../optim/sgd.ts';
import type { TrialOptions } from '../sched/index.ts';
import type { MethodName } from './methods.ts';

/** What a method may be told beside the first rate: options of the trial scheduler that differ from its preset's. */
export type MethodOptions = Partial<Pick<TrialOptions, 'factors' | 'every' | 'normalize' | 'score' | 'tau' | 'kappa' | 'c' | 'anchor' | 'batch' | 'scoreBatch' | 'direction'>>;

export interface Recipe {
  readonly dataset: DatasetName;
  /** The first so many images of either part. */
  readonly train: number;
  readonly test: number;
  readonly stem: Stem;
  /** Channels of ResNet18's first stage. */
  readonly width: number;
  readonly optimizer: Required<Pick<SgdOptions, 'momentum' | 'weightDecay' | 'nesterov'>>;
  readonly augment: 'none' | 'crop-flip';
  readonly batch: number;
  readonly epochs: number;
  /** How the learning rate is set. */
  readonly method: MethodName;
  readonly options: MethodOptions;
  /** Learning rate to start from. */
  readonly lr: number;
  /** Of weights, order, augmentation and procedural images. */
  readonly seed: number;
}

/** JSON with the names of every object in order: equal recipes have equal texts, however they were written. */
export function canonicalJson(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(canonicalJson).join(',')}]`;
  if (typeof value !== 'object' || value === null) return JSON.stringify(value) ?? 'null';
  const fields = Object.entries(value).filter(([, one]) => one !== undefined).sort(([a], [b]) => (a < b ? -1 : 1));
  return `{${fields.map(([name, one]) => `${JSON.stringify(name)}:${canonicalJson(one)}`).join(',')}}`;
}

/** FNV-1a, 64 bits, of the text's UTF-16 units. @source Fowler, Noll, Vo, offset basis and prime of the 64-bit variant */
function fnv64(text: string): bigint {
  let hash = 0xcbf29ce484222325n;
  for (let i = 0; i < text.length; i++) hash = BigInt.asUintN(64, (hash ^ BigInt(text.charCodeAt(i))) * 0x100000001b3n);
  return hash;
}

/** A name that people can read and that no other recipe has: `cosine-lr0.005-s0-3f2a9c01d7`. Safe as a file's name. */
export function runId(recipe: Recipe): string {
  const { method, lr, seed } = recipe;
  const hash = fnv64(canonicalJson(recipe)).toString(16).padStart(16, '0').slice(0, 10);
  return `${method}-lr${lr}-s${seed}-${hash}`;
}
