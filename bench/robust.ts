/**
 * Accuracy of short CIFAR-10 trainings by choices of the trial scheduler and first learning rate: why `robust` is what it is.
 *
 * Rows that the JSON file has are not run again, so it can be interrupted and added to; words select candidates.
 */
import { existsSync, readFileSync } from 'node:fs';
import { limitSet } from '../src/data/dataset.ts';
import { readCifar10 } from '../src/data/cifar.node.ts';
import { openDevice } from '../src/gpu/device.ts';
import { resnet18 } from '../src/nn/resnet.ts';
import { ConstantSchedule, robust, TrialScheduler, type Schedule, type TrialOptions } from '../src/sched/index.ts';
import { blindRobust, gateOptions, minMaxOptions } from '../src/study/methods.ts';
import { Trainer } from '../src/train/trainer.ts';
import { chosen, fail, optionsAndWords, positive, positives, printTable, refuse, writeReport, type Row } from './support/report.ts';

const { values, words } = optionsAndWords({
  data: { type: 'string' }, width: { type: 'string', default: '8' }, batch: { type: 'string', default: '32' },
  momentum: { type: 'string', default: '0.9' },
  epochs: { type: 'string', default: '4' }, train: { type: 'string', default: '3200' }, test: { type: 'string', default: '2000' },
  seeds: { type: 'string', default: '1,2' }, rates: { type: 'string', default: '0.0005,0.05,0.5' },
  minutes: { type: 'string', default: '600' },
});
if (values.data === undefined) refuse('--data DIR must name the folder of CIFAR-10; forkstep data fetch cifar10 --data DIR downloads it');
const counts = ['width', 'batch', 'epochs', 'train', 'test', 'minutes'] as const;
const [width, batchSize, epochs, trained, tested, minutes] = counts.map((name) => positive(name, values[name]));
const momentum = Number(values.momentum);
if (!(momentum >= 0 && momentum < 1)) refuse(`--momentum must be in [0, 1), got ${JSON.stringify(values.momentum)}`);
const rates = values.rates.split(',').map(Number);
if (!rates.every((lr) => lr > 0 && lr <= 1)) refuse(`--rates must be numbers in 0 … 1, got ${JSON.stringify(values.rates)}`);
const seeds = positives('seeds', values.seeds);

const trial = (overrides: Partial<TrialOptions>) => (lr: number): Schedule => new TrialScheduler(robust({ lr, ...overrides }));
const minMax = (overrides: Partial<TrialOptions>) => trial({ ...minMaxOptions, ...overrides });
const gate = (overrides: Partial<TrialOptions>) => trial({ ...gateOptions, ...overrides });

/** By name, what makes a schedule of a first rate. Those without a cosine need not know the run's length. */
const candidates: Record<string, (lr: number) => Schedule> = {
  'cosine alone': (lr) => new ConstantSchedule({ lr, envelope: 'cosine' }),
  'cosine from 1, warm-up': blindRobust,
  robust: trial({}),
  'robust, shuffled losses': trial({ control: 'shuffledLosses' }),
  'robust, inverse root': trial({ envelope: 'inverseSqrt' }),
  'robust, no envelope': trial({ envelope: 'none' }),
  'min-max': minMax({}),
  'min-max, held-out, paired noise': minMax({ score: 'pairedNoise', batch: 'heldOut' }),
  'min-max, inverse root': minMax({ envelope: 'inverseSqrt' }),
  'no envelope, held-out, paired noise': minMax({ envelope: 'none', score: 'pairedNoise', batch: 'heldOut' }),
  'min-max, shuffled losses': minMax({ control: 'shuffledLosses' }),
  'min-max, every 10 steps': minMax({ every: { steps: 10 } }),
  'min-max, paired noise': minMax({ score: 'pairedNoise' }),
  'gate along the optimizer': gate({ c: 0.5, direction: 'optimizer' }),
  gate: gate({}),
  'gate, inverse root': gate({ envelope: 'inverseSqrt' }),
  'min-max, no envelope': minMax({ envelope: 'none' }),
  constant: (lr) => new ConstantSchedule({ lr }),
};

