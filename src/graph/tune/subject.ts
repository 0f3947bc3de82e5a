/** What is there to tune in a graph: its convolutions, each with the ways to compute it. */
import type { Launch } from '../../kernels/contract.ts';
import { Scratch, type LowerContext, type Ref } from '../lower/context.ts';
import { problemName, type ConvChoice } from '../lower/convProblem.ts';
import { lower } from '../lower/index.ts';
import { sizeBytes, Tensor } from '../tensor.ts';
import { topologicalOrder } from '../traverse.ts';

export interface Subject {
  /** Of the problem: one choice a name. */
  readonly name: string;
  /** Ways to compute it, the best by estimate first. */
  readonly choices: readonly ConvChoice[];
  readonly launches: (choice: ConvChoice) => Launch<Ref>[];
}

export interface TunedGraph {
  /** Trials in all passes of the event that the graph is of. @default 1, none */
  readonly trials?: number;
  /** What a plan computes, with so many trials in its pass. */
  readonly outputs: (trials: number) => readonly Tensor[];
}

/** Trials that an event's convolutions are measured with: a pass holds about as many where it makes do with a step's memory. */
const measuredTrials = 4;

export function boundBytes(ref: Ref): number {
  if (ref instanceof Tensor) return sizeBytes(ref);
  return ref instanceof Scratch ? ref.sizeBytes : ref.size;
}

/** Whether all that a choice's launches bind can be bound. */
export const fitsBindings = (launches: readonly Launch<Ref>[], bindingBytes: number): boolean =>
  launches.every(({ bindings }) => Object.values(bindings).every((ref) => boundBytes(ref) <= bindingBytes));

/** The convolutions of a graph, one a name. */
function subjectsOf(outputs: readonly Tensor[], lowering: LowerContext): Map<string, Subject> {
  const found = new Map<string, Subject>();
  const choose: LowerContext['choose'] = (problem, choices, launches) => {
    const name = problemName(problem);
    found.set(name, { name, choices, launches });
    return choices[0];
  };
  for (const node of topologicalOrder(outputs)) lower(node, { ...lowering, choose }, () => true);
  return found;
}

/** The convolutions of several graphs, those of an event with as many trials as the adapter lets be bound. */
export function collectSubjects(graphs: readonly TunedGraph[], lowering: LowerContext, bindingBytes: number): Subject[] {
  const found = new Map<string, Subject>();
  for (const { trials = 1, outputs } of graphs) {
    for (let count = Math.min(trials, measuredTrials); count >= 1; count--) {
      const own = subjectsOf(outputs(count), { ...lowering, trials });
      const fits = [...own.values()].every(({ launches, choices }) => fitsBindings(launches(choices[0]), bindingBytes));
      if (!fits && count > 1) continue;
      for (const subject of own.values()) found.set(subject.name, subject);
      break;
    }
  }
  return [...found.values()];
}
