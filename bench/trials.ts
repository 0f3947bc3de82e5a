/** A fused event of N trials against every other way to their losses: time, dispatches, submits, bytes, and how far losses are apart. */
import { proceduralDataset } from '../src/data/procedural.ts';
import { openDevice, type Device } from '../src/gpu/device.ts';
import { PassTimes } from '../src/gpu/timestamps.ts';
import { evaluate, readStorage } from '../src/graph/run.ts';
import type { Plan } from '../src/graph/plan.ts';
import type { Storage } from '../src/graph/tensor.ts';
import { resnet18, type ResNet, type ResNetOptions, type Stem } from '../src/nn/resnet.ts';
import { stateDict } from '../src/nn/stateDict.ts';
import { hasPeers, packages } from './peers/install.ts';
import { JaxVmap, serveJaxVmap } from './peers/jaxVmap.ts';
import { countGpu, gpuCounts } from './support/gpuCounts.ts';
import { samplePass } from './support/gpuTime.ts';
import { interleave, spread, type Sample } from './support/measure.ts';
import { replay } from './support/plans.ts';
import { chosen, insist, optionsAndWords, positive, positives, printTable, writeReport, type Row } from './support/report.ts';
import { factorsAround, learningRate, Training } from './support/training.ts';
import { extraBytes } from './support/trialMemory.ts';
import { methodNames, trialMethods, type Method, type MethodName } from './support/trialMethods.ts';

type AnyMethod = MethodName | 'jaxVmap';
const allMethods: readonly AnyMethod[] = [...methodNames, 'jaxVmap'];

/** Farthest that losses may be from those of the copies, relative: batch norm and ReLU amplify roundings. Trials differ by far more. */
const tolerance = 1e-4;
/** Of jax-js, whose kernels sum in other orders. */
const peerTolerance = 1e-3;

interface Setting extends Required<Pick<ResNetOptions, 'width' | 'stem'>> {
  readonly batch: number;
  readonly samples: number;
  readonly methods: readonly AnyMethod[];
}

/** One method, ready to run. */
interface Contender {
  readonly method: Method;
  readonly event: readonly Plan[];
}

const wholeParameters = ({ plans }: Training): readonly Storage[] => plans.store.parameterArena.segments;

async function readParameters(training: Training): Promise<Float32Array[]> {
  const parts: Float32Array[] = [];
  for (const { buffer, size } of wholeParameters(training)) parts.push(new Float32Array(await training.device.read(buffer, 0, size)));
  return parts;
}

function writeParameters(training: Training, values: readonly Float32Array[]): void {
  wholeParameters(training).forEach(({ buffer }, i) =>
    training.device.gpu.queue.writeBuffer(buffer, 0, values[i] as Float32Array<ArrayBuffer>),
  );
}

/** Weights whose bits differ. */
function changed(a: readonly Float32Array[], b: readonly Float32Array[]): number {
  const bits = (all: readonly Float32Array[], i: number): Uint32Array => new Uint32Array(all[i].buffer);
  return a.reduce((sum, _, i) => sum + bits(a, i).reduce((count, word, k) => count + Number(word !== bits(b, i)[k]), 0), 0);
}

async function lossesOf(device: Device, places: readonly Storage[]): Promise<number[]> {
  const losses: number[] = [];
  for (const { buffer, offset } of places) losses.push(new Float32Array(await device.read(buffer, offset, 4))[0]);
  return losses;
}

const farthest = (losses: readonly number[], reference: readonly number[]): number =>
  Math.max(...reference.map((loss, i) => Math.abs(losses[i] - loss) / Math.abs(loss)));

/** A training of a few steps with the plans of all methods, gradients of its present weights in place. */
async function prepare(device: Device, model: ResNet, { batch, methods }: Setting, rates: readonly number[]) {
  const own = methodNames.filter((name) => methods.includes(name) || name === 'copies');
  const made = new Map<MethodName, Method>();
  const training = await Training.create(device, {
    model,
    batchSize: batch,
    trials: { count: rates.length, direction: 'gradient' },
    extra: (parts) =>
      own.flatMap((name) => {
        const method = trialMethods[name]({ ...parts, rates });
        made.set(name, method);
        return method.drafts;
      }),
  });
  for (let i = 0; i < 3; i++) await training.step();
  await training.losses();
  await replay(device, [training.plans.gradient]);
  let start = 0;
  const contenders = new Map<MethodName, Contender>();
  for (const [name, method] of made) {
    const built = training.plans.extra.slice(start, (start += method.drafts.length));
    contenders.set(name, { method, event: method.event(built) });
  }
  return { training, contenders };
}

