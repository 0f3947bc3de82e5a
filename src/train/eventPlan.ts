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
import type { Storage, Tensor, Variable } from '../graph/tensor.ts';
import type { Launch } from '../kernels/contract.ts';
import { nextPass } from '../kernels/trialRule.ts';
import { chunkTrials } from '../trials/passes.ts';
import { trials } from '../trials/trials.ts';
import type { EventTrials } from './trialRule.ts';

/** Bytes of one trial's loss as a pass writes it: a scalar is padded. */
const lossBytes = 16;

/** Bytes that the slots may grow by unasked: what rounding small tensors up to 256 bytes comes to. */
const slotSlack = 8192;

/** What trials compute. */
export interface EventGraph {
  /** The loss that trials are scored by, at the weights as they are. */
  readonly loss: Tensor;
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
  const trials = { passes, coefficients: storage('trial coefficients', count * words * 4), losses: storage('trial losses', count * 4) };
  const most = Math.max(...passes);
  const window = { coefficients: storage('window coefficients', most * words * 4), losses: storage('window losses', most * lossBytes) };
  const sizes = [...new Set(passes)];
  const next = emit(nextPass, {
    bindings: {
      coefficients: trials.coefficients,
      losses: trials.losses,
      window_losses: window.losses,
      window_coefficients: window.coefficients,
      state: storage('trials done', 8),
    },
    uniforms: { count, words, small: passes[0], smalls: passes.filter((size) => size === passes[0]).length },
    grid: [1, 1, 1],
  });
  return { trials, sizes, passes: sizes.map((size) => draftPass(spec, size, window)), next, placement };
}

/** Where the trials of a pass find their coefficients and leave their losses. */
type Window = Pick<EventTrials, 'coefficients' | 'losses'>;

/** Fewest passes that keep to the memory and to the adapter's bindings; one trial a pass where nothing does. */
function cutTrials(spec: EventSpec): { sizes: number[]; placement: Placement } {
  const { memory, count, coefficientWords } = spec;
  // For the drafts that are tried; the room that is kept depends on the cut.
  const room = (label: string, size: number): Storage => {
    const buffer = memory.device.createBuffer(label, size, GPUBufferUsage.STORAGE);
    return { buffer, offset: 0, size: buffer.size };
  };
  const window = { coefficients: room('coefficients', count * coefficientWords * 4), losses: room('losses', count * lossBytes) };
  try {
    return fewestPasses(spec, (size) => draftPass(spec, size, window));
  } finally {
    for (const { buffer } of Object.values(window)) memory.device.destroyBuffer(buffer);
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

/** Losses of a pass of `count` trials, whose coefficients lie in `coefficients`. */
export function passLosses(event: EventGraph, count: number, coefficients: Storage): Tensor {
  const { loss, directions, coefficientWords } = event;
  const along = new Map([...directions].map(([variable, all]) => [variable, all.map((storage) => externalTensor(storage, variable))]));
  const given = externalTensor(coefficients, { shape: [count * coefficientWords], dtype: 'f32', trials: 1 });
  const scaled = [...along.values()].some(({ length }) => length < coefficientWords);
  return fuse(trials([loss], { count, directions: along, coefficients: given, scaled }), fusions, event.count)[0];
}

function draftPass(spec: EventSpec, count: number, window: Window): Draft {
  const { memory, coefficientWords, lowering } = spec;
  const coefficients = { ...window.coefficients, size: Math.max(16, count * coefficientWords * 4) };
  const losses = { ...window.losses, size: count * lossBytes };
  const tensor = passLosses(spec, count, coefficients);
  return draft(memory, 'event', [{ tensor, storage: losses }], [], { ...lowering, trials: spec.count });
}
