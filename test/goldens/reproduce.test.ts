import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { encodeSafetensors } from '../../src/nn/safetensors.ts';
import { loadGolden } from './load.ts';

const python = '/usr/bin/python3';
const script = fileURLToPath(new URL('./reproduce.py', import.meta.url));
const hasTorch = spawnSync(python, ['-c', 'import torch, torchvision']).status === 0;

/** Eight CIFAR-10 records of a smooth pattern; their labels are 0 … 7. */
function records(): Uint8Array {
  const bytes = new Uint8Array(8 * 3073);
  for (let n = 0; n < 8; n++) {
    bytes[n * 3073] = n;
    for (let i = 0; i < 3072; i++) bytes[n * 3073 + 1 + i] = (n * 31 + (i % 32) * (n + 1) + Math.floor(i / 32) * 3) % 256;
  }
  return bytes;
}

test('reproduce.py trains from our safetensors file, step by step', ({ skip }) => {
  skip(!hasTorch, `${python} has no torch and torchvision (Debian: python3-torch, python3-torchvision)`);
  const folder = mkdtempSync(join(tmpdir(), 'forkstep-reproduce-'));
  try {
    writeFileSync(join(folder, 'data_batch_1.bin'), records());
    writeFileSync(join(folder, 'init.safetensors'), encodeSafetensors(loadGolden('cifar-w4').stateDict()));
    const losses = (dtype: string): number[] => {
      const files = ['--init', join(folder, 'init.safetensors'), '--data', folder];
      const options = ['--steps', '2', '--batch', '4', '--lr', '0.05', '--momentum', '0.9', '--weight-decay', '5e-4', '--dtype', dtype];
      const output = execFileSync(python, [script, ...files, ...options], { encoding: 'utf8' });
      const lines = output.trim().split('\n').map((line) => JSON.parse(line) as { step: number; loss: number });
      expect(lines.map((line) => line.step)).toEqual([0, 1]);
      return lines.map((line) => line.loss);
    };
    const exact = losses('float64');
    expect(exact[0]).toBeCloseTo(2.0569542008544897, 9);
    expect(exact[1]).toBeCloseTo(2.99595938217073, 9);
    expect(losses('float32')[0]).toBeCloseTo(exact[0], 5);
  } finally {
    rmSync(folder, { recursive: true });
  }
}, 60_000);
