/** The option tables of the commands, and the rules that span several options. */
import { ForkstepError } from '../gpu/errors.ts';
import { factorSets, FLOAT32, presetNames, presets, PureSchedule, resolveFactors } from '../sched/index.ts';
import type { Cadence, Factors, PresetName, TrialSearch } from '../sched/index.ts';
import type { CheckpointCadence } from '../train/index.ts';
import { BadValue, UsageError, choice, decimal, flag, flagOf, integer, number, path, required, text } from './args.ts';
import type { Option, OptionValues, Parsed } from './args.ts';
import { checkRule, isRule, makesTrials, ruleNames, ruleParameterIn, trainParameters, type TrainParameter } from './ruleOptions.ts';
import { asUsage, buildSchedule, checkParameters, scheduleNames } from './scheduleOptions.ts';
import { checkTrials, scoringOptions } from './trialChoices.ts';

/** `1epoch`, `2epochs`, `50steps`, or `4/epoch` for four times an epoch. */
export function cadence(spec: { help: string; defaultText: string }): Option<Cadence | undefined> {
  const parse = (value: string): Cadence => {
    const match = /^([1-9]\d{0,8})(\/epoch|epochs?|steps?)$/.exec(value);
    if (!match) throw new BadValue('must be a count of epochs or steps such as 1epoch, 50steps or 4/epoch');
    const n = Number(match[1]);
    if (match[2] === '/epoch') return { perEpoch: n };
    return match[2].startsWith('epoch') ? { epochs: n } : { steps: n };
  };
  return { placeholder: '1epoch|50steps|4/epoch', default: undefined, isRequired: false, ...spec, parse };
}

/** `8x32`: 8 events, 32 steps apart; or none. */
export function search(spec: { help: string; defaultText: string }): Option<TrialSearch | 'none' | undefined> {
  const parse = (value: string): TrialSearch | 'none' => {
    if (value === 'none') return value;
    const match = /^([1-9]\d{0,8})x([1-9]\d{0,8})$/.exec(value);
    if (!match) throw new BadValue('must be a count of events and the steps between them such as 8x32, or none');
    return { events: Number(match[1]), every: Number(match[2]) };
  };
  return { placeholder: '8x32|none', default: undefined, isRequired: false, ...spec, parse };
}

/** Factors: a list such as 4,2,1,0.5,0.125, or a set's name. */
export function factors(spec: { help: string; defaultText: string }): Option<Factors | undefined> {
  const names = Object.keys(factorSets) as (keyof typeof factorSets)[];
  const parse = (value: string): Factors => {
    const name = names.find((candidate) => candidate === value);
    if (name) return name;
    const list = value.split(',').map((item) => decimal(item.trim()));
    if (list.some(Number.isNaN)) throw new BadValue(`must be numbers such as 4,2,1,0.5,0.125, or ${names.join(', ')}`);
    try {
      return resolveFactors(list);
    } catch (error) {
      if (!(error instanceof ForkstepError)) throw error;
      throw new BadValue('must be factors > 0, each there once');
    }
  };
  return { placeholder: 'F,F,…', default: undefined, isRequired: false, ...spec, parse };
}

/** `1epoch`, `200steps` or `10min`. */
export function checkpointCadence(spec: { help: string; default: CheckpointCadence; defaultText: string }): Option<CheckpointCadence> {
  const parse = (value: string): CheckpointCadence => {
    const match = /^([1-9]\d{0,8})(epochs?|steps?|min)$/.exec(value);
    if (!match) throw new BadValue('must be a count of epochs, steps or minutes such as 1epoch, 200steps or 10min');
    const n = Number(match[1]);
    return match[2] === 'min' ? { minutes: n } : match[2].startsWith('epoch') ? { epochs: n } : { steps: n };
  };
  return { placeholder: '2epochs|200steps|10min', isRequired: false, ...spec, parse };
}

const byteUnits = { B: 1, KiB: 2 ** 10, MiB: 2 ** 20, GiB: 2 ** 30 } as const;

/** A size such as `64MiB`, in bytes. */
export function bytes(spec: { help: string; defaultText: string }): Option<number | undefined> {
  const parse = (value: string): number => {
    const match = /^(\d{1,9})(B|KiB|MiB|GiB)$/.exec(value);
    if (!match) throw new BadValue('must be a size such as 64MiB or 0B');
    return Number(match[1]) * byteUnits[match[2] as keyof typeof byteUnits];
  };
  return { placeholder: '64MiB', default: undefined, isRequired: false, ...spec, parse };
}

