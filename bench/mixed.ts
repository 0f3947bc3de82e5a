/** Accuracy of short trainings on CIFAR-10 in float32 and in mixed precision, from the same weights and in the same order, with time and memory. */
import { limitSet } from '../src/data/dataset.ts';
import { readCifar10 } from '../src/data/cifar.node.ts';
import { openDevice } from '../src/gpu/device.ts';
import { resnet18 } from '../src/nn/resnet.ts';
import { ConstantSchedule } from '../src/sched/index.ts';
import { Trainer } from '../src/train/trainer.ts';
import { cpuMs } from './support/measure.ts';
import { insist, options, positive, printTable, refuse, writeReport, type Row } from './support/report.ts';

const values = options({
  data: { type: 'string' }, width: { type: 'string', default: '8' }, batch: { type: 'string', default: '32' },
  steps: { type: 'string', default: '200' }, seeds: { type: 'string', default: '3' }, first: { type: 'string', default: '0' }, test: { type: 'string', default: '2000' },
});
if (values.data === undefined) refuse('--data DIR must name the folder of CIFAR-10; forkstep data fetch cifar10 --data DIR downloads it');
const names = ['width', 'batch', 'steps', 'seeds', 'test'] as const;
const [width, batchSize, steps, seeds, tested] = names.map((name) => positive(name, values[name]));
const first = Number(values.first);
if (!Number.isInteger(first) || first < 0) refuse(`--first must be an integer ≥ 0, got ${JSON.stringify(values.first)}`);
const lr = 0.05;
const device = await openDevice();
const cifar = readCifar10(values.data);
const dataset = { ...cifar, test: limitSet(cifar.test, tested) };

const precisions = ['f32', 'mixed'] as const;
type Precision = (typeof precisions)[number];

async function train(precision: Precision, seed: number) {
  const trainer = await Trainer.create({
    model: resnet18({ width, seed }), dataset, device, batchSize, seed, precision, maxSteps: steps, epochs: Math.ceil((steps * batchSize) / 50_000),
    optimizer: { momentum: 0.9, weightDecay: 5e-4 }, augment: 'crop-flip', schedule: new ConstantSchedule({ lr, envelope: 'cosine' }),
  });
  const [wallBefore, cpuBefore] = [performance.now(), cpuMs()];
  for (let step = 0; step < steps; step++) await trainer.trainStep();
  const log = await trainer.losses();
  const [wallS, cpuS] = [(performance.now() - wallBefore) / 1000, (cpuMs() - cpuBefore) / 1000];
  insist(trainer.divergence === null, `${precision}, seed ${seed} diverged: ${JSON.stringify(trainer.divergence)}`);
  const { testAccuracy, testLoss } = await trainer.evaluate();
  const { total, data, slots } = trainer.memory;
  await trainer.close();
  const late = log.slice(-Math.ceil(steps / 10));
  return {
    testAccuracy, testLoss, wallS, cpuS, peakBytes: total, withoutImages: total - data, slotBytes: slots, trainLoss: mean(late.map(({ loss }) => loss)),
    skipped: log.filter(({ skipped }) => skipped).length, lossScale: log[log.length - 1].lossScale ?? null,
  };
}

const mean = (some: readonly number[]): number => some.reduce((sum, one) => sum + one, 0) / some.length;
/** Of a sample; 0 of one. */
const deviation = (some: readonly number[]): number =>
  Math.sqrt(some.reduce((sum, one) => sum + (one - mean(some)) ** 2, 0) / Math.max(1, some.length - 1));

const rows: Row[] = [];
const taken: Record<Precision, Awaited<ReturnType<typeof train>>[]> = { f32: [], mixed: [] };
for (let seed = first; seed < first + seeds; seed++) {
  // Whatever else the machine does falls on both.
  for (const precision of seed % 2 ? [...precisions].reverse() : precisions) {
    const one = await train(precision, seed);
    taken[precision].push(one);
    rows.push({ precision, seed, ...one });
    process.stderr.write(`${precision}, seed ${seed}: accuracy ${(100 * one.testAccuracy).toFixed(2)} %, ${one.wallS.toFixed(1)} s\n`);
  }
}
const accuracies = (precision: Precision) => taken[precision].map(({ testAccuracy }) => testAccuracy);
const differences = accuracies('mixed').map((accuracy, i) => accuracy - accuracies('f32')[i]);
const of = (some: readonly number[]) => ({ mean: mean(some), sd: deviation(some) });
const summary = {
  accuracy: { f32: of(accuracies('f32')), mixed: of(accuracies('mixed')) },
  /** Mixed less f32, seed by seed. */
  difference: { ...of(differences), standardError: deviation(differences) / Math.sqrt(seeds) },
  /** Mixed over f32. */
  bytes: { withoutImages: taken.mixed[0].withoutImages / taken.f32[0].withoutImages, slots: taken.mixed[0].slotBytes / taken.f32[0].slotBytes },
};
printTable(`ResNet18, width ${width}, batch ${batchSize}, ${steps} steps of CIFAR-10, ${tested} test images`, rows);
process.stdout.write(`${JSON.stringify(summary, null, 1)}\n`);
for (const precision of precisions) {
  const reached = summary.accuracy[precision].mean;
  insist(reached > 0.2, `${precision} learnt nothing: accuracy ${reached}`);
}
writeReport('mixed', device.adapter, rows, values.json, { model: `resnet18, width ${width}`, batch: batchSize, steps, lr, tested, ...summary });
process.exit(0);
