/**
 * Winograd's F(2×2, 3×3) against the engine's own 3 × 3 convolution, forward: whether it is worth building for an adapter.
 *
 * Y = Aᵀ[(G g Gᵀ) ⊙ (Bᵀ d B)]A over tiles of 2 × 2 outputs: 16 products [tiles, Cin] · [Cin, Cout] take 4/9 of the multiplications. Those are
 * done by the engine's matrix product over a trial axis of 16, as good a kernel as the convolution has; the transforms are kernels of this file.
 */
import { openDevice, type Device } from '../src/gpu/device.ts';
import { PassTimes } from '../src/gpu/timestamps.ts';
import { Memory } from '../src/graph/memory.ts';
import { externalTensor, op } from '../src/graph/ops.ts';
import { emit, type Ref } from '../src/graph/lower/context.ts';
import { buildPlan, draft, upload, type Plan } from '../src/graph/plan.ts';
import { readStorage } from '../src/graph/run.ts';
import { elements, type Node, type Shape, type Storage, type Tensor } from '../src/graph/tensor.ts';
import { builtins, defineKernel, grid1d, linearIndex, read, write, type Launch } from '../src/kernels/contract.ts';
import { CounterRandom } from '../src/nn/random.ts';
import { distance } from './support/compare.ts';
import { countGpu } from './support/gpuCounts.ts';
import { samplePass } from './support/gpuTime.ts';
import { interleave, spread, type Sample } from './support/measure.ts';
import { replay, soloPlan } from './support/plans.ts';
import { insist, optionsAndWords, positive, positives, printTable, writeReport, type Row } from './support/report.ts';

const four = [0, 1, 2, 3];

/** WGSL of a 1-D transform of the 4 values v(0) … v(3): Bᵀ, Aᵀ, G (of 3). */
const inputRow = (v: (i: number) => string): string[] => [`${v(0)} - ${v(2)}`, `${v(1)} + ${v(2)}`, `${v(2)} - ${v(1)}`, `${v(1)} - ${v(3)}`];
const outputRow = (v: (i: number) => string): string[] => [`${v(0)} + ${v(1)} + ${v(2)}`, `${v(1)} - ${v(2)} - ${v(3)}`];
const weightRow = (v: (i: number) => string): string[] => [
  v(0), `0.5 * (${v(0)} + ${v(1)} + ${v(2)})`, `0.5 * (${v(0)} - ${v(1)} + ${v(2)})`, v(2),
];

/** WGSL that transforms d_r_c both ways, columns first, and puts the results. */
function transform(rows: number, by: (v: (i: number) => string) => string[], put: (r: number, c: number, value: string) => string): string {
  const columns = [...Array(rows).keys()];
  const first = columns.flatMap((c) => by((r) => `d_${r}_${c}`).map((value, r) => `let t_${r}_${c} = ${value};`));
  const count = by(() => '').length;
  const second = [...Array(count).keys()].flatMap((r) => by((c) => `t_${r}_${c}`).map((value, c) => put(r, c, value)));
  return [...first, ...second].join('\n  ');
}

const head = /* wgsl */ `@compute @workgroup_size(64)
fn main(${builtins}) {
  let i = ${linearIndex};`;

/** x [N, H, W, C] → [16][tiles][c4]; a thread has one tile's vec4 of channels. */
const inputTransform = defineKernel({
  name: 'winogradInput',
  bindings: { x: read('vec4f'), y: write('vec4f') },
  uniforms: { n: 'u32', c4: 'u32', h: 'u32', w: 'u32', tiles_h: 'u32', tiles_w: 'u32' },
  wgsl: /* wgsl */ `
fn pixel(image: u32, row: i32, column: i32, c: u32) -> vec4f {
  let inside = u32(row) < u.h && u32(column) < u.w;
  return select(vec4f(), x[select(0u, ((image * u.h + u32(row)) * u.w + u32(column)) * u.c4 + c, inside)], inside);
}
${head}
  if (i >= u.n) { return; }
  let c = i % u.c4; let tile = i / u.c4; let image = tile / (u.tiles_h * u.tiles_w); let rest = tile % (u.tiles_h * u.tiles_w);
  let row = i32(rest / u.tiles_w * 2u) - 1; let column = i32(rest % u.tiles_w * 2u) - 1;
  ${four.flatMap((r) => four.map((k) => `let d_${r}_${k} = pixel(image, row + ${r}, column + ${k}, c);`)).join('\n  ')}
  ${transform(4, inputRow, (r, c, value) => `y[${4 * r + c}u * u.n + i] = ${value};`)}
}`,
});

/** weight [3][3][C][K] → [16][C][k4]. */
const weightTransform = defineKernel({
  name: 'winogradWeight',
  bindings: { x: read('vec4f'), y: write('vec4f') },
  uniforms: { n: 'u32' },
  wgsl: /* wgsl */ `
${head}
  if (i >= u.n) { return; }
  ${[0, 1, 2].flatMap((r) => [0, 1, 2].map((k) => `let d_${r}_${k} = x[${3 * r + k}u * u.n + i];`)).join('\n  ')}
  ${transform(3, weightRow, (r, c, value) => `y[${4 * r + c}u * u.n + i] = ${value};`)}
}`,
});

