/** The examples, run as a reader would, at small sizes. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { ROOT } from '../scripts/build.mjs';
import { loadSafetensors } from '../src/nn/stateDict.ts';
import { resnet18 } from '../src/nn/resnet.ts';
import { realCifar10Dir } from './data/realData.ts';

const folder = mkdtempSync(join(tmpdir(), 'forkstep-examples-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const seconds = 1000;

/** What an example prints. @throws Error with its output unless it exits with 0 */
function run(...args: string[]): string {
  const command = [join(ROOT, 'scripts/example.mjs'), ...args];
  const { status, stdout, stderr } = spawnSync(process.execPath, command, { cwd: folder, encoding: 'utf8', timeout: 110 * seconds });
  if (status !== 0) throw new Error(`example ${args.join(' ')}: exit code ${status}\n${stdout}\n${stderr}`);
  return stdout;
}

describe('the examples', () => {
  it('are the ones tested here', () => {
    expect(readdirSync(join(ROOT, 'examples')).sort()).toEqual(['cifar.ts', 'lineSearch.ts', 'mlp.ts', 'probes.ts']);
  });

  it('lineSearch: the loss falls along the gradient, then rises', () => {
    const lines = run('lineSearch', '4', '16').trimEnd().split('\n');
    const points = lines.slice(0, -1).map((line) => line.trim().split(/\s+/).map(Number));
    expect(points.map(([step]) => step)).toEqual([0, ...[9, 8, 7, 6, 5, 4, 3, 2, 1, 0, -1].map((k) => Number((2 ** -k).toFixed(4)))]);
    const losses = points.map(([, loss]) => loss);
    const best = losses.indexOf(Math.min(...losses));
    expect(best).toBeGreaterThan(0);
    expect(best).toBeLessThan(losses.length - 1);
    for (let i = 1; i < losses.length; i++) expect(Math.sign(losses[i] - losses[i - 1])).toBe(i <= best ? -1 : 1);
    expect(lines.at(-1)).toBe(`least loss at step size ${best === 0 ? 0 : 2 ** (best - 10)}`);
  });

  it('probes: a range with a valley, searches within it, a curvature beside 2/η, a slice through the weights', () => {
    const printed = run('probes', '4', '16');
    const number = (pattern: RegExp) => Number(pattern.exec(printed)![1]);
    const loss = number(/^loss ([\d.]+), slope along the gradient -[\d.]+$/m);
    expect(number(/^range: least loss ([\d.]+) at rate [\d.]+, explodes at [\d.]+$/m)).toBeLessThan(loss);
    const [byArmijo, byGoldstein] = [number(/^armijo: step ([\d.]+)$/m), number(/^goldstein: step ([\d.]+)$/m)];
    expect(byArmijo).toBeGreaterThanOrEqual(byGoldstein);
    const [, along, limit, ratio] = /^curvature along the gradient ([\d.]+), 2\/η ([\d.]+), ratio ([\d.]+)$/m.exec(printed)!.map(Number);
    expect(limit).toBe(20);
    expect(ratio).toBeCloseTo(along / limit, 3);
    expect(number(/ 0: ([\d.]+) /)).toBeCloseTo(loss, 2);
  });

  it('mlp: names its variables, raises a learning rate that is too low, and learns', () => {
    const printed = run('mlp', '2');
    const norm = ['weight', 'bias', 'running_mean', 'running_var'].map((name) => `norm.${name}`);
    const names = ['hidden.weight', 'hidden.bias', ...norm, 'head.weight', 'head.bias'];
    for (const name of names) expect(printed).toMatch(new RegExp(`^${name} \\[`, 'm'));
    const found = [...printed.matchAll(/learning rate ([\d.]+) → ([\d.]+)/g)];
    const rates = found.map(([, before, after]) => [Number(before), Number(after)]);
    expect(rates).toHaveLength(2);
    for (const [before, after] of rates) expect(after).toBeGreaterThan(before);
    const losses = [...printed.matchAll(/test loss ([\d.]+)/g)].map(([, loss]) => Number(loss));
    expect(losses).toHaveLength(2);
    expect(losses[1]).toBeLessThan(losses[0]);
  });

  const data = realCifar10Dir();
  it.skipIf(data === null)('cifar: trains on real images and writes a model that loads', () => {
    const printed = run('cifar', data!, '4', '3');
    expect(printed).toMatch(/^step 0: trials( \d+\.\d+){7}, best ×\S+; scale 0\.00500 → /m);
    expect(printed).toMatch(/^step 2: loss \d+\.\d+ \(mean of 3\)/m);
    expect(printed).toMatch(/^test loss \d+\.\d+, accuracy \d+\.\d %$/m);
    const model = resnet18({ width: 4, seed: 0 });
    const before = model.conv1.weight.data.slice();
    loadSafetensors(model, readFileSync(join(folder, 'runs/resnet18-cifar10.safetensors')));
    expect(model.conv1.weight.data).not.toEqual(before);
  });

  it('refuse a name that is none', () => {
    expect(() => run('nonsense')).toThrow(/exit code 2[\s\S]*there is cifar, lineSearch, mlp, probes/);
  });
});
