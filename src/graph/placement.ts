/**
 * Where short-lived tensors lie. Pure arithmetic, no GPU: items with a size and a lifetime go into slots (one GPUBuffer each) so that
 *   - items of one plan whose lifetimes overlap do not overlap in a slot,
 *   - no launch reads one item and writes another of the same slot: WebGPU forbids a buffer in both roles of a dispatch.
 * Plans of one trainer never run at the same time, so each is placed as if alone, into the same slots.
 */
import { align } from './memory.ts';

export interface Item {
  readonly sizeBytes: number;
  /** First and last launch (inclusive) that touch the item. */
  first: number;
  last: number;
  /** Launches that read and that write it. */
  readonly reads: Set<number>;
  readonly writes: Set<number>;
}

export interface Place {
  readonly slot: number;
  readonly offset: number;
}

export interface Placement {
  /** Bytes of each slot. */
  readonly slotBytes: number[];
  /** For each plan, the place of each of its items. */
  readonly places: Place[][];
  readonly totalBytes: number;
}

interface Resident {
  readonly item: Item;
  readonly offset: number;
}

const clash = (a: Item, b: Item): boolean => {
  const [small, other] = a.reads.size + a.writes.size < b.reads.size + b.writes.size ? [a, b] : [b, a];
  for (const launch of small.reads) if (other.writes.has(launch)) return true;
  for (const launch of small.writes) if (other.reads.has(launch)) return true;
  return false;
};

/** Lowest offset of a slot at which the item fits beside the residents alive at the same time; null when a launch forbids the slot. */
function lowestOffset(item: Item, residents: readonly Resident[]): number | null {
  const busy: Resident[] = [];
  for (const resident of residents) {
    if (clash(item, resident.item)) return null;
    if (resident.item.first <= item.last && item.first <= resident.item.last) busy.push(resident);
  }
  busy.sort((a, b) => a.offset - b.offset);
  let offset = 0;
  for (const resident of busy) {
    if (resident.offset - offset >= item.sizeBytes) break;
    offset = Math.max(offset, resident.offset + align(resident.item.sizeBytes));
  }
  return offset;
}

/** Largest first; into the slot that has to grow least, then the fullest fit; a slot of its own rather than making another larger by as much. */
function placePlan(items: readonly Item[], slotBytes: number[], maxSlotBytes: number, before: (a: Item, b: Item) => number): Place[] {
  const places: Place[] = new Array(items.length);
  const residents: Resident[][] = slotBytes.map(() => []);
  const order = items.map((_, index) => index).sort((a, b) => items[b].sizeBytes - items[a].sizeBytes || before(items[a], items[b]));
  for (const index of order) {
    const item = items[index];
    let best = { slot: slotBytes.length, offset: 0, growth: align(item.sizeBytes), slack: 0 };
    for (let slot = 0; slot < slotBytes.length; slot++) {
      const offset = lowestOffset(item, residents[slot]);
      if (offset === null) continue;
      const end = offset + align(item.sizeBytes);
      if (end > maxSlotBytes && end > slotBytes[slot]) continue;
      const growth = Math.max(0, end - slotBytes[slot]);
      const slack = Math.max(0, slotBytes[slot] - end);
      if (growth < best.growth || (growth === best.growth && growth === 0 && slack < best.slack)) best = { slot, offset, growth, slack };
    }
    if (best.slot === slotBytes.length) {
      slotBytes.push(0);
      residents.push([]);
    }
    slotBytes[best.slot] = Math.max(slotBytes[best.slot], best.offset + align(item.sizeBytes));
    residents[best.slot].push({ item, offset: best.offset });
    places[index] = { slot: best.slot, offset: best.offset };
  }
  return places;
}

/** Bytes of the items alive at once, at most: no placement of the plan can be smaller. */
export function peakBytes(items: readonly Item[]): number {
  const change = new Map<number, number>();
  for (const { first, last, sizeBytes } of items) {
    change.set(first, (change.get(first) ?? 0) + sizeBytes);
    change.set(last + 1, (change.get(last + 1) ?? 0) - sizeBytes);
  }
  let alive = 0;
  let peak = 0;
  for (const time of [...change.keys()].sort((a, b) => a - b)) {
    alive += change.get(time)!;
    peak = Math.max(peak, alive);
  }
  return peak;
}

/** Orders of equally large items that are tried: the order of their birth, then ever more shuffled ones. */
const orders = 64;

/**
 * Places the items of all plans; plans with the largest items first, so that the others fill what these have opened. Of several orders the one
 * with the smallest total is kept: the same one every time.
 */
export function place(plans: readonly (readonly Item[])[], maxSlotBytes: number): Placement {
  const largest = (items: readonly Item[]) => items.reduce((most, item) => Math.max(most, item.sizeBytes), 0);
  const planOrder = plans.map((_, index) => index).sort((a, b) => largest(plans[b]) - largest(plans[a]) || a - b);
  const least = Math.max(0, ...plans.map(peakBytes));
  let state = 1;
  const random = () => (state = (Math.imul(state, 1664525) + 1013904223) >>> 0) / 2 ** 32;
  let best: Placement | null = null;
  for (let attempt = 0; attempt < orders; attempt++) {
    const key = new Map(plans.flat().map((item) => [item, item.first + attempt * 6 * random()]));
    const slotBytes: number[] = [];
    const places: Place[][] = new Array(plans.length);
    for (const index of planOrder) places[index] = placePlan(plans[index], slotBytes, maxSlotBytes, (a, b) => key.get(a)! - key.get(b)!);
    const totalBytes = slotBytes.reduce((sum, size) => sum + size, 0);
    if (!best || totalBytes < best.totalBytes) best = { slotBytes, places, totalBytes };
    if (best.totalBytes - least < orders * 256) break;
  }
  return best!;
}
