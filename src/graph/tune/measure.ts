/** Measures the ways to compute a convolution, on memory of its own, each checked to compute the same. */
import type { Device } from '../../gpu/device.ts';
import { KernelError } from '../../gpu/errors.ts';
import type { Launch } from '../../kernels/contract.ts';
import { Scratch, type Ref } from '../lower/context.ts';
import { choiceName, type ConvChoice } from '../lower/convProblem.ts';
import { Memory } from '../memory.ts';
import { allocateSlots, buildPlan, draft, placeDrafts, upload, type Plan } from '../plan.ts';
import { submit } from '../run.ts';
import { elements, numbersOf, pack, Tensor, type Dtype, type Storage } from '../tensor.ts';
import type { Meter } from './meter.ts';
import { median } from '../timing.ts';
import { boundBytes, fitsBindings, type Subject } from './subject.ts';

/** A choice must take so much less than the estimated one: noise is not to move it. */
const margin = 0.03;

/** ‖a − b‖ / ‖b‖ of results that differ in the order of their sums alone stays far below; those of f16 are rounded to 5e-4. */
const tolerance = (ref: Ref): number => (ref instanceof Tensor && ref.dtype === 'f16' ? 2e-3 : 1e-4);

/** Milliseconds that a stage of a measurement should take at most, as far as its fewest rounds allow. */
const stageMs = 3000;

export interface Verdict {
  readonly choice: ConvChoice;
  /** Its time, in times of the estimated choice's; by several clocks the worse. 1 where that one is kept. */
  readonly timesFirst: number;
  /** Milliseconds of the estimated choice, by each clock. */
  readonly firstMs: readonly number[];
  /** Times of all choices that were compared, by name and clock, in times of the estimated choice's. */
  readonly times: ReadonlyMap<string, readonly number[]>;
  /** Choices that failed, by name, and how: not compiled, or another result. */
  readonly failed: ReadonlyMap<string, string>;
}

/** An output, and where it lies. */
interface Compared {
  readonly ref: Ref;
  readonly storage: Storage;
}

interface Candidate {
  readonly choice: ConvChoice;
  readonly plan: Plan;
}

/** xorshift32: the values need not be more random than that. */
function uniform(count: number): Float32Array {
  let state = 0x9e3779b9;
  return Float32Array.from({ length: count }, () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state / 2 ** 31;
  });
}

const contents: Record<Dtype, (count: number) => Float32Array | Uint32Array> = {
  f32: uniform,
  // Bits of ±2^−4 … ±2: of one size as random numbers go.
  f16: (count) => Uint32Array.from(uniform(count), (value) => (value < 0 ? 0x8000 : 0) + 0x2c00 + Math.floor(Math.abs(value) * 0x1400)),
  u32: (count) => Uint32Array.from({ length: count }, (_, i) => i & 1),
};

/** The refs of launches that live on beyond them, and whether they are written. */
function externals(launches: readonly Launch<Ref>[]): Map<Exclude<Ref, Scratch>, boolean> {
  const found = new Map<Exclude<Ref, Scratch>, boolean>();
  for (const { kernel, bindings } of launches) {
    for (const [name, ref] of Object.entries(bindings)) {
      if (!(ref instanceof Scratch)) found.set(ref, (found.get(ref) ?? false) || kernel.bindings[name].access === 'write');
    }
  }
  return found;
}

/** Refs that a choice cuts by its own rows: sums of chunks are other numbers for other tiles. */
const ofOwnChunks = (launches: readonly Launch<Ref>[]): Set<Ref> =>
  new Set(launches.flatMap(({ bindings }) => Object.entries(bindings).flatMap(([name, ref]) => (name === 'sums' ? [ref] : []))));

/** Memory with random values for what is read, room for what is written. */
function rooms(memory: Memory, refs: ReadonlyMap<Exclude<Ref, Scratch>, boolean>): Map<Ref, Storage> {
  return new Map(
    [...refs].map(([ref, isWritten]) => {
      if (isWritten || !(ref instanceof Tensor)) return [ref, memory.storage('slots', 'tuned', boundBytes(ref))];
      const values = contents[ref.dtype](elements(ref.shape) * ref.trials);
      const packed = pack(ref, values);
      return [ref, upload(memory, 'slots', 'tuned', ref.dtype === 'f16' ? new Uint8Array(Uint16Array.from(packed).buffer) : packed)];
    }),
  );
}

const inRooms = (launches: readonly Launch<Ref>[], rooms: ReadonlyMap<Ref, Storage>): Launch<Ref>[] =>
  launches.map((launch) => ({
    ...launch,
    bindings: Object.fromEntries(Object.entries(launch.bindings).map(([name, ref]) => [name, rooms.get(ref) ?? ref])),
  }));

function distance(a: Float32Array, b: Float32Array): number {
  let [apart, norm] = [0, 0];
  for (let i = 0; i < b.length; i++) {
    apart += (a[i] - b[i]) ** 2;
    norm += b[i] ** 2;
  }
  return Math.sqrt(apart / (norm || 1));
}

