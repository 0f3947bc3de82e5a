import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import packageJson from '../../package.json';
import * as options from '../../src/cli/options.ts';
import * as probeOptions from '../../src/cli/probeOptions.ts';
import { scheduleOptions } from '../../src/cli/scheduleOptions.ts';
import { reportOptions, studyOptions } from '../../src/cli/studyOptions.ts';
import { flagOf } from '../../src/cli/args.ts';
import { makeStudy } from '../../src/study/studies.ts';
import { buildCli, forkstep } from '../support/builtCli.ts';

const thisFile = fileURLToPath(import.meta.url);
const emptyFolder = mkdtempSync(join(tmpdir(), 'forkstep-cli-'));
const foreignFile = `${emptyFolder}.safetensors`;
beforeAll(() => writeFileSync(foreignFile, 'foreign'));
afterAll(() => rmSync(foreignFile));
beforeAll(buildCli);
afterAll(() => rmSync(emptyFolder, { recursive: true }));

describe('forkstep, built', () => {
  it('prints its version and its help', () => {
    expect(forkstep(['--version'])).toEqual({ code: 0, stdout: `${packageJson.version}\n`, stderr: '' });
    const { code, stdout } = forkstep(['--help']);
    expect(code).toBe(0);
    const commands = ['devices', 'train', 'compare', 'eval', 'data fetch', 'probe range', 'probe slice', 'probe interpolate'];
    for (const command of commands) expect(stdout).toContain(`\n  ${command} `);
  });

  it('data --help and probe --help list the commands, as --help does', () => {
    for (const group of ['data', 'probe']) expect(forkstep([group, '--help'])).toEqual(forkstep(['--help']));
  });

  it('without a command says what there is, and that this was no command', () => {
    const { code, stdout, stderr } = forkstep([]);
    expect([code, stdout]).toEqual([2, '']);
    expect(stderr).toContain('Usage: forkstep COMMAND [options]');
  });

  it.each([
    ['devices', options.devicesOptions],
    ['train', options.trainOptions],
    ['compare', options.compareOptions],
    ['eval', options.evalOptions],
    ['data fetch', options.dataFetchOptions],
    ['schedule', scheduleOptions],
    ['study', studyOptions],
    ['report', reportOptions],
    ['probe range', probeOptions.rangeOptions],
    ['probe slice', probeOptions.sliceOptions],
    ['probe plane', probeOptions.planeOptions],
    ['probe curvature', probeOptions.curvatureOptions],
    ['probe interpolate', probeOptions.interpolateOptions],
  ])('%s --help lists its own options', (command, table) => {
    const { code, stdout, stderr } = forkstep([...command.split(' '), '--help']);
    expect([code, stderr]).toEqual([0, '']);
    expect(stdout).toContain(`Usage: forkstep ${command} `);
    const listed = [...stdout.matchAll(/^ {2}(--[a-z0-9-]+)/gm)].map(([, flag]) => flag);
    expect(listed.sort()).toEqual([...Object.keys(table).map(flagOf), '--help'].sort());
  });

  const wrong: readonly (readonly [string[], string])[] = [
    [
      ['trian'],
      'forkstep: command must be one of devices, train, compare, eval, probe range, probe slice, probe plane, probe curvature, probe interpolate, profile, schedule, study, report, data fetch, got trian; did you mean train?',
    ],
    [['probe'], 'got probe; see forkstep --help'],
    [['probe', 'rnage'], 'got probe rnage; did you mean probe range?'],
    [['data'], 'got data; see forkstep --help'],
    [['data', 'ftech', 'cifar10'], 'got data ftech; did you mean data fetch?'],
    [['toString'], 'got toString; see forkstep --help'],
    [['--verbose'], 'got --verbose; see forkstep --help'],
    [
      ['data', 'fetch', '--data', emptyFolder],
      'forkstep data fetch: argument must be cifar10 or cifar100, got none; see forkstep data fetch --help',
    ],
    [['data', 'fetch', 'cifar11', '--data', emptyFolder], 'got cifar11; did you mean cifar10?'],
    [
      ['data', 'fetch', 'cifar10', 'cifar100', '--data', emptyFolder],
      'forkstep data fetch: argument must follow an option, got cifar100; see forkstep data fetch --help',
    ],
    [['data', 'fetch', 'cifar10'], 'forkstep data fetch: --data must be given, got nothing; add --data DIR'],
    [['train', '--lr', '0'], 'forkstep train: --lr must be a number > 0, got "0"; see forkstep train --help'],
    [
      ['train', '--learning-rate', '1'],
      'forkstep train: option must be one that --help lists, got --learning-rate; see forkstep train --help',
    ],
    [['train', 'cifar10'], 'forkstep train: argument must follow an option, got cifar10; see forkstep train --help'],
    [
      ['train', '--dataset', 'cifar10'],
      'forkstep train: --data must be given with --dataset cifar10, got nothing; forkstep data fetch cifar10 --data DIR downloads it',
    ],
    [
      ['train', '--init', 'no/such.safetensors'],
      'forkstep train: --init must be a file that exists, got "no/such.safetensors"; see forkstep train --help',
    ],
    [
      ['compare', '--scheduler', 'trial'],
      'forkstep compare: option must be one that --help lists, got --scheduler; see forkstep compare --help',
    ],
    [['train', '--train-limit', '2049'], 'forkstep: --train-limit must be ≤ 2048, the images of procedural train, got 2049; ask for fewer'],
    [['train', '--test-limit', '513'], 'forkstep: --test-limit must be ≤ 512, the images of procedural test, got 513; ask for fewer'],
    [['train', '--train-limit', '31'], 'forkstep: --batch must be ≤ 31, the images of procedural train, got 32; ask for fewer'],
    [
      ['train', '--score-batch', '2049'],
      'forkstep: --score-batch must be ≤ 2048, the images of procedural train, got 2049; ask for fewer',
    ],
    [
      ['train', '--lr', '1e-60'],
      'forkstep train: --lr must lie in 1.1754943508222875e-38 … 3.4028234663852886e+38 with --preset asPublished, got 1e-60; pass 0.005',
    ],
    [
      ['compare', '--lr', '11'],
      'forkstep compare: --lr must lie in 1e-8 … 1 with --preset robust, got 11; or use --preset asPublished',
    ],
    [
      ['train', '--out', `${thisFile}/out`, '--width', '1'],
      `--out must be a folder that can be written, got "${thisFile}/out" (ENOTDIR); name another`,
    ],
    [['train', '--init', `${thisFile}/model`], `--init must be a file that exists, got "${thisFile}/model"; see forkstep train --help`],
    [
      ['eval', '--checkpoint', foreignFile, '--width', '1'],
      `forkstep: --checkpoint ${foreignFile}: file must be at least 8 bytes long, got 7 (number); give a whole checkpoint of this network in float32`,
    ],
    [
      ['eval', '--checkpoint', thisFile, '--dataset', 'cifar10', '--data', emptyFolder, '--seed', '1'],
      'forkstep eval: --seed must go with --dataset procedural, got --dataset cifar10; leave --seed out',
    ],
    [['eval'], 'forkstep eval: --checkpoint must be given, got nothing; add --checkpoint FILE'],
    [['study'], 'forkstep study: argument must be table or factors or scoring-batch or initial-lr or scores or robustness, got none; see forkstep study --help'],
    [['study', 'tabel'], 'or robustness, got tabel; did you mean table?'],
    [['study', 'worker', '--out', emptyFolder], 'forkstep study worker: process must be started by forkstep study, got a command line; use forkstep study NAME --jobs N'],
    [['study', 'table', '--only', 'nothing', '--dry-run'], `forkstep study: --only must be in the name of one of the study's ${makeStudy('table', 'smoke', 3).runs.length} runs, or of its row, got nothing; --dry-run lists them`],
    [['report'], 'forkstep report: DIR must be given, got nothing; see forkstep report --help'],
    [['report', 'a', 'b'], 'forkstep report: argument must follow an option, got b; see forkstep report --help'],
    [['report', emptyFolder], `forkstep report: DIR must be the folder of a study, got ${emptyFolder}; forkstep study NAME --out DIR makes one`],
    [['devices', '--jsn'], 'forkstep devices: option must be one that --help lists, got --jsn; did you mean --json?'],
  ];
  it.each(wrong)('%j: one line and exit code 2', (args, message) => {
    const { code, stdout, stderr } = forkstep(args);
    expect(stderr.endsWith(`${message}\n`), stderr).toBe(true);
    expect([code, stdout, stderr.split('\n').length]).toEqual([2, '', 2]);
  });

  it('names the file that a data set lacks, with exit code 2', () => {
    const { code, stdout, stderr } = forkstep(['train', '--dataset', 'cifar10', '--data', emptyFolder, '--out', join(emptyFolder, 'out')]);
    expect(stderr).toMatch(/\.bin/);
    expect([code, stdout]).toEqual([2, '']);
  });

  it('ends with exit code 1 where a download fails: the command line was right', () => {
    const { code, stdout, stderr } = forkstep([
      'data',
      'fetch',
      'cifar10',
      '--data',
      join(emptyFolder, 'fetched'),
      '--base-url',
      'http://127.0.0.1:9',
    ]);
    expect(stderr).toMatch(/^(Downloading cifar10\n)?fetchDataset: .*cifar-10-binary\.tar\.gz.*\n$/);
    expect([code, stdout]).toEqual([1, '']);
  });

  it('says what to install where there is no adapter, with exit code 1', () => {
    const { code, stdout, stderr } = forkstep(['devices'], { VK_DRIVER_FILES: join(emptyFolder, 'none.json') });
    expect(stderr).toMatch(/forkstep devices: adapter must be available, got none; install /);
    expect([code, stdout]).toEqual([1, '']);
  });
});

