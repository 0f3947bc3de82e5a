/** A whole ResNet18 training step: time, dispatches, submits, memory; `--profile` says where the time goes. */
import { groupDispatches, ratesOf, type Group } from '../src/cli/profile/table.ts';
import { openDevice } from '../src/gpu/device.ts';
import type { Peaks } from '../src/graph/peaks.ts';
import type { Stem } from '../src/nn/resnet.ts';
import { profileStep } from '../src/train/profile.ts';
import { countGpu, gpuCounts } from './support/gpuCounts.ts';
import { interleave, sample, spread, timing, type Spread } from './support/measure.ts';
import { replay, soloPlan } from './support/plans.ts';
import { chosen, insist, optionsAndWords, positive, printTable, writeReport, type Row } from './support/report.ts';
import { Training } from './support/training.ts';

/**
 * Host time of a step in µs a dispatch; the wait for the GPU is not counted. `encode`: its command buffer made, again and again, and thrown away.
 * `submitted`: made and submitted, each after the step before has run, which on a software adapter has just used the processor's caches.
 */
async function hostUsPerDispatch({ device, plans }: Training, samples: number): Promise<{ encode: Spread; submitted: Spread }> {
  const run = [plans.gradient, plans.direction, plans.update];
  const dispatches = run.reduce((sum, plan) => sum + plan.dispatches, 0);
  const encode = (): GPUCommandBuffer => {
    const encoder = device.gpu.createCommandEncoder({ label: 'step' });
    const pass = encoder.beginComputePass({ label: 'step' });
    for (const plan of run) plan.encode(pass);
    pass.end();
    return encoder.finish();
  };
  const timed = (work: () => void): number => {
    const start = performance.now();
    work();
    return ((performance.now() - start) * 1000) / dispatches;
  };
  const submitted: number[] = [];
  for (let i = 0; i < samples; i++) {
    submitted.push(timed(() => device.gpu.queue.submit([encode()])));
    await device.idle();
  }
  const encoded = Array.from({ length: 10 * samples }, () => timed(encode));
  // The first half warms up.
  return { encode: spread(encoded.slice(5 * samples)), submitted: spread(submitted) };
}

/** The GPU time of the step by kernel, or by kernel and layer. */
async function profile({ plans }: Training, samples: number, by: 'kernel' | 'layer'): Promise<{ peaks: Peaks; rows: Row[] }> {
  const { dispatches, peaks, passMs } = await profileStep(plans, { samples });
  const row = (group: Group): Row => {
    const { gflopsPerSecond, gigabytesPerSecond, ofPeak } = ratesOf(group, peaks);
    const { kernel, layer, dispatches: n, ms } = group;
    return {
      kernel, ...(by === 'layer' ? { layer } : {}), dispatches: n, ms, gflopsPerSecond, gigabytesPerSecond,
      ofPeak: ofPeak && ofPeak.share, peak: ofPeak && ofPeak.peak,
    };
  };
  const groups = groupDispatches(dispatches, by);
  const total = groups.reduce((sum, { ms }) => sum + ms, 0);
  const ends: Row[] = [
    { kernel: 'sum of the parts', dispatches: dispatches.length, ms: total },
    { kernel: 'in one pass', dispatches: dispatches.length, ms: passMs },
  ];
  return { peaks, rows: [...groups.map(row), ...ends] };
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
const host = await hostUsPerDispatch(training, 200);
const losses = await training.losses();
insist(losses.every(Number.isFinite), `losses ${losses}`);
insist(losses[losses.length - 1] < losses[0], `the loss did not fall on one batch: ${losses[0]} → ${losses[losses.length - 1]}`);
const { report } = plans;
const counts: Readonly<Record<(typeof partNames)[number], Row>> = {
  step: {
    dispatches: after.dispatches - before.dispatches, submits: after.submits - before.submits,
    encodeUsPerDispatch: host.encode.median, gpuMB: report.total / 1e6, buffersMade: after.buffers - before.buffers, bindGroupsMade: after.bindGroups - before.bindGroups,
  },
  forward: { dispatches: forwardOnly.plan.dispatches },
  'forward + backward': { dispatches: plans.gradient.dispatches },
};
const rows: Row[] = measured.map((part) => ({ part, time: timing(taken[part]), ...counts[part] }));
printTable(`ResNet18 (${values.stem} stem), width ${values.width}, batch ${values.batch}: wall / CPU ms`, rows);
const lossEnds = [losses[0], losses[losses.length - 1]];
const fall = lossEnds.map((loss) => loss.toFixed(4)).join(' → ');
process.stdout.write(`loss ${fall} in ${losses.length} steps; memory ${JSON.stringify(report)}\n`);
process.stdout.write(`host, µs a dispatch: ${JSON.stringify(host)}\n`);
const found = values.profile ? await profile(training, 5, values.launches ? 'layer' : 'kernel') : null;
if (found) {
  const { method, gflopsPerSecond, gigabytesPerSecond } = found.peaks;
  const peaks = `${gflopsPerSecond.toFixed(1)} GFLOP/s (fma), ${gigabytesPerSecond.toFixed(1)} GB/s (copy)`;
  printTable(`GPU time by kernel${values.launches ? ' and layer' : ''}, by ${method}; peaks ${peaks}`, found.rows);
}
const profiled = found ? { peaks: found.peaks, parts: found.rows } : {};
writeReport('step', device.adapter, rows, values.json, { memory: report, lossEnds, hostUsPerDispatch: host, ...profiled });
process.exit(0);
