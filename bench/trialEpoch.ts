/** What an event every k steps adds to training: predicted from the times of event and step, and measured with and without events. */
import { proceduralDataset } from '../src/data/procedural.ts';
import { openDevice } from '../src/gpu/device.ts';
import { resnet18, type Stem } from '../src/nn/resnet.ts';
import { asPublished, ConstantSchedule, TrialScheduler, type Schedule } from '../src/sched/index.ts';
import { Trainer } from '../src/train/trainer.ts';
import { countGpu } from './support/gpuCounts.ts';
import { sample, spread, type Sample } from './support/measure.ts';
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

/** A block of k steps of both trainings, step by step in turn: the one with events has one in it. */
async function block(without: Trainer, withEvents: Trainer, steps: number): Promise<{ without: Sample; with: Sample }> {
  const sums = { without: { wallMs: 0, cpuMs: 0 }, with: { wallMs: 0, cpuMs: 0 } };
  const add = async (to: { wallMs: number; cpuMs: number }, one: Trainer): Promise<void> => {
    const { wallMs, cpuMs } = await sample(async () => {
      await one.trainStep();
      await device.idle();
    });
    to.wallMs += wallMs;
    to.cpuMs += cpuMs;
  };
  for (let i = 0; i < steps; i++) {
    await add(sums.without, without);
    await add(sums.with, withEvents);
  }
  return sums;
}

const rows: Row[] = [];
const still = await Training.create(device, { stem, width, batchSize, trials: { count: trials, direction: 'gradient' } });
await still.step();
const lr = learningRate / 10;
const without = await trainer(new ConstantSchedule({ lr }));
for (const every of periods) {
  const withEvents = await trainer(
    new TrialScheduler(asPublished(factorsAround(trials), { lr, every: { steps: every }, bounds: [lr / 10, lr * 10] })),
  );
  const taken: { without: Sample; with: Sample; event: Sample }[] = [];
  for (let round = -1; round < samples; round++) {
    const event = await sample(() => replay(device, [still.plans.event!]));
    const steps = await block(without, withEvents, every);
    if (round >= 0) taken.push({ ...steps, event });
  }
  for (const one of [without, withEvents]) {
    await one.losses();
    insist(one.divergence === null, `a training diverged: ${JSON.stringify(one.divergence)}`);
  }
  const median = (value: (one: (typeof taken)[number]) => number): number => spread(taken.map(value)).median;
  rows.push({
    stem,
    width,
    batch: batchSize,
    trials,
    every,
    stepCpuMs: median((one) => one.without.cpuMs / every),
    eventCpuMs: median(({ event }) => event.cpuMs),
    predictedCpuShare: median((one) => one.event.cpuMs / one.without.cpuMs),
    measuredCpuShare: median((one) => one.with.cpuMs / one.without.cpuMs - 1),
    stepWallMs: median((one) => one.without.wallMs / every),
    eventWallMs: median(({ event }) => event.wallMs),
    predictedWallShare: median((one) => one.event.wallMs / one.without.wallMs),
    measuredWallShare: median((one) => one.with.wallMs / one.without.wallMs - 1),
    samples,
  });
  await withEvents.close();
}
printTable(`Training with an event of ${trials} trials every k steps, over training without: share of time`, rows);
writeReport('trialEpoch', device.adapter, rows, values.json);
process.exit(0);
