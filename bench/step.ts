/** A whole ResNet18 training step: time, dispatches, submits, memory; `--profile` says where the time goes. */
import { grad } from '../src/autograd/grad.ts';
import { openDevice } from '../src/gpu/device.ts';
import { Scratch, type Ref } from '../src/graph/lower/context.ts';
import { lower } from '../src/graph/lower/index.ts';
import { lowerContextOf } from '../src/graph/plan.ts';
import { elements, sizeBytes, Tensor } from '../src/graph/tensor.ts';
import { topologicalOrder } from '../src/graph/traverse.ts';
import type { Stem } from '../src/nn/resnet.ts';
import { countGpu, gpuCounts } from './support/gpuCounts.ts';
import { interleave, sample, timing } from './support/measure.ts';
import { dispatchesOf, replay, soloPlan, timeReplay, type Dispatch } from './support/plans.ts';
import { chosen, insist, optionsAndWords, positive, printTable, writeReport, type Row } from './support/report.ts';
import { Training } from './support/training.ts';

const boundSize = (ref: Ref): number => (ref instanceof Tensor ? sizeBytes(ref) : ref instanceof Scratch ? ref.sizeBytes : ref.size);
const launchKey = (name: string, grid: readonly number[], bytes: number): string => `${name} ${grid} ${bytes}`;

/** Floating-point operations of each convolution launch, by its kernel, grid and bytes bound: equal only for layers of equal shape. */
function convolutionFlops(outputs: readonly Tensor[], training: Training): Map<string, number> {
  const flops = new Map<string, number>();
  const context = lowerContextOf(training.device);
  for (const node of topologicalOrder(outputs)) {
    if (!node.op.startsWith('conv2d')) continue;
    const [first, second] = node.inputs;
    const [output] = node.outputs;
    // Every tap of every output pixel: elements of y × taps × Cin, in each of the three directions.
    const [y, weight] = node.op === 'conv2d' ? [output, second] : node.op === 'conv2dBackwardInput' ? [first, second] : [second, output];
    const [launch] = lower(node, context, () => true);
    const bytes = Object.values(launch.bindings).reduce((sum, ref) => sum + boundSize(ref), 0);
    const work = (2 * elements(y.shape) * elements(weight.shape)) / weight.shape[weight.shape.length - 1];
    flops.set(launchKey(launch.kernel.name, launch.grid, bytes), work);
  }
  return flops;
}

async function profile(training: Training, samples: number, isPerLaunch: boolean): Promise<Row[]> {
  const { plans, model, device } = training;
  const loss = training.forwardLoss();
  const flops = convolutionFlops([loss, ...grad(loss, model.parameters())], training);
  const groups = new Map<string, Dispatch[]>();
  for (const one of [plans.gradient, plans.direction, plans.update].flatMap(dispatchesOf)) {
    const key = isPerLaunch ? `${one.name} ${one.grid}` : one.name;
    groups.set(key, [...(groups.get(key) ?? []), one]);
  }
  const rows: Row[] = [];
  for (const [kernel, dispatches] of groups) {
    const time = await timeReplay(device, dispatches, samples);
    const work = dispatches.reduce((sum, { name, grid, bytes: bound }) => sum + (flops.get(launchKey(name, grid, bound)) ?? 0), 0);
    const bytes = dispatches.reduce((sum, one) => sum + one.bytes, 0);
    rows.push({
      kernel, dispatches: dispatches.length, cpuMs: time.cpuMs.median, wallMs: time.wallMs.median,
      gflopsPerCpuSecond: work ? work / time.cpuMs.median / 1e6 : null, boundGBperCpuSecond: bytes / time.cpuMs.median / 1e6,
    });
  }
  rows.sort((a, b) => (b.cpuMs as number) - (a.cpuMs as number));
  const total = rows.reduce((sum, row) => sum + (row.cpuMs as number), 0);
  return [...rows, { kernel: 'sum of the parts', dispatches: rows.reduce((sum, row) => sum + (row.dispatches as number), 0), cpuMs: total }];
}

const partNames = ['step', 'forward', 'forward + backward'] as const;
const { values, words } = optionsAndWords({
  width: { type: 'string', default: '16' }, batch: { type: 'string', default: '32' }, stem: { type: 'string', default: 'cifar' },
  samples: { type: 'string', default: '20' }, profile: { type: 'boolean', default: false }, launches: { type: 'boolean', default: false },
});
const measured = chosen('part', partNames, (name) => name, words);
const samples = positive('samples', values.samples);
const batchSize = positive('batch', values.batch);
await countGpu();
const device = await openDevice();
const training = await Training.create(device, { width: positive('width', values.width), stem: values.stem as Stem, batchSize });
const { plans } = training;
const forwardOnly = await soloPlan(training.memory, [training.forwardLoss()]);
await training.step();
const before = gpuCounts();
await training.step();
const after = gpuCounts();
const runs: Readonly<Record<(typeof partNames)[number], () => Promise<void>>> = {
  step: () => training.step(),
  forward: () => replay(device, [forwardOnly.plan]),
  'forward + backward': () => replay(device, [plans.gradient]),
};
const taken = await interleave(Object.fromEntries(measured.map((part) => [part, () => sample(runs[part])])), samples);
const losses = await training.losses();
insist(losses.every(Number.isFinite), `losses ${losses}`);
insist(losses[losses.length - 1] < losses[0], `the loss did not fall on one batch: ${losses[0]} → ${losses[losses.length - 1]}`);
const { report } = plans;
const counts: Readonly<Record<(typeof partNames)[number], Row>> = {
  step: {
    dispatches: after.dispatches - before.dispatches, submits: after.submits - before.submits,
    gpuMB: report.total / 1e6, buffersMade: after.buffers - before.buffers, bindGroupsMade: after.bindGroups - before.bindGroups,
  },
  forward: { dispatches: forwardOnly.plan.dispatches },
  'forward + backward': { dispatches: plans.gradient.dispatches },
};
const rows: Row[] = measured.map((part) => ({ part, time: timing(taken[part]), ...counts[part] }));
printTable(`ResNet18 (${values.stem} stem), width ${values.width}, batch ${values.batch}: wall / CPU ms`, rows);
const lossEnds = [losses[0], losses[losses.length - 1]];
const fall = lossEnds.map((loss) => loss.toFixed(4)).join(' → ');
process.stdout.write(`loss ${fall} in ${losses.length} steps; memory ${JSON.stringify(report)}\n`);
let parts: Row[] = [];
if (values.profile) {
  parts = await profile(training, 3, values.launches);
  printTable('by kernel, each replayed alone', parts);
}
writeReport('step', device.adapter, rows, values.json, { memory: report, lossEnds, ...(parts.length ? { parts } : {}) });
process.exit(0);
