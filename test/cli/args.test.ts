import { describe, expect, it } from 'vitest';
import {
  BadValue,
  UsageError,
  choice,
  flag,
  flagOf,
  helpText,
  integer,
  number,
  parseArgs,
  path,
  required,
  suggestion,
} from '../../src/cli/args.ts';
import type { OptionTable } from '../../src/cli/args.ts';
import {
  checkCompare,
  checkData,
  checkTrain,
  compareOptions,
  dataFetchOptions,
  devicesOptions,
  evalOptions,
  trainOptions,
} from '../../src/cli/options.ts';
import { trainParameters } from '../../src/cli/ruleOptions.ts';
import { scheduleOptions } from '../../src/cli/scheduleOptions.ts';
import { trialOptionsOf } from '../../src/cli/trialChoices.ts';
import { asPublished, robust } from '../../src/sched/index.ts';
import { checkStudy, reportOptions, studyOptions } from '../../src/cli/studyOptions.ts';

const tables = {
  devices: devicesOptions, train: trainOptions, compare: compareOptions, eval: evalOptions, 'data fetch': dataFetchOptions, schedule: scheduleOptions,
  study: studyOptions, report: reportOptions,
};

/** The UsageError that a call throws. */
function usageError(call: () => unknown): UsageError {
  try {
    call();
  } catch (error) {
    if (error instanceof UsageError) return error;
    throw error;
  }
  throw new Error('nothing was thrown');
}

const wrongLengths = ['', '-5', '1.5', '5 epochs', '5epoch s', '101%', '1e3'];
const wrongNumbers = ['', 'x', 'NaN'];
const wrongCounts = ['-1', '1.5', ''];

/** Values that each option must refuse, by key; every option that takes a value is here. */
const wrongValues: Record<string, readonly string[]> = {
  dataset: ['', 'cifar', 'CIFAR10', 'mnist'],
  data: ['', 'no/such/folder', 'package.json'],
  model: ['resnet50'],
  stem: ['ImageNet', 'none'],
  width: ['0', '-16', '16.5', '1e1', 'wide', '', '9007199254740993'],
  scheduler: ['cosine', 'trials'],
  batch: ['0', '-1', '3.2', '32x'],
  epochs: ['0', '-1', 'E'],
  maxSteps: ['0', '1.5'],
  trainLimit: ['0', 'all'],
  testLimit: ['0', '-5'],
  lr: ['0', '-0.1', 'NaN', 'Infinity', '1e999', '0x10', '0,005', ' 1', ''],
  momentum: ['-0.1', '1', '1.5', 'high'],
  weightDecay: ['-1e-4', 'none'],
  preset: ['published', 'aspublished'],
  factors: ['', '0,1', '-2,1', '1,,2', '1;2', '2,2', '1,NaN', '1,Infinity', 'factor9', '0x2'],
  every: ['', '0epoch', '0steps', '-1steps', '1.5epochs', '50', 'epoch', '1 epoch', '0/epoch', '3minutes', '99999999999steps'],
  envelope: ['step', 'Cosine'],
  scoreBatch: ['0', '-1'],
  beam: ['0', '-1', '1.5'],
  score: ['softmax', 'Exp', ''],
  normalize: ['minmax', 'zscore'],
  tau: ['0', '-1', 'warm'],
  kappa: ['0', '-1', 'x'],
  armijoC: ['0', '1', 'x'],
  search: ['8', '8x', '0x4', 'x4', '8x1.5', '-1x4', '8×32'],
  anchor: ['true', 'yes', ''],
  hold: ['1', 'On'],
  scoreOn: ['heldout', 'training'],
  direction: ['raw', 'momentum'],
  control: ['blind', 'none', ''],
  precision: ['f16', 'f32 ', ''],
  memoryBudget: ['64', '64MB', '-1MiB', '1.5GiB', 'MiB'],
  augment: ['crop', 'flip-crop'],
  init: ['', 'no/such.safetensors', 'src'],
  logEvery: ['0', '-1'],
  seed: ['-1', '4294967296', '1.5', '99999999999999999999'],
  out: ['', 'package.json'],
  checkpointEvery: ['', '0steps', '0min', '1.5epochs', '10', '10 min', '4/epoch', '1hour', '-1steps', '99999999999steps'],
  checkpoint: ['', 'no/such.safetensors', 'src'],
  baseUrl: [''],
  schedule: ['cosine', 'CosineAnnealingLR', ''],
  steps: ['0', '1.5'],
  stepsPerEpoch: ['0', 'all'],
  scale: ['Smoke', 'large', ''],
  seeds: ['0', '1.5', '1001'],
  jobs: ['0', '-1', '65', 'all'],
  only: [''],
  metrics: ['1,,2', 'x', 'NaN'],
  svg: ['', 'src'],
  mode: ['triangle', 'exp'],
  annealStrategy: ['cosine'],
  decayType: ['sqrt'],
  thresholdMode: ['relative'],
  milestones: ['', '1,,2', '5 epochs'],
  tMult: ['0', '1.5'],
  warmupFactor: ['-0.1', '1.1', 'x'],
  trials: ['0', '1.5', 'all'],
  reset: ['', 'Grow'],
  statisticBatches: wrongCounts,
  patience: wrongCounts,
  cooldown: wrongCounts,
  ...Object.fromEntries(
    ['totalIters', 'tMax', 't0', 'stepSize', 'stepSizeUp', 'stepSizeDown', 'totalSteps', 'warmupSteps', 'timescale', 'decaySteps', 'warmup'].map(
      (key) => [key, wrongLengths],
    ),
  ),
  ...Object.fromEntries(
    [
      'factor', 'startFactor', 'endFactor', 'etaMin', 'gamma', 'power', 'baseLr', 'maxLr', 'pctStart', 'divFactor', 'finalDivFactor', 'minLrRatio',
      'threshold', 'minLr', 'eps', 'c', 'initLr', 'fStar', 'hypergradLr', 'repsRel', 'beta', 'r', 'weightLrPower', 'fallbackLr',
      'measuringStep', 'maxStep', 'updateFactor', 'sigma', 'span',
    ].map((key) => [key, wrongNumbers]),
  ),
};
/** A folder that is written to may be missing. */
const wrongOutputs = ['', 'package.json'];

