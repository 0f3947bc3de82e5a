import { builtinModules } from 'node:module';
import vm from 'node:vm';
import { build } from 'esbuild';
import type { BuildOptions, Metafile } from 'esbuild';
import { describe, expect, it } from 'vitest';
import { ROOT, browserOptions } from '../scripts/build.mjs';

/** What a bundle for browsers must not hold or ask for: Node's built-ins, packages, files that are Node's alone. */
function foreignParts({ inputs, outputs }: Metafile): string[] {
  const isBuiltin = (path: string) => path.startsWith('node:') || builtinModules.includes(path);
  const asked = [...Object.values(inputs), ...Object.values(outputs)].flatMap(({ imports }) => imports).filter(({ external }) => external);
  const files = Object.keys(inputs).filter(
    (path) => isBuiltin(path) || path.includes('node_modules') || path.endsWith('.node.ts') || path.startsWith('src/cli/'),
  );
  return [...new Set([...files, ...asked.map(({ path }) => path)])].sort();
}

/** esbuild's result, kept in memory. */
const bundle = (overrides: BuildOptions) =>
  build({
    absWorkingDir: ROOT,
    bundle: true,
    format: 'esm',
    metafile: true,
    write: false,
    logLevel: 'silent',
    outdir: 'dist',
    ...overrides,
  } as BuildOptions & { write: false; metafile: true });

/** A page's globals: this process's, without what only Node has. */
function pageGlobals(): Record<string, unknown> {
  const nodeOnly = new Set(['process', 'Buffer', 'global', 'globalThis', 'setImmediate', 'clearImmediate', 'require', 'module', 'exports']);
  const names = Object.getOwnPropertyNames(globalThis).filter((name) => !nodeOnly.has(name) && !name.startsWith('__'));
  return Object.fromEntries(names.map((name) => [name, (globalThis as Record<string, unknown>)[name]]));
}

describe('the bundle for browsers', () => {
  it("holds no Node built-in, no package and no file that is Node's alone", async () => {
    const { metafile } = await bundle(browserOptions);
    expect(Object.keys(metafile.inputs)).toContain('src/gpu/host.browser.ts');
    expect(foreignParts(metafile)).toEqual([]);
  });

  it('loads without the globals that only Node has', async () => {
    const { outputFiles } = await bundle({ ...browserOptions, format: 'iife', globalName: 'forkstep', sourcemap: false });
    const context = vm.createContext(pageGlobals());
    vm.runInContext(outputFiles[0].text, context);
    expect(Object.keys(context.forkstep as object).length).toBeGreaterThan(0);
  });
});

describe('the check', () => {
  const contents = `import { readFileSync } from 'node:fs';
    import { join } from 'path';
    import { create } from 'webgpu';
    console.log(readFileSync, join, create);`;
  it('finds built-ins and packages that are left to the page', async () => {
    const { metafile } = await bundle({ stdin: { contents, resolveDir: ROOT }, packages: 'external', external: ['node:*'] });
    expect(foreignParts(metafile)).toEqual(['node:fs', 'path', 'webgpu']);
  });

  it("finds packages and Node's files that are bundled", async () => {
    const { metafile } = await bundle({
      stdin: { contents: "import 'webgpu'; import './src/gpu/host.node.ts';", resolveDir: ROOT },
      platform: 'node',
    });
    expect(foreignParts(metafile)).toEqual(
      expect.arrayContaining([expect.stringMatching(/node_modules\/webgpu\/index\.js$/), 'src/gpu/host.node.ts', 'node:fs']),
    );
  });

  it('and a built-in that nothing stands in for stops the build', async () => {
    await expect(bundle({ stdin: { contents, resolveDir: ROOT }, platform: 'browser', external: ['webgpu'] })).rejects.toThrow(
      'Could not resolve',
    );
  });
});
