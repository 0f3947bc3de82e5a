/** jax-js: N losses by `vmap` over stacked parameters W − η_t·D, which the same `jit` forms. In a process of its own, as jax-js polls. */
import { copyFileSync, readFileSync, writeFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { politely } from '../../src/gpu/host.node.ts';
import { decodeSafetensors, encodeSafetensors, type SafetensorsTensor } from '../../src/nn/safetensors.ts';
import { countGpu, gpuCounts, restartPeak, type GpuCounts } from '../support/gpuCounts.ts';
import { sample, type Sample } from '../support/measure.ts';
import { MeasuredProcess, serve } from '../support/process.ts';
import { peersFolder } from './install.ts';
import { loadJax, meanLoss, type Arr, type Params } from './jaxJs.ts';
import { offerNavigator } from './navigator.ts';
import { imageSize, permute4 } from './problem.ts';

export interface TrialProblem {
  /** torchvision's names and layouts; running statistics are not looked at. */
  readonly weights: ReadonlyMap<string, SafetensorsTensor>;
  readonly directions: ReadonlyMap<string, SafetensorsTensor>;
  /** f32 [batch, 32, 32, 3] */
  readonly x: Float32Array;
  readonly labels: Uint32Array;
  readonly rates: readonly number[];
}

const problemFile = 'trials.safetensors';
const [ofWeight, ofDirection] = ['weight.', 'direction.'];

function writeProblem({ weights, directions, x, labels, rates }: TrialProblem): void {
  const tensors = new Map<string, SafetensorsTensor>();
  for (const [prefix, all] of [
    [ofWeight, weights],
    [ofDirection, directions],
  ] as const) {
    for (const [name, tensor] of all)
      if (tensor.data instanceof Float32Array && !name.includes('running_')) tensors.set(prefix + name, tensor);
  }
  tensors.set('x', { dtype: 'F32', shape: [labels.length, imageSize, imageSize, 3], data: x });
  tensors.set('labels', { dtype: 'U8', shape: [labels.length], data: Uint8Array.from(labels) });
  tensors.set('rates', { dtype: 'F32', shape: [rates.length], data: Float32Array.from(rates) });
  writeFileSync(resolve(peersFolder, problemFile), encodeSafetensors(tensors, {}));
}

interface Vmapped {
  run(): Promise<void>;
  losses(): Promise<number[]>;
}

async function open(fence: () => Promise<void>): Promise<Vmapped> {
  const { tensors } = decodeSafetensors(readFileSync(problemFile));
  const jax = await loadJax();
  const { numpy: np, tree } = jax;
  const data = (name: string): Float32Array => tensors.get(name)!.data as Float32Array;
  const labels = tensors.get('labels')!.data as Uint8Array;
  const taken = (prefix: string): Params =>
    Object.fromEntries(
      [...tensors]
        .filter(([name]) => name.startsWith(prefix))
        .map(([name, { shape, data: values }]) => [name.slice(prefix.length), np.array(values as Float32Array).reshape(shape)]),
    );
  const [weights, directions] = [taken(ofWeight), taken(ofDirection)];
  const batch = labels.length;
  const x = np.array(permute4(data('x'), [batch, imageSize, imageSize, 3], [0, 3, 1, 2])).reshape([batch, 3, imageSize, imageSize]);
  const y = np.array(Int32Array.from(labels), { dtype: np.int32 });
  const rates = np.array(data('rates'));
  const loss = meanLoss(jax, batch);
  const vmapped = jax.jit((w: Params, d: Params, r: Arr, images: Arr, classes: Arr): Arr => {
    const stacked: Params = {};
    for (const name of Object.keys(w)) {
      const { shape } = w[name];
      stacked[name] = w[name]
        .reshape([1, ...shape])
        .sub(d[name].reshape([1, ...shape]).mul(r.ref.reshape([r.shape[0], ...shape.map(() => 1)])));
    }
    return jax.vmap(loss, [0, null, null])(stacked, images, classes);
  });
  let out: Arr;
  return {
    run: async () => {
      out = vmapped(tree.ref(weights), tree.ref(directions), rates.ref, x.ref, y.ref);
      await jax.blockUntilReady(out);
      await fence();
    },
    losses: async () => [...(await out.data())],
  };
}

interface Answer {
  readonly sample: Sample;
  readonly losses: number[];
  readonly counts: Pick<GpuCounts, 'dispatches' | 'submits'>;
  /** Peak of its live buffers during the call over what it held before: of the first call, as jax-js keeps freed buffers for the next. */
  readonly extraBytes: number;
}

/** In the child: one event for every question. */
export async function serveJaxVmap(): Promise<void> {
  await countGpu();
  const vmapped = await open((await offerNavigator()).fence);
  serve<'event', Answer>(async () => {
    restartPeak();
    const before = gpuCounts();
    const taken = await sample(() => politely(vmapped.run()));
    const after = gpuCounts();
    return {
      sample: taken,
      losses: await vmapped.losses(),
      counts: { dispatches: after.dispatches - before.dispatches, submits: after.submits - before.submits },
      extraBytes: after.peakBytes - before.liveBytes,
    };
  });
}

export class JaxVmap {
  private constructor(
    readonly process: MeasuredProcess<'event', Answer>,
    readonly first: Answer,
  ) {}

  /** Runs the bundle of this bench again, from where the peers are installed; the first event traces and compiles. */
  static async start(problem: TrialProblem): Promise<JaxVmap> {
    writeProblem(problem);
    const script = resolve(peersFolder, 'trials.mjs');
    copyFileSync(process.argv[1], script);
    const started = await MeasuredProcess.start<'event', Answer>('jax-js', script, ['--child'], peersFolder);
    return new JaxVmap(started, await started.ask('event'));
  }

  event(): Promise<Answer> {
    return this.process.ask('event');
  }

  stop(): Promise<void> {
    return this.process.stop();
  }
}
