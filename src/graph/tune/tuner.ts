/**
 * Choices by measurement: what the estimates of `lower/convChoice.ts` leave to chance on an adapter that nobody has seen. The convolutions
 * of graphs are collected, those that no earlier run has measured are, and plans are then lowered with the choices.
 */
import { runtimeName } from '#gpu-host';
import { cachePlace, readCached, writeCached } from '#text-cache';
import type { AdapterSummary, Device } from '../../gpu/device.ts';
import type { LowerContext } from '../lower/context.ts';
import { choiceName, problemName, type ConvChoice } from '../lower/convProblem.ts';
import { lowerContextOf } from '../plan.ts';
import { measure, type Verdict } from './measure.ts';
import { meterOf, type Meter } from './meter.ts';
import { digest, TuningRecord, type Machine, type TextStore } from './record.ts';
import { collectSubjects, type Subject, type TunedGraph } from './subject.ts';

export const machineOf = ({ adapter }: Pick<Device, 'adapter'>): Machine => ({ adapter, runtime: runtimeName(adapter.isSoftware) });

const hostStore: TextStore = { read: readCached, write: writeCached, place: cachePlace };

/** Where the choices measured on an adapter are kept, and how many there are. */
export async function keptChoices(adapter: AdapterSummary): Promise<{ place: string; choices: number }> {
  const record = await TuningRecord.open(machineOf({ adapter }), hostStore, console.warn);
  return { place: hostStore.place(record.name), choices: record.size };
}

export interface TunerOptions {
  /** Where choices are kept. @default files below the user's cache folder in Node, IndexedDB in browsers */
  readonly store?: TextStore;
  /** @default the clocks that say something on the adapter */
  readonly meter?: Meter;
  /** @default what the adapter is served best with by estimate */
  readonly lowering?: LowerContext;
  /** Told at most once of choices that cannot be read or kept. @default console.warn */
  readonly warn?: (message: string) => void;
}

/** Digest of all kernels that a subject's choices run. */
const kernelsOf = ({ choices, launches }: Subject): string =>
  digest(choices.flatMap((choice) => [choiceName(choice), ...launches(choice).map(({ kernel }) => kernel.source)]).join('\n'));

export class Tuner {
  readonly #chosen = new Map<string, ConvChoice>();
  /** What was measured by this tuner, by problem. */
  readonly verdicts = new Map<string, Verdict>();
  /** The adapter's, with the choices made so far; what was not tuned is lowered by estimate. */
  readonly lowering: LowerContext;

  private constructor(
    readonly device: Device,
    private readonly record: TuningRecord,
    private readonly estimates: LowerContext,
    private readonly meter: Meter | undefined,
  ) {
    this.lowering = { ...estimates, choose: (problem, choices) => this.#chosen.get(problemName(problem)) ?? choices[0] };
  }

  static async open(device: Device, options: TunerOptions = {}): Promise<Tuner> {
    const { store = hostStore, warn = console.warn, lowering = lowerContextOf(device), meter } = options;
    return new Tuner(device, await TuningRecord.open(machineOf(device), store, warn), lowering, meter);
  }

  /** Makes the choices for graphs: those kept of earlier runs, the others by measurement, which `onProgress` tells of. */
  async tune(graphs: readonly TunedGraph[], onProgress?: (done: number, total: number) => void): Promise<void> {
    const { device, record, estimates, verdicts } = this;
    const fresh: { subject: Subject; kernels: string }[] = [];
    for (const subject of collectSubjects(graphs, estimates, device.limits.maxStorageBufferBindingSize)) {
      const kernels = kernelsOf(subject);
      const kept = record.choiceFor(subject.name, kernels);
      const choice = subject.choices.find((one) => choiceName(one) === kept);
      if (choice) this.#chosen.set(subject.name, choice);
      else fresh.push({ subject, kernels });
    }
    if (fresh.length === 0) return;
    const meter = this.meter ?? meterOf(device);
    try {
      for (const [done, { subject, kernels }] of fresh.entries()) {
        onProgress?.(done, fresh.length);
        const verdict = await measure(device, subject, meter);
        this.#chosen.set(subject.name, verdict.choice);
        verdicts.set(subject.name, verdict);
        await record.keep(subject.name, { choice: choiceName(verdict.choice), kernels, timesFirst: verdict.timesFirst });
      }
      onProgress?.(fresh.length, fresh.length);
    } finally {
      meter.release();
    }
  }
}