/** Values that each option takes, with what they mean. */
const rightValues: Record<string, readonly (readonly [string, unknown])[]> = {
  lr: [
    ['0.1', 0.1],
    ['1e-3', 1e-3],
    ['.5', 0.5],
    ['2.', 2],
    ['+1', 1],
  ],
  momentum: [
    ['0', 0],
    ['0.9', 0.9],
  ],
  seed: [
    ['0', 0],
    ['4294967295', 4294967295],
  ],
  every: [
    ['1epoch', { epochs: 1 }],
    ['2epochs', { epochs: 2 }],
    ['50steps', { steps: 50 }],
    ['1step', { steps: 1 }],
    ['4/epoch', { perEpoch: 4 }],
  ],
  factors: [
    ['4,2,1,0.5,0.125', [4, 2, 1, 0.5, 0.125]],
    ['factor3', 'factor3'],
    ['2, 1', [2, 1]],
    ['1', [1]],
  ],
  checkpointEvery: [
    ['1epoch', { epochs: 1 }],
    ['2epochs', { epochs: 2 }],
    ['200steps', { steps: 200 }],
    ['1step', { steps: 1 }],
    ['10min', { minutes: 10 }],
  ],
  dataset: [['cifar100', 'cifar100']],
  data: [['src', 'src']],
  init: [['package.json', 'package.json']],
  out: [
    ['src', 'src'],
    ['runs/not/there/yet', 'runs/not/there/yet'],
  ],
};

