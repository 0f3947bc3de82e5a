/** One training run from the command line: trainer, progress, record, summary. */
import { join } from 'node:path';
import type { ImageDataset } from '../../data/dataset.ts';
import type { Device } from '../../gpu/device.ts';
import type { MemoryReport } from '../../graph/memory.ts';
import type { ResNet } from '../../nn/index.ts';
import { AdaptiveSchedule, TrialScheduler, type ControlName, type Schedule } from '../../sched/index.ts';
import { writeWhole } from '../../train/files.node.ts';
import { Trainer, type AlrCheckpoint, type Checkpoint, type CheckpointCadence, type Divergence, type Json, type RunCallbacks } from '../../train/index.ts';
import { RunFolder, type FoundRun } from '../../train/runFolder.node.ts';
import { compileProgress } from '../compileProgress.ts';
import { formatLoss, formatNumber } from '../format.ts';
import { trialOptions } from '../options.ts';
import { Progress } from '../progress.ts';
import { trainParameters } from '../ruleOptions.ts';
import { trialOptionsOf } from '../trialChoices.ts';
import { renderReport, type ReportRun } from '../report.ts';
import { saveModel } from './record.ts';
import { asFlags, type RunValues } from './resume.ts';

export interface Summary {
  steps: number;
  epochs: number;
  /** Mean over the last epoch's steps; null when no step was made. */
  trainLoss: number | null;
  testLoss: number | null;
  testAccuracy: number | null;
  /** Learning rate of the last step. */
  lr: number;
  /** Learning rate of every step. */
  lrHistory: number[];
  precision: 'f32' | 'mixed';
  /** Steps of which nothing was made as gradients overflowed, among the steps. */
  skipped: number;
  /** While training, the first step (which compiles) and evaluations left out. */
  imagesPerSecond: number | null;
  memory: MemoryReport;
  dispatchesPerStep: number;
  adapter: string;
  seed: number;
  diverged: Divergence | null;
  /** Of ALR: the cost in forward passes of a batch, three a step and branch. */
  forwards?: number;
}

export interface FinishedRun {
  readonly name: string;
  readonly record: RunFolder;
  readonly summary: Summary;
  readonly aborted: boolean;
}

export interface TrainingJob {
  readonly name: string;
  readonly values: RunValues;
  readonly dataset: ImageDataset;
  readonly model: ResNet;
  readonly schedule: Schedule;
  readonly device: Device;
  readonly folder: string;
  readonly signal: AbortSignal;
  /** @default none */
  readonly checkpoints?: Checkpoints<Checkpoint, CheckpointCadence>;
}

/** Checkpoints on the way, with what they note, and the run that goes on. */
export interface Checkpoints<C extends Checkpoint | AlrCheckpoint, Cadence> {
  readonly every: Cadence;
  readonly notes: Json;
  readonly from: FoundRun<C> | null;
}

/** Time spent in steps, without what comes between them. */
export class Stopwatch {
  #since = performance.now();
  #steps = 0;
  #ms = 0;

  /** Images a second so far; null before the second note. The first is left out: it holds the compilation. */
  rate(batch: number): number | null {
    return this.#steps > 0 ? (this.#steps * batch * 1000) / this.#ms : null;
  }

  note(steps: number, isFirst: boolean): void {
    const now = performance.now();
    if (!isFirst) {
      this.#ms += now - this.#since;
      this.#steps += steps;
    }
    this.#since = now;
  }

  restart(): void {
    this.#since = performance.now();
  }
}

