/** The same ResNet18 step in jax-js, TensorFlow.js and forkstep: one process each, stepped in turn; checks that their losses agree. */
import { fork, type ChildProcess } from 'node:child_process';
import { copyFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { politely } from '../src/gpu/host.node.ts';
import type { AdapterSummary } from '../src/gpu/device.ts';
import { openForkstep } from './peers/forkstep.ts';
import { installPeers, packages, peersFolder as folder } from './peers/install.ts';
import { openJaxJs } from './peers/jaxJs.ts';
import { offerNavigator } from './peers/navigator.ts';
import { readProblem, writeProblem, type Peer } from './peers/problem.ts';
import { openTfjs } from './peers/tfjs.ts';
import { countGpu, gpuCounts, type GpuCounts } from './support/gpuCounts.ts';
import { sample, timing, type Sample } from './support/measure.ts';
import { insist, options, packageVersion, positive, printTable, writeReport, type Row } from './support/report.ts';

const peerNames = ['forkstep', 'jax-js', 'tfjs'] as const;
type PeerName = (typeof peerNames)[number];

/** Losses of the first step, by the same weights and batch, agree to this, relative. */
const tolerance = 1e-3;

interface Stepped {
  readonly adapter: AdapterSummary | null;
  readonly version: string;
  readonly sample: Sample;
  readonly loss: number;
  readonly counts: GpuCounts;
}

const values = options({
  width: { type: 'string', default: '16' }, batch: { type: 'string', default: '32' }, rounds: { type: 'string', default: '5' },
  only: { type: 'string' }, polite: { type: 'boolean', default: false }, child: { type: 'string' },
});

async function openPeer(name: PeerName): Promise<Peer & { adapter?: AdapterSummary }> {
  const problem = readProblem('problem.safetensors');
  if (name === 'forkstep') return openForkstep(problem);
  const fence = await offerNavigator();
  return name === 'jax-js' ? openJaxJs(problem, packageVersion('@jax-js/jax'), fence) : openTfjs(problem, packageVersion('@tensorflow/tfjs'));
}

/** In the child: a step for every message, and what it took. The first includes opening, tracing and compiling. */
async function serve(name: PeerName): Promise<void> {
  await countGpu();
  let peer: (Peer & { adapter?: AdapterSummary }) | null = null;
  process.on('message', (isPolite: boolean) => {
    void (async () => {
      let loss = NaN;
      const before = gpuCounts();
      const taken = await sample(async () => {
        peer ??= await openPeer(name);
        loss = await (isPolite ? politely(peer.step()) : peer.step());
      });
      const after = gpuCounts();
      const counts = { ...after, dispatches: after.dispatches - before.dispatches, submits: after.submits - before.submits };
      process.send!({ adapter: peer!.adapter ?? null, version: peer!.version, sample: taken, loss, counts } satisfies Stepped);
    })();
  });
  process.send!('ready');
}

class Runner {
  readonly samples: Sample[] = [];
  readonly politeSamples: Sample[] = [];
  first!: Stepped;
  last!: Stepped;

  private constructor(readonly name: PeerName, readonly child: ChildProcess) {}

  static async start(name: PeerName): Promise<Runner> {
    const child = fork('peers.mjs', ['--child', name], { cwd: folder, execArgv: ['--expose-gc'] });
    child.on('exit', (code) => code && insist(false, `${name} ended with code ${code}`));
    const runner = new Runner(name, child);
    await runner.#answer();
    runner.first = await runner.step(false);
    return runner;
  }

  #answer<T>(): Promise<T> {
    return new Promise((done) => this.child.once('message', (message) => done(message as T)));
  }

  async step(isPolite: boolean): Promise<Stepped> {
    const answer = this.#answer<Stepped>();
    this.child.send(isPolite);
    this.last = await answer;
    insist(Number.isFinite(this.last.loss), `${this.name}: loss ${this.last.loss}`);
    return this.last;
  }
}

async function measure(names: readonly PeerName[], rounds: number): Promise<Runner[]> {
  const runners: Runner[] = [];
  for (const name of names) runners.push(await Runner.start(name));
  const [ours] = runners;
  for (const { name, first } of runners) {
    const apart = Math.abs(first.loss - ours.first.loss) / Math.abs(ours.first.loss);
    insist(apart <= tolerance, `first loss of ${name} is ${first.loss}, ours ${ours.first.loss}`);
    process.stdout.write(`${name} ${first.version}: loss of the first step ${first.loss.toFixed(6)}\n`);
  }
  for (let round = -1; round < rounds; round++) {
    for (const runner of runners) {
      const { sample: taken } = await runner.step(false);
      if (round >= 0) runner.samples.push(taken);
      if (!values.polite || runner.name === 'forkstep') continue;
      const polite = await runner.step(true);
      if (round >= 0) runner.politeSamples.push(polite.sample);
    }
  }
  return runners;
}

function rowsOf(runners: readonly Runner[]): Row[] {
  const ours = timing(runners[0].samples);
  const row = (name: string, { first, last }: Runner, samples: readonly Sample[]): Row => {
    const time = timing(samples);
    return {
      library: `${name} ${first.version}`, time, wallTimesOurs: time.wallMs.median / ours.wallMs.median, cpuTimesOurs: time.cpuMs.median / ours.cpuMs.median,
      dispatches: last.counts.dispatches, submits: last.counts.submits, pipelines: last.counts.pipelines, peakMB: last.counts.peakBytes / 1e6,
      firstStepMs: Math.round(first.sample.wallMs), firstLoss: first.loss,
    };
  };
  return runners.flatMap((runner) => [
    row(runner.name, runner, runner.samples),
    ...(runner.politeSamples.length ? [row(`${runner.name}, not polling while it waits,`, runner, runner.politeSamples)] : []),
  ]);
}

if (values.child) {
  await serve(values.child as PeerName);
} else {
  if (values.only !== undefined && values.only !== 'jax-js' && values.only !== 'tfjs') {
    process.stderr.write(`bench: --only must be jax-js or tfjs, got ${JSON.stringify(values.only)}\n`);
    process.exit(2);
  }
  installPeers();
  writeProblem(resolve(folder, 'problem.safetensors'), positive('width', values.width), positive('batch', values.batch));
  copyFileSync(process.argv[1], resolve(folder, 'peers.mjs'));
  const rounds = positive('rounds', values.rounds);
  const runners = await measure(peerNames.filter((name) => name === 'forkstep' || !values.only || values.only === name), rounds);
  const rows = rowsOf(runners);
  printTable(`ResNet18 (cifar stem), width ${values.width}, batch ${values.batch}, whole step: wall / CPU ms`, rows);
  writeReport('peers', runners[0].first.adapter!, rows, values.json, { packages });
  process.exit(0);
}
