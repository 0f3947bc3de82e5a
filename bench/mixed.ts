/**
 * Accuracy of short trainings on CIFAR-10 in float32 and in mixed precision, from the same weights and in the same order, with time and memory.
 * A third way tells how far runs part by themselves: float32 from weights moved by what half precision rounds away, and no other difference.
 */
import { limitSet } from '../src/data/dataset.ts';
import { readCifar10 } from '../src/data/cifar.node.ts';
import { openDevice } from '../src/gpu/device.ts';
import { resnet18, type ResNet } from '../src/nn/resnet.ts';
import { CounterRandom, STREAM } from '../src/nn/random.ts';
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

const ways = ['f32', 'mixed', 'f32 moved'] as const;
type Way = (typeof ways)[number];

/** Moves every parameter by at most half a unit in the last place of a half: 2^-11 of it. */
function move(model: ResNet, seed: number): ResNet {
  const random = new CounterRandom(seed, STREAM.landscape);
  for (const { data } of model.parameters()) for (let i = 0; i < data.length; i++) data[i] *= 1 + 2 ** -11 * (2 * random.uniform() - 1);
  return model;
}

const makeTrainer = (model: ResNet, way: Way, seed: number): Promise<Trainer> =>
  Trainer.create({
    model, dataset, device, batchSize, seed, precision: way === 'mixed' ? 'mixed' : 'f32', maxSteps: steps, epochs: Math.ceil((steps * batchSize) / 50_000),
    optimizer: { momentum: 0.9, weightDecay: 5e-4 }, augment: 'crop-flip', schedule: new ConstantSchedule({ lr, envelope: 'cosine' }),
  });

async function train(way: Way, seed: number) {
  const model = resnet18({ width, seed });
  const trainer = await makeTrainer(way === 'f32 moved' ? move(model, seed) : model, way, seed);
  const [wallBefore, cpuBefore] = [performance.now(), cpuMs()];
  for (let step = 0; step < steps; step++) await trainer.trainStep();
  const log = await trainer.losses();
  const [wallS, cpuS] = [(performance.now() - wallBefore) / 1000, (cpuMs() - cpuBefore) / 1000];
  insist(trainer.divergence === null, `${way}, seed ${seed} diverged: ${JSON.stringify(trainer.divergence)}`);
  const { testAccuracy, testLoss } = await trainer.evaluate();
  const { total, data, slots } = trainer.memory;
  await trainer.close();
  const late = log.slice(-Math.ceil(steps / 10));
  return {
    testAccuracy, testLoss, testedInF32: await evaluateInF32(model), wallS, cpuS, peakBytes: total, withoutImages: total - data, slotBytes: slots,
    trainLoss: mean(late.map(({ loss }) => loss)), skipped: log.filter(({ skipped }) => skipped).length, lossScale: log[log.length - 1].lossScale ?? null,
  };
}

/** Accuracy of the weights that a run left, its forward pass in float32 whatever they were trained in. */
async function evaluateInF32(model: ResNet): Promise<number> {
  const trainer = await makeTrainer(model, 'f32', 0);
  const { testAccuracy } = await trainer.evaluate();
  await trainer.close();
  return testAccuracy;
}

const mean = (some: readonly number[]): number => some.reduce((sum, one) => sum + one, 0) / some.length;
/** Of a sample; 0 of one. */
const deviation = (some: readonly number[]): number =>
  Math.sqrt(some.reduce((sum, one) => sum + (one - mean(some)) ** 2, 0) / Math.max(1, some.length - 1));

const rows: Row[] = [];
const taken: Record<Way, Awaited<ReturnType<typeof train>>[]> = { f32: [], mixed: [], 'f32 moved': [] };
for (let seed = first; seed < first + seeds; seed++) {
  // Whatever else the machine does falls on all.
  for (const way of seed % 2 ? [...ways].reverse() : ways) {
    const one = await train(way, seed);
    taken[way].push(one);
    rows.push({ way, seed, ...one });
    process.stderr.write(`${way}, seed ${seed}: accuracy ${(100 * one.testAccuracy).toFixed(2)} %, ${one.wallS.toFixed(1)} s\n`);
  }
}
const of = (some: readonly number[]) => ({ mean: mean(some), sd: deviation(some) });
const accuracy = (way: Way) => taken[way].map(({ testAccuracy }) => testAccuracy);
/** Of a way less f32, seed by seed. */
const difference = (way: Way, what: 'testAccuracy' | 'testLoss' | 'trainLoss') => {
  const differences = taken[way].map((one, i) => one[what] - taken.f32[i][what]);
  return { ...of(differences), standardError: deviation(differences) / Math.sqrt(seeds) };
};
const differences = (way: Way) => ({
  testAccuracy: difference(way, 'testAccuracy'), testLoss: difference(way, 'testLoss'), trainLoss: difference(way, 'trainLoss'),
});
const summary = {
  accuracy: { f32: of(accuracy('f32')), mixed: of(accuracy('mixed')), moved: of(accuracy('f32 moved')) },
  lessF32: { mixed: differences('mixed'), moved: differences('f32 moved') },
  /** Mixed over f32. */
  bytes: { withoutImages: taken.mixed[0].withoutImages / taken.f32[0].withoutImages, slots: taken.mixed[0].slotBytes / taken.f32[0].slotBytes },
};
printTable(`ResNet18, width ${width}, batch ${batchSize}, ${steps} steps of CIFAR-10, ${tested} test images`, rows);
process.stdout.write(`${JSON.stringify(summary, null, 1)}\n`);
for (const way of ways) {
  const reached = mean(accuracy(way));
  insist(reached > 0.2, `${way} learnt nothing: accuracy ${reached}`);
}
writeReport('mixed', device.adapter, rows, values.json, { model: `resnet18, width ${width}`, batch: batchSize, steps, lr, tested, ...summary });
process.exit(0);
