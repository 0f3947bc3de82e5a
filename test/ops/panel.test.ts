/** What the panels of `igemmPanel.ts` promise beside the values, which the rows of the op table hold. */
import { expect, test } from 'vitest';
import { conv2dPanel } from '../../src/kernels/conv2dLanes.ts';
import { momentsEpilogue } from '../../src/kernels/epilogue.ts';
import { mostTaps } from '../../src/kernels/igemmPanel.ts';

/** Bytes of the variables that `main` declares, in all its blocks. */
function functionBytes(source: string): number {
  const main = source.slice(source.indexOf('fn main('));
  return [...main.matchAll(/\bvar (\w+)(?:: array<vec4f, (\d+)>;| = ([^;]+);)/g)].reduce((bytes, [, name, length, value]) => {
    if (length) return bytes + 16 * Number(length);
    return bytes + (value.startsWith('vec4f(') || name === 'value' ? 16 : 4);
  }, 0);
}

test.each([4, 8, 16])('lanes of %i, the widest window: within the 8192 bytes that WGSL allows a function', (lanes) => {
  for (const input of ['plain', 'affineRelu'] as const) {
    const taps = mostTaps(lanes, input !== 'plain');
    const widest = { lanes, window: taps, directions: input === 'plain' ? 3 : 2, scaled: true, input, epilogue: momentsEpilogue };
    for (const weight of ['forward', 'transposed'] as const) {
      const bytes = functionBytes(conv2dPanel({ ...widest, weight }).source);
      // Panel, sums, window and kept vec4s are there: the count has not missed them.
      expect(bytes).toBeGreaterThan(16 * (288 + 32 + taps + (input === 'plain' ? 0 : 144)));
      expect(bytes).toBeLessThanOrEqual(8192);
    }
  }
});
