/** `forkstep probe` as a person runs it: what it prints, draws and refuses. */
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { EpochSampler, imageBatch, nn, probes, proceduralDataset } from '../../src/index.ts';
import { buildCli, forkstep } from '../support/builtCli.ts';
import { expectClose } from '../support/close.ts';
import { useDevice } from '../support/device.ts';

useDevice();

const folder = mkdtempSync(join(tmpdir(), 'forkstep-probe-'));
const [one, other] = ['one', 'other'].map((name) => join(folder, `${name}.safetensors`));
/** Weights with statistics of their own: a network that has been somewhere. */
function modelOf(seed: number): nn.ResNet {
  const model = nn.resnet18({ width: 2, seed });
  for (const { kind, data } of model.variables()) if (kind === 'statistic') data.forEach((value, i) => (data[i] = value + 0.2 + i / 50));
  return model;
}
beforeAll(() => {
  writeFileSync(one, nn.saveSafetensors(modelOf(1)));
  writeFileSync(other, nn.saveSafetensors(modelOf(2)));
});
beforeAll(buildCli);
afterAll(() => rmSync(folder, { recursive: true }));

const common = ['--width', '2', '--batch', '4', '--seed', '7'];

/** Runs a probe, checks what all have in common, returns its JSON and its figure. */
function run(name: string, ...args: string[]): { found: Record<string, unknown>; svg: string; stderr: string } {
  const file = join(folder, 'made', `${name}.svg`);
  const { code, stdout, stderr } = forkstep(['probe', name, ...common, '--svg', file, ...args]);
  expect(code, stderr).toBe(0);
  expect(stdout.split('\n')).toHaveLength(2);
  const found = JSON.parse(stdout) as Record<string, unknown>;
  expect(found).toMatchObject({ probe: name, dataset: 'procedural', batch: 4, stem: 'cifar', width: 2, seed: 7, svg: file });
  const svg = readFileSync(file, 'utf8');
  expect(svg).toMatch(/^<svg xmlns[\s\S]*<\/svg>\n$/);
  expect(svg.replace(/<title>[^<]*<\/title>/g, '')).not.toMatch(/NaN|undefined|Infinity/);
  expect(stderr).toContain(`figure: ${file}\n`);
  return { found, svg, stderr };
}

/** The images that seed 7 gives, a batch of 4 each. */
function batches(split: 'train' | 'test', count: number) {
  const dataset = proceduralDataset({ seed: 7 });
  const order = new EpochSampler({ count: dataset[split].count, batchSize: 4, shuffle: true, seed: 7 }).epochOrder(0);
  return Array.from({ length: count }, (_, i) => imageBatch(dataset[split], dataset, order.subarray(4 * i, 4 * i + 4)));
}
const close = { atol: 0, rtol: 1e-4 };

