/** Convolutions of ResNet18's step and event: by estimate, tuned, and on a software adapter by tiles. */
import { grad } from '../src/autograd/grad.ts';
import { openDevice } from '../src/gpu/device.ts';
import { crossEntropy, mean, tensor } from '../src/graph/functional.ts';
import { fuse, fusions } from '../src/graph/fuse/index.ts';
import { choiceName } from '../src/graph/lower/convProblem.ts';
import { lowerContextOf } from '../src/graph/plan.ts';
import { elements, type Tensor } from '../src/graph/tensor.ts';
import { measure } from '../src/graph/tune/measure.ts';
import { meterOf } from '../src/graph/tune/meter.ts';
import { collectSubjects, type TunedGraph } from '../src/graph/tune/subject.ts';
import { resnet18, type Stem } from '../src/nn/resnet.ts';
import { inferenceContext, trainingContext } from '../src/nn/module.ts';
import { trials } from '../src/trials/trials.ts';
import { insist, options, positive, printTable, writeReport, type Row } from './support/report.ts';

const values = options({
  width: { type: 'string', default: '16' }, batch: { type: 'string', default: '32' }, stem: { type: 'string', default: 'cifar' },
  trials: { type: 'string', default: '5' }, only: { type: 'string', default: '' }, choices: { type: 'boolean', default: false },
});
const [width, batch, count] = (['width', 'batch', 'trials'] as const).map((name) => positive(name, values[name]));

/** What a trainer computes: loss and gradients, logits of an evaluation, losses of trials. */
function graphs(): TunedGraph[] {
  const model = resnet18({ width, stem: values.stem as Stem });
  const x = tensor(new Float32Array(batch * 32 * 32 * 3), [batch, 32, 32, 3]);
  const labels = tensor(new Uint32Array(batch));
  const loss = mean(crossEntropy(model.forward(x, trainingContext()), labels));
  const step = fuse([loss, ...grad(loss, model.parameters())]);
  const evaluation = fuse([model.forward(x, inferenceContext())]);
  const event = (passTrials: number): Tensor[] => {
    const directions = new Map(model.parameters().map((v) => [v, [tensor(new Float32Array(elements(v.shape)), v.shape)]]));
    const coefficients = tensor(new Float32Array(passTrials));
    return fuse(trials([loss], { count: passTrials, directions, coefficients }), fusions, count);
  };
  return [{ outputs: () => [...step, ...evaluation] }, { trials: count, outputs: event }];
}

/** A problem's name for people. */
function shortName(name: string): string {
  const p = Object.fromEntries(name.split(' ').map((part) => part.split('='))) as Record<string, string>;
  const after = p.after === 'null' ? '' : ` +${(JSON.parse(p.after) as { by: string }).by}`;
  const how = `${p.input === 'plain' ? '' : ` ${p.input}`}${after}${p.eventTrials === '1' ? '' : ` ${p.eventTrials} trials`}`;
  return `${p.kind} ${p.kH}×${p.kW}${p.stride === '1' ? '' : ` s${p.stride}`} ${p.cin}→${p.cout}, ${p.h}²${how}`;
}

const device = await openDevice();
const lowering = lowerContextOf(device);
const bindingBytes = device.limits.maxStorageBufferBindingSize;
const subjects = collectSubjects(graphs(), lowering, bindingBytes).filter(({ name }) => shortName(name).includes(values.only));
insist(subjects.length > 0, `no convolution has ${JSON.stringify(values.only)} in its name`);
// What the same convolutions would be computed by if this adapter had no kernels of its own.
const byTiles = collectSubjects(graphs(), { ...lowering, lanes: undefined }, bindingBytes);
const tiles = new Map(byTiles.map(({ name, choices }) => [name, choices[0]]));
const meter = meterOf(device);
const clock = meter.clocks.length - 1;
const round = (value: number): number => Number(value.toPrecision(4));
const rows: Row[] = [];
const totals = new Map<string, { ms: number; tunedMs: number; tilesMs: number }>();
for (const [i, subject] of subjects.entries()) {
  if (process.stderr.isTTY) process.stderr.write(`\r\x1b[2Kmeasuring ${i + 1}/${subjects.length}`);
  const { choice, firstMs, times, failed } = await measure(device, subject, meter);
  insist(failed.size === 0, `${[...failed].map(([name, why]) => `${name} of ${subject.name}: ${why}`)}`);
  const [first] = subject.choices;
  const tile = tiles.get(subject.name)!;
  let tileTimes: number | null = null;
  if (first.by !== 'tile') {
    const against = await measure(device, { ...subject, choices: [first, tile] }, meter);
    insist(against.failed.size === 0, `${[...against.failed]}`);
    tileTimes = against.times.get(choiceName(tile))![clock];
  }
  const tuned = times.get(choiceName(choice))![clock];
  const kind = subject.name.includes('eventTrials=1 ') ? /kind=(\w+)/.exec(subject.name)![1] : 'trials';
  for (const key of [kind, 'all']) {
    const sum = totals.get(key) ?? { ms: 0, tunedMs: 0, tilesMs: 0 };
    sum.ms += firstMs[clock];
    sum.tunedMs += firstMs[clock] * tuned;
    sum.tilesMs += firstMs[clock] * (tileTimes ?? 1);
    totals.set(key, sum);
  }
  rows.push({
    convolution: shortName(subject.name), estimated: choiceName(first), ms: round(firstMs[clock]),
    tuned: choiceName(choice), tunedTimes: round(tuned),
    ...(tileTimes === null ? {} : { tile: choiceName(tile), tileTimes: round(tileTimes) }),
  });
  if (values.choices) for (const [name, all] of times) rows.push({ convolution: '', estimated: name, tunedTimes: round(all[clock]) });
}
meter.release();
if (process.stderr.isTTY) process.stderr.write('\r\x1b[2K');
for (const [key, { ms, tunedMs, tilesMs }] of totals) {
  const row: Row = { convolution: `sum: ${key}`, ms: round(ms), tunedTimes: round(tunedMs / ms) };
  if (lowering.lanes !== undefined) row.tileTimes = round(tilesMs / ms);
  rows.push(row);
}
const what = `ResNet18 (${values.stem} stem), width ${width}, batch ${batch}`;
printTable(`Convolutions of ${what}: ${meter.clocks[clock]} ms by estimate, and times of that`, rows);
writeReport('tune', device.adapter, rows, values.json, { clock: meter.clocks[clock] });
process.exit(0);