/** Runs a plan on cleared outputs and slots, as what another plan left there would hide what this one does not write; reads the outputs. */
async function resultsOf(device: Device, plan: Plan, outputs: readonly Compared[], slots: readonly GPUBuffer[]): Promise<Float32Array[]> {
  const encoder = device.gpu.createCommandEncoder({ label: 'tune' });
  for (const buffer of [...outputs.map(({ storage }) => storage.buffer), ...slots]) encoder.clearBuffer(buffer);
  device.gpu.queue.submit([encoder.finish()]);
  submit(device, plan);
  const results: Float32Array[] = [];
  for (const { ref, storage } of outputs) {
    const bytes = await device.read(storage.buffer, 0, storage.size);
    results.push(numbersOf(ref instanceof Tensor ? ref.dtype : 'f32', bytes) as Float32Array);
  }
  return results;
}

/** Plans of the choices that compile and give what the first gives; the others are noted in `failed`. */
async function candidatesOf(memory: Memory, { choices, launches }: Subject, failed: Map<string, string>): Promise<Candidate[]> {
  const { device } = memory;
  const { maxStorageBufferBindingSize } = device.limits;
  const fitting = choices.filter((choice, i) => i === 0 || fitsBindings(launches(choice), maxStorageBufferBindingSize));
  const refs = externals(launches(fitting[0]));
  const storages = rooms(memory, refs);
  const uncompared = ofOwnChunks(launches(fitting[0]));
  const results = [...refs].filter(([ref, isWritten]) => isWritten && !uncompared.has(ref));
  const outputs = results.map(([ref]) => ({ ref, storage: storages.get(ref)! }));
  const drafts = fitting.map((choice) => draft(memory, choiceName(choice), [], inRooms(launches(choice), storages)));
  const placement = placeDrafts(device, drafts);
  const slots = allocateSlots(memory, placement);
  const built = await Promise.allSettled(drafts.map((one, i) => buildPlan(memory, one, { slots, places: placement.places[i] })));
  const candidates: Candidate[] = [];
  let expected: Float32Array[] | null = null;
  for (const [i, outcome] of built.entries()) {
    const choice = fitting[i];
    if (outcome.status === 'rejected') {
      if (i === 0 || !(outcome.reason instanceof KernelError)) throw outcome.reason;
      failed.set(choiceName(choice), outcome.reason.message);
      continue;
    }
    const given = await resultsOf(device, outcome.value, outputs, slots);
    expected ??= given;
    const apart = given.map((result, k) => distance(result, expected![k]));
    if (i === 0 || apart.every((one, k) => one <= tolerance(outputs[k].ref))) candidates.push({ choice, plan: outcome.value });
    else failed.set(choiceName(choice), `its result is ${Math.max(...apart)} from the first's`);
  }
  return candidates;
}

/** Medians by each clock over rounds in which all candidates have their turn: of the first's time, and of all times in times of that. */
async function compare(meter: Meter, candidates: readonly Candidate[], repeats: number, rounds: number) {
  const firsts: number[][] = [];
  const ratios: number[][][] = candidates.map(() => []);
  for (let round = 0; round < rounds; round++) {
    const times: (readonly number[])[] = [];
    for (let i = 0; i < candidates.length; i++) {
      const at = (round + i) % candidates.length;
      times[at] = await meter.sample(candidates[at].plan, repeats);
    }
    times[0].forEach((ms, clock) => (firsts[clock] ??= []).push(ms));
    times.forEach((own, at) => own.forEach((ms, clock) => (ratios[at][clock] ??= []).push(ms / times[0][clock])));
  }
  return { firstMs: firsts.map(median), ratios: ratios.map((byClock) => byClock.map(median)) };
}

/**
 * The best of a subject's choices. A few rounds of all find two challengers, more rounds decide between them and the estimated choice,
 * which stays unless it is beaten by a margin.
 */
export async function measure(device: Device, subject: Subject, meter: Meter): Promise<Verdict> {
  const memory = new Memory(device);
  const failed = new Map<string, string>();
  try {
    const candidates = await candidatesOf(memory, subject, failed);
    const [first, ...others] = candidates;
    let firstMs: readonly number[] = await meter.sample(first.plan, 1);
    const longest = Math.max(...firstMs, 1e-3);
    const repeats = Math.max(1, Math.min(1000, Math.ceil(meter.leastMs / longest)));
    const roundsOf = (plans: number, least: number, most: number): number =>
      Math.max(least, Math.min(most, Math.floor(stageMs / (plans * repeats * longest))));
    const times = new Map<string, readonly number[]>();
    // By several clocks the worse counts.
    const worst = ({ choice }: Candidate): number => Math.max(...times.get(choiceName(choice))!);
    const stage = async (some: readonly Candidate[], rounds: number): Promise<Candidate[]> => {
      const compared = await compare(meter, some, repeats, rounds);
      firstMs = compared.firstMs;
      some.forEach(({ choice }, i) => times.set(choiceName(choice), compared.ratios[i]));
      return some.slice(1).sort((a, b) => worst(a) - worst(b));
    };
    const challengers = (await stage([first, ...others], roundsOf(candidates.length, 1, 3))).slice(0, 2);
    const [best] = await stage([first, ...challengers], roundsOf(1 + challengers.length, 3, 7));
    const isBeaten = best !== undefined && worst(best) <= 1 - margin;
    return { choice: (isBeaten ? best : first).choice, timesFirst: isBeaten ? worst(best) : 1, firstMs, times, failed };
  } finally {
    memory.release();
  }
}