export const MAX_SEED = 2 ** 32 - 1;
const ofPreset = (asPublished: string, robust: string): string => `the preset's, ${asPublished}|${robust}`;

/** Which images: common to all commands that read some. */
export const dataOptions = {
  dataset: choice(['procedural', 'cifar10', 'cifar100'], {
    default: 'procedural',
    help: 'the images; procedural ones are made on the spot',
  }),
  data: path('folder', { default: undefined, help: "folder of CIFAR's binary files; see forkstep data fetch" }),
};

/** Which network. */
export const modelOptions = {
  model: choice(['resnet18'], { default: 'resnet18', help: 'the network' }),
  stem: choice(['cifar', 'imagenet'], { default: 'cifar', help: '3×3 without max pool, or 7×7 stride 2 with it' }),
  width: integer({ default: 64, min: 1, help: 'channels of the first stage' }),
};

const sgdOptions = {
  lr: number({ default: 0.005, above: 0, help: 'learning rate to start from' }),
  momentum: number({ default: 0, min: 0, below: 1, help: 'of SGD' }),
  weightDecay: number({ default: 0, min: 0, help: 'of SGD' }),
  nesterov: flag("Nesterov's momentum; needs --momentum"),
};

export const trialOptions = {
  preset: choice(presetNames, {
    default: 'asPublished',
    help: 'set of choices that the trial scheduler starts from',
  }),
  factors: factors({
    defaultText: ofPreset('factor5 = 4,2,1,0.5,0.125', 'factor7'),
    help: `trials run at these multiples of the learning rate; or ${Object.keys(factorSets).join(', ')}`,
  }),
  every: cadence({ defaultText: ofPreset('1epoch', '4/epoch'), help: 'how often trials are made, after a search' }),
  search: search({
    defaultText: ofPreset('none', '8x32, or with --every 50steps 8x50'),
    help: 'begin with so many events, so many steps apart, and afterwards never raise the rate above the highest that they left',
  }),
  envelope: choice(['none', 'cosine', 'linear', 'inverseSqrt'], {
    default: undefined,
    defaultText: ofPreset('none', 'cosine'),
    help: 'decay over the run that multiplies the learning rate; inverseSqrt goes by epochs, whatever the length of the run',
  }),
  ...scoringOptions,
  scoreBatch: integer({ default: undefined, min: 1, defaultText: '--batch', help: 'images that a trial is scored on' }),
  memoryBudget: bytes({ defaultText: '0B', help: 'GPU memory that trials may take so as to run in fewer passes' }),
};

/** Options of a training run, but the scheduler's name. */
function runOptions({ epochs, out }: { epochs: number; out: string }) {
  return {
    batch: integer({ default: 32, min: 1, help: 'images a step' }),
    epochs: integer({ default: epochs, min: 1, help: 'passes over the training images' }),
    maxSteps: integer({ default: undefined, min: 1, help: 'end after this many steps' }),
    trainLimit: integer({ default: undefined, min: 1, help: 'use only the first N training images' }),
    testLimit: integer({ default: undefined, min: 1, help: 'use only the first N test images' }),
    ...sgdOptions,
    ...trialOptions,
    augment: choice(['none', 'crop-flip'], { default: 'none', help: 'random crop of the padded image and flip' }),
    init: path('file', { default: undefined, help: 'safetensors file of the weights to start from' }),
    noShuffle: flag('take the training images in their order'),
    precision: choice(['f32', 'mixed'], { default: 'f32', help: 'mixed: activations as f16, in half the memory; needs shader-f16' }),
    tune: flag('first measure the ways to compute each convolution on this adapter; remembered for later runs'),
    logEvery: integer({ default: 10, min: 1, help: 'steps between lines printed where output is no terminal' }),
    seed: integer({ default: 0, min: 0, max: MAX_SEED, help: 'of weights, order, augmentation and procedural images' }),
    out: path('output', { default: out, help: 'folder for events.jsonl, model.safetensors and report.html' }),
    tensorboard: flag("also write TensorBoard's event files into --out"),
    json: flag('print one JSON object last'),
  };
}

export const devicesOptions = { json: flag('print one JSON object') };