describe('forkstep devices', () => {
  interface Reported {
    isChosen: boolean;
    reason?: string;
    isSoftware: boolean;
    description: string;
    features: string[];
    limits: Record<string, number>;
  }
  it('lists each adapter once, the chosen one first and with the reason', () => {
    const { code, stdout } = forkstep(['devices', '--json']);
    const { adapters } = JSON.parse(stdout) as { adapters: Reported[] };
    expect(code).toBe(0);
    expect(adapters.map(({ isChosen }) => isChosen)).toEqual(adapters.map((_, i) => i === 0));
    expect(adapters.map(({ reason }) => Boolean(reason))).toEqual(adapters.map((_, i) => i === 0));
    expect(new Set(adapters.map(({ description }) => description)).size).toBe(adapters.length);
    for (const { features, limits } of adapters) {
      expect(features).toContain('core-features-and-limits');
      expect(limits.maxBufferSize).toBeGreaterThan(2 ** 28 - 1);
      expect(Object.keys(limits).length).toBeGreaterThan(20);
    }
    expect(adapters[0].isSoftware && adapters.some(({ isSoftware }) => !isSoftware)).toBe(false);
  });

  it('says the same as text', () => {
    const { adapters } = JSON.parse(forkstep(['devices', '--json']).stdout) as { adapters: Reported[] };
    const { stdout } = forkstep(['devices']);
    expect(stdout.startsWith(`* ${adapters[0].description}`)).toBe(true);
    expect(stdout).toContain(`chosen: ${adapters[0].reason}`);
    expect(stdout).toContain(`maxBufferSize: ${adapters[0].limits.maxBufferSize}`);
  });
});
