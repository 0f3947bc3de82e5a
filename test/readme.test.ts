/** What the README says of this repository is so: its head, its table, its options, its links, its commands. */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { ROOT } from '../scripts/build.mjs';
import { benchTable, markedTable, tableReports, withTable } from '../scripts/readmeTable.mjs';
import { helpText } from '../src/cli/args.ts';
import { trainOptions } from '../src/cli/options.ts';
import { factorSets } from '../src/sched/index.ts';
import { buildCli } from './support/builtCli.ts';
import { markedBlock } from './support/readme.ts';

const readme = readFileSync(join(ROOT, 'README.md'), 'utf8');
const lines = readme.split('\n');

describe("the README's first 30 lines", () => {
  const head = lines.slice(0, 30).join('\n');

  it.each([
    ['its name', /^# forkstep$/m],
    ['the command that trains', /`npm ci && npm start`/],
    ['the same on CIFAR-10', /`npm ci && npm start -- --dataset cifar10 --data DIR`/],
    ['the command that tests', /`npm ci && npm test`/],
    ['the program', /<!-- readme-program -->\n```ts\n[\s\S]+?\n```/],
    ['what it prints', /<!-- readme-output -->\n```text\n[\s\S]+?\n```/],
    ['the table', /<!-- bench-table -->\n\| .* \|\n\| --- /],
    ['the limits', /\*\*Limits:\*\*/],
  ])('have %s', (_, pattern) => expect(head).toMatch(pattern));

  it('have the whole table', () => {
    const table = markedTable(readme).split('\n\n')[0];
    expect(head).toContain(table);
  });
});

describe("the README's table", () => {
  it('is what scripts/readmeTable.mjs makes of bench/results', () => {
    expect(markedTable(readme)).toBe(benchTable());
  });

  const report = (bench: string, rows: object[], command = `npm run bench -- ${bench}`) => ({
    bench, command, rows,
    commit: 'abc', adapter: '', driver: 'llvmpipe: Mesa 25', node: 'v20.1.0', dawn: 'webgpu 0.6.2', cores: 2, load: 0.5,
  });
  const row = (method: string, wallMs: number, cpuMs: number, dispatches: number, submits: number, peakBytes: number) => ({
    case: 'step width 16, batch 32', method, wallMs, cpuMs, dispatches, submits, peakBytes,
  });
  const steps = [
    row('forkstep', 912.3, 1702, 221, 1, 55.25e6),
    row('jax-js', 2780, 5222, 530, 656, 207.1e6),
    row('tfjs', 5757, 11040, 1388, 94, 331e6),
  ];
  const others = ['forkstep', 'jax-js', 'tfjs'].map((method) => ({ ...row(method, 1, 2, 3, 4, 5), case: 'step width 64, batch 8' }));
  const packages = { '@jax-js/jax': '0.1.25', '@tensorflow/tfjs': '4.22.0', '@tensorflow/tfjs-backend-webgpu': '4.22.1' };
  const reports = {
    peers: { ...report('peers', [...others, ...steps]), packages },
    cold: report('cold', [{ cache: 'cold', seconds: 41.26 }, { cache: 'warm', seconds: 3.614 }]),
    trials: report('trials', [
      { trials: 3, method: 'fused', wallTimesForward: 3, cpuTimesForward: 3 },
      { trials: 5, method: 'forward', wallTimesForward: 1, cpuTimesForward: 1 },
      { trials: 5, method: 'fused', wallTimesForward: 1.1, cpuTimesForward: 1.049 },
    ]),
  };

  /** The table of a folder that holds these reports. */
  function tableOf(given: Partial<Record<keyof typeof reports, object>>): string {
    const folder = mkdtempSync(join(tmpdir(), 'forkstep-table-'));
    try {
      for (const [name, value] of Object.entries(given)) writeFileSync(join(folder, `${name}.json`), JSON.stringify(value));
      return benchTable(folder);
    } finally {
      rmSync(folder, { recursive: true });
    }
  }

  it('has five rows when all reports are there, and says where they come from', () => {
    expect(Object.keys(reports)).toEqual(tableReports);
    expect(tableOf(reports)).toBe(
      [
        '| ResNet18 (CIFAR stem), width 16, batch 32 | forkstep | jax-js 0.1.25 | TensorFlow.js 4.22.0 |',
        '| --- | --: | --: | --: |',
        '| training step, wall / CPU ms | 912 / 1,702 | 2,780 / 5,222 | 5,757 / 11,040 |',
        '| dispatches / submits of a step | 221 / 1 | 530 / 656 | 1,388 / 94 |',
        '| GPU buffers at their peak, MB | 55.3 | 207 | 331 |',
        '| process start to first step done, shader cache cold / warm, s | 41.3 / 3.61 | – | – |',
        '| event of 5 trials in forwards of the same 160 images, wall / CPU | 1.1 / 1.05 | – | – |',
        '',
        'Medians on llvmpipe: Mesa 25, 2 cores, Node 20.1.0, Dawn from webgpu 0.6.2: `npm run bench -- peers` (commit abc, load 0.5), ' +
          '`npm run bench -- cold` (commit abc, load 0.5), `npm run bench -- trials` (commit abc, load 0.5); ' +
          'all figures are in bench/results.',
      ].join('\n'),
    );
  });

  it('has the rows of the reports that are there', () => {
    expect(tableOf({}).split('\n')).toHaveLength(2);
    expect(tableOf({ cold: reports.cold }).split('\n\n')[0].split('\n')).toHaveLength(3);
  });

  it.each([
    ['another width', { trials: { ...reports.trials, command: 'npm run bench -- trials --width 64' } }, /trials\.json: .*--width 64/],
    ['another stem', { trials: { ...reports.trials, command: 'npm run bench -- trials --stem imagenet' } }, /--stem imagenet/],
    ['another number of trials', { trials: { ...reports.trials, rows: reports.trials.rows.slice(0, 2) } }, /trials\.json has no row fused/],
    ['the report of another bench', { cold: reports.trials }, /cold\.json/],
    ['peers without the whole step', { peers: { ...report('peers', others), packages } }, /peers\.json has no row forkstep/],
    ['a report without its rows', { cold: report('cold', []) }, /cold\.json has no row cold/],
  ])('is not made of %s', (_, given, message) => expect(() => tableOf(given)).toThrow(message));

  it('goes between its marks, and nothing else changes', () => {
    const text = 'a\n<!-- bench-table -->\nold\nold\n<!-- /bench-table -->\nb\n';
    expect(withTable(text, 'new')).toBe('a\n<!-- bench-table -->\nnew\n<!-- /bench-table -->\nb\n');
    expect(() => withTable('a\n<!-- bench-table -->\nb\n', 'new')).toThrow(/must have/);
  });
});

describe('the documents', () => {
  const pages = readdirSync(join(ROOT, 'docs')).filter((file) => file.endsWith('.md')).map((file) => `docs/${file}`);
  const documents = ['README.md', 'CONTRIBUTING.md', 'CHANGELOG.md', ...pages];
  const page = (path: string): string => readFileSync(join(ROOT, path), 'utf8');
  const anchor = (title: string) => title.toLowerCase().replace(/[^\p{L}\p{N} -]/gu, '').replaceAll(' ', '-');
  const headings = (text: string) => [...text.replace(/```[\s\S]*?```/g, '').matchAll(/^#+ (.*)$/gm)].map(([, title]) => anchor(title));

  it.each(documents)('%s: every link leads somewhere', (document) => {
    const text = readFileSync(join(ROOT, document), 'utf8');
    const links = [...text.matchAll(/\]\(([^)\s]+)\)/g)].map(([, link]) => link).filter((link) => !/^https?:/.test(link));
    const broken = links.filter((link) => {
      const [path, section] = link.split('#');
      const target = path ? join(ROOT, dirname(document), path) : join(ROOT, document);
      return !existsSync(target) || (section !== undefined && !headings(readFileSync(target, 'utf8')).includes(section));
    });
    expect(broken).toEqual([]);
  });

  it.each(documents)('%s: every file it names is there', (document) => {
    const text = readFileSync(join(ROOT, document), 'utf8');
    const named = [...text.matchAll(/`((?:src|test|bench|scripts|examples|docs)\/[\w./-]*[\w/])`/g)].map(([, path]) => path);
    // bench/results/… is filled by whoever measures.
    expect(named.filter((path) => !path.startsWith('bench/results') && !existsSync(join(ROOT, path)))).toEqual([]);
  });

  it('are reached from the README', () => {
    for (const path of pages) expect(readme).toContain(`](${path}`);
  });

  it("give the options of train as its --help does, each example's name, each bench's", () => {
    const help = helpText('forkstep train', 'Train a network, its learning rate set by fused trials.', trainOptions, '');
    expect(markedBlock(page('docs/commands.md'), 'train-help', 'text')).toBe(help.trimEnd());
    const names = (folder: string) => readdirSync(join(ROOT, folder)).flatMap((file) => /^(.*)\.ts$/.exec(file)?.[1] ?? []);
    for (const example of names('examples')) expect(readme).toContain(`[\`${example}\`](examples/${example}.ts)`);
    for (const bench of names('bench')) expect(page('docs/benches.md')).toContain(`- \`${bench}\`: `);
    for (const set of Object.keys(factorSets)) expect(readme).toContain(`\`${set}\``);
  });
});

describe("the README's commands", () => {
  beforeAll(buildCli);

  it('the one that prints a kernel prints it', () => {
    const [, program] = /^node --input-type=module -e "([\s\S]*)"$/.exec(markedBlock(readme, 'wgsl-command', 'sh')) ?? [];
    const { status, stdout } = spawnSync(process.execPath, ['--input-type=module', '-e', program], { cwd: ROOT, encoding: 'utf8' });
    expect(status).toBe(0);
    expect(stdout).toMatch(/^\/\/ conv2dForward_64x64x16\n[\s\S]*@compute @workgroup_size\(64\)\nfn main\(/);
  });
});
