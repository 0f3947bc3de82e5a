/** The training commands as a person runs them: what they print, write and return. */
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { homedir, tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { ROOT } from '../../scripts/build.mjs';
import type { Device } from '../../src/gpu/device.ts';
import { Tuner } from '../../src/graph/tune/tuner.ts';
import { ConstantSchedule, nn, proceduralDataset, Trainer } from '../../src/index.ts';
import { realCifar10Dir } from '../data/realData.ts';
import { buildCli, forkstep } from '../support/builtCli.ts';
import { testDevice } from '../support/device.ts';

const folder = mkdtempSync(join(tmpdir(), 'forkstep-run-'));
beforeAll(buildCli);
afterAll(() => rmSync(folder, { recursive: true }));

type Line = { type: string; step: number; [field: string]: unknown };
const linesOf = (out: string): Line[] =>
  readFileSync(join(out, 'events.jsonl'), 'utf8').trim().split('\n').map((line) => JSON.parse(line) as Line);
const small = ['--width', '4', '--batch', '8', '--train-limit', '64', '--test-limit', '20', '--momentum', '0.9'];

describe('forkstep train', () => {
  const out = join(folder, 'train');

  it('writes events, weights and report, and one JSON object last', () => {
    const { code, stdout } = forkstep(['train', ...small, '--epochs', '2', '--every', '4steps', '--factors', 'factor3', '--seed', '3', '--out', out, '--json']);
    expect(code).toBe(0);
    const summary = JSON.parse(stdout.trim().split('\n').at(-1)!) as Record<string, unknown>;
    expect(Object.keys(summary).sort()).toEqual([
      'adapter', 'dispatchesPerStep', 'diverged', 'epochs', 'imagesPerSecond', 'lr', 'lrHistory', 'memory', 'precision', 'seed', 'skipped', 'steps',
      'testAccuracy', 'testLoss', 'trainLoss',
    ]);
    expect(summary).toMatchObject({ steps: 16, epochs: 2, seed: 3, diverged: null, precision: 'f32', skipped: 0 });
    const memory = summary.memory as Record<string, number>;
    expect(Object.keys(memory)).toEqual(['parameters', 'gradients', 'optimizer', 'statistics', 'slots', 'data', 'trials', 'schedule', 'total']);
    expect(Object.entries(memory).reduce((sum, [name, bytes]) => (name === 'total' ? sum : sum + bytes), 0)).toBe(memory.total);

    const lines = linesOf(out);
    const steps = lines.filter(({ type }) => type === 'step');
    expect(steps.map(({ step }) => step)).toEqual(Array.from({ length: 16 }, (_, i) => i));
    expect(steps.map(({ lr }) => lr)).toEqual(summary.lrHistory);
    const events = lines.filter(({ type }) => type === 'event');
    expect(events.map(({ step }) => step)).toEqual([0, 4, 8, 12]);
    for (const event of events) {
      expect(event.factors).toEqual([2, 1, 0.5]);
      expect((event.losses as number[]).every((loss) => Number.isFinite(loss) && loss > 0)).toBe(true);
      expect((event.weights as number[]).reduce((sum, weight) => sum + weight, 0)).toBeCloseTo(1, 12);
      expect(event).toMatchObject({ clamped: false, nonFinite: 0 });
      // An event stands before the step whose number it bears, and after the one before.
      const next = lines.slice(lines.indexOf(event) + 1).find(({ type }) => type !== 'eval')!;
      expect(next).toMatchObject({ type: 'step', step: event.step, lr: event.lrAfter });
    }
    expect(lines.filter(({ type }) => type === 'eval').map(({ step }) => step)).toEqual([8, 16]);
    expect(lines.at(-1)).toMatchObject({ testLoss: summary.testLoss, testAccuracy: summary.testAccuracy });
    expect(readFileSync(join(out, 'report.html'), 'utf8')).toMatch(/^<!doctype html>[\s\S]*<\/html>\s*$/);
  });

  it('leaves a checkpoint that eval finds as good as the run did', () => {
    const last = linesOf(out).at(-1)!;
    const { code, stdout } = forkstep(['eval', '--checkpoint', join(out, 'model.safetensors'), '--width', '4', '--test-limit', '20', '--seed', '3', '--batch', '8', '--json']);
    expect(code).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({ testLoss: last.testLoss, testAccuracy: last.testAccuracy, images: 20 });
    // Fewer images than a batch are one batch.
    const few = forkstep(['eval', '--checkpoint', join(out, 'model.safetensors'), '--width', '4', '--test-limit', '5', '--json']);
    expect(JSON.parse(few.stdout)).toMatchObject({ images: 5 });
    const wrong = forkstep(['eval', '--checkpoint', join(out, 'model.safetensors'), '--width', '8', '--test-limit', '20']);
    expect([wrong.code, wrong.stdout]).toEqual([2, '']);
    expect(wrong.stderr.trim().split('\n')).toHaveLength(1);
    expect(wrong.stderr).toContain('model.safetensors');
  });

  it('stops where it diverges, says so, keeps finite weights and fails', () => {
    const at = join(folder, 'diverged');
    const { code, stdout, stderr } = forkstep(['train', ...small, '--scheduler', 'constant', '--lr', '1e30', '--epochs', '2', '--out', at, '--json']);
    expect(code).toBe(1);
    const { diverged, steps } = JSON.parse(stdout) as { diverged: { step: number; reason: string }; steps: number };
    expect(diverged.step).toBe(steps);
    expect(diverged.reason).toMatch(/not finite/);
    expect(stderr).toContain(`diverged at step ${steps}`);
    expect(linesOf(at).at(-1)).toMatchObject({ type: 'divergence', step: steps });
    const model = nn.resnet18({ width: 4 });
    nn.loadSafetensors(model, readFileSync(join(at, 'model.safetensors')));
    expect(model.variables().every(({ data }) => data.every(Number.isFinite))).toBe(true);
  });

  it('ends cleanly on Ctrl-C, with everything written', async () => {
    const at = join(folder, 'interrupted');
    const child = spawn(process.execPath, [join(ROOT, 'dist/cli.js'), 'train', ...small, '--epochs', '500', '--out', at, '--json'], { stdio: ['ignore', 'pipe', 'pipe'] });
    let stdout = '';
    child.stdout.on('data', (text: Buffer) => (stdout += text));
    const logged = () => existsSync(join(at, 'events.jsonl')) && readFileSync(join(at, 'events.jsonl'), 'utf8').includes('"type":"step","step":3');
    while (!logged() && child.exitCode === null) await new Promise((resolve) => setTimeout(resolve, 50));
    child.kill('SIGINT');
    const code = await new Promise((resolve) => child.on('close', resolve));
    expect(code).toBe(130);
    const { steps, diverged } = JSON.parse(stdout) as { steps: number; diverged: null };
    expect(diverged).toBeNull();
    expect(steps).toBeLessThan(4000);
    expect(linesOf(at).filter(({ type }) => type === 'step')).toHaveLength(steps);
    for (const file of ['model.safetensors', 'report.html']) expect(existsSync(join(at, file))).toBe(true);
  });
});

describe('forkstep train --scheduler alr', () => {
  const at = join(folder, 'alr');
  const branches = ['--scheduler', 'alr', '--beam', '2', '--factors', '4,1', '--lr', '0.02'];

  it('writes the record of other runs, with a line an epoch of what came of the branches', { timeout: 600_000 }, () => {
    const { code, stdout, stderr } = forkstep(['train', ...small, ...branches, '--epochs', '3', '--seed', '3', '--out', at, '--json']);
    expect(code, stderr).toBe(0);
    const summary = JSON.parse(stdout.trim().split('\n').at(-1)!) as Record<string, unknown>;
    // 2 branches of 8 steps, then twice 4.
    expect(summary).toMatchObject({ steps: 24, epochs: 3, seed: 3, diverged: null, forwards: 3 * 8 * (2 + 4 + 4) });
    const lines = linesOf(at);
    expect(lines.map(({ type }) => type)).toEqual([1, 2, 3].flatMap(() => [...new Array(8).fill('step'), 'alr', 'eval']));
    type Epoch = Line & { candidates: { lr: number; loss: number }[]; kept: number[]; rates: number[] };
    const epochs = lines.filter((line): line is Epoch => line.type === 'alr');
    expect(epochs.map(({ step }) => step)).toEqual([8, 16, 24]);
    expect(epochs[0].candidates.map(({ lr }) => lr)).toEqual([0.08, 0.02]);
    for (const { candidates, kept, rates } of epochs) {
      expect(kept).toHaveLength(2);
      expect(rates).toEqual(kept.map((i) => candidates[i].lr));
      expect(candidates[kept[0]].loss).toBe(Math.min(...candidates.map(({ loss }) => loss)));
    }
    const steps = lines.filter(({ type }) => type === 'step');
    expect(steps.map(({ step }) => step)).toEqual(Array.from({ length: 24 }, (_, i) => i));
    expect(steps.map(({ lr }) => lr)).toEqual(epochs.flatMap(({ rates }) => new Array<number>(8).fill(rates[0])));
    expect(readFileSync(join(at, 'report.html'), 'utf8')).toContain('beam');
    const evaluated = forkstep(['eval', '--checkpoint', join(at, 'model.safetensors'), '--width', '4', '--test-limit', '20', '--seed', '3', '--batch', '8', '--json']);
    expect(JSON.parse(evaluated.stdout)).toMatchObject({ testLoss: summary.testLoss, testAccuracy: summary.testAccuracy });
  });

  it.each([
    [['--every', '1epoch'], '--every'], [['--preset', 'robust'], '--preset'], [['--precision', 'mixed'], '--precision'], [['--tune'], '--tune'],
    [['--checkpoint-every', '5steps'], '--checkpoint-every'],
    [['--schedule', 'constantLr'], '--schedule'], [['--beam', '0'], '--beam'],
  ])('refuses %s', (more, flag) => {
    const { code, stdout, stderr } = forkstep(['train', '--scheduler', 'alr', ...more]);
    expect([code, stdout]).toEqual([2, '']);
    expect(stderr).toContain(flag);
    expect(stderr.trim().split('\n')).toHaveLength(1);
  });

  it('refuses a beam without it', () => {
    expect(forkstep(['train', '--beam', '2']).stderr).toMatch(/--beam must go with --scheduler alr/);
  });
});

describe('--precision mixed', () => {
  it('takes less memory, and says so in record, summary and report', { timeout: 600_000 }, () => {
    const train = (precision: string) => {
      const out = join(folder, precision);
      const run = forkstep(['train', ...small, '--scheduler', 'constant', '--max-steps', '2', '--precision', precision, '--out', out, '--json']);
      expect(run.code).toBe(0);
      const summary = JSON.parse(run.stdout.trim().split('\n').at(-1)!) as { precision: string; skipped: number; memory: { slots: number } };
      return { ...run, summary, steps: linesOf(out).filter(({ type }) => type === 'step'), report: readFileSync(join(out, 'report.html'), 'utf8') };
    };
    const [single, mixed] = [train('f32'), train('mixed')];
    expect(mixed.summary).toMatchObject({ precision: 'mixed', skipped: 0 });
    expect(mixed.summary.memory.slots).toBeLessThan(single.summary.memory.slots);
    expect(mixed.steps.map(({ lossScale, skipped }) => [lossScale, skipped])).toEqual([[65536, false], [65536, false]]);
    expect(Object.keys(single.steps[0])).toEqual(['type', 'step', 'loss', 'lr']);
    expect(mixed.report).toMatch(/precision<[\s\S]{0,40}mixed/);
  });
});

describe('--tune', () => {
  /** What a run of the command would measure, on clocks that stand still. */
  async function tuneAll(device: Device): Promise<void> {
    const open = Tuner.open.bind(Tuner);
    const meter = { clocks: ['still'], sample: async () => [1], leastMs: 1, release: () => {} };
    const spy = vi.spyOn(Tuner, 'open').mockImplementation((on) => open(on, { meter }));
    const model = nn.resnet18({ width: 4 });
    const schedule = new ConstantSchedule({ lr: 0.005 });
    const dataset = proceduralDataset({ train: 64, test: 20 });
    const trainer = await Trainer.create({ model, dataset, schedule, device, batchSize: 8, optimizer: { momentum: 0.9 }, tune: true });
    await trainer.close();
    spy.mockRestore();
  }

  it('measures what no run has measured, says how far it is, and keeps what devices tells of', async () => {
    // Mesa's cache of compiled kernels stays where it is.
    const shaders = process.env.MESA_SHADER_CACHE_DIR ?? process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache');
    const env = { XDG_CACHE_HOME: join(folder, 'cache'), MESA_SHADER_CACHE_DIR: shaders };
    const device = await testDevice();
    vi.stubEnv('XDG_CACHE_HOME', env.XDG_CACHE_HOME);
    await tuneAll(device).finally(() => vi.unstubAllEnvs());
    const report = () => {
      const { adapters } = JSON.parse(forkstep(['devices', '--json'], env).stdout) as { adapters: { tuned?: { place: string; choices: number } }[] };
      expect(adapters.slice(1).filter(({ tuned }) => tuned)).toEqual([]);
      return adapters[0].tuned!;
    };
    const { place, choices } = report();
    expect(choices).toBeGreaterThan(30);
    expect(place.startsWith(env.XDG_CACHE_HOME)).toBe(true);
    const kept = JSON.parse(readFileSync(place, 'utf8')) as { choices: Record<string, unknown> };
    for (const name of Object.keys(kept.choices).slice(0, 2)) delete kept.choices[name];
    writeFileSync(place, JSON.stringify(kept));

    const train = (out: string) =>
      forkstep(['train', ...small, '--scheduler', 'constant', '--max-steps', '2', '--tune', '--out', join(folder, out), '--json'], env);
    const first = train('tuned');
    expect([first.code, /^constant: tuning 0\/2\nconstant: tuning 2\/2$/m.test(first.stderr)]).toEqual([0, true]);
    expect(report()).toEqual({ place, choices });
    const again = train('again');
    expect([again.code, again.stderr.includes('tuning')]).toEqual([0, false]);
    const losses = (out: string) => linesOf(join(folder, out)).map(({ loss }) => loss);
    expect(losses('again')).toEqual(losses('tuned'));
    expect(forkstep(['devices'], env).stdout).toContain(`tuned: ${choices} convolutions, ${place}`);
  });
});

describe('forkstep compare', () => {
  it('runs both from the same start and reports them together', () => {
    const out = join(folder, 'compare');
    const { code, stdout } = forkstep(['compare', ...small, '--epochs', '1', '--out', out, '--json']);
    expect(code).toBe(0);
    const { constant, trial } = JSON.parse(stdout) as Record<string, { steps: number; lrHistory: number[] }>;
    expect([constant.steps, trial.steps]).toEqual([8, 8]);
    expect(new Set(constant.lrHistory)).toEqual(new Set([0.005]));
    expect(new Set(trial.lrHistory).size).toBeGreaterThan(2);
    const first = (name: string) => linesOf(join(out, name)).find(({ type }) => type === 'step')!.loss;
    expect(first('constant')).toBe(first('trial'));
    expect(readFileSync(join(out, 'report.html'), 'utf8')).toContain('trial');
  });
});

const python = '/usr/bin/python3';
const reproduce = fileURLToPath(new URL('../goldens/reproduce.py', import.meta.url));
const hasTorch = spawnSync(python, ['-c', 'import torch, torchvision']).status === 0;

describe('--init and --no-shuffle', () => {
  it('follow a PyTorch run on real CIFAR-10 step by step', ({ skip }) => {
    const data = realCifar10Dir();
    skip(!hasTorch, `${python} has no torch and torchvision (Debian: python3-torch, python3-torchvision)`);
    skip(data === null, 'no CIFAR-10 at hand');
    const init = join(folder, 'init.safetensors');
    writeFileSync(init, nn.saveSafetensors(nn.resnet18({ width: 4, seed: 5 })));
    const out = join(folder, 'reproduced');
    const recipe = ['--batch', '16', '--lr', '0.01', '--momentum', '0.9', '--weight-decay', '5e-4'];
    const { code } = forkstep(['train', '--dataset', 'cifar10', '--data', data!, '--width', '4', '--scheduler', 'constant', '--init', init, '--no-shuffle', '--train-limit', '128', '--test-limit', '16', '--max-steps', '4', ...recipe, '--out', out]);
    expect(code).toBe(0);
    const ours = linesOf(out).filter(({ type }) => type === 'step').map(({ loss }) => loss as number);
    const torch = (dtype: string): number[] =>
      execFileSync(python, [reproduce, '--init', init, '--data', data!, '--steps', '4', ...recipe, '--dtype', dtype], { encoding: 'utf8' })
        .trim().split('\n').map((line) => (JSON.parse(line) as { loss: number }).loss);
    const [exact, single] = [torch('float64'), torch('float32')];
    // A rectifier switched by rounding moves later losses by 1e-3 in either implementation: float32 PyTorch's own distance is the measure.
    ours.forEach((loss, step) => {
      const allowed = Math.max(1e-5, 20 * Math.abs(single[step] - exact[step]) / exact[step]) + (step >= 2 ? 5e-3 : 0);
      expect(Math.abs(loss - exact[step]) / exact[step], `step ${step}: ${loss} against ${exact[step]}`).toBeLessThan(allowed);
    });
  });
});
