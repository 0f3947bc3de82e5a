/** A step of several branches side by side against as many trainers' steps one after another, forward, backward and SGD. */
import { proceduralDataset } from '../src/data/procedural.ts';
import { openDevice } from '../src/gpu/device.ts';
import { resnet18, type Stem } from '../src/nn/resnet.ts';
import { ConstantSchedule } from '../src/sched/index.ts';
import { AlrTrainer } from '../src/train/alrTrainer.ts';
import { Trainer } from '../src/train/trainer.ts';
import { interleave, sample, timing } from './support/measure.ts';
import { insist, options, positive, printTable, writeReport, type Row } from './support/report.ts';
import { sgdOptions } from './support/training.ts';

const values = options({
  width: { type: 'string', default: '8' }, batch: { type: 'string', default: '8' }, stem: { type: 'string', default: 'cifar' },
  branches: { type: 'string', default: '3' }, steps: { type: 'string', default: '4' }, samples: { type: 'string', default: '15' },
});
const names = ['width', 'batch', 'branches', 'steps', 'samples'] as const;
const [width, batchSize, branches, steps, samples] = names.map((name) => positive(name, values[name]));
/** Small, so that roundings do not grow in the steps that are compared. */
const lr = 0.005;
const device = await openDevice();
const dataset = proceduralDataset({ train: 16 * batchSize, test: batchSize });
/** Ratios of √2 around 1. */
const factors = Array.from({ length: branches }, (_, i) => 2 ** ((branches - 1) / 4 - i / 2));
/** Epochs are short, so that the whole set is seen; none ends while it is measured. */
const common = { device, dataset, batchSize, epochs: 1_000_000, optimizer: sgdOptions };
const model = () => resnet18({ stem: values.stem as Stem, width });

const apart: Trainer[] = [];
for (const factor of factors) {
  const schedule = new ConstantSchedule({ lr: lr * factor });
  apart.push(await Trainer.create({ ...common, model: model(), schedule }));
}
const together = await AlrTrainer.create({ ...common, model: model(), lr, factors });

/** Some steps of each, whose losses must agree before anything is measured. */
async function check(): Promise<void> {
  for (let step = 0; step < 5; step++) {
    await together.trainStep();
    const losses = await together.losses();
    for (const [i, trainer] of apart.entries()) {
      await trainer.trainStep();
      const [{ loss }] = await trainer.losses();
      insist(Math.abs(losses[i] - loss) <= 1e-5 * loss, `step ${step}: branch ${i} has the loss ${losses[i]}, by itself ${loss}`);
    }
  }
}

await check();
const rounds = {
  together: () => sample(async () => {
    for (let step = 0; step < steps; step++) {
      if (together.step % together.stepsPerEpoch === 0 && !together.isAtBoundary) await together.endEpoch();
      await together.trainStep();
    }
    await device.idle();
  }, steps),
  apart: () => sample(async () => {
    for (const trainer of apart) {
      for (let step = 0; step < steps; step++) await trainer.trainStep();
      await device.idle();
    }
  }, steps),
};
const taken = await interleave(rounds, samples);
const [side, one] = [timing(taken.together), timing(taken.apart)];
const of = (name: 'wallMs' | 'cpuMs'): number => side[name].median / one[name].median;
const rows: Row[] = [
  { way: 'side by side', time: side, dispatches: together.dispatchesPerStep, gpuMB: together.memory.total / 1e6 },
  {
    way: `${branches} one after another`, time: one, dispatches: apart.reduce((sum, { dispatchesPerStep }) => sum + dispatchesPerStep, 0),
    gpuMB: apart.reduce((sum, { memory }) => sum + memory.total, 0) / 1e6,
  },
];
printTable(`ResNet18 (${values.stem} stem), width ${width}, batch ${batchSize}, ${branches} branches: a step's wall / CPU ms`, rows);
process.stdout.write(`side by side takes ${of('wallMs').toFixed(3)} of the wall time and ${of('cpuMs').toFixed(3)} of the CPU time\n`);
for (const trainer of [together, ...apart]) await trainer.close();
writeReport('alr', device.adapter, rows, values.json, { width, batch: batchSize, branches, of: { wall: of('wallMs'), cpu: of('cpuMs') } });
process.exit(0);