describe.each(Object.entries(tables) as [string, OptionTable][])('forkstep %s', (name, table) => {
  const command = `forkstep ${name}`;
  const valued = Object.keys(table).filter((key) => table[key].placeholder !== '');
  const flags = Object.keys(table).filter((key) => table[key].placeholder === '');
  /** The required options other than one, so that this one is what is at fault. */
  const others = (key: string): string[] =>
    Object.keys(table)
      .filter((other) => other !== key && table[other].isRequired)
      .flatMap((other) => [flagOf(other), 'package.json']);

  if (valued.length > 0)
    it('refuses every wrong value in one line that names option and value', () => {
      for (const key of valued) {
        const wrong = table === dataFetchOptions && key === 'data' ? wrongOutputs : wrongValues[key];
        expect(wrong, `${key} has no wrong values in this test`).toBeDefined();
        for (const value of wrong) {
          const error = usageError(() => parseArgs(command, table, [`${flagOf(key)}=${value}`]));
          expect(error.arg).toBe(flagOf(key));
          expect(error.got).toBe(JSON.stringify(value));
          expect(error.message.startsWith(`${command}: ${flagOf(key)} must `)).toBe(true);
          expect(error.message).not.toContain('\n');
        }
      }
    });

  it('reads right values, given either way', () => {
    for (const [key, rows] of Object.entries(rightValues)) {
      if (!(key in table) || others(key).length > 0 || table[key].isRequired) continue;
      for (const [value, meaning] of rows) {
        expect(parseArgs(command, table, [flagOf(key), value]).values[key]).toEqual(meaning);
        expect(parseArgs(command, table, [`${flagOf(key)}=${value}`]).values[key]).toEqual(meaning);
      }
    }
  });

  it('refuses options that are unknown, given twice, or without their value', () => {
    expect(usageError(() => parseArgs(command, table, ['--frobnicate', '1']))).toMatchObject({ arg: 'option', got: '--frobnicate' });
    for (const key of valued) {
      expect(usageError(() => parseArgs(command, table, [flagOf(key)])).expected).toContain('must be followed by a value');
      expect(usageError(() => parseArgs(command, table, [flagOf(key), '--help-me'])).expected).toContain('must be followed by a value');
    }
    for (const key of flags) {
      expect(usageError(() => parseArgs(command, table, [`${flagOf(key)}=yes`])).expected).toBe('must stand alone');
      expect(usageError(() => parseArgs(command, table, [flagOf(key), flagOf(key)])).expected).toBe('must be given once');
    }
  });

  it('has a help text with every option, its values and its default', () => {
    const help = helpText(command, 'Summary.', table);
    for (const [key, option] of Object.entries(table)) {
      expect(help).toContain(`  ${flagOf(key)} ${option.placeholder}`.trimEnd());
      expect(help).toContain(option.help);
      if (option.placeholder !== '' && option.default !== undefined && !option.defaultText)
        expect(help).toContain(`${option.help} (default: ${option.default})`);
    }
    expect(help).toContain('--help');
    expect(parseArgs(command, table, ['--frobnicate', '--help']).wantsHelp).toBe(true);
  });

  it('misses what is required', () => {
    const needed = Object.keys(table).filter((key) => table[key].isRequired);
    for (const key of needed)
      expect(usageError(() => parseArgs(command, table, others(key)))).toMatchObject({ arg: flagOf(key), expected: 'must be given' });
    if (needed.length === 0) expect(parseArgs(command, table, []).given.size).toBe(0);
  });
});

describe('defaults', () => {
  it("are the issue's for train", () => {
    const { values } = parseArgs('forkstep train', trainOptions, []);
    expect(values).toMatchObject({
      dataset: 'procedural',
      model: 'resnet18',
      stem: 'cifar',
      width: 64,
      batch: 32,
      lr: 0.005,
      momentum: 0,
      weightDecay: 0,
      nesterov: false,
      preset: 'asPublished',
      augment: 'none',
      noShuffle: false,
      precision: 'f32',
      logEvery: 10,
      seed: 0,
      json: false,
    });
    const unset =
      ['data', 'maxSteps', 'trainLimit', 'testLimit', 'factors', 'every', 'envelope', 'scoreBatch', 'memoryBudget', 'init', 'scheduler', 'schedule'] as const;
    for (const key of unset) {
      expect(values[key]).toBeUndefined();
    }
  });

  it("compare has train's options but the scheduler, the schedule and going on", () => {
    const ofTrain = ['scheduler', 'beam', 'schedule', 'resume', 'checkpointEvery', ...Object.keys(trainParameters)];
    expect(Object.keys(compareOptions).sort()).toEqual(Object.keys(trainOptions).filter((key) => !ofTrain.includes(key)).sort());
  });
});