export const trainOptions = {
  ...dataOptions,
  ...modelOptions,
  scheduler: choice(['trial', 'constant', 'alr'], {
    default: undefined,
    defaultText: 'trial, or with --schedule that alone',
    help: 'what sets the learning rate; alr trains a branch an epoch at each of --factors (factor3) and goes on with the best',
  }),
  beam: integer({ default: undefined, min: 1, defaultText: '1', help: 'of alr: branches that go on after an epoch' }),
  schedule: choice([...scheduleNames, ...ruleNames], {
    default: undefined,
    help:
      "a schedule sets the learning rate, or with --scheduler trial is multiplied by the trials' scale (see forkstep schedule); " +
      `${ruleNames.join(', ')} set it by each step's own numbers`,
  }),
  ...runOptions({ epochs: 10, out: 'runs/train' }),
  resume: flag("go on from the checkpoint in --out, with its run's options where they are not given again"),
  checkpointEvery: checkpointCadence({
    default: { epochs: 1 }, defaultText: '1epoch', help: 'how often --out gets a checkpoint, besides at the end and on Ctrl-C',
  }),
  ...trainParameters,
};

/** As train's, without --scheduler: both are run. Defaults that a 2-core machine without a GPU finishes in minutes. */
export const compareOptions = {
  ...dataOptions,
  ...modelOptions,
  ...runOptions({ epochs: 5, out: 'runs/compare' }),
  width: integer({ default: 8, min: 1, help: modelOptions.width.help }),
  trainLimit: integer({ default: 2048, min: 1, help: 'use only the first N training images' }),
  testLimit: integer({ default: 512, min: 1, help: 'use only the first N test images' }),
  momentum: number({ default: 0.9, min: 0, below: 1, help: sgdOptions.momentum.help }),
  preset: choice(presetNames, { default: 'robust', help: trialOptions.preset.help }),
};

export const evalOptions = {
  checkpoint: required(path('file', { default: undefined, help: 'safetensors file of the weights' })),
  ...dataOptions,
  ...modelOptions,
  batch: integer({ default: 32, min: 1, help: 'images at a time, at most as many as there are' }),
  testLimit: integer({ default: undefined, min: 1, help: 'use only the first N test images' }),
  seed: integer({ default: 0, min: 0, max: MAX_SEED, help: 'of procedural images' }),
  json: flag('print one JSON object last'),
};

export const dataFetchOptions = {
  data: required(path('output', { default: undefined, help: 'folder to unpack the data set into' })),
  baseUrl: text({ default: undefined, placeholder: 'URL', defaultText: "the authors' site", help: 'where the archive lies' }),
};

export type DevicesValues = OptionValues<typeof devicesOptions>;
export type TrainValues = OptionValues<typeof trainOptions>;
export type CompareValues = OptionValues<typeof compareOptions>;
export type EvalValues = OptionValues<typeof evalOptions>;
export type DataFetchValues = OptionValues<typeof dataFetchOptions>;

const refuse = (op: string, arg: string, rule: string, got: string, fix: string): never => {
  throw new UsageError({ op, arg, rule, got, fix });
};

/** --data belongs to the data sets that are read from files, and only to them. @throws UsageError */
export function checkData(command: string, { values }: Pick<Parsed<typeof dataOptions>, 'values'>): void {
  const { dataset, data } = values;
  if (dataset === 'procedural' && data !== undefined) {
    refuse(
      command,
      '--data',
      'must go with --dataset cifar10 or cifar100',
      '--dataset procedural',
      'leave --data out, or name the data set in it',
    );
  }
  if (dataset !== 'procedural' && data === undefined) {
    refuse(
      command,
      '--data',
      `must be given with --dataset ${dataset}`,
      'nothing',
      `forkstep data fetch ${dataset} --data DIR downloads it`,
    );
  }
}

/** Options that would be ignored are refused. @throws UsageError */
export function checkTrain(command: string, { values, given }: Parsed<typeof trainOptions>): void {
  checkData(command, { values });
  checkSgd(command, values);
  checkTrainSchedule(command, { values, given });
  const scheduler = values.scheduler ?? (values.schedule ? 'none' : 'trial');
  if (scheduler === 'alr') return checkAlr(command, { values, given });
  if (given.has('beam')) refuse(command, '--beam', 'must go with --scheduler alr', `--scheduler ${scheduler}`, 'leave --beam out');
  if (scheduler === 'trial') {
    if (!values.schedule) checkBounds(command, values);
    const base = values.schedule && !isRule(values.schedule) ? buildSchedule(values.schedule, values) : null;
    return checkTrials(command, values, base instanceof PureSchedule ? base : null);
  }
  const allowed = makesTrials(values.schedule) ? ['memoryBudget'] : [];
  const idle = (Object.keys(trialOptions) as (keyof typeof trialOptions)[]).find((key) => given.has(key) && !allowed.includes(key));
  if (idle) refuse(command, flagOf(idle), 'must go with --scheduler trial', `--scheduler ${scheduler}`, `leave ${flagOf(idle)} out`);
}

