/** ResNet18 on CIFAR-10 by the trial scheduler. Arguments: DIR [width] [steps]; DIR holds the files that `forkstep data fetch` leaves */
import { mkdirSync, writeFileSync } from 'node:fs';
import { limitSet, nn, robust, Trainer, TrialScheduler } from 'forkstep';
import { readCifar10 } from 'forkstep/node';

const [dir, width = '16', maxSteps = '400'] = process.argv.slice(2);
if (dir === undefined) {
  console.error('usage: node scripts/example.mjs cifar DIR [width] [steps]');
  process.exit(2);
}
const dataset = readCifar10(dir);
const model = nn.resnet18({ width: Number(width), seed: 0 });
const trainer = await Trainer.create({
  model,
  dataset: { ...dataset, test: limitSet(dataset.test, 2000) },
  schedule: new TrialScheduler(robust({ lr: 0.005, every: { steps: 50 } })),
  optimizer: { momentum: 0.9, weightDecay: 5e-4 },
  batchSize: 32,
  augment: 'crop-flip',
  maxSteps: Number(maxSteps),
});
const MB = (bytes: number): string => (bytes / 1e6).toFixed(1);
const { total, trials } = trainer.memory;
console.log(`${trainer.dispatchesPerStep} dispatches a step, ${MB(total)} MB on the GPU, ${MB(trials)} of them for trials`);

const result = await trainer.run({
  logEvery: 10,
  onSteps: (steps) => {
    const { step, lr } = steps[steps.length - 1];
    const loss = steps.reduce((sum, one) => sum + one.loss, 0) / steps.length;
    console.log(`step ${step}: loss ${loss.toFixed(3)} (mean of ${steps.length}), learning rate ${lr.toPrecision(3)}`);
  },
  onEvent: ({ step, factors, losses, lrBefore, lrAfter }) => {
    const best = factors[losses.indexOf(Math.min(...losses))];
    const found = `trials ${losses.map((loss) => loss.toFixed(3)).join(' ')}, best ×${best}`;
    console.log(`step ${step}: ${found}; scale ${lrBefore.toPrecision(3)} → ${lrAfter.toPrecision(3)}`);
  },
});
if (result.evaluation) {
  const { testLoss, testAccuracy } = result.evaluation;
  console.log(`test loss ${testLoss.toFixed(3)}, accuracy ${(testAccuracy * 100).toFixed(1)} %`);
}
await trainer.close();
// torchvision's names and layouts: load_state_dict takes it.
mkdirSync('runs', { recursive: true });
writeFileSync('runs/resnet18-cifar10.safetensors', nn.saveSafetensors(model, {}, result.steps));