describe('rules that span options', () => {
  const train = (...argv: string[]) => checkTrain('forkstep train', parseArgs('forkstep train', trainOptions, argv));
  const onBase = ['--scheduler', 'trial', '--schedule', 'stepLr', '--step-size', '5'];
  const rows: readonly (readonly [string, readonly string[], string])[] = [
    ['files for procedural images', ['--data', 'src'], '--data'],
    ['CIFAR without its files', ['--dataset', 'cifar10'], '--data'],
    ['Nesterov without momentum', ['--nesterov'], '--nesterov'],
    ['trial options at a constant rate', ['--scheduler', 'constant', '--factors', '2,1'], '--factors'],
    ['the cadence at a constant rate', ['--scheduler', 'constant', '--every', '1epoch'], '--every'],
    ['the default preset, spelt out, at a constant rate', ['--scheduler', 'constant', '--preset', 'asPublished'], '--preset'],
    ['a memory budget at a constant rate', ['--scheduler', 'constant', '--memory-budget', '1MiB'], '--memory-budget'],
    ['the score batch at a constant rate', ['--scheduler', 'constant', '--score-batch', '8'], '--score-batch'],
    ['an envelope at a constant rate', ['--scheduler', 'constant', '--envelope', 'none'], '--envelope'],
    ['a control of a constant rate', ['--scheduler', 'constant', '--control', 'blindDrift'], '--control'],
    ['a normalisation that the score does not see', ['--score', 'rank', '--normalize', 'sum'], '--normalize'],
    ['a temperature of a score without one', ['--score', 'armijo', '--tau', '2'], '--tau'],
    ["paired noise's option with another score", ['--kappa', '2'], '--kappa'],
    ["the gate's option with another score", ['--armijo-c', '0.3'], '--armijo-c'],
    ['an anchored gate', ['--score', 'armijo', '--anchor', 'on'], '--anchor'],
    ['an anchored gate on a base', [...onBase, '--score', 'armijo', '--anchor', 'on'], '--anchor'],
    ['one image to tell noise by', ['--score', 'pairedNoise', '--batch', '1'], '--score-batch'],
    ['memory for trials that are not run', ['--control', 'blindDrift', '--memory-budget', '1MiB'], '--memory-budget'],
    ['a blind gate', ['--control', 'blindDrift', '--score', 'armijo'], '--control'],
  ];
  it.each(rows)('refuse %s', (_what, argv, arg) => {
    expect(usageError(() => train(...argv)).arg).toBe(arg);
  });

  it("scores become the scheduler's options, and what follows from them", () => {
    const of = (...argv: string[]) => trialOptionsOf(parseArgs('forkstep train', trainOptions, argv).values);
    expect(of()).toEqual(asPublished());
    expect(of('--preset', 'robust', '--lr', '0.1')).toEqual(robust({ lr: 0.1 }));
    expect(of('--score', 'pairedNoise', '--kappa', '2', '--score-on', 'both', '--anchor', 'on', '--factors', 'factor7')).toEqual(
      asPublished('factor7', { score: 'pairedNoise', kappa: 2, batch: 'both', anchor: true }),
    );
    expect(of('--preset', 'robust', '--score', 'armijo', '--armijo-c', '0.5', '--hold', 'off', '--control', 'shuffledLosses')).toEqual(
      robust({ score: 'armijo', c: 0.5, hold: false, control: 'shuffledLosses' }),
    );
    expect(of('--normalize', 'zScore', '--tau', '0.5', '--direction', 'optimizer', '--anchor', 'off')).toEqual(
      asPublished('factor5', { normalize: 'zScore', tau: 0.5, direction: 'optimizer' }),
    );
    expect(of('--search', '4x10').search).toEqual({ events: 4, every: 10 });
    expect(of('--preset', 'robust', '--search', 'none', '--every', '5steps')).toEqual(robust({ search: null, every: { steps: 5 } }));
    expect(usageError(() => train('--scheduler', 'constant', '--search', '8x32')).arg).toBe('--search');
    const scored = ['--score armijo', '--score pairedNoise', '--preset robust --score rank --tau 0.3'];
    expect(usageError(() => train('--preset', 'robust', '--tau', '2')).message).toContain('name another --score, or see');
    for (const line of [...scored, '--control blindDrift', '--envelope inverseSqrt']) train(...line.split(' '));
  });

  it('pass what goes together', () => {
    train('--scheduler', 'constant', '--nesterov', '--momentum', '0.9');
    train('--dataset', 'cifar10', '--data', 'src', '--factors', '2,1', '--every', '4/epoch');
    checkCompare('forkstep compare', parseArgs('forkstep compare', compareOptions, ['--preset', 'robust']));
  });

  it('hold for eval and compare as well', () => {
    expect(usageError(() => checkCompare('c', parseArgs('c', compareOptions, ['--nesterov', '--momentum', '0']))).arg).toBe('--nesterov');
    expect(
      usageError(() => checkData('c', parseArgs('c', evalOptions, ['--checkpoint', 'package.json', '--dataset', 'cifar100']))).arg,
    ).toBe('--data');
  });
});

