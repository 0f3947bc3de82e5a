/** From starting a process to its first training step done, with a cold shader cache, then with the warm one it left. */
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { openDevice, type AdapterSummary } from '../src/gpu/device.ts';
import { countGpu, gpuCounts } from './support/gpuCounts.ts';
import { cpuMs } from './support/measure.ts';
import { insist, options, positive, printTable, writeReport, type Row } from './support/report.ts';
import { Training } from './support/training.ts';

interface FirstStep {
  readonly adapter: AdapterSummary;
  readonly pipelines: number;
  /** From the start of this script. */
  readonly openMs: number;
  readonly buildMs: number;
  readonly stepMs: number;
  readonly cpuMs: number;
  readonly losses: number[];
}

async function firstStep(width: number, batchSize: number): Promise<FirstStep> {
  const start = performance.now();
  await countGpu();
  const device = await openDevice();
  const opened = performance.now();
  const training = await Training.create(device, { width, batchSize });
  const built = performance.now();
  await training.step();
  const done = performance.now();
  return {
    adapter: device.adapter, pipelines: gpuCounts().pipelines, openMs: opened - start, buildMs: built - opened, stepMs: done - built, cpuMs: cpuMs(),
    losses: await training.losses(),
  };
}

const values = options({ width: { type: 'string', default: '16' }, batch: { type: 'string', default: '32' }, child: { type: 'boolean', default: false } });
const width = positive('width', values.width);
const batchSize = positive('batch', values.batch);

/** Runs a process of its own with `cache` as Mesa's shader cache. */
function runChild(cache: string): Promise<FirstStep & { wallMs: number }> {
  const start = performance.now();
  return new Promise((done, fail) => {
    const child = spawn(process.execPath, [process.argv[1], '--child', '--width', values.width, '--batch', values.batch], {
      env: { ...process.env, MESA_SHADER_CACHE_DIR: cache }, stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    });
    let result: (FirstStep & { wallMs: number }) | null = null;
    child.on('message', (message) => (result = { ...(message as FirstStep), wallMs: performance.now() - start }));
    child.on('close', (code) => (result ? done(result) : fail(new Error(`the measured process ended with code ${code}`))));
  });
}

if (values.child) {
  const result = await firstStep(width, batchSize);
  process.send!(result, () => process.exit(0));
} else {
  const cache = mkdtempSync(join(tmpdir(), 'forkstep-cold-'));
  try {
    const rows: Row[] = [];
    let adapter: AdapterSummary | null = null;
    for (const name of ['cold', 'warm']) {
      const first = await runChild(cache);
      insist(first.losses.length === 1 && Number.isFinite(first.losses[0]), `loss ${first.losses}`);
      adapter = first.adapter;
      const { pipelines, openMs, buildMs, stepMs } = first;
      rows.push({ cache: name, seconds: first.wallMs / 1000, cpuSeconds: first.cpuMs / 1000, pipelines, openMs, buildMs, stepMs });
    }
    printTable(`Process start to first step done, ResNet18 width ${width}, batch ${batchSize}`, rows);
    writeReport('cold', adapter!, rows, values.json);
  } finally {
    rmSync(cache, { recursive: true, force: true });
  }
}
