/** From a trainer to a checkpoint and back. */
import type { ImageDataset, ImageSet } from '../data/dataset.ts';
import { AttrError, DataError } from '../gpu/errors.ts';
import type { Storage, Variable } from '../graph/tensor.ts';
import type { Module } from '../nn/module.ts';
import type { SafetensorsTensor } from '../nn/safetensors.ts';
import { stateDict, stateDictValues, toTorch, valuesOf } from '../nn/stateDict.ts';
import { resolveSgdOptions } from '../optim/sgd.ts';
import { AdaptiveSchedule, PureSchedule, resolveFactors, type Schedule } from '../sched/index.ts';
import type { AlrTrainerOptions } from './alrOptions.ts';
import type { AlrTrainerState, Checkpoint, Json, TrainerState } from './checkpoint.ts';
import { crc32c } from './crc32c.ts';
import type { Journal } from './journal.ts';
import { resolveLossScaling } from './lossScaler.ts';
import { lengthOf, plannedRate, type TrainerOptions } from './trainerOptions.ts';
import type { TrainerParts } from './trainerParts.ts';

const modelPrefix = 'model.';
const momentumPrefix = 'momentum.';
/** What a rule holds, whole buffers. */
const rulePrefix = 'rule.';

/** Checksums of images and labels: sets are large and do not change. */
const checksums = new WeakMap<ImageSet, string>();

function checksumOf(set: ImageSet): string {
  const known = checksums.get(set);
  if (known) return known;
  const sum = crc32c(Uint8Array.from(set.labels), crc32c(set.images)).toString(16).padStart(8, '0');
  checksums.set(set, sum);
  return sum;
}

const datasetRecipe = ({ train, test, mean, std }: ImageDataset): Json => {
  const part = (set: ImageSet): Json => ({ count: set.count, crc32c: checksumOf(set) });
  return { train: part(train), test: part(test), mean: [...mean], std: [...std] };
};

/** What a schedule was made with, as far as it shows: in closed form its state, of others the options. */
function scheduleRecipe(schedule: Schedule): Json {
  const { options = {} } = schedule instanceof AdaptiveSchedule ? { options: schedule.spec.parameters } : (schedule as { options?: object });
  const plain = (_: string, value: unknown): unknown =>
    typeof value === 'function' ? 'a function' : value instanceof PureSchedule ? value.state() : value;
  const made = schedule instanceof PureSchedule ? schedule : { kind: schedule.state().kind, ...options };
  return JSON.parse(JSON.stringify(made, plain)) as Json;
}

/** Options that losses, rates and weights depend on, defaults written out. */
function recipeOf(options: TrainerOptions): TrainerState['recipe'] {
  const { dataset, schedule, optimizer, lossScaling } = options;
  const { batchSize = 32, labelSmoothing = 0, augment = 'none', shuffle = true, seed = 0, precision = 'f32', tune = false } = options;
  return {
    batchSize, labelSmoothing, augment, shuffle, seed, precision, tune,
    optimizer: resolveSgdOptions(optimizer),
    lossScaling: precision === 'mixed' ? resolveLossScaling(lossScaling) : null,
    schedule: scheduleRecipe(schedule),
    dataset: datasetRecipe(dataset),
  };
}

/** The same of an ALR training. The length is none of them: no rate depends on it. */
export function alrRecipeOf(options: AlrTrainerOptions): TrainerState['recipe'] {
  const { dataset, optimizer, lr, beam = typeof lr === 'number' ? 1 : lr.length, factors = 'factor3' } = options;
  const { batchSize = 32, labelSmoothing = 0, augment = 'none', shuffle = true, seed = 0 } = options;
  const tree = { lr, beam, factors: resolveFactors(factors) };
  return { batchSize, labelSmoothing, augment, shuffle, seed, ...tree, optimizer: resolveSgdOptions(optimizer), dataset: datasetRecipe(dataset) };
}

