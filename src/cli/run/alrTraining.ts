/** One training run by the ALR technique from the command line: what `training.ts` is for the other schedulers. */
import { AlrTrainer, type AlrCheckpoint, type AlrCheckpointCadence, type AlrEpoch } from '../../train/index.ts';
import { compileProgress } from '../compileProgress.ts';
import { formatLoss, formatNumber } from '../format.ts';
import type { TrainValues } from '../options.ts';
import { Progress } from '../progress.ts';
import { RunFolder } from '../../train/runFolder.node.ts';
import { saveModel } from './record.ts';
import { asFlags } from './resume.ts';
import { describe, Stopwatch, type Checkpoints, type FinishedRun, type Summary, type TrainingJob } from './training.ts';

export interface AlrJob extends Omit<TrainingJob, 'schedule' | 'values' | 'checkpoints'> {
  readonly values: TrainValues;
  readonly checkpoints: Checkpoints<AlrCheckpoint, AlrCheckpointCadence>;
}

/** `step 50: ×2 1.98  ×1 2.07 → learning rate 0.1`, with the beams where there are several. */
function describeEpoch({ step, candidates, rates, allNonFinite }: AlrEpoch): string {
  const beams = new Set(candidates.map(({ beam }) => beam)).size;
  const branches = candidates.map(({ beam, factor, loss }) => `${beams > 1 ? `${beam}:` : ''}×${formatNumber(factor)} ${formatLoss(loss)}`);
  const note = allNonFinite ? ' (every branch diverged: the epoch is taken back)' : '';
  return `step ${step}: branches ${branches.join('  ')} → learning rate ${rates.map((rate) => formatNumber(rate)).join(', ')}${note}`;
}

export async function runAlr(job: AlrJob): Promise<FinishedRun> {
  const { values, dataset, model, device, signal, name, checkpoints: { every, notes, from } } = job;
  const stream = process.stderr;
  const { tensorboard, lr, beam, factors, batch, epochs, maxSteps, momentum, weightDecay, nesterov, augment, noShuffle, seed, memoryBudget } = values;
  const making = AlrTrainer.create({
    model, dataset, device, resume: from?.checkpoint, lr, beam, factors, batchSize: batch, epochs, maxSteps, optimizer: { momentum, weightDecay, nesterov }, augment,
    shuffle: !noShuffle, seed, memoryBudget, onCompile: compileProgress(stream, name),
  });
  const trainer = await (from ? asFlags(making, dataset) : making);
  try {
    const record = from ? RunFolder.resume(job.folder, from, { tensorboard }) : RunFolder.begin(job.folder, { tensorboard });
    const onCheckpoint = (checkpoint: AlrCheckpoint) => record.keep(checkpoint, notes);
    if (!from) onCheckpoint(await trainer.checkpoint());
    const progress = new Progress({ stream, total: trainer.totalSteps, every: values.logEvery });
    const branches = trainer.tree.branchesPerEpoch;
    progress.event(`${name}: ${trainer.totalSteps} steps of ${batch} images, up to ${branches} branches side by side${from ? `, from step ${trainer.step}` : ''}`);
    const watch = new Stopwatch();
    const begun = trainer.step;
    let told = begun;
    const result = await trainer.run({
      signal,
      logEvery: device.adapter.isSoftware ? 1 : values.logEvery,
      onProgress: ({ step, losses }) => {
        watch.note(step + 1 - told, told === begun);
        told = step + 1;
        const rate = watch.rate(batch) ?? undefined;
        const secondsLeft = rate && ((trainer.totalSteps - step - 1) * batch) / rate;
        const finite = losses.filter(Number.isFinite);
        const loss = finite.length > 0 ? Math.min(...finite) : NaN;
        progress.update({ step: step + 1, loss, lr: trainer.tree.rates[0], imagesPerSecond: rate, secondsLeft });
      },
      onSteps: (steps) => record.addSteps(steps),
      onEvent: (epoch) => {
        record.addEpoch(epoch);
        progress.event(describeEpoch(epoch));
      },
      onEvaluation: (evaluation) => {
        record.addEvaluation(evaluation);
        const { step, testLoss, testAccuracy } = evaluation;
        progress.event(`step ${step}: test loss ${formatLoss(testLoss)}, accuracy ${(testAccuracy * 100).toFixed(1)} %`);
        watch.restart();
      },
      onCheckpoint,
      checkpointEvery: every,
    });
    progress.done();
    const summary = summarize(trainer, record, job, watch.rate(batch));
    await trainer.close();
    const { model: network, stem, width } = values;
    saveModel(job.folder, model, trainer.step, { model: network, stem, width: String(width), dataset: dataset.name });
    return { name, record, summary, aborted: result.aborted };
  } catch (error) {
    await trainer.close().catch(() => undefined);
    throw error;
  }
}

function summarize(trainer: AlrTrainer, { steps, evals }: RunFolder, { device, values }: AlrJob, imagesPerSecond: number | null): Summary {
  const last = steps.slice(-trainer.stepsPerEpoch);
  const evaluation = evals.at(-1) ?? null;
  return {
    steps: trainer.step,
    epochs: trainer.step / trainer.stepsPerEpoch,
    trainLoss: last.length > 0 ? last.reduce((sum, { loss }) => sum + loss, 0) / last.length : null,
    testLoss: evaluation?.testLoss ?? null,
    testAccuracy: evaluation?.testAccuracy ?? null,
    lr: steps.at(-1)?.lr ?? values.lr,
    lrHistory: steps.map(({ lr }) => lr),
    precision: 'f32',
    skipped: 0,
    imagesPerSecond,
    memory: trainer.memory,
    dispatchesPerStep: trainer.dispatchesPerStep,
    adapter: describe(device),
    seed: values.seed,
    diverged: null,
    forwards: trainer.forwards,
  };
}
