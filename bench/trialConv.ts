/** One convolution for N trials, fused against plain and stacked, over the layers of ResNet18: time, GFLOP/s and bytes. */
import { openDevice, type Device } from '../src/gpu/device.ts';
import { PassTimes } from '../src/gpu/timestamps.ts';
import { tensor } from '../src/graph/functional.ts';
import { Memory } from '../src/graph/memory.ts';
import { externalTensor, op } from '../src/graph/ops.ts';
import { upload } from '../src/graph/plan.ts';
import { readStorage } from '../src/graph/run.ts';
import { elements, sizeBytes, type Node, type Shape, type Storage, type Tensor, type TensorSpec } from '../src/graph/tensor.ts';
import { topologicalOrder } from '../src/graph/traverse.ts';
import { trainingContext } from '../src/nn/module.ts';
import { CounterRandom } from '../src/nn/random.ts';
import { resnet18, type Stem } from '../src/nn/resnet.ts';
import { distance } from './support/compare.ts';
import { countGpu } from './support/gpuCounts.ts';
import { samplePass } from './support/gpuTime.ts';
import { interleave, spread, type Sample } from './support/measure.ts';
import { replay, soloPlan } from './support/plans.ts';
import { chosen, insist, optionsAndWords, positive, positives, printTable, writeReport, type Row } from './support/report.ts';

interface Layer {
  /** Of one trial. */
  readonly x: Shape;
  readonly weight: Shape;
  readonly attrs: Node<'conv2d'>['attrs'];
  /** Whether x depends on no parameter: all trials read the same. */
  readonly isFirst: boolean;
  /** Layers of this shape. */
  layers: number;
}

/** The distinct convolutions of a forward pass, the last layer's matrix product among them. */
function layersOf(stem: Stem, width: number, batch: number): Layer[] {
  const found = new Map<string, Layer>();
  const image = tensor(new Float32Array(batch * 32 * 32 * 3), [batch, 32, 32, 3]);
  for (const node of topologicalOrder([resnet18({ stem, width }).forward(image, trainingContext())])) {
    if (node.op !== 'conv2d') continue;
    const {
      inputs: [x, weight],
      attrs,
    } = node as Node<'conv2d'>;
    const key = `${x.shape} ${weight.shape} ${attrs.stride}`;
    const known = found.get(key);
    if (known) known.layers++;
    else found.set(key, { x: x.shape, weight: weight.shape, attrs, isFirst: x === image, layers: 1 });
  }
  return [...found.values()];
}

function nameOf({ x, weight, attrs }: Layer): string {
  if (x.length === 2) return `${weight[0]}→${weight[1]}`;
  return `${weight[0]}×${weight[1]}${attrs.stride > 1 ? ` s${attrs.stride}` : ''} ${weight[2]}→${weight[3]}, ${x[1]}²`;
}

/** Bytes of padded random numbers; padding holds numbers too, which no result depends on. */
function filled(memory: Memory, spec: TensorSpec, seed: number): Storage {
  const random = new CounterRandom(seed, 3000);
  return upload(
    memory,
    'data',
    'random',
    Float32Array.from({ length: sizeBytes(spec) / 4 }, () => 2 * random.uniform() - 1),
  );
}

/** For shapes alone. */
const placeholder = (shape: Shape): Tensor =>
  externalTensor({ buffer: null as unknown as GPUBuffer, offset: 0, size: 0 }, { shape, dtype: 'f32', trials: 1 });

/** A sample lasts at least so long. */
const leastMs = 30;