/** [16][tiles][k4] → y [N, H, W, K]. */
const outputTransform = defineKernel({
  name: 'winogradOutput',
  bindings: { x: read('vec4f'), y: write('vec4f') },
  uniforms: { n: 'u32', c4: 'u32', h: 'u32', w: 'u32', tiles_h: 'u32', tiles_w: 'u32' },
  wgsl: /* wgsl */ `
fn put(image: u32, row: u32, column: u32, c: u32, value: vec4f) {
  if (row < u.h && column < u.w) { y[((image * u.h + row) * u.w + column) * u.c4 + c] = value; }
}
${head}
  if (i >= u.n) { return; }
  let k = i % u.c4; let tile = i / u.c4; let image = tile / (u.tiles_h * u.tiles_w); let rest = tile % (u.tiles_h * u.tiles_w);
  let row = rest / u.tiles_w * 2u; let column = rest % u.tiles_w * 2u;
  ${four.flatMap((r) => four.map((c) => `let d_${r}_${c} = x[${4 * r + c}u * u.n + i];`)).join('\n  ')}
  ${transform(4, outputRow, (r, c, value) => `put(image, row + ${r}u, column + ${c}u, k, ${value});`)}
}`,
});

interface Case {
  readonly batch: number;
  /** Of the square image. */
  readonly size: number;
  /** In and out. */
  readonly channels: number;
}

/** A sample lasts at least so long. */
const leastMs = 50;

async function measure(device: Device, timer: PassTimes | null, { batch, size, channels }: Case, samples: number): Promise<Row[]> {
  const memory = new Memory(device);
  const random = new CounterRandom(1, 4000);
  // Channels come in fours: there is no padding.
  const given = (shape: Shape): Tensor => {
    const values = Float32Array.from({ length: elements(shape) }, () => 2 * random.uniform() - 1);
    return externalTensor(upload(memory, 'data', 'random', values), { shape, dtype: 'f32', trials: 1 });
  };
  const room = (shape: Shape, trials: number): Tensor =>
    externalTensor(memory.storage('slots', 'room', 4 * trials * elements(shape)), { shape, dtype: 'f32', trials });
  const storageOf = (tensor: Tensor): Storage => (tensor.node as Node<'external'>).attrs.storage;
  try {
    const x = given([batch, size, size, channels]);
    const weight = given([3, 3, channels, channels]);
    const direct = await soloPlan(memory, op('conv2d', [x, weight], { stride: 1, padding: 1 }));
    const side = Math.ceil(size / 2);
    const tiles = batch * side * side;
    const [v, w] = [room([tiles, channels], 16), room([channels, channels], 16)];
    const product = await soloPlan(memory, op('conv2d', [v, w], { stride: 1, padding: 0 }));
    const y = room([batch, size, size, channels], 1);
    const c4 = channels / 4;
    const images = { c4, h: size, w: size, tiles_h: side, tiles_w: side };
    const plan = (label: string, launches: Launch<Ref>[]): Promise<Plan> =>
      buildPlan(memory, draft(memory, label, [], launches), { slots: [], places: [] });
    const ofWeight = { bindings: { x: storageOf(weight), y: storageOf(w) }, uniforms: { n: channels * c4 }, grid: grid1d(channels * c4, 64) };
    const ofInput = { bindings: { x: storageOf(x), y: storageOf(v) }, uniforms: { n: tiles * c4, ...images }, grid: grid1d(tiles * c4, 64) };
    const ofOutput = { bindings: { x: product.values[0], y: storageOf(y) }, uniforms: { n: tiles * c4, ...images }, grid: grid1d(tiles * c4, 64) };
    const before = await plan('before', [emit(weightTransform, ofWeight), emit(inputTransform, ofInput)]);
    const after = await plan('after', [emit(outputTransform, ofOutput)]);
    const ways: Record<string, Plan[]> = {
      direct: [direct.plan],
      winograd: [before, product.plan, after],
      products: [product.plan],
      transforms: [before, after],
    };
    await replay(device, [...ways.direct, ...ways.winograd]);
    const error = distance(await readStorage(device, y, storageOf(y)), await readStorage(device, y, direct.values[0]));
    insist(error <= 1e-4, `${channels} channels, ${size}²: Winograd is ${error} from direct`);
    const cases: Record<string, () => Promise<Sample>> = {};
    for (const [name, plans] of Object.entries(ways)) {
      const once = await samplePass(device, plans, timer);
      const repeats = Math.max(1, Math.ceil(leastMs / once.wallMs));
      cases[name] = () => samplePass(device, plans, timer, repeats);
    }
    const taken = await interleave(cases, samples);
    const cpu = (name: string) => spread(taken[name].map((one) => one.cpuMs));
    return Object.keys(ways).map((method) => ({
      layer: `b${batch} 3×3 ${channels}→${channels}, ${size}²`,
      method,
      wallMs: spread(taken[method].map((one) => one.wallMs)).median,
      cpuMs: cpu(method).median,
      cpuIqrMs: cpu(method).iqr,
      cpuTimesDirect: cpu(method).median / cpu('direct').median,
      maxRelativeError: method === 'winograd' ? error : null,
      samples,
    }));
  } finally {
    memory.release();
  }
}

const { values } = optionsAndWords({
  batch: { type: 'string', default: '8' },
  channels: { type: 'string', default: '128,256,512' },
  samples: { type: 'string', default: '9' },
});
const [batch, samples] = [positive('batch', values.batch), positive('samples', values.samples)];
await countGpu();
const device = await openDevice();
const timer = PassTimes.create(device);
const rows: Row[] = [];
// As ResNet18 of width 64 has them: 128 channels at 16², 512 at 4².
for (const channels of positives('channels', values.channels))
  rows.push(...(await measure(device, timer, { batch, size: Math.max(1, Math.round(2048 / channels)), channels }, samples)));
printTable('Winograd F(2×2, 3×3) against the direct convolution', rows);
writeReport('winograd', device.adapter, rows, values.json);
process.exit(0);
