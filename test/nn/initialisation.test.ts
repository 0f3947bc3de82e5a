/** Initial weights: torchvision's distributions, by their moments. A bound is 5 standard deviations of the estimate, seeds being fixed. */
import { describe, expect, test } from 'vitest';
import type { Variable } from '../../src/graph/tensor.ts';
import { resnet18, type ResNetOptions } from '../../src/nn/resnet.ts';

interface Moments {
  n: number;
  mean: number;
  std: number;
  /** E[(x − mean)⁴] / std⁴: 3 for the normal distribution, 1.8 for the uniform. */
  kurtosis: number;
  /** Share of |x − mean| < std: 0.6827 for the normal distribution, 0.5774 for the uniform. */
  within: number;
  largest: number;
}

function momentsOf(data: Float32Array): Moments {
  const n = data.length;
  const mean = data.reduce((sum, x) => sum + x, 0) / n;
  const power = (p: number) => data.reduce((sum, x) => sum + (x - mean) ** p, 0) / n;
  const std = Math.sqrt(power(2));
  const within = data.reduce((count, x) => count + Number(Math.abs(x - mean) < std), 0) / n;
  return { n, mean, std, kurtosis: power(4) / std ** 4, within, largest: data.reduce((a, x) => Math.max(a, Math.abs(x)), 0) };
}

const ending = (variables: Map<string, Variable>, end: RegExp) => [...variables].filter(([name]) => end.test(name));
const conv = /(conv\d|downsample\.0)\.weight$/;
const norm = (what: string) => new RegExp(`(bn\\d|downsample\\.1)\\.${what}$`);

const models: ResNetOptions[] = [{ stem: 'imagenet', width: 16, seed: 1 }, { stem: 'cifar', width: 24, seed: 2 }];

describe.each(models)('$stem, width $width', (options) => {
  const variables = resnet18(options).namedVariables();

  test('convolutions are normal with variance 2 / (Cout · k²)', () => {
    const convs = ending(variables, conv);
    expect(convs.length).toBe(20);
    for (const [name, { shape: [kH, kW, , cOut], data }] of convs) {
      const { n, mean, std, kurtosis, within, largest } = momentsOf(data);
      const wanted = Math.sqrt(2 / (cOut * kH * kW));
      expect(Math.abs(mean) / wanted, name).toBeLessThan(5 / Math.sqrt(n));
      expect(Math.abs(std / wanted - 1), name).toBeLessThan(5 / Math.sqrt(2 * n));
      expect(Math.abs(kurtosis - 3), name).toBeLessThan(5 * Math.sqrt(24 / n));
      expect(Math.abs(within - 0.6827), name).toBeLessThan(5 * Math.sqrt(0.2166 / n));
      expect(largest / wanted, name).toBeGreaterThan(2.5);
    }
  });

  test('the linear layer is uniform in ±1/√fanIn', () => {
    const [weight, bias] = ['fc.weight', 'fc.bias'].map((name) => variables.get(name)!);
    const bound = 1 / Math.sqrt(weight.shape[0]);
    const { n, mean, std, kurtosis, largest } = momentsOf(weight.data);
    expect(Math.abs(mean) / bound).toBeLessThan(5 * Math.sqrt(1 / 3 / n));
    expect(Math.abs((std * Math.sqrt(3)) / bound - 1)).toBeLessThan(5 * Math.sqrt(0.2 / n));
    expect(Math.abs(kurtosis - 1.8)).toBeLessThan(0.2);
    expect(largest / bound).toBeGreaterThan(0.99);
    expect(largest / bound).toBeLessThanOrEqual(1);
    const [low, high] = [Math.min(...bias.data), Math.max(...bias.data)];
    expect(Math.abs(low) <= bound && Math.abs(high) <= bound && low < 0 && high > 0).toBe(true);
    expect(new Set(bias.data).size).toBe(bias.data.length);
  });

  test.each([['weight', 1], ['bias', 0], ['running_mean', 0], ['running_var', 1]] as const)('batch norm: %s is %i', (what, value) => {
    const all = ending(variables, norm(what));
    expect(all.length).toBe(20);
    for (const [name, { data }] of all) expect([name, ...new Set(data)]).toEqual([name, value]);
  });
});

test('the same seed gives the same bits, another seed other ones, and no two layers are alike', () => {
  const weights = (seed: number) => ending(resnet18({ width: 4, seed }).namedVariables(), conv).map(([, { data }]) => data);
  const [once, twice, other] = [weights(1), weights(1), weights(2)];
  expect(twice).toEqual(once);
  for (const [i, data] of once.entries()) expect(data.filter((x, k) => x === other[i][k]).length).toBeLessThan(data.length / 100);
  const starts = once.map((data) => data.subarray(0, 16).join());
  expect(new Set(starts).size).toBe(starts.length);
});