const describeEvent = (event: {
  step: number;
  lrBefore: number;
  lrAfter: number;
  factors: number[];
  losses: number[];
  held: boolean;
  clamped: boolean;
  allNonFinite: boolean;
  control?: ControlName;
}, what: string): string => {
  const tried = event.factors.map((factor, i) => `×${formatNumber(factor)} ${formatLoss(event.losses[i])}`).join('  ');
  const trials = event.control === 'blindDrift' ? 'none, equal losses' : tried;
  const note = event.held ? ' (held)' : event.allNonFinite ? ' (every trial diverged)' : event.clamped ? ' (bounded)' : '';
  return `step ${event.step}: trials ${trials} → factor ${formatNumber(event.lrAfter / event.lrBefore)}, ${what} ${formatNumber(event.lrBefore)} → ${formatNumber(event.lrAfter)}${note}`;
};

/** The trainer of a job, where its run goes on or begins. */
async function createTrainer({ name, values, dataset, model, schedule, device, checkpoints }: TrainingJob): Promise<Trainer> {
  const stream = process.stderr;
  const tuning = (done: number, total: number) => {
    const line = `${name}: tuning ${done}/${total}`;
    if (stream.isTTY) stream.write(`\r\x1b[2K${line}${done === total ? '\n' : ''}`);
    else if (done === 0 || done === total) stream.write(`${line}\n`);
  };
  const from = checkpoints?.from ?? null;
  const hasTrials = schedule instanceof TrialScheduler || (schedule instanceof AdaptiveSchedule && schedule.isDue());
  const trainer = Trainer.create({
    model,
    dataset,
    schedule,
    device,
    batchSize: values.batch,
    epochs: values.epochs,
    maxSteps: values.maxSteps,
    optimizer: { momentum: values.momentum, weightDecay: values.weightDecay, nesterov: values.nesterov },
    augment: values.augment,
    shuffle: !values.noShuffle,
    seed: values.seed,
    memoryBudget: hasTrials ? values.memoryBudget : undefined,
    precision: values.precision,
    onCompile: compileProgress(stream, name),
    ...(values.tune ? { tune: true, onTune: tuning } : {}),
    ...(from ? { resume: from.checkpoint } : {}),
  });
  return from ? asFlags(trainer, dataset) : trainer;
}

/** What is shown and recorded of a run as it goes. */
function following({ values, schedule }: TrainingJob, { totalSteps }: Trainer, record: RunFolder, progress: Progress, watch: Stopwatch): RunCallbacks {
  let isFirst = true;
  return {
    onSteps: (steps) => {
      watch.note(steps.length, isFirst);
      isFirst = false;
      record.addSteps(steps);
      for (const one of steps) if (one.skipped) progress.event(`step ${one.step}: skipped, gradients overflowed at loss scale ${one.lossScale}`);
      const { step, loss, lr } = steps[steps.length - 1];
      const rate = watch.rate(values.batch) ?? undefined;
      const secondsLeft = rate && ((totalSteps - step - 1) * values.batch) / rate;
      progress.update({ step: step + 1, loss, lr, imagesPerSecond: rate, secondsLeft });
    },
    onEvent: (event) => {
      record.addEvent(event);
      progress.event(describeEvent(event, schedule instanceof TrialScheduler && schedule.options.base ? 'scale' : 'learning rate'));
    },
    onEvaluation: (evaluation) => {
      record.addEvaluation(evaluation);
      const { step, testLoss, testAccuracy } = evaluation;
      progress.event(`step ${step}: test loss ${formatLoss(testLoss)}, accuracy ${(testAccuracy * 100).toFixed(1)} %`);
      watch.restart();
    },
  };
}