/** @throws UsageError for options of trials that ALR has not, and for what its branches cannot be trained with */
function checkAlr(command: string, { values, given }: Pick<Parsed<typeof trainOptions>, 'values' | 'given'>): void {
  const own = ['factors', 'memoryBudget'];
  const idle = (Object.keys(trialOptions) as (keyof typeof trialOptions)[]).find((key) => given.has(key) && !own.includes(key));
  if (idle) refuse(command, flagOf(idle), 'must go with --scheduler trial', '--scheduler alr', `leave ${flagOf(idle)} out`);
  if (values.precision === 'mixed') refuse(command, '--precision', 'must be f32 with --scheduler alr', 'mixed', 'leave --precision out');
  if ('steps' in values.checkpointEvery) {
    const got = `${values.checkpointEvery.steps}steps`;
    refuse(command, '--checkpoint-every', 'must be in epochs or minutes with --scheduler alr', got, 'checkpoints of ALR are between epochs');
  }
  if (values.tune) refuse(command, '--tune', 'must go with another scheduler', '--scheduler alr', 'leave --tune out');
}

/** @throws UsageError for parameters without a schedule or of another one, and schedules that another scheduler cannot use */
function checkTrainSchedule(command: string, { values, given }: Pick<Parsed<typeof trainOptions>, 'values' | 'given'>): void {
  const { schedule, scheduler } = values;
  if (schedule === undefined) {
    const idle = (Object.keys(trainParameters) as TrainParameter[]).find((key) => given.has(key));
    if (idle) refuse(command, flagOf(idle), 'must go with --schedule', 'it alone', `add --schedule, or leave ${flagOf(idle)} out`);
    return;
  }
  if (isRule(schedule)) return checkRule(command, schedule, { values, given });
  const foreign = ruleParameterIn(given);
  if (foreign) refuse(command, flagOf(foreign), `must be a parameter of ${schedule}`, 'it', `leave ${flagOf(foreign)} out`);
  checkParameters(command, schedule, given);
  if (scheduler === 'constant' || scheduler === 'alr')
    refuse(command, '--schedule', 'must go with --scheduler trial or none', `--scheduler ${scheduler}`, 'leave one out');
  if (scheduler === 'trial' && schedule === 'reduceLROnPlateau')
    refuse(command, '--schedule', 'must not listen to metrics with --scheduler trial', schedule, 'leave --scheduler out');
  if (given.has('envelope')) refuse(command, '--envelope', 'must not be given with --schedule', 'it', 'the schedule is what decays');
  asUsage(command, () => buildSchedule(schedule, values));
}

/** @throws UsageError */
export function checkCompare(command: string, { values }: Parsed<typeof compareOptions>): void {
  checkData(command, { values });
  checkSgd(command, values);
  checkBounds(command, values);
  checkTrials(command, values);
}

/** @throws UsageError */
export function checkEval(command: string, { values, given }: Parsed<typeof evalOptions>): void {
  checkData(command, { values });
  if (given.has('seed') && values.dataset !== 'procedural')
    refuse(command, '--seed', 'must go with --dataset procedural', `--dataset ${values.dataset}`, 'leave --seed out');
}

/** A preset may bound the learning rate; float32 does. */
function checkBounds(command: string, { preset, lr }: { preset: PresetName; lr: number }): void {
  const bounds = presets[preset]().bounds ?? [FLOAT32.least, FLOAT32.greatest];
  if (lr < bounds[0] || lr > bounds[1]) {
    const fix = preset === 'asPublished' ? 'pass 0.005' : 'or use --preset asPublished';
    refuse(command, '--lr', `must lie in ${bounds.join(' … ')} with --preset ${preset}`, String(lr), fix);
  }
}

function checkSgd(command: string, { nesterov, momentum }: { nesterov: boolean; momentum: number }): void {
  if (nesterov && momentum === 0) refuse(command, '--nesterov', 'must go with --momentum', '--momentum 0', 'add --momentum 0.9');
}
