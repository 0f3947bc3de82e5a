/** Convolutions of ResNet18 on CIFAR, forward and forward with both gradients: time and GFLOP/s, the naive kernels as baseline. */
import { openDevice, type Device } from '../src/gpu/device.ts';
import { tensor } from '../src/graph/functional.ts';
import { emit } from '../src/graph/lower/context.ts';
import { Memory } from '../src/graph/memory.ts';
import { op } from '../src/graph/ops.ts';
import { windowOut } from '../src/graph/opShapes.ts';
import type { Plan } from '../src/graph/plan.ts';
import { readStorage } from '../src/graph/run.ts';
import { blockVec4s, elements, rowVec4s, sizeBytes, type Tensor } from '../src/graph/tensor.ts';
import { conv2dNaiveBackwardInput, conv2dNaiveBackwardWeight, conv2dNaiveForward } from '../src/kernels/conv2dNaive.ts';
import { grid1d } from '../src/kernels/contract.ts';
import { CounterRandom } from '../src/nn/random.ts';
import { distance } from './support/compare.ts';
import { convName, convShapes, type ConvShape } from './support/convShapes.ts';
import { countGpu } from './support/gpuCounts.ts';
import { interleave, sample, timing, type Sample } from './support/measure.ts';
import { replay, singly, soloPlan } from './support/plans.ts';
import { chosen, insist, optionsAndWords, positive, printTable, writeReport, type Row } from './support/report.ts';

/** Inputs, the three results of the engine as graphs, and the naive launches that write the same. */
function setUp(memory: Memory, { batch, size, cin, cout, kernel, stride }: ConvShape) {
  const random = new CounterRandom(1, 2000);
  const normal = (shape: readonly number[]): Tensor => tensor(Float32Array.from({ length: elements(shape) }, () => random.normal()), shape);
  const padding = (kernel - 1) / 2;
  const out = windowOut('conv2d', size, kernel, stride, padding);
  const x = normal([batch, size, size, cin]);
  const weight = normal([kernel, kernel, cin, cout]);
  const dy = normal([batch, out, out, cout]);
  const results: readonly Tensor[] = [
    op('conv2d', [x, weight], { stride, padding })[0],
    op('conv2dBackwardInput', [dy, weight], { stride, padding, xShape: x.shape })[0],
    op('conv2dBackwardWeight', [x, dy], { stride, padding, weightShape: weight.shape })[0],
  ];
  const values = results.map((one) => memory.storage('slots', 'naive', sizeBytes(one)));
  const uniforms = (n: number) => ({
    n, h: size, w: size, cin, cin4: rowVec4s(x.shape), h_out: out, w_out: out, cout4: rowVec4s(dy.shape),
    k_h: kernel, k_w: kernel, stride, padding, images: batch,
  });
  const size4 = results.map((one) => blockVec4s(one.shape));
  const naive = [
    emit(conv2dNaiveForward, { bindings: { x, weight, y: values[0] }, uniforms: uniforms(size4[0]), grid: grid1d(size4[0], 64) }),
    emit(conv2dNaiveBackwardInput, { bindings: { dy, weight, dx: values[1] }, uniforms: uniforms(size4[1]), grid: grid1d(size4[1], 64) }),
    emit(conv2dNaiveBackwardWeight, { bindings: { x, dy, dw: values[2] }, uniforms: uniforms(size4[2]), grid: grid1d(size4[2], 64) }),
  ];
  return { results, naive, naiveValues: values, flops: 2 * elements(dy.shape) * kernel * kernel * cin };
}

/** A sample lasts at least so long. */
const leastMs = 50;

async function measure(device: Device, shape: ConvShape, samples: number): Promise<Row[]> {
  const memory = new Memory(device);
  try {
    const { results, naive, naiveValues, flops } = setUp(memory, shape);
    const forward = await soloPlan(memory, [results[0]]);
    const all = await soloPlan(memory, results);
    const { plan: naivePlan } = await soloPlan(memory, results, naive);
    const [naiveForward, ...naiveGradients] = singly(naivePlan).slice(-3);
    await replay(device, [naiveForward, ...naiveGradients, all.plan]);
    for (const [i, result] of results.entries()) {
      const ours = await readStorage(device, result, all.values[i]);
      const error = distance(ours, await readStorage(device, result, naiveValues[i]));
      insist(error <= 1e-5, `${result.node.op} of ${convName(shape)} is ${error} from the naive kernel`);
    }
    const repeated = async (plan: Pick<Plan, 'encode'>): Promise<() => Promise<Sample>> => {
      const repeats = Math.ceil(leastMs / (await sample(() => replay(device, [plan]))).wallMs);
      return () => sample(() => replay(device, [plan], repeats), repeats);
    };
    const taken = await interleave({
      f: await repeated(forward.plan), 'f+b': await repeated(all.plan), 'naive f': await repeated(naiveForward),
    }, samples);
    const row = (what: string, work: number, one: readonly Sample[]): Row => {
      const time = timing(one);
      const per = (ms: number): number => work / ms / 1e6;
      return { shape: convName(shape), what, time, gflopsPerSecond: per(time.wallMs.median), gflopsPerCpuSecond: per(time.cpuMs.median) };
    };
    return Object.entries(taken).map(([what, one]) => row(what, what === 'f+b' ? 3 * flops : flops, one));
  } finally {
    memory.release();
  }
}

const { values, words } = optionsAndWords({ samples: { type: 'string', default: '10' } });
const samples = positive('samples', values.samples);
const shapes = chosen('shape', convShapes, convName, words);
await countGpu();
const device = await openDevice();
const rows: Row[] = [];
for (const shape of shapes) rows.push(...(await measure(device, shape, samples)));
printTable('Convolutions: wall / CPU ms', rows);
writeReport('ops', device.adapter, rows, values.json);
process.exit(0);
