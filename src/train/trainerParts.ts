/** What a trainer is made of: the data on the GPU, the plans, the rule of events; and the checks that need them. */
import { EpochSampler } from '../data/batches.ts';
import type { ImageDataset } from '../data/dataset.ts';
import { defaultDevice, type Device } from '../gpu/device.ts';
import { AttrError, DeviceError } from '../gpu/errors.ts';
import { Control } from '../graph/control.ts';
import { Memory } from '../graph/memory.ts';
import type { FloatDtype } from '../graph/ops.ts';
import { Tuner } from '../graph/tune/tuner.ts';
import { inferenceContext, type Module } from '../nn/module.ts';
import { resolveSgdOptions } from '../optim/sgd.ts';
import { AdaptiveSchedule, TrialScheduler, type Schedule } from '../sched/index.ts';
import { evaluationOrder, ImageFeed } from './feed.ts';
import { HostRule } from './hostRule.ts';
import { StepPlans, type Batch, type TrialPlanOptions } from './stepPlans.ts';
import { lengthOf, type TrainerOptions } from './trainerOptions.ts';
import { coefficientForm, evidenceOf, rulePath, trialFactors } from './trialRule.ts';

export interface TrainerParts {
  readonly device: Device;
  readonly options: TrainerOptions;
  readonly plans: StepPlans;
  readonly sampler: EpochSampler;
  readonly train: ImageFeed;
  readonly test: ImageFeed;
  /** Where the rule of events runs on the host. */
  readonly hostRule: HostRule | null;
}

/** What a network computes on follows from its input. */
const activations = ({ precision }: TrainerOptions): FloatDtype => (precision === 'mixed' ? 'f16' : 'f32');

/** @throws DeviceError where the adapter has no 16-bit floats */
function checkMixed({ gpu, adapter }: Device): void {
  if (gpu.features.has('shader-f16')) return;
  const rule = "must be 'f32' on an adapter without shader-f16";
  const got = `'mixed' on ${adapter.description || adapter.vendor}`;
  throw new DeviceError({ op: 'Trainer', arg: 'precision', rule, got, fix: 'leave it out' });
}

/** What trials are scored on, and the rule that moves the rate by them. */
function trialPlan(
  options: TrainerOptions,
  train: ImageFeed,
): TrialPlanOptions | undefined {
  const { schedule, batchSize = 32, augment, optimizer, memoryBudget, seed } = options;
  if (schedule instanceof AdaptiveSchedule && schedule.isDue()) {
    const batch = train.batch(batchSize, 'cursor', 'counter', augment === 'crop-flip', activations(options));
    return { count: schedule.spec.trials!, direction: 'optimizer', batch, memoryBudget };
  }
  if (!(schedule instanceof TrialScheduler) || schedule.options.control === 'blindDrift') return undefined;
  const { batch: which, scoreBatch, direction } = schedule.options;
  const images = scoreBatch ?? batchSize;
  const made = [augment === 'crop-flip', activations(options)] as const;
  const same = () => train.batch(images, 'cursor', 'counter', ...made);
  const heldOut = () => train.batch(images, 'scoreCursor', 'scoreCounter', ...made);
  const batch: Record<typeof which, () => Batch[]> = { same: () => [same()], heldOut: () => [heldOut()], both: () => [same(), heldOut()] };
  const rule = rulePath(schedule) === 'gpu' ? schedule : undefined;
  const isGrid = coefficientForm(schedule, resolveSgdOptions(optimizer)) > 0;
  const evidence = evidenceOf(schedule);
  const along = direction === 'optimizer' ? direction : 'gradient';
  return { count: trialFactors(schedule).length, direction: along, batch: batch[which](), rule, isGrid, memoryBudget, seed, evidence };
}

/** @throws AttrError unless the model has a logit for every class */
export function checkModel(model: Module, { x }: Batch, dataset: ImageDataset): void {
  const logits = model.forward(x, inferenceContext());
  const classes = Math.max(dataset.train.classes.length, dataset.test.classes.length);
  if (logits.shape.length === 2 && logits.shape[1] >= classes) return;
  throw new AttrError({
    op: 'Trainer',
    arg: 'model',
    rule: `must make logits [N, ≥ ${classes}] for ${dataset.name}`,
    got: String(logits),
    fix: 'build it with as many classes as the data set has',
  });
}