interface Checked {
  readonly maxRelativeError: number | null;
  readonly changedWeights: number;
}

/** Runs each method once; ends the bench where one is wrong. */
async function check(device: Device, training: Training, contenders: ReadonlyMap<MethodName, Contender>, weights: readonly Float32Array[]) {
  const run = async ({ method, event }: Contender): Promise<number[]> => {
    writeParameters(training, weights);
    await replay(device, event);
    return lossesOf(device, method.losses());
  };
  const reference = await run(contenders.get('copies')!);
  insist(reference.every(Number.isFinite), `losses of the copies ${reference}`);
  const [least, most] = [Math.min(...reference), Math.max(...reference)];
  insist(reference.length === 1 || most - least > 100 * tolerance * most, `trials do not differ: ${reference}`);
  const checked = new Map<AnyMethod, Checked>();
  for (const [name, contender] of contenders) {
    const losses = await run(contender);
    const error = losses.length > 0 ? farthest(losses, reference) : null;
    insist(error === null || error <= tolerance, `${name}: losses ${losses} are ${error} from those of the copies, ${reference}`);
    checked.set(name, { maxRelativeError: error, changedWeights: changed(await readParameters(training), weights) });
  }
  writeParameters(training, weights);
  return { reference, checked };
}

/** jax-js with the same weights, direction and batch, checked; null with a printed reason where it cannot run. */
async function startJax(
  { device, input, plans }: Training,
  { stem, width, methods }: Setting,
  rates: readonly number[],
  reference: readonly number[],
) {
  if (!methods.includes('jaxVmap')) return null;
  const skip = (reason: string): null => {
    process.stdout.write(`jaxVmap: left out, ${reason}\n`);
    return null;
  };
  if (stem !== 'cifar') return skip('its network is written with the cifar stem only');
  if (!hasPeers()) return skip('jax-js is not in .cache/peers; `npm run bench -- peers` installs it');
  const [x, labels] = await evaluate([input.x, input.labels], { device });
  const values = async (at: (i: number) => Storage) => {
    const holder = resnet18({ stem, width });
    const parameters = holder.variables().filter(({ kind }) => kind === 'parameter');
    for (const [i, variable] of parameters.entries())
      variable.data = (await readStorage(device, plans.store.parameters[i], at(i))) as Float32Array;
    return stateDict(holder);
  };
  const weights = await values((i) => plans.store.parameterArena.at(i));
  const directions = await values((i) => plans.sgd.gradients.at(i));
  const jax = await JaxVmap.start({ weights, directions, x: x as Float32Array, labels: labels as Uint32Array, rates });
  const error = farthest(jax.first.losses, reference);
  insist(error <= peerTolerance, `jaxVmap: losses ${jax.first.losses} are ${error} from those of the copies, ${reference}`);
  return { jax, error };
}

/** One value a round; null where some are missing. */
const roundsOf = (samples: readonly Sample[], what: keyof Sample): number[] | null =>
  samples.every((one) => one[what] !== undefined) ? samples.map((one) => one[what]!) : null;

/** Median of the ratios that two methods have in the same round: what the machine does beside a round falls on both. */
function medianRatio(a: readonly number[] | null, b: readonly number[] | null): number | null {
  return a && b ? spread(a.map((value, i) => value / b[i])).median : null;
}

/** Medians, distances of the quartiles, and times in those of the forward pass and of the fused event; null where nothing was taken. */
function figures(taken: Readonly<Record<string, readonly Sample[]>>, method: string): Record<string, number | null> {
  const kinds = { wall: 'wallMs', cpu: 'cpuMs', gpu: 'gpuMs' } as const;
  return Object.fromEntries(
    Object.entries(kinds).flatMap(([name, what]) => {
      const rounds = roundsOf(taken[method], what);
      const one = rounds && spread(rounds);
      const times = (other: string): number | null => medianRatio(rounds, taken[other] ? roundsOf(taken[other], what) : null);
      return [
        [what, one?.median ?? null],
        [`${name}IqrMs`, one?.iqr ?? null],
        [`${name}TimesForward`, times('forward')],
        [`${name}TimesFused`, times('fused')],
      ];
    }),
  );
}

