import { describe, expect, test } from 'vitest';
import { align, bindingAlignment } from '../../src/graph/memory.ts';
import { peakBytes, place, type Item, type Placement } from '../../src/graph/placement.ts';
import { uniformStream } from '../support/random.ts';

/** What `lifetimes` of a plan would list: each item is written at its first launch and read at some later ones. */
function randomItems(uniform: () => number, count: number, launches: number): Item[] {
  const int = (most: number) => Math.floor(uniform() * most);
  return Array.from({ length: count }, () => {
    const first = int(launches);
    const uses = Array.from({ length: int(4) }, () => first + 1 + int(Math.min(12, launches)));
    // Some are written in parts, by several launches.
    const writes = new Set([first, ...(int(5) === 0 ? [first + 1] : [])]);
    const reads = new Set(uses.filter((time) => !writes.has(time)));
    const sizeBytes = 16 * (1 + int(uniform() < 0.3 ? 4000 : 60));
    return { sizeBytes, first, last: Math.max(...writes, ...reads), reads, writes };
  });
}

const overlap = (a0: number, a1: number, b0: number, b1: number): boolean => a0 < b1 && b0 < a1;

/** Every rule that a placement must keep, by looking at each pair of items. */
function expectSound(plans: Item[][], placement: Placement, maxSlotBytes: number): void {
  expect(placement.places.map((places) => places.length)).toEqual(plans.map((items) => items.length));
  expect(placement.totalBytes).toBe(placement.slotBytes.reduce((a, b) => a + b, 0));
  const used = placement.slotBytes.map(() => 0);
  plans.forEach((items, plan) => {
    const places = placement.places[plan];
    items.forEach((a, i) => {
      const { slot, offset } = places[i];
      expect(offset % bindingAlignment).toBe(0);
      expect(offset + a.sizeBytes).toBeLessThanOrEqual(placement.slotBytes[slot]);
      used[slot] = Math.max(used[slot], offset + align(a.sizeBytes));
      for (let j = i + 1; j < items.length; j++) {
        const b = items[j];
        if (places[j].slot !== slot) continue;
        const alive = a.first <= b.last && b.first <= a.last;
        const shareBytes = overlap(offset, offset + a.sizeBytes, places[j].offset, places[j].offset + b.sizeBytes);
        expect(alive && shareBytes, `plan ${plan}: items ${i} and ${j} live at once in the same bytes`).toBe(false);
        const clash = [...a.reads].some((time) => b.writes.has(time)) || [...a.writes].some((time) => b.reads.has(time));
        expect(clash, `plan ${plan}: a launch reads one and writes the other of items ${i} and ${j} of slot ${slot}`).toBe(false);
      }
    });
  });
  // No slot is larger than what lies in it, nor than the adapter allows unless a single item is.
  expect(used).toEqual(placement.slotBytes);
  const largest = Math.max(...plans.flat().map((item) => align(item.sizeBytes)));
  expect(Math.max(...placement.slotBytes)).toBeLessThanOrEqual(Math.max(maxSlotBytes, largest));
}

describe('place', () => {
  test.each(Array.from({ length: 12 }, (_, seed) => seed))('keeps its rules on random plans, seed %i', (seed) => {
    const uniform = uniformStream(seed);
    const plans = Array.from({ length: 1 + (seed % 3) }, () => randomItems(uniform, 5 + Math.floor(uniform() * 60), 40));
    const maxSlotBytes = seed % 2 === 0 ? 2 ** 28 : 2 ** 16;
    const placement = place(plans, maxSlotBytes);
    expectSound(plans, placement, maxSlotBytes);
    for (const items of plans) expect(placement.totalBytes).toBeGreaterThanOrEqual(peakBytes(items));
    expect(place(plans, maxSlotBytes)).toEqual(placement);
  });

  test('plans share their slots: two of the same items take far less than twice one', () => {
    const items = randomItems(uniformStream(99), 40, 30);
    const [one, two] = [place([items], 2 ** 28), place([items, items.map((item) => ({ ...item }))], 2 ** 28)];
    expect(two.totalBytes).toBeLessThan(1.3 * one.totalBytes);
  });

  test('a chain of equal tensors, each read by the next launch, takes two slots', () => {
    const chain = Array.from({ length: 10 }, (_, t): Item => ({ sizeBytes: 1024, first: t, last: t + 1, reads: new Set([t + 1]), writes: new Set([t]) }));
    expect(place([chain], 2 ** 28).slotBytes).toEqual([1024, 1024]);
  });

  test('nothing takes nothing', () => {
    expect(place([[]], 1024)).toEqual({ slotBytes: [], places: [[]], totalBytes: 0 });
  });
});

test('peakBytes is the most that is alive at one launch', () => {
  const uniform = uniformStream(5);
  const items = randomItems(uniform, 30, 20);
  const alive = (time: number) => items.reduce((sum, item) => sum + (item.first <= time && time <= item.last ? item.sizeBytes : 0), 0);
  expect(peakBytes(items)).toBe(Math.max(...Array.from({ length: 40 }, (_, time) => alive(time))));
});
