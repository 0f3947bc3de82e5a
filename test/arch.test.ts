import { resolve } from 'node:path';
import { describe, expect, it } from 'vitest';
import { architectureProblems, checkArchitecture, importsOf } from './support/imports.ts';

const root = resolve(import.meta.dirname, '..');
const seams = new Map([['#gpu-host', ['gpu/host.node.ts', 'gpu/host.browser.ts']]]);

/** Problems of files given by name and text. */
const check = (files: Record<string, string>): string[] =>
  checkArchitecture(new Map(Object.entries(files).map(([name, source]) => [name, importsOf(source, name)])), seams);

describe('the imports of src/', () => {
  it('run one way, without cycles, and keep Node out of what browsers load', () => {
    expect(architectureProblems(root)).toEqual([]);
  });
});

describe('the checker', () => {
  const sound = {
    'kernels/relu.ts': '',
    'gpu/errors.ts': 'export class E {}',
    'gpu/host.node.ts': "import { readFileSync } from 'node:fs';",
    'gpu/host.browser.ts': '',
    'gpu/device.ts': "import { open } from '#gpu-host'; import type { K } from '../kernels/relu.ts';",
    'graph/plan.ts': "import { E } from '../gpu/errors.ts';",
    'index.ts': "export { E } from './gpu/errors.ts'; export type { P } from './graph/plan.ts';",
    'cli/main.ts':
      "import { join } from 'node:path'; const a = await import('../gpu/host.node.ts'); import { version } from '../../package.json';",
  };

  it('passes what keeps the rules', () => {
    expect(check(sound)).toEqual([]);
  });

  const planted: Record<string, { files: Record<string, string>; problem: RegExp }> = {
    'an upward import': {
      files: { 'graph/up.ts': "import { a } from '../cli/main.ts';" },
      problem: /graph\/up\.ts imports upward: cli\/main\.ts/,
    },
    'an upward import of a type': {
      files: { 'gpu/up.ts': "import type { P } from '../graph/plan.ts';" },
      problem: /gpu\/up\.ts imports upward/,
    },
    'an upward import() of a type': {
      files: { 'gpu/up.ts': "export type P = import('../graph/plan.ts').P;" },
      problem: /gpu\/up\.ts imports upward/,
    },
    'an upward dynamic import': {
      files: { 'gpu/up.ts': "export const f = () => import('../graph/plan.ts');" },
      problem: /gpu\/up\.ts imports upward/,
    },
    'an upward re-export': { files: { 'gpu/up.ts': "export * from '../graph/plan.ts';" }, problem: /gpu\/up\.ts imports upward/ },
    'an import of the public index': {
      files: { 'graph/up.ts': "import { E } from '../index.ts';" },
      problem: /graph\/up\.ts imports upward/,
    },
    'a cycle of files': {
      files: {
        'nn/a.ts': "import { b } from './b.ts';",
        'nn/b.ts': "import { c } from './c.ts';",
        'nn/c.ts': "import { a } from './a.ts';",
      },
      problem: /cycle: nn\/a\.ts → nn\/b\.ts → nn\/c\.ts → nn\/a\.ts/,
    },
    'a file that imports itself': { files: { 'nn/a.ts': "import { a } from './a.ts';" }, problem: /cycle: nn\/a\.ts → nn\/a\.ts/ },
    'a cycle of equal layers': {
      files: {
        'nn/a.ts': "import { b } from '../optim/b.ts';",
        'optim/b.ts': '',
        'optim/c.ts': "import { d } from '../nn/d.ts';",
        'nn/d.ts': '',
      },
      problem: /cycle: nn → optim → nn/,
    },
    'a kernel that knows the GPU': {
      files: { 'kernels/k.ts': "import { E } from '../gpu/errors.ts';" },
      problem: /pure data but imports gpu/,
    },
    'a built-in': {
      files: { 'nn/a.ts': "import { readFileSync } from 'node:fs';" },
      problem: /nn\/a\.ts runs in browsers but imports node:fs/,
    },
    'a built-in without its prefix': { files: { 'nn/a.ts': "import { join } from 'path';" }, problem: /runs in browsers but imports path/ },
    'a package': { files: { 'nn/a.ts': "import { create } from 'webgpu';" }, problem: /imports the package webgpu/ },
    "Node's half of a seam": {
      files: { 'nn/a.ts': "import { open } from '../gpu/host.node.ts';" },
      problem: /runs in browsers but imports .*host\.node/,
    },
    'a missing file': { files: { 'nn/a.ts': "import { b } from './b';" }, problem: /nn\/a\.ts imports \.\/b, which is not there/ },
    'an unknown folder': { files: { 'misc/a.ts': '' }, problem: /misc\/a\.ts belongs to no layer/ },
  };
  it.each(Object.entries(planted))('finds %s', (_name, { files, problem }) => {
    expect(check({ ...sound, ...files })).toEqual([expect.stringMatching(problem)]);
  });

  it('lets types close a circle of files', () => {
    expect(
      check({
        ...sound,
        'nn/a.ts': "import { b } from './b.ts';",
        'nn/b.ts': "import type { A } from './a.ts'; import { type B } from './a.ts';",
      }),
    ).toEqual([]);
  });
});
