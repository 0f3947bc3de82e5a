/** What `npm run bench -- peers` makes of its rows, and that the report kept of it is whole. It is not run: it installs other libraries. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { cases, methods, type Method, type PeerCase } from '../../bench/peers/cases.ts';
import { opProblem, permute4, stepProblem } from '../../bench/peers/problem.ts';
import { countsTable, goals, goalsTable, timesTable, type PeerRow } from '../../bench/peers/rows.ts';
import { ROOT } from '../../scripts/build.mjs';
import { elements } from '../../src/graph/tensor.ts';

const row = (name: string, method: Method, figures: Partial<PeerRow> = {}): PeerRow => ({
  case: name, method, wallMs: 1, wallMsIqr: 0.1, cpuMs: 2, cpuMsIqr: 0.2, dispatches: 3, submits: 4, peakBytes: 5e6, firstStepMs: 600,
  pipelines: 7, maxRelativeError: method === 'forkstep' ? null : 1e-6, samples: 5, repeats: 1, ...figures,
});
/** A case in all libraries, ours by `ours`, jax-js by `jax`, tfjs by `tfjs`. */
const rowsOf = (name: string, ours: Partial<PeerRow> = {}, jax: Partial<PeerRow> = {}, tfjs: Partial<PeerRow> = {}): PeerRow[] => [
  row(name, 'forkstep', ours), row(name, 'jax-js', jax), row(name, 'tfjs', tfjs),
];

const step = 'step width 16, batch 32';
const strided = 'conv b8 3×3 s2 64→128, 32²';

describe('the cases', () => {
  const names = cases.map(({ name }) => name);

  it('are two steps, twelve convolutions and two batch norms with and without gradients, ReLU and a product', () => {
    expect(new Set(names).size).toBe(names.length);
    const count = (words: string): number => names.filter((name) => name.startsWith(words)).length;
    expect(['step', 'conv', 'batch norm', 'relu', 'matmul'].map(count)).toEqual([2, 24, 4, 1, 1]);
    expect(names).toContain(`${strided} f+b`);
    expect(names).toContain('conv b32 1×1 s2 16→32, 32² f');
  });

  it('give every library values of their shapes, the same each time', () => {
    const op = cases.find(({ name }) => name === `${strided} f+b`) as PeerCase & { kind: 'op' };
    expect([op.inputs, op.output]).toEqual([[[8, 32, 32, 64], [3, 3, 64, 128]], [8, 16, 16, 128]]);
    const { inputs, dy } = opProblem(op);
    expect(inputs.map(({ length }) => length)).toEqual(op.inputs.map(elements));
    expect(dy).toHaveLength(elements(op.output));
    expect(opProblem(op).inputs).toEqual(inputs);
    // No two of them alike, or a library that mixes them up would go unnoticed.
    expect(new Set([...inputs, dy].map(([first]) => first)).size).toBe(3);
    const { weights, labels } = stepProblem({ kind: 'step', name: '', width: 4, batch: 3, mostRounds: 1, tolerances: [] });
    expect([...weights.keys()].filter((name) => name.includes('running_'))).toEqual([]);
    expect(weights.get('layer4.1.conv2.weight')!.shape).toEqual([32, 32, 3, 3]);
    expect([...labels]).toEqual([0, 7, 4]);
  });

  it('are laid out anew for libraries with other layouts', () => {
    // [1, 2, 1, 3] → [1, 3, 2, 1]: one image of 2 × 1 pixels and 3 channels.
    const nhwc = Float32Array.of(1, 2, 3, 4, 5, 6);
    expect([...permute4(nhwc, [1, 2, 1, 3], [0, 3, 1, 2])]).toEqual([1, 4, 2, 5, 3, 6]);
    expect(permute4(permute4(nhwc, [1, 2, 1, 3], [0, 3, 1, 2]), [1, 3, 2, 1], [0, 2, 3, 1])).toEqual(nhwc);
  });
});

describe('the tables', () => {
  const tfjs = { cpuMs: 5, wallMs: 1234.5, peakBytes: 123.4e6 };
  const rows = rowsOf('relu b8 64, 32² f', { wallMs: 1.234, cpuMs: 1.5 }, { cpuMs: 6, maxRelativeError: 2e-7 }, tfjs);

  it('have a line a case, and our CPU time in that of the faster peer', () => {
    expect(timesTable(rows)).toEqual([
      { case: 'relu b8 64, 32² f', forkstep: '1.23 / 1.5 ±0.2', 'jax-js': '1 / 6 ±0.2', tfjs: '1235 / 5 ±0.2', 'CPU ÷ faster': 0.3 },
    ]);
  });

  it('have counts, bytes, first run and error', () => {
    expect(countsTable(rows)).toEqual([
      {
        case: 'relu b8 64, 32² f', forkstep: '3 / 4 / 5 / 0.6', 'jax-js': '3 / 4 / 5 / 0.6', tfjs: '3 / 4 / 123 / 0.6',
        'error of jax-js': 2e-7, 'of tfjs': 1e-6,
      },
    ]);
  });
});