export async function runTraining(job: TrainingJob): Promise<FinishedRun> {
  const { name, values, dataset, model, device, signal, folder, checkpoints } = job;
  const { tensorboard } = values;
  const stream = process.stderr;
  const from = checkpoints?.from ?? null;
  const trainer = await createTrainer(job);
  try {
    const record = from ? RunFolder.resume(folder, from, { tensorboard }) : RunFolder.begin(folder, { tensorboard });
    const onCheckpoint = (checkpoint: Checkpoint) => record.keep(checkpoint, checkpoints?.notes);
    if (checkpoints && !from) onCheckpoint(await trainer.checkpoint());
    const progress = new Progress({ stream, total: trainer.totalSteps, every: values.logEvery });
    progress.event(`${name}: ${trainer.totalSteps} steps of ${values.batch} images${from ? `, from step ${trainer.step}` : ''}`);
    const adapter = from?.checkpoint.state.adapter;
    if (from && adapter !== describe(device)) progress.event(`the run was begun on another adapter (${adapter}): its bits will differ from here on`);
    const watch = new Stopwatch();
    const { divergence, aborted } = await trainer.run({
      signal,
      // A software adapter's steps take long enough to show each; a GPU should not wait for the log.
      logEvery: device.adapter.isSoftware ? 1 : Math.min(values.logEvery, 256),
      ...following(job, trainer, record, progress, watch),
      ...(checkpoints ? { onCheckpoint, checkpointEvery: checkpoints.every } : {}),
    });
    progress.done();
    if (divergence) {
      record.addDivergence(divergence);
      stream.write(`${name}: diverged at step ${divergence.step}: ${divergence.reason}; the weights made before it are kept\n`);
    }
    const summary = summarize(trainer, record, job, divergence, watch.rate(values.batch));
    await trainer.close();
    const { model: network, stem, width } = values;
    saveModel(folder, model, summary.steps, { model: network, stem, width: String(width), dataset: dataset.name });
    return { name, record, summary, aborted };
  } catch (error) {
    await trainer.close().catch(() => undefined);
    throw error;
  }
}

function summarize(
  trainer: Trainer,
  record: RunFolder,
  { device, schedule, values }: TrainingJob,
  diverged: Divergence | null,
  rate: number | null,
): Summary {
  const last = record.steps.slice(-trainer.stepsPerEpoch);
  const evaluation = record.evals.at(-1) ?? null;
  const steps = record.steps.length;
  return {
    steps,
    epochs: steps / trainer.stepsPerEpoch,
    trainLoss: last.length > 0 ? last.reduce((sum, { loss }) => sum + loss, 0) / last.length : null,
    testLoss: evaluation?.testLoss ?? null,
    testAccuracy: evaluation?.testAccuracy ?? null,
    lr: record.steps.at(-1)?.lr ?? schedule.lrAt(0, trainer.totalSteps, trainer.stepsPerEpoch),
    lrHistory: record.steps.map(({ lr }) => lr),
    precision: values.precision,
    skipped: record.steps.filter(({ skipped }) => skipped).length,
    imagesPerSecond: rate,
    memory: trainer.memory,
    dispatchesPerStep: trainer.dispatchesPerStep,
    adapter: describe(device),
    seed: values.seed,
    diverged,
  };
}

export const describe = ({ adapter }: Device): string => adapter.description || adapter.device;

const reportRun = ({ name, record, summary }: FinishedRun): ReportRun => {
  const { lrHistory: _lr, adapter: _adapter, diverged, memory, ...rest } = summary;
  return {
    name,
    steps: record.steps,
    events: record.events,
    evals: record.evals,
    summary: { ...rest, memory: { ...memory }, diverged: diverged ? `step ${diverged.step}: ${diverged.reason}` : false },
  };
};

