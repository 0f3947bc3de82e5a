/** In the process of one library: one case, run as often as it is asked to. */
import type { AdapterSummary } from '../../src/gpu/device.ts';
import { politely } from '../../src/gpu/host.node.ts';
import { countGpu, gpuCounts, restartPeak, type GpuCounts } from '../support/gpuCounts.ts';
import { sample, type Sample } from '../support/measure.ts';
import { serve } from '../support/process.ts';
import type { Method, OpCase, PeerCase } from './cases.ts';
import * as forkstep from './forkstep.ts';
import * as jaxJs from './jaxJs.ts';
import { offerNavigator, type Offered } from './navigator.ts';
import { opProblem, stepProblem, type OpProblem, type Peer, type StepProblem } from './problem.ts';
import * as tfjs from './tfjs.ts';

export interface Question {
  readonly repeats: number;
  /** Whether waits leave the processor to the adapter: Dawn's bindings poll in a loop. */
  readonly isPolite: boolean;
  readonly wantsResults: boolean;
}

export interface Answer {
  /** Of one run; of the first question, from opening the library on. */
  readonly sample: Sample;
  /** Dispatches and submits of all runs, pipelines since the start, and the peak of live buffers during the runs. */
  readonly counts: Pick<GpuCounts, 'dispatches' | 'submits' | 'pipelines' | 'peakBytes'>;
  readonly results: Float32Array[];
  readonly adapter: AdapterSummary;
}

interface Library {
  openStep(problem: StepProblem, offered: Offered): Promise<Peer>;
  openOp(one: OpCase, problem: OpProblem, offered: Offered): Promise<Peer>;
}

const libraries: Readonly<Record<Method, Library>> = { forkstep, 'jax-js': jaxJs, tfjs };

/** The values are made before anything is measured. */
function opener(one: PeerCase, library: Library): (offered: Offered) => Promise<Peer> {
  if (one.kind === 'step') {
    const problem = stepProblem(one);
    return (offered) => library.openStep(problem, offered);
  }
  const problem = opProblem(one);
  return (offered) => library.openOp(one, problem, offered);
}

export async function servePeer(method: Method, one: PeerCase): Promise<void> {
  await countGpu();
  const open = opener(one, libraries[method]);
  const offered = await offerNavigator();
  let peer: Peer | null = null;
  serve<Question, Answer>(async ({ repeats, isPolite, wantsResults }) => {
    restartPeak();
    const before = gpuCounts();
    const work = async (): Promise<void> => {
      peer ??= await open(offered);
      for (let i = 0; i < repeats; i++) await peer.run();
    };
    const taken = await sample(() => (isPolite ? politely(work()) : work()), repeats);
    const { dispatches, submits, pipelines, peakBytes } = gpuCounts();
    return {
      sample: taken,
      counts: { dispatches: dispatches - before.dispatches, submits: submits - before.submits, pipelines, peakBytes },
      results: wantsResults ? await peer!.results() : [],
      adapter: peer!.adapter(),
    };
  });
}
