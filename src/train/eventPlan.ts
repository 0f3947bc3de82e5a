/**
 * The event's plan: N trial losses along the direction, in as many passes as it takes to stay within the memory that the step has anyway.
 * Each pass is a draft of its own, placed as if alone into the common slots, so that passes do not hold one another's tensors.
 */
import { AttrError } from '../gpu/errors.ts';
import { fuse, fusions } from '../graph/fuse/index.ts';
import { externalTensor } from '../graph/ops.ts';
import { emit, type LowerContext, type Ref } from '../graph/lower/context.ts';
import type { Memory } from '../graph/memory.ts';
import { peakBytes, type Placement } from '../graph/placement.ts';
import { draft, placeDrafts, type Draft } from '../graph/plan.ts';
import { ceil4, type Storage, type Tensor, type Variable } from '../graph/tensor.ts';
import { grid1d, type Launch } from '../kernels/contract.ts';
import { keepSamples } from '../kernels/trialEvidence.ts';
import { nextPass } from '../kernels/trialRule.ts';
import { chunkTrials } from '../trials/passes.ts';
import { trials } from '../trials/trials.ts';
import type { EventSamples, EventTrials } from './trialRule.ts';

/** Bytes of one trial's loss as a pass writes it: a scalar is padded. */
const lossBytes = 16;

/** Bytes that the slots may grow by unasked: what rounding small tensors up to 256 bytes comes to. */
const slotSlack = 8192;

/** What trials compute. */
export interface EventGraph {
  /** The loss that trials are scored by, at the weights as they are. */
  readonly loss: Tensor;
  /** Of each batch that is scored, the losses of its samples; none where nobody looks at them. */
  readonly samples: readonly Tensor[];
  readonly count: number;
  /** Where the directions of each parameter lie. */
  readonly directions: ReadonlyMap<Variable, readonly Storage[]>;
  /** f32 a trial: one a direction, after a − 1 where trials scale the parameters too. */
  readonly coefficientWords: number;
}

export interface EventSpec extends EventGraph {
  readonly memory: Memory;
  readonly lowering: LowerContext;
  /** The other plans of the trainer, and the bytes of slots that they take without the event. */
  readonly others: readonly Draft[];
  readonly bareBytes: number;
  /** Bytes that the slots may grow by so that there are fewer passes. */
  readonly memoryBudget: number;
}

export interface EventDraft {
  readonly trials: EventTrials;
  /** Sizes of pass that occur, and the draft of each: it reads the window's coefficients and writes its losses. */
  readonly sizes: readonly number[];
  readonly passes: readonly Draft[];
  /** Runs before the first pass and after each. */
  readonly next: Launch<Ref>;
  /** Runs before that; does nothing before the first pass. */
  readonly keep: readonly Launch<Ref>[];
  /** Of the other plans, then of the passes. */
  readonly placement: Placement;
}

/** @throws AttrError for a count that is not an integer ≥ 1 */
export function draftEvent(spec: EventSpec): EventDraft {
  const { memory, count, coefficientWords: words } = spec;
  if (!Number.isInteger(count) || count < 1) {
    throw new AttrError({ op: 'trials', arg: 'count', rule: 'must be an integer ≥ 1', got: count, fix: 'pass at least one factor' });
  }
  const { sizes: passes, placement } = cutTrials(spec);
  const storage = (label: string, sizeBytes: number) => memory.storage('trials', label, sizeBytes);
  const samples = eventSamples(spec, storage);
  const [coefficients, losses] = [storage('trial coefficients', count * words * 4), storage('trial losses', count * 4)];
  const trials = { passes, coefficients, losses, samples };
  const most = Math.max(...passes);
  const window = windowOf(spec, most, storage);
  const state = storage('trials done', 8);
  const sizes = [...new Set(passes)];
  const next = emit(nextPass, {
    bindings: {
      coefficients: trials.coefficients,
      losses: trials.losses,
      window_losses: window.losses,
      window_coefficients: window.coefficients,
      state,
    },
    uniforms: { count, words, small: passes[0], smalls: passes.filter((size) => size === passes[0]).length },
    grid: [1, 1, 1],
  });
  const keep = samples ? window.samples.map((one, batch) => keepLaunch(one, batch, samples, state)) : [];
  return { trials, sizes, passes: sizes.map((size) => draftPass(spec, size, window)), next, keep, placement };
}

/** Makes room, by label and bytes. */
type MakeRoom = (label: string, sizeBytes: number) => Storage;

