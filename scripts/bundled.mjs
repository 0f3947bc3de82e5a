/**
 * Imports of `FILE?bundled`: the file as a text, for what carries a whole program within it, as reports do. TypeScript and JavaScript are
 * bundled for browsers, style sheets minified, anything else is taken as it is. For esbuild (the command) and for vitest (the tests).
 */
import { readFileSync } from 'node:fs';
import { build } from 'esbuild';

const mark = '?bundled';
/** Around a file's name, where vitest keeps it. */
const [head, tail] = ['\0bundled:', '.text'];

/** @throws Error with the messages of esbuild printed */
async function textOf(file) {
  if (!/\.(ts|js|css)$/.test(file)) return readFileSync(file, 'utf8');
  const { outputFiles } = await build({
    entryPoints: [file], bundle: true, minify: true, write: false, format: 'iife', platform: 'browser', target: 'es2022', logLevel: 'warning',
  });
  return outputFiles[0].text;
}

/** @returns {import('esbuild').Plugin} */
export const bundledTexts = {
  name: 'bundled-texts',
  setup(host) {
    host.onResolve({ filter: /\?bundled$/ }, async ({ path, resolveDir }) => {
      const { path: file, errors } = await host.resolve(path.slice(0, -mark.length), { resolveDir, kind: 'import-statement' });
      return errors.length > 0 ? { errors } : { path: file, namespace: 'bundled' };
    });
    host.onLoad({ filter: /.*/, namespace: 'bundled' }, async ({ path }) => ({ contents: await textOf(path), loader: 'text' }));
  },
};

/** @returns {import('vitest/config').Plugin} */
export const bundledTextsForVitest = {
  name: 'bundled-texts',
  enforce: 'pre',
  async resolveId(source, importer) {
    if (!source.endsWith(mark)) return undefined;
    const found = await this.resolve(source.slice(0, -mark.length), importer, { skipSelf: true });
    // By its ending vite would take a style sheet for its own.
    return found && `${head}${found.id}${tail}`;
  },
  async load(id) {
    if (!id.startsWith(head)) return undefined;
    return `export default ${JSON.stringify(await textOf(id.slice(head.length, -tail.length)))};`;
  },
};
