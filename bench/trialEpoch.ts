/** What an event every k steps adds to training: predicted from the times of event and step, and measured with and without events. */
import { proceduralDataset } from '../src/data/procedural.ts';
import { openDevice } from '../src/gpu/device.ts';
import { resnet18, type Stem } from '../src/nn/resnet.ts';
import { asPublished, ConstantSchedule, TrialScheduler, type Schedule } from '../src/sched/index.ts';
import { Trainer } from '../src/train/trainer.ts';
import { countGpu } from './support/gpuCounts.ts';
import { interleave, sample, timing } from './support/measure.ts';
import { insist, options, positive, positives, printTable, writeReport, type Row } from './support/report.ts';
import { factorsAround, learningRate, sgdOptions, Training } from './support/training.ts';
import { replay } from './support/plans.ts';

const values = options({
  width: { type: 'string', default: '16' },
  batch: { type: 'string', default: '32' },
  trials: { type: 'string', default: '5' },
  stem: { type: 'string', default: 'cifar' },
  every: { type: 'string', default: '5,20' },
  samples: { type: 'string', default: '5' },
});
const [width, batchSize, trials, samples] = (['width', 'batch', 'trials', 'samples'] as const).map((name) => positive(name, values[name]));
const stem = values.stem as Stem;
const periods = positives('every', values.every);
await countGpu();
const device = await openDevice();
const dataset = proceduralDataset({ train: 8 * batchSize, test: batchSize });

/** Trains on as long as it is asked to; epochs are short, so that the whole set is seen. */
const trainer = (schedule: Schedule): Promise<Trainer> =>
  Trainer.create({ device, model: resnet18({ stem, width }), batchSize, dataset, schedule, epochs: 1_000_000, optimizer: sgdOptions });

/** A block of k steps; with events, one of them has one. */
async function block(one: Trainer, steps: number): Promise<void> {
  for (let i = 0; i < steps; i++) await one.trainStep();
  await device.idle();
}

const rows: Row[] = [];
const still = await Training.create(device, { stem, width, batchSize, trials: { count: trials, direction: 'gradient' } });
await still.step();
const lr = learningRate / 10;
const without = await trainer(new ConstantSchedule({ lr }));
for (const steps of periods) {
  const withEvents = await trainer(
    new TrialScheduler(asPublished(factorsAround(trials), { lr, every: { steps }, bounds: [lr / 10, lr * 10] })),
  );
  const taken = await interleave(
    {
      without: () => sample(() => block(without, steps)),
      with: () => sample(() => block(withEvents, steps)),
      event: () => sample(() => replay(device, [still.plans.event!])),
    },
    samples,
  );
  for (const one of [without, withEvents]) {
    await one.losses();
    insist(one.divergence === null, `a training diverged: ${JSON.stringify(one.divergence)}`);
  }
  const [plain, full, event] = [timing(taken.without), timing(taken.with), timing(taken.event)];
  const share = (what: 'wallMs' | 'cpuMs') => ({
    predicted: event[what].median / plain[what].median,
    measured: full[what].median / plain[what].median - 1,
  });
  const [wall, cpu] = [share('wallMs'), share('cpuMs')];
  rows.push({
    stem,
    width,
    batch: batchSize,
    trials,
    every: steps,
    stepCpuMs: plain.cpuMs.median / steps,
    eventCpuMs: event.cpuMs.median,
    predictedCpuShare: cpu.predicted,
    measuredCpuShare: cpu.measured,
    stepWallMs: plain.wallMs.median / steps,
    eventWallMs: event.wallMs.median,
    predictedWallShare: wall.predicted,
    measuredWallShare: wall.measured,
    withEvents: full,
    without: plain,
    samples,
  });
  await withEvents.close();
}
printTable(`Training with an event of ${trials} trials every k steps, over training without: share of time`, rows);
writeReport('trialEpoch', device.adapter, rows, values.json);
process.exit(0);
