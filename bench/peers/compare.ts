/** One case in all libraries: a process each, their results checked against ours, then run in turn. */
import { resolve } from 'node:path';
import type { AdapterSummary } from '../../src/gpu/device.ts';
import { farthest } from '../support/compare.ts';
import { interleave, spread, type Sample } from '../support/measure.ts';
import { MeasuredProcess } from '../support/process.ts';
import { insist } from '../support/report.ts';
import { methods, type Method, type PeerCase } from './cases.ts';
import type { Answer, Question } from './child.ts';
import { peersFolder } from './install.ts';
import type { PeerRow } from './rows.ts';

export interface CompareOptions {
  readonly rounds: number;
  /** Lets the peers' waits poll, as Dawn's bindings do by themselves. */
  readonly polling: boolean;
  /** The bundle of this bench, within the peers' folder. */
  readonly script: string;
}

/** Farthest that a result of an op may be from ours, relative to its largest element: kernels sum in other orders. */
const tolerance = 1e-4;
/** A sample lasts at least so long. */
const leastMs = 50;

type Processes = Readonly<Record<Method, MeasuredProcess<Question, Answer>>>;
type PerMethod<T> = Record<Method, T>;

class Comparison {
  /** Of ours, which is asked first. */
  #adapter: AdapterSummary | null = null;
  readonly peakBytes: PerMethod<number> = { forkstep: 0, 'jax-js': 0, tfjs: 0 };
  readonly errors: PerMethod<number> = { forkstep: 0, 'jax-js': 0, tfjs: 0 };

  constructor(
    readonly one: PeerCase,
    readonly processes: Processes,
    readonly polling: boolean,
  ) {}

  async ask(method: Method, repeats: number, wantsResults: boolean): Promise<Answer> {
    // Ours waits politely by itself.
    const isPolite = this.#adapter !== null && this.#adapter.isSoftware && !this.polling;
    const answer = await this.processes[method].ask({ repeats, isPolite, wantsResults });
    this.#adapter ??= answer.adapter;
    const [here, there] = [this.#adapter.description, answer.adapter.description];
    insist(here === there, `adapters must be the same: ${method} has ${there}, forkstep ${here}`);
    this.peakBytes[method] = Math.max(this.peakBytes[method], answer.counts.peakBytes);
    return answer;
  }

  get adapter(): AdapterSummary {
    return this.#adapter!;
  }

  /** Runs all once; what they computed must be finite and, unless `most` is null, within that of what ours did. */
  async check(most: number | null): Promise<PerMethod<Answer>> {
    const answers = {} as PerMethod<Answer>;
    for (const method of methods) {
      const { results } = (answers[method] = await this.ask(method, 1, true));
      for (const [i, ours] of answers.forkstep.results.entries()) {
        const what = `${this.one.name}: result ${i} of ${method}`;
        insist(results.length === answers.forkstep.results.length && results[i].every(Number.isFinite), `${what} must be finite numbers`);
        if (most === null) continue;
        const error = farthest(results[i], ours);
        insist(error <= most, `${what} is ${error} from ours${ours.length === 1 ? `: ${results[i]} and ${ours}` : ''}`);
        this.errors[method] = Math.max(this.errors[method], error);
      }
    }
    return answers;
  }
}

/** @param first the first answer @param once that of one run later on */
function rowOf(
  { one, peakBytes, errors }: Comparison,
  method: Method,
  { first, once, repeats, taken }: { first: Answer; once: Answer; repeats: number; taken: readonly Sample[] },
): PeerRow {
  const [wall, cpu] = [spread(taken.map((each) => each.wallMs)), spread(taken.map((each) => each.cpuMs))];
  return {
    case: one.name, method, wallMs: wall.median, wallMsIqr: wall.iqr, cpuMs: cpu.median, cpuMsIqr: cpu.iqr,
    dispatches: once.counts.dispatches, submits: once.counts.submits, peakBytes: peakBytes[method],
    firstStepMs: Math.round(first.sample.wallMs),
    pipelines: once.counts.pipelines, maxRelativeError: method === 'forkstep' ? null : errors[method], samples: taken.length, repeats,
  };
}

/** @throws Error when a process ends, of a GPU error for one */
export async function compare(
  one: PeerCase,
  { rounds, polling, script }: CompareOptions,
): Promise<{ rows: PeerRow[]; adapter: AdapterSummary }> {
  const started: [Method, MeasuredProcess<Question, Answer>][] = [];
  for (const method of methods) {
    const args = ['--child', method, one.name];
    started.push([method, await MeasuredProcess.start(`${method} (${one.name})`, resolve(peersFolder, script), args, peersFolder)]);
  }
  const processes = Object.fromEntries(started) as Processes;
  const comparison = new Comparison(one, processes, polling);
  const [earliest, ...later] = one.kind === 'step' ? one.tolerances : [tolerance];
  const first = await comparison.check(earliest);
  for (const most of later) await comparison.check(most);
  const once = {} as PerMethod<Answer>;
  const repeats = {} as PerMethod<number>;
  for (const method of methods) {
    once[method] = await comparison.ask(method, 1, false);
    repeats[method] = Math.ceil(leastMs / once[method].sample.wallMs);
  }
  const cases = Object.fromEntries(
    methods.map((method) => [method, async () => (await comparison.ask(method, repeats[method], false)).sample]),
  ) as PerMethod<() => Promise<Sample>>;
  const taken = await interleave(cases, one.kind === 'step' ? Math.min(rounds, one.mostRounds) : rounds, 0);
  // What was timed is looked at again.
  await comparison.check(one.kind === 'op' ? tolerance : null);
  for (const each of Object.values(processes)) await each.stop();
  const rows = methods.map((method) =>
    rowOf(comparison, method, { first: first[method], once: once[method], repeats: repeats[method], taken: taken[method] }),
  );
  return { rows, adapter: comparison.adapter };
}
