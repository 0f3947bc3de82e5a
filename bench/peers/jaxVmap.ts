/** jax-js: N losses by `vmap` over stacked parameters W − η_t·D, which the same `jit` forms. In a process of its own, as jax-js polls. */
import { fork, type ChildProcess } from 'node:child_process';
import { copyFileSync, readFileSync, writeFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { politely } from '../../src/gpu/host.node.ts';
import { decodeSafetensors, encodeSafetensors, type SafetensorsTensor } from '../../src/nn/safetensors.ts';
import { countGpu, gpuCounts, restartPeak, type GpuCounts } from '../support/gpuCounts.ts';
import { sample, type Sample } from '../support/measure.ts';
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

/** In the child: one event for every message. */
export async function serveJaxVmap(): Promise<void> {
  await countGpu();
  const vmapped = await open(await offerNavigator());
  process.on('message', () => {
    void (async () => {
      restartPeak();
      const before = gpuCounts();
      const taken = await sample(() => politely(vmapped.run()));
      const after = gpuCounts();
      const counts = { dispatches: after.dispatches - before.dispatches, submits: after.submits - before.submits };
      process.send!({
        sample: taken,
        losses: await vmapped.losses(),
        counts,
        extraBytes: after.peakBytes - before.liveBytes,
      } satisfies Answer);
    })();
  });
  process.send!('ready');
}

export class JaxVmap {
  private constructor(
    readonly child: ChildProcess,
    readonly first: Answer,
  ) {}

  /** Runs the bundle of this bench again, from where the peers are installed; the first event traces and compiles. */
  static async start(problem: TrialProblem): Promise<JaxVmap> {
    writeProblem(problem);
    const script = resolve(peersFolder, 'trials.mjs');
    copyFileSync(process.argv[1], script);
    const child = fork(script, ['--child'], { cwd: peersFolder, execArgv: ['--expose-gc'] });
    await next(child);
    return new JaxVmap(child, await ask(child));
  }

  event(): Promise<Answer> {
    return ask(this.child);
  }

  stop(): void {
    this.child.kill();
  }
}

function ask(child: ChildProcess): Promise<Answer> {
  const answer = next(child);
  child.send('event');
  return answer as Promise<Answer>;
}

/** @throws Error when the child ends instead */
function next(child: ChildProcess): Promise<unknown> {
  return new Promise((done, fail) => {
    const ended = (code: number | null): void => fail(new Error(`jax-js ended with code ${code}`));
    child.once('exit', ended);
    child.once('message', (message) => {
      child.off('exit', ended);
      done(message);
    });
  });
}