async function measure(device: Device, timer: PassTimes | null, layer: Layer, trials: number, samples: number): Promise<Row[] | null> {
  const { x: shape, weight: weightShape, attrs } = layer;
  const memory = new Memory(device);
  const spec = (of: Shape, count = 1): TensorSpec => ({ shape: of, dtype: 'f32', trials: count });
  const wide: Shape = [shape[0] * trials, ...shape.slice(1)];
  try {
    const x = spec(shape, layer.isFirst ? 1 : trials);
    const output = op('conv2d', [placeholder(wide), placeholder(weightShape)], attrs)[0];
    const limit = device.limits.maxStorageBufferBindingSize;
    if ([sizeBytes(spec(wide)), sizeBytes(output), trials * sizeBytes(spec(weightShape))].some((size) => size > limit)) return null;
    const input = filled(memory, spec(wide), 1);
    const [weight, direction] = [2, 3].map((seed) => externalTensor(filled(memory, spec(weightShape), seed), spec(weightShape)));
    const coefficients = tensor(Float32Array.from({ length: trials }, (_, t) => -0.05 * 2 ** -t));
    const perturbed = op('perturbed', [weight, direction, coefficients], { trials, scaled: false })[0];
    const {
      plan: form,
      values: [formed],
    } = await soloPlan(memory, [perturbed]);
    await replay(device, [form]);
    const graphs: Record<string, Tensor> = {
      fused: op('conv2d', [externalTensor(input, x), perturbed], attrs)[0],
      plain: op('conv2d', [externalTensor(input, spec(wide)), weight], attrs)[0],
      stacked: op('conv2d', [externalTensor(input, x), externalTensor(formed, spec(weightShape, trials))], attrs)[0],
    };
    const plans = Object.fromEntries(
      await Promise.all(Object.entries(graphs).map(async ([name, graph]) => [name, await soloPlan(memory, [graph])] as const)),
    );
    await replay(
      device,
      Object.values(plans).map(({ plan }) => plan),
    );
    const ours = await readStorage(device, graphs.fused, plans.fused.values[0]);
    const error = distance(ours, await readStorage(device, graphs.stacked, plans.stacked.values[0]));
    insist(error <= 1e-5, `${nameOf(layer)}, ${trials} trials: fused is ${error} from stacked`);
    const cases: Record<string, () => Promise<Sample>> = {};
    for (const [name, { plan }] of Object.entries(plans)) {
      const once = await samplePass(device, [plan], timer);
      const repeats = Math.max(1, Math.ceil(leastMs / once.wallMs));
      cases[name] = () => samplePass(device, [plan], timer, repeats);
    }
    const taken = await interleave(cases, samples);
    const flops = 2 * elements(output.shape) * (elements(weightShape) / weightShape[weightShape.length - 1]);
    const median = (name: string, what: keyof Sample): number | null =>
      taken[name].every((one) => one[what] !== undefined) ? spread(taken[name].map((one) => one[what]!)).median : null;
    return Object.keys(cases).map((name) => {
      const [wallMs, cpuMs, gpuMs] = (['wallMs', 'cpuMs', 'gpuMs'] as const).map((what) => median(name, what));
      return {
        layer: nameOf(layer),
        layers: layer.layers,
        trials,
        method: name,
        wallMs,
        cpuMs,
        cpuIqrMs: spread(taken[name].map((one) => one.cpuMs)).iqr,
        gpuMs,
        cpuTimesPlain: cpuMs! / median('plain', 'cpuMs')!,
        gflopsPerCpuSecond: flops / cpuMs! / 1e6,
        gflopsPerSecond: flops / (gpuMs ?? wallMs!) / 1e6,
        boundBytes: plans[name].plan.steps.reduce((sum, { bytes }) => sum + bytes, 0),
        maxRelativeError: name === 'fused' ? error : null,
        samples,
      };
    });
  } finally {
    memory.release();
  }
}

const { values, words } = optionsAndWords({
  width: { type: 'string', default: '16' },
  batch: { type: 'string', default: '32' },
  trials: { type: 'string', default: '5' },
  stem: { type: 'string', default: 'cifar' },
  samples: { type: 'string', default: '9' },
});
const [width, batch, samples] = [positive('width', values.width), positive('batch', values.batch), positive('samples', values.samples)];
const layers = chosen('layer', layersOf(values.stem as Stem, width, batch), nameOf, words);
await countGpu();
const device = await openDevice();
const timer = PassTimes.create(device);
const rows: Row[] = [];
for (const trials of positives('trials', values.trials)) {
  for (const layer of layers) {
    const some = await measure(device, timer, layer, trials, samples);
    if (!some) process.stdout.write(`${nameOf(layer)}, ${trials} trials: left out, larger than a binding of this adapter\n`);
    rows.push(...(some ?? []));
  }
}
printTable(`Convolutions of ResNet18 (${values.stem} stem), width ${width}, batch ${batch}, fused and not`, rows);
writeReport('trialConv', device.adapter, rows, values.json);
process.exit(0);