/** Batches of samples are equally large. */
const paddedOf = ({ samples: [one] }: EventGraph): number => ceil4(one.shape[0]);

function eventSamples(graph: EventGraph, room: MakeRoom): EventSamples | null {
  const { samples, count } = graph;
  if (samples.length === 0) return null;
  const padded = paddedOf(graph);
  const storage = room('trial samples', count * samples.length * padded * 4);
  return { storage, images: samples[0].shape[0], padded, batches: samples.length };
}

function keepLaunch(window: Storage, batch: number, { storage, padded, batches }: EventSamples, state: Storage): Launch<Ref> {
  const uniforms = { padded, stride: batches * padded, column: batch * padded };
  return emit(keepSamples, { bindings: { window, state, samples: storage }, uniforms, grid: grid1d(window.size / 4, 64) });
}

/** Where the trials of a pass find their coefficients and leave their losses, of samples one piece of memory a batch. */
interface Window extends Pick<EventTrials, 'coefficients' | 'losses'> {
  readonly samples: readonly Storage[];
}

const windowOf = (graph: EventGraph, most: number, room: MakeRoom): Window => ({
  coefficients: room('window coefficients', most * graph.coefficientWords * 4),
  losses: room('window losses', most * lossBytes),
  samples: graph.samples.map(() => room('window samples', most * paddedOf(graph) * 4)),
});

/** Fewest passes that keep to the memory and to the adapter's bindings; one trial a pass where nothing does. */
function cutTrials(spec: EventSpec): { sizes: number[]; placement: Placement } {
  const { memory, count } = spec;
  // For the drafts that are tried; the room that is kept depends on the cut.
  const room = (label: string, size: number): Storage => {
    const buffer = memory.device.createBuffer(label, size, GPUBufferUsage.STORAGE);
    return { buffer, offset: 0, size: buffer.size };
  };
  const window = windowOf(spec, count, room);
  try {
    return fewestPasses(spec, (size) => draftPass(spec, size, window));
  } finally {
    for (const { buffer } of [window.coefficients, window.losses, ...window.samples]) memory.device.destroyBuffer(buffer);
  }
}

function fewestPasses(spec: EventSpec, passOf: (size: number) => Draft): { sizes: number[]; placement: Placement } {
  const { memory, count, others, bareBytes, memoryBudget } = spec;
  const { device } = memory;
  const budget = bareBytes + memoryBudget + slotSlack;
  for (let most = count; ; most--) {
    const sizes = chunkTrials(count, most);
    if (most > 1 && Math.max(...sizes) < most) continue;
    const passes = [...new Set(sizes)].map(passOf);
    const items = passes.flatMap((pass) => pass.items);
    const mayFit =
      passes.every((pass) => peakBytes(pass.items) <= budget) &&
      items.every(({ sizeBytes }) => sizeBytes <= device.limits.maxStorageBufferBindingSize);
    if (!mayFit && most > 1) continue;
    const placement = placeDrafts(device, [...others, ...passes]);
    if (most === 1 || placement.totalBytes <= budget) return { sizes, placement };
  }
}

/** Losses of a pass of `count` trials, whose coefficients lie in `coefficients`: their means, then those of the samples of each batch. */
export function passLosses(event: EventGraph, count: number, coefficients: Storage): Tensor[] {
  const { loss, samples, directions, coefficientWords } = event;
  const along = new Map([...directions].map(([variable, all]) => [variable, all.map((storage) => externalTensor(storage, variable))]));
  const given = externalTensor(coefficients, { shape: [count * coefficientWords], dtype: 'f32', trials: 1 });
  const scaled = [...along.values()].some(({ length }) => length < coefficientWords);
  return fuse(trials([loss, ...samples], { count, directions: along, coefficients: given, scaled }), fusions, event.count);
}

function draftPass(spec: EventSpec, count: number, window: Window): Draft {
  const { memory, coefficientWords, lowering } = spec;
  const coefficients = { ...window.coefficients, size: Math.max(16, count * coefficientWords * 4) };
  const losses = { ...window.losses, size: count * lossBytes };
  const samples = window.samples.map((storage) => ({ ...storage, size: count * paddedOf(spec) * 4 }));
  const outputs = passLosses(spec, count, coefficients).map((tensor, i) => ({ tensor, storage: [losses, ...samples][i] }));
  return draft(memory, 'event', outputs, [], { ...lowering, trials: spec.count });
}
