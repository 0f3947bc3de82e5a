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
function placePlan(items: readonly Item[], slotBytes: number[], maxSlotBytes: number): Place[] {
  const places: Place[] = new Array(items.length);
  const residents: Resident[][] = slotBytes.map(() => []);
  const order = items.map((_, index) => index).sort((a, b) => items[b].sizeBytes - items[a].sizeBytes || items[a].first - items[b].first);
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

/** Places the items of all plans; plans with the largest items first, so that the others fill what these have opened. */
export function place(plans: readonly (readonly Item[])[], maxSlotBytes: number): Placement {
  const slotBytes: number[] = [];
  const places: Place[][] = new Array(plans.length);
  const largest = (items: readonly Item[]) => items.reduce((most, item) => Math.max(most, item.sizeBytes), 0);
  const order = plans.map((_, index) => index).sort((a, b) => largest(plans[b]) - largest(plans[a]) || a - b);
  for (const index of order) places[index] = placePlan(plans[index], slotBytes, maxSlotBytes);
  return { slotBytes, places, totalBytes: slotBytes.reduce((sum, size) => sum + size, 0) };
}