/** Schedules that a trainer moves. */
type MovedSchedule = TrialScheduler | AdaptiveSchedule;
const isMoved = (schedule: Schedule): schedule is MovedSchedule =>
  schedule instanceof TrialScheduler || schedule instanceof AdaptiveSchedule;

/** Those whose trainers are open: the events of two runs would mix. */
const lent = new WeakSet<MovedSchedule>();

/**
 * Takes a schedule for one trainer.
 * @throws AttrError where another has it, or where it has had events or steps and steps begin at 0; a checkpoint brings its own
 */
function lend(schedule: MovedSchedule, isResumed: boolean): void {
  const refuse = (rule: string, got: string): never => {
    throw new AttrError({ op: 'Trainer', arg: 'schedule', rule, got, fix: `make one with lr ${schedule.lr}` });
  };
  if (lent.has(schedule)) refuse('must be of one trainer alone', 'that of another that is not closed');
  const events = schedule instanceof TrialScheduler ? schedule.events.length : 0;
  if (!isResumed && events > 0) refuse('must have had no events', `${events} events`);
  if (!isResumed && schedule instanceof AdaptiveSchedule && schedule.hasSteps) refuse('must have made no steps', 'that of a run before');
  lent.add(schedule);
}

/**
 * Uploads the data, compiles the kernels and makes every buffer and bind group that the run needs. Whoever has the parts gives them back by
 * `release`.
 */
export async function makeParts(options: TrainerOptions): Promise<TrainerParts> {
  const { dataset, batchSize = 32, shuffle = true, seed = 0, augment = 'none', schedule, model } = options;
  const device = options.device ?? (await defaultDevice());
  const isMixed = options.precision === 'mixed';
  if (isMixed) checkMixed(device);
  const scheduler = schedule instanceof TrialScheduler ? schedule : null;
  if (isMoved(schedule)) lend(schedule, options.resume !== undefined);
  const memory = new Memory(device);
  try {
    const control = new Control(memory);
    control.write({ seed });
    const sampler = new EpochSampler({ count: dataset.train.count, batchSize, shuffle, seed });
    const { mean, std } = dataset;
    // Held-out images follow the batch in the order, which goes round at its end.
    const capacity = dataset.train.count + batchSize + (scheduler?.options.scoreBatch ?? batchSize);
    const train = new ImageFeed(memory, dataset.train, control, { mean, std, capacity });
    const order = evaluationOrder(dataset.test.count, batchSize);
    const test = new ImageFeed(memory, dataset.test, control, { mean, std, capacity: order.length });
    const batch = train.batch(batchSize, 'cursor', 'counter', augment === 'crop-flip', activations(options));
    checkModel(model, batch, dataset);
    const plans = await StepPlans.create(memory, control, {
      model,
      batch,
      optimizer: options.optimizer,
      labelSmoothing: options.labelSmoothing,
      lossScaling: isMixed ? (options.lossScaling ?? {}) : undefined,
      evaluation: test.batch(batchSize, 'cursor', 'counter', false, activations(options)),
      trials: trialPlan(options, train),
      adaptive: schedule instanceof AdaptiveSchedule ? { schedule, run: lengthOf(options) } : undefined,
      onCompile: options.onCompile,
      tuner: options.tune ? await Tuner.open(device) : undefined,
      onTune: options.onTune,
    });
    test.writeOrder(order);
    const hostRule = scheduler && plans.trials && !plans.rule ? new HostRule(memory, scheduler, plans, seed) : null;
    return { device, options, plans, sampler, train, test, hostRule };
  } catch (error) {
    // A model that another trainer holds stays with it.
    for (const variable of model.variables()) if (variable.storage && memory.owns(variable.storage.buffer)) variable.storage = null;
    memory.release();
    if (isMoved(schedule)) lent.delete(schedule);
    throw error;
  }
}

/** Brings the weights back to the host model and frees everything on the GPU. */
export async function release({ plans, options: { schedule } }: TrainerParts): Promise<void> {
  try {
    await plans.store.pull();
  } finally {
    plans.store.release();
    plans.memory.release();
    if (isMoved(schedule)) lent.delete(schedule);
  }
}
