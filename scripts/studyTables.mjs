/**
 * `node scripts/studyTables.mjs` writes the tables of docs/study.md from bench/results/study/small, which `forkstep study NAME --scale small
 * --data DIR --out bench/results/study/small` makes, in as many goes as it takes.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { build } from 'esbuild';
import { ROOT } from './build.mjs';
import { withTable } from './readmeTable.mjs';

export const studyDocument = join(ROOT, 'docs/study.md');
export const studyResults = join(ROOT, 'bench/results/study/small');

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const outfile = join(ROOT, '.cache/study/markdown.mjs');
  await build({
    absWorkingDir: ROOT, entryPoints: ['src/study/markdown.node.ts'], outfile, bundle: true, format: 'esm', platform: 'node', target: 'es2022',
    external: ['webgpu'], logLevel: 'warning',
  });
  const { studyBlocks } = await import(pathToFileURL(outfile).href);
  let text = readFileSync(studyDocument, 'utf8');
  for (const [mark, block] of studyBlocks(studyResults)) text = withTable(text, block, mark);
  writeFileSync(studyDocument, text);
}
