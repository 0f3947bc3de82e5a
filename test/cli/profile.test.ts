/** `forkstep profile` as a person runs it: every dispatch of a step or an event, with its layer, its work and its time. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { StepProfile } from '../../src/train/index.ts';
import { buildCli, forkstep } from '../support/builtCli.ts';

beforeAll(buildCli);
const folder = mkdtempSync(join(tmpdir(), 'forkstep-profile-'));
afterAll(() => rmSync(folder, { recursive: true }));
const svg = join(folder, 'made', 'profile.svg');
const common = ['profile', '--width', '2', '--batch', '2', '--image-size', '8', '--samples', '2', '--svg', svg];

function run(...args: string[]): { profile: StepProfile; figure: string } {
  const { code, stdout, stderr } = forkstep([...common, '--json', ...args]);
  expect(code, stderr).toBe(0);
  const figure = readFileSync(svg, 'utf8');
  expect(figure).toMatch(/^<svg xmlns[\s\S]*<\/svg>\n$/);
  expect(figure).not.toMatch(/NaN|undefined|Infinity/);
  return { profile: JSON.parse(stdout) as StepProfile, figure };
}

/** Multiply-adds of each convolution of ResNet18 (CIFAR stem) on one image, by its place: pixels · taps · cin · cout. */
function convolutions(width: number, side: number): { cin: number; work: number }[] {
  const one = (size: number, kernel: number, cin: number, cout: number) => ({ cin, work: size * size * kernel * kernel * cin * cout });
  const stages = [0, 1, 2, 3].flatMap((stage) => {
    const [cout, size] = [width << stage, side >> stage];
    const cin = stage ? cout / 2 : cout;
    const shortcut = stage ? [one(size, 1, cin, cout)] : [];
    return [one(size, 3, cin, cout), one(size, 3, cout, cout), ...shortcut, one(size, 3, cout, cout), one(size, 3, cout, cout)];
  });
  return [one(side, 3, 3, width), ...stages];
}

describe('forkstep profile', () => {
  it('a step: every dispatch once, with the work of its layer', () => {
    const { profile, figure } = run();
    const { dispatches, peaks, passMs } = profile;
    expect(new Set(dispatches.map(({ plan }) => plan))).toEqual(new Set(['gradient', 'direction', 'update']));
    expect(peaks.gflopsPerSecond).toBeGreaterThan(0);
    expect(peaks.gigabytesPerSecond).toBeGreaterThan(0);
    expect(passMs).toBeGreaterThan(0);
    for (const one of dispatches) {
      expect(one.bytes, one.kernel).toBeGreaterThan(0);
      expect(one.ms, one.kernel).toBeGreaterThanOrEqual(0);
      expect(figure).toContain(one.kernel);
    }
    // Forward, both gradients; none of the images', and none of the linear layer's forward, which is part of the loss.
    const layers = convolutions(2, 8);
    const linear = 16 * 10;
    const work = 2 * 2 * (3 * layers.reduce((sum, { work: own }) => sum + own, 0) - layers[0].work + 2 * linear);
    expect(dispatches.reduce((sum, { flops }) => sum + flops, 0)).toBe(work);
    const named = (layer: string, direction: string) => dispatches.filter((one) => one.layer === layer && one.direction === direction);
    for (const layer of ['conv1', 'layer1.0.conv1', 'layer4.1.conv2', 'layer2.0.downsample.0']) {
      expect(named(layer, 'forward').length, layer).toBeGreaterThan(0);
      expect(named(layer, 'backward').length, layer).toBeGreaterThan(0);
    }
  });

  it('an event: the trials alone, of as much work as forward passes', () => {
    const { dispatches } = run('--trials', '3').profile;
    expect(new Set(dispatches.map(({ plan }) => plan))).toEqual(new Set(['event']));
    const [first, ...others] = convolutions(2, 8);
    // The first layer once for the weights and once for the direction.
    expect(dispatches.reduce((sum, { flops }) => sum + flops, 0)).toBe(2 * 2 * (3 * others.reduce((sum, { work }) => sum + work, 0) + 2 * first.work));
  });

  it('prints tables for people', () => {
    const { code, stdout } = forkstep([...common, '--rows', '3']);
    expect(code).toBe(0);
    expect(stdout).toMatch(/ResNet18, cifar stem, width 2, batch 2/);
    expect(stdout).toMatch(/GFLOP\/s/);
    expect(stdout).toContain('layer');
  });

  it('refuses what it cannot measure', () => {
    for (const args of [['--samples', '0'], ['--trials', '0'], ['--method', 'guess']]) {
      const { code, stderr } = forkstep([...common, ...args]);
      expect([code, stderr.split('\n').length]).toEqual([2, 2]);
    }
  });
});