const setting = { width, batchSize, epochs, trained, tested, momentum };

/** What was measured before in the same setting. */
function earlier(): Row[] {
  const { json } = values;
  if (json === undefined || !existsSync(json)) return [];
  const report = JSON.parse(readFileSync(json, 'utf8')) as { setting: typeof setting; rows: Row[] };
  if (JSON.stringify(report.setting) !== JSON.stringify(setting)) {
    fail(`--json ${json} holds runs of another setting: ${JSON.stringify(report.setting)}; name another file`);
  }
  return report.rows;
}

const device = await openDevice();
const cifar = readCifar10(values.data);
const dataset = { ...cifar, train: limitSet(cifar.train, trained), test: limitSet(cifar.test, tested) };

async function train(schedule: Schedule, seed: number): Promise<Row> {
  const model = resnet18({ stem: 'imagenet', width, seed });
  const started = performance.now();
  const optimizer = { momentum, weightDecay: 5e-4 };
  const trainer = await Trainer.create({ model, dataset, device, batchSize, seed, epochs, optimizer, schedule });
  try {
    const log: number[] = [];
    const result = await trainer.run({ logEvery: 100, evaluate: false, onSteps: (steps) => log.push(...steps.map(({ lr }) => lr)) });
    const { testAccuracy, testLoss } = await trainer.evaluate();
    return {
      testAccuracy, testLoss: Number.isFinite(testLoss) ? testLoss : null, diverged: result.divergence !== null, steps: result.steps,
      greatestRate: Math.max(...log), lastRate: log[log.length - 1] ?? null,
      scale: schedule instanceof TrialScheduler ? schedule.lr : null, seconds: (performance.now() - started) / 1000,
    };
  } finally {
    await trainer.close();
  }
}

const mean = (some: readonly number[]): number => some.reduce((sum, one) => sum + one, 0) / some.length;

/** Mean accuracy over the seeds, by candidate and first rate; how much the first rate matters. */
function summary(rows: readonly Row[]): Row[] {
  return Object.keys(candidates).flatMap((candidate) => {
    const own = rows.filter((row) => row.candidate === candidate);
    if (own.length === 0) return [];
    const of = rates.map((lr) => own.filter((row) => row.lr === lr).map(({ testAccuracy }) => 100 * (testAccuracy as number)));
    const means = of.filter((some) => some.length > 0).map(mean);
    const shown = (some: readonly number[]) => (some.length > 0 ? some.map((one) => one.toFixed(1)).join(' ') : null);
    const byRate = Object.fromEntries(rates.map((lr, i) => [String(lr), shown(of[i])]));
    return [{ candidate, ...byRate, least: Math.min(...means), mean: mean(means) }];
  });
}

const rows = earlier();
const names = chosen('a candidate', Object.keys(candidates), (name) => name, words);
const deadline = performance.now() + minutes * 60_000;
for (const candidate of names) {
  for (const seed of seeds) {
    for (const lr of rates) {
      if (rows.some((row) => row.candidate === candidate && row.lr === lr && row.seed === seed)) continue;
      if (performance.now() > deadline) continue;
      const row: Row = { candidate, lr, seed, ...(await train(candidates[candidate](lr), seed)) };
      rows.push(row);
      const [percent, seconds] = [100 * (row.testAccuracy as number), row.seconds as number];
      process.stderr.write(`${candidate}, from ${lr}, seed ${seed}: ${percent.toFixed(1)} % in ${seconds.toFixed(0)} s\n`);
      writeReport('robust', device.adapter, rows, values.json, { setting, summary: summary(rows) });
    }
  }
}
writeReport('robust', device.adapter, rows, values.json, { setting, summary: summary(rows) });
printTable(`Test accuracy of each seed by first rate, %: ResNet18, width ${width}, ${epochs} epochs of ${trained} images`, summary(rows));
process.exit(0);
