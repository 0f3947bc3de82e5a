/**
 * The event's plan: N trial losses along the direction, in as many passes as it takes to stay within the memory that the step has anyway.
 * Each pass is a draft of its own, placed as if alone into the common slots, so that passes do not hold one another's tensors.
 */
import { AttrError } from '../gpu/errors.ts';
import { fuse, fusions } from '../graph/fuse.ts';
import { externalTensor } from '../graph/ops.ts';
import type { Ref } from '../graph/lower/context.ts';
import { align, type Memory } from '../graph/memory.ts';
import { peakBytes, type Placement } from '../graph/placement.ts';
import { draft, lowerContextOf, placeDrafts, type Draft } from '../graph/plan.ts';
import type { Storage, Tensor, Variable } from '../graph/tensor.ts';
import type { Launch } from '../kernels/contract.ts';
import { chunkTrials } from '../trials/passes.ts';
import { trials } from '../trials/trials.ts';
import type { TrialChunk } from './trialRule.ts';

/** Bytes of one trial's loss, padded, and at most of its coefficients. */
const lossBytes = 16;

/** Bytes that the slots may grow by unasked: what rounding small tensors up to 256 bytes comes to. */
const slotSlack = 8192;

export interface EventSpec {
  readonly memory: Memory;
  /** The loss that trials are scored by, at the weights as they are. */
  readonly loss: Tensor;
  readonly count: number;
  /** Where the directions of each parameter lie. */
  readonly directions: ReadonlyMap<Variable, readonly Storage[]>;
  /** f32 a trial: one a direction, after a − 1 where trials scale the parameters too. */
  readonly coefficientWords: number;
  /** The other plans of the trainer, and the bytes of slots that they take without the event. */
  readonly others: readonly Draft[];
  readonly bareBytes: number;
  /** Bytes that the slots may grow by so that there are fewer passes. */
  readonly memoryBudget: number;
}

export interface EventDraft {
  readonly chunks: readonly TrialChunk[];
  /** Whole buffers of the chunks' coefficients and losses. */
  readonly coefficients: Storage;
  readonly losses: Storage;
  /** Of the other plans, then of the passes. */
  readonly placement: Placement;
  /** One a pass; the launches given end the last one. */
  drafts(last: readonly Launch<Ref>[]): Draft[];
}

/** @throws AttrError for a count that is not an integer ≥ 1 */
export function draftEvent(spec: EventSpec): EventDraft {
  const { memory, count, others, coefficientWords } = spec;
  if (!Number.isInteger(count) || count < 1) {
    throw new AttrError({ op: 'trials', arg: 'count', rule: 'must be an integer ≥ 1', got: count, fix: 'pass at least one factor' });
  }
  const { sizes, placement } = cutTrials(spec);
  // Each pass begins at a binding's offset.
  const stride = align(Math.max(...sizes) * lossBytes);
  const coefficients = memory.storage('trials', 'trial coefficients', sizes.length * stride);
  const losses = memory.storage('trials', 'trial losses', sizes.length * stride);
  const chunks = sizes.map((size, i) => chunkAt(coefficients.buffer, losses.buffer, i * stride, size, coefficientWords));
  // Passes of one size are one placement.
  const distinct = [...new Set(sizes)];
  const places = [
    ...placement.places.slice(0, others.length),
    ...sizes.map((size) => placement.places[others.length + distinct.indexOf(size)]),
  ];
  return {
    chunks,
    coefficients,
    losses,
    placement: { ...placement, places },
    drafts: (last) => chunks.map((chunk, i) => draftPass(spec, chunk, i === chunks.length - 1 ? last : [])),
  };
}

const chunkAt = (coefficients: GPUBuffer, losses: GPUBuffer, offset: number, count: number, words: number): TrialChunk => ({
  count,
  coefficients: { buffer: coefficients, offset, size: Math.max(16, count * words * 4) },
  losses: { buffer: losses, offset, size: count * lossBytes },
});

/** Fewest passes that keep to the memory and to the adapter's bindings; one trial a pass where nothing does. */
function cutTrials(spec: EventSpec): { sizes: number[]; placement: Placement } {
  const { device } = spec.memory;
  // For the drafts that are tried; the room that is kept depends on the cut.
  const [coefficients, losses] = ['coefficients', 'losses'].map((label) =>
    device.createBuffer(label, spec.count * lossBytes, GPUBufferUsage.STORAGE),
  );
  try {
    return fewestPasses(spec, (size) => draftPass(spec, chunkAt(coefficients, losses, 0, size, spec.coefficientWords), []));
  } finally {
    for (const buffer of [coefficients, losses]) device.destroyBuffer(buffer);
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

function draftPass(spec: EventSpec, { count, coefficients, losses }: TrialChunk, last: readonly Launch<Ref>[]): Draft {
  const { memory, loss, directions, coefficientWords } = spec;
  const along = new Map([...directions].map(([variable, all]) => [variable, all.map((storage) => externalTensor(storage, variable))]));
  const given = externalTensor(coefficients, { shape: [count * coefficientWords], dtype: 'f32', trials: 1 });
  const scaled = [...along.values()].some(({ length }) => length < coefficientWords);
  const [fused] = fuse(trials([loss], { count, directions: along, coefficients: given, scaled }), fusions, spec.count);
  const lowering = { ...lowerContextOf(memory.device), trials: spec.count };
  return draft(memory, 'event', [{ tensor: fused, storage: losses }], last, lowering);
}
