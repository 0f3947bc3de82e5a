/** Where a ResNet18 stands before its first step: rates, line searches, curvature, a slice of the landscape. Arguments: [width] [batch] */
import { imageBatch, nn, probes, proceduralDataset } from 'forkstep';

const width = Number(process.argv[2] ?? 8);
const batch = Number(process.argv[3] ?? 64);
const dataset = proceduralDataset({ train: batch, test: 1 });
const batches = imageBatch(
  dataset.train,
  dataset,
  Array.from({ length: batch }, (_, i) => i),
);
const model = nn.resnet18({ width });
const show = (value: number | null): string => (value === null ? 'none' : String(Number(value.toPrecision(4))));

// One gradient; every probe below is one fused evaluation along it.
const line = await probes.gradientLine({ model, batches });
console.log(`loss ${show(line.loss)}, slope along the gradient ${show(line.slope)}`);

const range = await probes.rateRange(line, { rates: probes.logGrid(1e-4, 10, 16) });
console.log(`range: least loss ${show(range.least!.loss)} at rate ${show(range.least!.rate)}, explodes at ${show(range.explodes)}`);

const steps = probes.logGrid(1e-3, 1, 16);
console.log(`armijo: step ${show((await probes.armijo(line, { steps, c: 0.1 })).step)}`);
console.log(`goldstein: step ${show((await probes.goldstein(line, { steps, c: 0.1 })).step)}`);

const { curvature, limit, ratio } = await probes.curvature(line, { lr: 0.1 });
console.log(`curvature along the gradient ${show(curvature)}, 2/η ${show(limit)}, ratio ${show(ratio)}`);

const [direction] = probes.randomDirections(model, { seed: 0 });
const { at, losses } = await probes.slice({ model, batches, direction, at: probes.linearGrid(-1, 1, 9) });
console.log(`slice: ${at.map((alpha, i) => `${show(alpha)}: ${losses[i].toFixed(3)}`).join('  ')}`);