async function measure(device: Device, timer: PassTimes | null, model: ResNet, setting: Setting, count: number): Promise<Row[]> {
  const { stem, width, batch, samples, methods } = setting;
  const factors = factorsAround(count);
  const rates = factors.map((factor) => factor * learningRate);
  const dataset = proceduralDataset({ train: batch, test: batch });
  const bytes: Map<AnyMethod, number> = await extraBytes(
    { device, model, batchSize: batch, dataset, factors },
    methodNames.filter((name) => methods.includes(name)),
  );
  const { training, contenders } = await prepare(device, model, setting, rates);
  const weights = await readParameters(training);
  const { reference, checked } = await check(device, training, contenders, weights);
  const peer = await startJax(training, setting, rates, reference);
  const cases: Record<string, () => Promise<Sample>> = {};
  const asked = new Map<string, { dispatches: number; submits: number }>();
  for (const [name, { event }] of contenders) {
    if (!methods.includes(name)) continue;
    cases[name] = async () => {
      const before = gpuCounts();
      const taken = await samplePass(device, event, timer);
      const after = gpuCounts();
      asked.set(name, { dispatches: after.dispatches - before.dispatches, submits: after.submits - before.submits });
      if (checked.get(name)!.changedWeights > 0) {
        writeParameters(training, weights);
        await device.idle();
      }
      return taken;
    };
  }
  if (peer) {
    cases.jaxVmap = async () => {
      const answer = await peer.jax.event();
      asked.set('jaxVmap', answer.counts);
      return answer.sample;
    };
    bytes.set('jaxVmap', peer.jax.first.extraBytes);
    checked.set('jaxVmap', { maxRelativeError: peer.error, changedWeights: 0 });
  }
  const taken = await interleave(cases, samples);
  await peer?.jax.stop();
  const passes = training.plans.trials!.passes.join('+');
  training.release();
  return Object.keys(cases).map((name) => ({
    stem,
    width,
    batch,
    trials: count,
    method: name,
    ...figures(taken, name),
    ...asked.get(name)!,
    extraBytes: bytes.get(name as AnyMethod)!,
    ...checked.get(name as AnyMethod)!,
    passes: name === 'fused' ? passes : null,
    samples,
  }));
}

/** The rows of one N, in short. */
function show({ stem, width, batch }: Setting, count: number, rows: readonly Row[]): void {
  const columns = [
    'method',
    'wallMs',
    'cpuMs',
    'cpuIqrMs',
    'gpuMs',
    'cpuTimesForward',
    'cpuTimesFused',
    'gpuTimesForward',
    'dispatches',
    'submits',
  ];
  const shown = rows.map((row) =>
    Object.fromEntries([...columns, 'extraBytes', 'maxRelativeError', 'changedWeights'].map((column) => [column, row[column]])),
  );
  const passes = rows.find(({ method }) => method === 'fused')?.passes;
  printTable(
    `ResNet18 (${stem} stem), width ${width}, batch ${batch}, N = ${count}${passes ? `, fused in passes of ${passes}` : ''}`,
    shown,
  );
}

async function main(): Promise<void> {
  const { values, words } = optionsAndWords({
    width: { type: 'string', default: '16' },
    batch: { type: 'string', default: '32' },
    trials: { type: 'string', default: '1,3,5,7,16' },
    stem: { type: 'string', default: 'cifar' },
    samples: { type: 'string', default: '9' },
    child: { type: 'boolean', default: false },
  });
  if (values.child) return serveJaxVmap();
  const counts = positives('trials', values.trials);
  const methods = chosen('method', allMethods, (name) => name, words);
  const setting: Setting = {
    stem: values.stem as Stem,
    width: positive('width', values.width),
    batch: positive('batch', values.batch),
    samples: positive('samples', values.samples),
    methods,
  };
  await countGpu();
  const device = await openDevice();
  const timer = PassTimes.create(device);
  const model = resnet18({ stem: setting.stem, width: setting.width });
  const rows: Row[] = [];
  for (const count of counts) {
    const some = await measure(device, timer, model, setting, count);
    show(setting, count, some);
    rows.push(...some);
  }
  writeReport('trials', device.adapter, rows, values.json, methods.includes('jaxVmap') ? { packages } : {});
  process.exit(0);
}

await main();