describe('the data of a study', () => {
  const study = (name: string, ...argv: string[]) => checkStudy('forkstep study', parseArgs('forkstep study', studyOptions, [name, ...argv]));
  it.each([
    ['files for procedural images', ['table', '--data', 'src'], 'must go with --scale small or paper'],
    ['CIFAR without its files', ['table', '--scale', 'small'], 'must be given with --scale small'],
    ['a folder without the set that the study trains on', ['factors', '--scale', 'small', '--data', 'src'], 'must hold cifar100, which factors trains on'],
  ])('refuse %s', (_, argv, rule) => {
    expect(usageError(() => study(argv[0], ...argv.slice(1)))).toMatchObject({ arg: '--data', expected: rule });
  });

  it('need not be there to be listed, nor for procedural images', () => {
    study('table', '--scale', 'paper', '--dry-run');
    study('robustness');
  });
});

describe('suggestions', () => {
  it.each([
    ['--momentun', '--momentum'],
    ['--lrr', '--lr'],
    ['--wieght-decay', '--weight-decay'],
    ['--Batch', '--batch'],
    ['--hepl', '--help'],
  ])('%s → %s', (typed, meant) => {
    expect(usageError(() => parseArgs('forkstep train', trainOptions, [typed, '1'])).message).toMatch(
      new RegExp(`did you mean ${meant}\\?$`),
    );
  });

  it('are not made for what is near nothing', () => {
    expect(suggestion('--frobnicate', Object.keys(trainOptions).map(flagOf))).toBeUndefined();
    expect(suggestion('cifar1', ['cifar10', 'cifar100'])).toBe('did you mean cifar10?');
  });
});

describe('the parts', () => {
  it('keep positional arguments apart and take values that begin with one dash', () => {
    const table = { x: number({ default: 0, help: '' }), on: flag('') };
    expect(parseArgs('c', table, ['a', '--x', '-1.5', 'b', '--on'])).toMatchObject({
      values: { x: -1.5, on: true },
      positionals: ['a', 'b'],
    });
  });

  it('check bounds of both kinds at the bound', () => {
    const option = number({ default: 1, above: 0, max: 2, help: '' });
    expect(option.parse('2')).toBe(2);
    expect(() => option.parse('0')).toThrow(new BadValue('must be a number > 0 and ≤ 2'));
    expect(() => option.parse('2.0001')).toThrow('must be a number > 0 and ≤ 2');
    expect(() => integer({ default: 1, min: 1, below: 3, help: '' }).parse('3')).toThrow('must be an integer ≥ 1 and < 3');
  });

  it('leave the given keys on record, so that a default spelt out counts as given', () => {
    const table = { word: choice(['a', 'b'], { default: 'a', help: '' }), file: path('file', { default: undefined, help: '' }) };
    expect([...parseArgs('c', table, ['--word', 'a']).given]).toEqual(['word']);
    expect(usageError(() => parseArgs('c', { file: required(table.file) }, [])).message).toBe(
      'c: --file must be given, got nothing; add --file FILE',
    );
  });
});