describe('forkstep probe', () => {
  it('range: the losses of the library, of fresh weights and the first images that the seed draws', async () => {
    const { found, stderr } = run('range', '--min-lr', '0.001', '--max-lr', '1000', '--points', '4');
    const line = await probes.gradientLine({ model: nn.resnet18({ width: 2, seed: 7 }), batches: batches('train', 1) });
    const expected = await probes.rateRange(line, { rates: [0.001, 0.1, 10, 1000] });
    expect(found).toMatchObject({ checkpoint: null, split: 'train', batches: 1, batchNorm: 'batch', rates: [0.001, 0.1, 10, 1000] });
    expectClose((found.losses as number[]).slice(0, 2), expected.losses.slice(0, 2), close);
    expectClose([found.baseLoss as number, found.slope as number], [expected.baseLoss, line.slope], close);
    expect(found.least).toMatchObject({ rate: expected.least!.rate });
    expect(stderr).toMatch(/^loss \d+\.\d+ without a step$/m);
  });

  it('slice: a checkpoint, test images in two batches, running statistics', async () => {
    const args = ['--checkpoint', one, '--split', 'test', '--batches', '2', '--batch-norm', 'running', '--direction-seed', '3'];
    const { found } = run('slice', ...args, '--from', '-0.5', '--to', '1', '--points', '4');
    const model = modelOf(1);
    const [direction] = probes.randomDirections(model, { seed: 3 });
    const at = [-0.5, 0, 0.5, 1];
    const expected = await probes.slice({ model, batches: batches('test', 2), batchNorm: 'running', direction, at });
    expect(found).toMatchObject({ checkpoint: one, split: 'test', batches: 2, batchNorm: 'running', directionSeed: 3, at });
    expectClose(found.losses as number[], expected.losses, close);
  });

  it('plane: a row of losses a β, and a cell of each in the figure', async () => {
    const { found, svg } = run('plane', '--checkpoint', one, '--span', '0.5', '--points', '3');
    const model = modelOf(1);
    const [d1, d2] = probes.randomDirections(model, { count: 2 });
    const grid = [-0.5, 0, 0.5];
    const expected = await probes.plane({ model, batches: batches('train', 1), directions: [d1, d2], x: grid, y: grid });
    expect(found).toMatchObject({ x: grid, y: grid, directionSeed: 0 });
    expectClose((found.losses as number[][]).flat(), expected.losses.flat(), close);
    expect(svg.match(/<rect [^>]*><title>/g)).toHaveLength(9);
  });

  it('curvature: the fit, 2/η and their ratio', () => {
    const { found } = run('curvature', '--checkpoint', one, '--lr', '0.25', '--span', '0.01', '--points', '5');
    const { curvature, limit, ratio, steps, fit, slope } = found as {
      curvature: number;
      limit: number;
      ratio: number;
      steps: number[];
      fit: { slope: number };
      slope: number;
    };
    expect([limit, steps]).toEqual([8, [-0.01, -0.005, 0, 0.005, 0.01]]);
    expect(ratio).toBeCloseTo(curvature / 8, 12);
    expect(Math.abs(fit.slope / slope - 1)).toBeLessThan(0.2);
  });

  it('interpolate: from one checkpoint to another', async () => {
    const { found, stderr } = run('interpolate', '--checkpoint', one, '--to', other, '--points', '3', '--batch-norm', 'running');
    const expected = await probes.interpolate({
      model: modelOf(1),
      to: modelOf(2),
      batches: batches('train', 1),
      batchNorm: 'running',
      at: [0, 0.5, 1],
    });
    expect(found).toMatchObject({ checkpoint: one, to: other, at: [0, 0.5, 1] });
    expectClose(found.losses as number[], expected.losses, close);
    expect(stderr).toMatch(/^losses \d+\.\d+ and \d+\.\d+ at the ends/m);
  });

  it('writes losses that are not finite as text, and draws them as crosses', () => {
    const { found, svg } = run('slice', '--checkpoint', one, '--batch-norm', 'running', '--from', '-1', '--to', '1e30', '--points', '2');
    expect((found.losses as unknown[])[1]).toMatch(/^(NaN|Infinity)$/);
    expect(svg).toContain('class="cross"');
  });

  it.each([
    [
      ['range', '--min-lr', '1', '--max-lr', '1'],
      'forkstep probe range: --min-lr must be < --max-lr (1), got 1; give the smaller one first',
    ],
    [['range', '--points', '1'], 'forkstep probe range: --points must be an integer ≥ 2, got "1"; see forkstep probe range --help'],
    [['slice', '--from', '1'], 'forkstep probe slice: --from must be < --to (1), got 1; give the smaller one first'],
    [['plane', '--span', '0'], 'forkstep probe plane: --span must be a number > 0, got "0"; see forkstep probe plane --help'],
    [['curvature', '--points', '8'], 'forkstep probe curvature: --points must be odd, got 8; one of them is the loss without a step'],
    [['interpolate', '--to', one], 'forkstep probe interpolate: --checkpoint must be given, got nothing; add --checkpoint FILE'],
    [['range', '--checkpoint', 'no/such'], '--checkpoint must be a file that exists, got "no/such"; see forkstep probe range --help'],
    [['range', '--checkpoint', one, '--width', '3'], 'give the --stem, --width and --dataset that it was trained with'],
    [
      ['range', '--dataset', 'cifar10'],
      '--data must be given with --dataset cifar10, got nothing; forkstep data fetch cifar10 --data DIR downloads it',
    ],
    [['range', '--batch', '3000'], 'forkstep: --batch must be ≤ 2048, the images of procedural train, got 3000; ask for fewer'],
    [
      ['range', '--split', 'test', '--batches', '17'],
      'forkstep: --batches · --batch must be ≤ 512, the images of procedural test, got 544; ask for fewer',
    ],
    [['range', '--svg', folder], `--svg must be a file, or not be there yet, got "${folder}"; see forkstep probe range --help`],
    [['range', '--svg', `${one}/figure.svg`], `--svg must be a folder that can be written, got "${one}" (ENOTDIR); name another`],
    [['range', 'now'], 'forkstep probe range: argument must follow an option, got now; see forkstep probe range --help'],
  ])('%j: one line and exit code 2', (args, message) => {
    const { code, stdout, stderr } = forkstep(['probe', ...args]);
    expect(stderr.endsWith(`${message}\n`), stderr).toBe(true);
    expect([code, stdout, stderr.split('\n').length]).toEqual([2, '', 2]);
  });

  it('refuses a second checkpoint of another network, and leaves no figure', () => {
    const wide = join(folder, 'wide.safetensors');
    writeFileSync(wide, nn.saveSafetensors(nn.resnet18({ width: 3 })));
    const svg = join(folder, 'none.svg');
    const { code, stdout, stderr } = forkstep([
      'probe',
      'interpolate',
      '--checkpoint',
      one,
      '--to',
      wide,
      '--width',
      '2',
      '--batch',
      '2',
      '--svg',
      svg,
    ]);
    expect(stderr).toContain(`forkstep: --to ${wide}: `);
    expect([code, stdout, existsSync(svg)]).toEqual([2, '', false]);
  });
});