/** Writes `report.html` for some runs into a folder and returns its path. */
export function writeReport(folder: string, title: string, runs: readonly FinishedRun[], values: RunValues, device: Device): string {
  // Told as the scheduler has them.
  const isTold = (name: string) => name === 'preset' || name === 'memoryBudget' || !Object.hasOwn(trialOptions, name);
  const isRecipe = (name: string) => !['json', 'tensorboard', 'resume', 'checkpointEvery'].includes(name) && isTold(name);
  const based = 'schedule' in values && values.schedule && { envelope: 'none' };
  const hasTrials = runs.some(({ record }) => record.events.length > 0);
  const trials = hasTrials ? { ...trialOptionsOf(values), lr: undefined, base: undefined, ...based } : {};
  const show = (value: unknown) =>
    value === undefined || value === null
      ? 'none'
      : typeof value === 'object'
        ? JSON.stringify(value)
        : (value as string | number | boolean);
  const isAlr = 'scheduler' in values && values.scheduler === 'alr';
  const alr = isAlr ? { factors: show(values.factors ?? 'factor3'), beam: values.beam ?? 1 } : {};
  const isSet = ([name, value]: [string, unknown]) =>
    !(name === 'schedule' || name === 'beam' || Object.hasOwn(trainParameters, name)) || (value !== undefined && value !== false);
  const entries = [
    ...Object.entries(values).filter(([name]) => isRecipe(name)).filter(isSet),
    ...Object.entries(alr),
    ...Object.entries(trials)
      .filter(([, value]) => value !== undefined)
      .map(([name, value]) => [`trial ${name}`, value] as const),
  ];
  const recipe = Object.fromEntries(entries.map(([name, value]) => [name, show(value)]));
  const { vendor, architecture, device: name, description, isSoftware } = device.adapter;
  const adapter = { vendor, architecture, device: name, description, kind: isSoftware ? 'software' : 'GPU' };
  const file = join(folder, 'report.html');
  writeWhole(file, renderReport({ title, runs: runs.map(reportRun), recipe, adapter }));
  return file;
}

/** Ctrl-C ends the run after the step in progress; a second one ends the process. */
export function interruptible(note = 'stopping after this step (press Ctrl-C again to leave at once)'): { signal: AbortSignal; release: () => void } {
  const controller = new AbortController();
  const interrupt = () => {
    if (controller.signal.aborted) process.exit(130);
    process.stderr.write(`\n${note}\n`);
    controller.abort();
  };
  process.on('SIGINT', interrupt);
  process.on('SIGTERM', interrupt);
  return {
    signal: controller.signal,
    release: () => {
      process.off('SIGINT', interrupt);
      process.off('SIGTERM', interrupt);
    },
  };
}

/** A table of the runs' results. */
export function summaryText(runs: readonly Pick<FinishedRun, 'name' | 'summary'>[]): string {
  const number = (value: number | null, show: (value: number) => string) => (value === null ? '–' : show(value));
  const rows: [string, (run: (typeof runs)[number]) => string][] = [
    ['steps', ({ summary }) => String(summary.steps)],
    ['training loss', ({ summary }) => number(summary.trainLoss, formatLoss)],
    ['test loss', ({ summary }) => number(summary.testLoss, formatLoss)],
    ['test accuracy', ({ summary }) => number(summary.testAccuracy, (value) => `${(value * 100).toFixed(1)} %`)],
    ['last learning rate', ({ summary }) => formatNumber(summary.lr)],
    ['precision', ({ summary: { precision, skipped } }) => (precision === 'mixed' ? `mixed, ${skipped} skipped` : precision)],
    ['images/s', ({ summary }) => number(summary.imagesPerSecond, (value) => formatNumber(value))],
    ['GPU memory, MB', ({ summary }) => (summary.memory.total / 1e6).toFixed(1)],
    ['of it for trials', ({ summary }) => (summary.memory.trials / 1e6).toFixed(1)],
    ['dispatches a step', ({ summary }) => String(summary.dispatchesPerStep)],
    ['diverged', ({ summary }) => (summary.diverged ? `at step ${summary.diverged.step}` : 'no')],
  ];
  const table = [['', ...runs.map(({ name }) => name)], ...rows.map(([label, show]) => [label, ...runs.map(show)])];
  const widths = table[0].map((_, column) => Math.max(...table.map((row) => row[column].length)));
  return `${table.map((row) => row.map((cell, i) => (i === 0 ? cell.padEnd(widths[i]) : cell.padStart(widths[i]))).join('   ')).join('\n')}\n`;
}
