/** A fused event of N trials against one plain forward of N·B images, and against N passes of one trial each. */
import { openDevice, type Device } from '../src/gpu/device.ts';
import { crossEntropy, mean } from '../src/graph/functional.ts';
import type { Storage, Variable } from '../src/graph/tensor.ts';
import { trainingContext } from '../src/nn/module.ts';
import { externalTensor } from '../src/graph/ops.ts';
import { trials } from '../src/trials/trials.ts';
import { countGpu } from './support/gpuCounts.ts';
import { interleave, sample, timing, type Sample } from './support/measure.ts';
import { replay, soloPlan } from './support/plans.ts';
import { insist, options, positive, printTable, writeReport, type Row } from './support/report.ts';
import { learningRate, Training } from './support/training.ts';

const values = options({
  width: { type: 'string', default: '16' }, batch: { type: 'string', default: '32' }, trials: { type: 'string', default: '5' },
  samples: { type: 'string', default: '15' },
});
const count = positive('trials', values.trials);
const batchSize = positive('batch', values.batch);
const samples = positive('samples', values.samples);

/** Learning rates around the one of the steps, as an event tries them. */
const rates = Array.from({ length: count }, (_, i) => learningRate * 2 ** (i - (count >> 1)));

/** One trial in a pass of its own, along the direction that training holds. */
async function singleTrial({ memory, model, plans, input }: Training) {
  const directions = new Map<Variable, [ReturnType<typeof externalTensor>]>(
    plans.store.parameters.map((variable, i) => [variable, [externalTensor(plans.sgd.directions.at(i), variable)]]),
  );
  const coefficient = memory.storage('trials', 'coefficient', 16);
  const loss = mean(crossEntropy(model.forward(input.x, trainingContext()), input.labels));
  const [one] = trials([loss], { count: 1, directions, coefficients: externalTensor(coefficient, { shape: [1], dtype: 'f32', trials: 1 }) });
  return { coefficient, ...(await soloPlan(memory, [one])) };
}

const write = (device: Device, to: Storage, numbers: readonly number[]): void =>
  device.gpu.queue.writeBuffer(to.buffer, to.offset, Float32Array.from(numbers));

await countGpu();
const device = await openDevice();
const training = await Training.create(device, { width: positive('width', values.width), batchSize, trials: { count } });
const { plans, memory } = training;
for (let i = 0; i < 3; i++) await training.step();
const event = plans.event!;
const single = await singleTrial(training);
// The same kernels over all images at once, batch norm's statistics over all of them too: what a fused event can at best cost.
const wide = training.feed!.batch(batchSize * count, 'cursor', 'counter', false);
const { plan: forward } = await soloPlan(memory, [training.forwardLoss(wide)]);

let start = 0;
for (const chunk of plans.trialChunks) {
  write(device, chunk.coefficients, rates.slice(start, start + chunk.count).map((rate) => -rate));
  start += chunk.count;
}
const runSequential = async (after?: () => Promise<void>): Promise<void> => {
  for (const rate of rates) {
    write(device, single.coefficient, [-rate]);
    await replay(device, [single.plan]);
    await after?.();
  }
};

const scalar = async ({ buffer, offset }: Storage, i = 0): Promise<number> => new Float32Array(await device.read(buffer, offset + i * 16, 4))[0];
const sequentialLosses: number[] = [];
await runSequential(async () => void sequentialLosses.push(await scalar(single.values[0])));
await replay(device, [event]);
const fusedLosses: number[] = [];
for (const chunk of plans.trialChunks) for (let i = 0; i < chunk.count; i++) fusedLosses.push(await scalar(chunk.losses, i));
const apart = Math.max(...fusedLosses.map((loss, i) => Math.abs(loss - sequentialLosses[i]) / Math.abs(sequentialLosses[i])));
insist(apart <= 1e-5, `fused losses ${fusedLosses} differ from one-by-one losses ${sequentialLosses}`);
insist(new Set(fusedLosses).size === count, `trials do not differ: ${fusedLosses}`);

const taken = await interleave({
  fused: () => sample(() => replay(device, [event])),
  forward: () => sample(() => replay(device, [forward])),
  sequential: () => sample(() => runSequential()),
}, samples);
const bound = timing(taken.forward);
/** Ratios are to the plain forward. */
function row(name: string, one: readonly Sample[], dispatches: number): Row {
  const time = timing(one);
  const ratio = (what: keyof Sample): number => time[what].median / bound[what].median;
  return { case: name, time, dispatches, cpuRatio: ratio('cpuMs'), wallRatio: ratio('wallMs') };
}
const passes = plans.trialChunks.map((chunk) => chunk.count).join('+');
const rows: Row[] = [
  row(`fused event, N = ${count} (trials a pass: ${passes})`, taken.fused, event.dispatches),
  row(`plain forward of ${count}·${batchSize} images`, taken.forward, forward.dispatches),
  row(`${count} passes of one trial`, taken.sequential, count * single.plan.dispatches),
];
const shown = fusedLosses.map((loss) => loss.toFixed(5)).join(' ');
process.stdout.write(`fused losses ${shown}; at most ${apart.toExponential(1)} (relative) from one by one\n`);
printTable(`Trials, ResNet18 width ${values.width}, batch ${batchSize}: wall / CPU ms`, rows);
writeReport('trials', device.adapter, rows, values.json, { fusedLosses, sequentialLosses, memory: plans.report });
process.exit(0);