describe('the goals', () => {
  /** Of a goal whose name contains these words. */
  const verdict = (rows: PeerRow[], words: string, isSoftware = true) => {
    const found = goals(rows, isSoftware).filter(({ what }) => what.includes(words));
    expect(found, words).toHaveLength(1);
    return found[0];
  };

  it('of the whole step are reached at their bounds and missed above', () => {
    const at = { cpuMs: 900, wallMs: 500, dispatches: 170, submits: 1, peakBytes: 70e6 };
    const above = { cpuMs: 900.1, wallMs: 500.1, dispatches: 171, submits: 2, peakBytes: 70e6 + 1 };
    expect(goals(rowsOf(step, at), true).map(({ isReached }) => isReached)).toEqual([true, true, true, true, true]);
    expect(goals(rowsOf(step, above), true).map(({ isReached }) => isReached)).toEqual([false, false, false, false, false]);
    expect(verdict(rowsOf(step, at, { dispatches: 530 }), 'dispatches').values).toEqual({ forkstep: 170, 'jax-js': 530, tfjs: 3 });
  });

  it('of the wide step and of batch norms are of bytes and dispatches', () => {
    expect(verdict(rowsOf('step width 64, batch 8', { peakBytes: 240e6, cpuMs: 1e6 }), 'width 64').isReached).toBe(true);
    expect(verdict(rowsOf('batch norm b8 64, 32² f+b', { dispatches: 4 }), 'batch norm b8').isReached).toBe(true);
    expect(verdict(rowsOf('batch norm b32 16, 32² f+b', { dispatches: 5 }), 'batch norm b32').isReached).toBe(false);
    expect(goals(rowsOf('batch norm b8 64, 32² f', { dispatches: 9 }), true)).toEqual([]);
  });

  it('of a strided convolution set its gradients against its own forward pass', () => {
    const forward = rowsOf(`${strided} f`, { cpuMs: 10 }, { cpuMs: 100 }, { cpuMs: 100 });
    const rows = [...forward, ...rowsOf(`${strided} f+b`, { cpuMs: 32 }, { cpuMs: 580 }, { cpuMs: 650 })];
    const found = verdict(rows, 'f+b ÷ f');
    expect([found.values, found.isReached]).toEqual([{ forkstep: 3.2, 'jax-js': 5.8, tfjs: 6.5 }, true]);
    expect(goals(forward, true).filter(({ what }) => what.includes('f+b ÷ f'))).toEqual([]);
  });

  it('of all convolutions name the worst, against the faster peer', () => {
    const rows = [
      ...rowsOf('conv b8 3×3 64→64, 32² f', { cpuMs: 6 }, { cpuMs: 100 }, { cpuMs: 10 }),
      ...rowsOf('conv b8 3×3 128→128, 16² f', { cpuMs: 8 }, { cpuMs: 10 }, { cpuMs: 100 }),
      ...rowsOf('conv b8 3×3 64→64, 32² f+b', { cpuMs: 7 }, { cpuMs: 10 }, { cpuMs: 10 }),
    ];
    const [f, both] = ['conv f:', 'conv f+b:'].map((words) => verdict(rows, words));
    expect(f.what).toBe('conv f: CPU ÷ faster peer, worst of 2 (conv b8 3×3 128→128, 16² f); 1 within');
    expect([f.values.forkstep, f.isReached]).toEqual([0.8, false]);
    expect([both.values, both.isReached]).toEqual([{ forkstep: 0.7, 'jax-js': null, tfjs: null }, true]);
  });

  it('are of counts alone on a GPU, where times are not those of this table', () => {
    const rows = [...rowsOf(step), ...rowsOf('conv b8 3×3 64→64, 32² f')];
    expect(goals(rows, false).map(({ what }) => what.replace(`${step}: `, ''))).toEqual(['dispatches', 'submits', 'GPU buffers, MB']);
  });

  it('are not judged without rows, or by a NaN', () => {
    expect(goals([], true)).toEqual([]);
    expect(verdict(rowsOf(step, { cpuMs: NaN }), 'CPU ms').isReached).toBe(false);
    expect(goalsTable(goals(rowsOf('step width 64, batch 8', { peakBytes: 1e9 }), true))).toEqual([
      { 'to reach': 'step width 64, batch 8: GPU buffers, MB', 'jax-js': 5, tfjs: 5, forkstep: 1000, 'at most': 240, verdict: 'missed' },
    ]);
  });
});

describe('bench/results/peers.json', () => {
  const report = JSON.parse(readFileSync(join(ROOT, 'bench/results/peers.json'), 'utf8')) as Record<string, unknown> & { rows: PeerRow[] };

  it('has every case in all libraries, checked, and says where it comes from', () => {
    const text = expect.stringMatching(/./);
    expect(report).toMatchObject({ bench: 'peers', command: text, commit: text, adapter: text, driver: text, dawn: text, node: text });
    expect(report.packages).toEqual(JSON.parse(readFileSync(join(ROOT, 'bench/peers/packages.json'), 'utf8')));
    const all = cases.flatMap(({ name }) => methods.map((method) => `${name}: ${method}`));
    expect(report.rows.map((one) => `${one.case}: ${one.method}`)).toEqual(all);
    for (const one of report.rows) {
      const figures = ['wallMs', 'cpuMs', 'dispatches', 'submits', 'peakBytes', 'firstStepMs'] as const;
      for (const what of figures) expect(one[what], one.case).toBeGreaterThan(0);
      if (one.method === 'forkstep') expect(one.maxRelativeError).toBeNull();
      else expect(one.maxRelativeError, one.case).toBeLessThanOrEqual(one.case.startsWith('step') ? 1e-3 : 1e-4);
    }
  });
});