/**
 * The state of a trainer between two steps. What was logged has been read.
 * @throws pending GPU errors
 */
export async function capture(parts: TrainerParts, { made, skipped }: Journal, step: number, totalSteps: number): Promise<Checkpoint> {
  const { plans, options, sampler, device } = parts;
  const { store, sgd, scaler } = plans;
  const values = await store.readArena(store.parameterArena, store.parameters);
  for (const [variable, statistic] of await store.readArena(store.statisticArena, store.statistics)) values.set(variable, statistic);
  const dict = stateDict(options.model, made, (variable) => values.get(variable)!);
  const tensors = new Map([...dict].map(([name, tensor]) => [modelPrefix + name, tensor]));
  const momenta = sgd.buffer ? await store.readArena(sgd.buffer, store.parameters) : new Map<Variable, Float32Array>();
  for (const [{ name, shape }, momentum] of momenta) tensors.set(momentumPrefix + name, { dtype: 'F32', ...toTorch(shape, momentum) });
  for (const { name, storage } of plans.adaptive?.storages ?? []) {
    const data = new Float32Array(await device.read(storage.buffer, storage.offset, storage.size));
    tensors.set(rulePrefix + name, { dtype: 'F32', shape: [data.length], data });
  }
  const state: TrainerState = {
    step, epoch: Math.floor(step / sampler.stepsPerEpoch), batch: step % sampler.stepsPerEpoch,
    updates: made, skipped, totalSteps,
    schedule: options.schedule.state(),
    lossScaler: scaler && (await scaler.read()),
    adapter: device.adapter.description || device.adapter.device,
    recipe: recipeOf(options),
  };
  return { tensors, state };
}

const refuse = (op: string, arg: string, rule: string, got: unknown, fix = 'resume with the options of its run'): never => {
  throw new AttrError({ op, arg, rule, got, fix });
};

/** @throws AttrError for the first option that differs from the checkpoint's */
function checkSame(op: string, path: string, was: Json | undefined, is: Json | undefined): void {
  const isTree = (value: Json | undefined): value is { readonly [name: string]: Json } =>
    typeof value === 'object' && value !== null && !Array.isArray(value);
  if (isTree(was) && isTree(is)) {
    for (const name of new Set([...Object.keys(was), ...Object.keys(is)])) checkSame(op, path ? `${path}.${name}` : name, was[name], is[name]);
  } else if (JSON.stringify(was) !== JSON.stringify(is)) {
    refuse(op, path, `must be ${JSON.stringify(was)}, as in the run that is resumed`, JSON.stringify(is));
  }
}

/**
 * The run may be longer or shorter than it was to be, but for the steps that were made: where the rates of these depend on its length, the
 * run that goes on would be neither of the two.
 */
function checkLength(options: TrainerOptions, { step, updates, totalSteps: was }: TrainerState): void {
  const op = 'Trainer';
  const { schedule, maxSteps } = options;
  const length = lengthOf(options);
  const { stepsPerEpoch, totalSteps: is } = length;
  if (is === was) return;
  const arg = is === maxSteps ? 'maxSteps' : 'epochs';
  if (is < step) refuse(op, arg, `must be no less than the ${step} steps that were made`, `${is} steps`);
  if (schedule instanceof AdaptiveSchedule) {
    // What a rule is told of the run's length, as a warm-up in per cent is.
    const told = (totalSteps: number) => JSON.stringify(schedule.spec.uniforms({ stepsPerEpoch, totalSteps, startNorm: 1, hasStatistics: true }));
    if (told(is) === told(was)) return;
    refuse(op, arg, `must make a run of ${was} steps, as ${schedule.spec.kind} depends on its length`, `${is} steps`);
  }
  for (let update = 0; update < updates; update++) {
    if (plannedRate(schedule, update, length) === plannedRate(schedule, update, { stepsPerEpoch, totalSteps: was })) continue;
    const rule = `must make a run of ${was} steps, as the rates of the ${step} that were made depend on its length`;
    refuse(op, arg, rule, `${is} steps`, 'resume with the length that the run was begun with');
  }
}

/** What is brought to the GPU. */
export interface Restored {
  readonly model: ReadonlyMap<Variable, Float32Array>;
  readonly momentum: ReadonlyMap<Variable, Float32Array> | null;
}

const below = (prefix: string, tensors: Checkpoint['tensors']): Map<string, SafetensorsTensor> =>
  new Map([...tensors].filter(([name]) => name.startsWith(prefix)).map(([name, tensor]) => [name.slice(prefix.length), tensor]));

function momentumOf(model: Module, tensors: Checkpoint['tensors']): Map<Variable, Float32Array> {
  const own = below(momentumPrefix, tensors);
  return new Map(
    model.parameters().map((variable) => {
      const tensor = own.get(variable.name);
      if (tensor) return [variable, valuesOf(momentumPrefix + variable.name, variable, tensor)];
      const details = { arg: `tensor ${momentumPrefix}${variable.name}`, rule: 'must be there', got: 'nothing' };
      throw new DataError({ op: 'Trainer', ...details, fix: 'build the model that the checkpoint is of' });
    }),
  );
}

/**
 * Checks that a checkpoint is of a run with these options, and takes its values.
 * @throws AttrError for the first option that differs, DataError and ShapeError for another model
 */
export function checkResume(options: TrainerOptions, { tensors, state }: Checkpoint): Restored {
  checkSame('Trainer', '', state.recipe, recipeOf(options));
  checkLength(options, state);
  const model = stateDictValues(options.model, below(modelPrefix, tensors));
  return { model, momentum: resolveSgdOptions(options.optimizer).momentum > 0 ? momentumOf(options.model, tensors) : null };
}

/** What a checkpoint has of a rule's memory, and where it goes. @throws DataError for another model's, or where the adapter cuts memory elsewhere */
export function ruleMemory({ plans }: TrainerParts, { tensors }: Checkpoint): { storage: Storage; data: Float32Array<ArrayBuffer> }[] {
  const own = below(rulePrefix, tensors);
  return (plans.adaptive?.storages ?? []).map(({ name, storage }) => {
    const tensor = own.get(name);
    if (tensor?.data.byteLength === storage.size) return { storage, data: tensor.data as Float32Array<ArrayBuffer> };
    const details = { arg: `tensor ${rulePrefix}${name}`, rule: `must have ${storage.size} bytes`, got: tensor?.data.byteLength ?? 'nothing' };
    throw new DataError({ op: 'Trainer', ...details, fix: 'build the model that the checkpoint is of, on an adapter with its binding limits' });
  });
}

/** Brings weights, running statistics, momentum, loss scale and what a rule holds to the GPU. */
export function restore(
  { plans: { store, sgd, scaler }, device }: TrainerParts,
  { state }: Checkpoint,
  { model, momentum }: Restored,
  rule: ReturnType<typeof ruleMemory>,
): void {
  for (const { storage, data } of rule) device.gpu.queue.writeBuffer(storage.buffer, storage.offset, data);
  for (const [variable, values] of model) store.write(variable, values);
  if (sgd.buffer && momentum) store.writeArena(sgd.buffer, store.parameters, momentum);
  if (scaler && state.lossScaler) scaler.write({ ...state.lossScaler, isFirst: state.updates === 0, skipped: state.skipped });
}

/** Checks that a checkpoint is of an ALR training with these options. @throws AttrError for the first that differs */
export function checkAlrResume(options: AlrTrainerOptions, { recipe, step }: AlrTrainerState): void {
  const op = 'AlrTrainer';
  checkSame(op, '', recipe, alrRecipeOf(options));
  const { maxSteps } = options;
  const { totalSteps: is } = lengthOf(options);
  if (is >= step) return;
  refuse(op, is === maxSteps ? 'maxSteps' : 'epochs', `must be no less than the ${step} steps that were made`, `${is} steps`);
}
