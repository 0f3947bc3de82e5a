/** Schedules on the command line: which there are, their parameters, and the rules that span them. */
import { ForkstepError } from '../gpu/errors.ts';
import * as sched from '../sched/index.ts';
import type { Duration, PureSchedule, ReduceLROnPlateau } from '../sched/index.ts';
import { BadValue, UsageError, choice, decimal, flag, flagOf, integer, number, path } from './args.ts';
import type { Option, OptionValues, Parsed } from './args.ts';

function parseDuration(value: string): Duration {
  const match = /^(\d+|\d*\.\d+)(steps?|epochs?|%)?$/.exec(value.trim());
  const n = Number(match?.[1]);
  const unit = match?.[2] ?? 'steps';
  const isGood = match && (unit.startsWith('step') ? Number.isSafeInteger(n) : unit === '%' ? n <= 100 : true);
  if (!isGood) throw new BadValue('must be a length such as 500, 500steps, 5epochs or 10%');
  return unit === '%' ? { percent: n } : unit.startsWith('epoch') ? { epochs: n } : { steps: n };
}

export const duration = (help: string): Option<Duration | undefined> =>
  ({ placeholder: 'N|Nepochs|N%', default: undefined, isRequired: false, help, parse: parseDuration });

function list<T>(placeholder: string, help: string, parse: (item: string) => T): Option<T[] | undefined> {
  return { placeholder, default: undefined, isRequired: false, help, parse: (value) => value.split(',').map((item) => parse(item.trim())) };
}

export const real = (help: string) => number({ default: undefined, help });
const count = (help: string) => integer({ default: undefined, min: 0, help });

/** Parameters of all schedules, each PyTorch's, or transformers' where that has the schedule. */
const parameterOptions = {
  factor: real('constantLr, reduceLROnPlateau: what the rate is multiplied by'),
  startFactor: real('linearLr: factor at the start'),
  endFactor: real('linearLr: factor at the end'),
  totalIters: duration('constantLr, linearLr, polynomialLr: how long it changes'),
  tMax: duration('cosineAnnealingLr: half a period'),
  t0: duration('cosineAnnealingWarmRestarts: the first period'),
  tMult: integer({ default: undefined, min: 1, help: 'cosineAnnealingWarmRestarts: each period over the one before' }),
  etaMin: real('cosines: the least rate'),
  stepSize: duration('stepLr: length of a stair'),
  milestones: list('N,N,…', 'multiStepLr: where the rate falls, such as 60%,80%', parseDuration),
  gamma: real('stepLr, multiStepLr, exponentialLr, cyclicLr: factor of a fall'),
  power: real('polynomialLr'),
  baseLr: real('cyclicLr: the least rate'),
  maxLr: real('cyclicLr, oneCycleLr: the peak'),
  stepSizeUp: duration('cyclicLr: length of a rise'),
  stepSizeDown: duration('cyclicLr: length of a fall'),
  mode: choice(['triangular', 'triangular2', 'exp_range', 'min', 'max'], {
    default: undefined,
    help: 'cyclicLr: triangular|triangular2|exp_range; reduceLROnPlateau: min|max',
  }),
  totalSteps: duration('oneCycleLr, warmupStableDecay: length of the whole'),
  pctStart: real('oneCycleLr: share of it that rises'),
  annealStrategy: choice(['cos', 'linear'], { default: undefined, help: 'oneCycleLr' }),
  divFactor: real('oneCycleLr: peak over the first rate'),
  finalDivFactor: real('oneCycleLr: first rate over the last'),
  threePhase: flag('oneCycleLr: fall to the first rate, then to the last'),
  warmupSteps: duration('inverseSqrt, warmupStableDecay: length of the rise'),
  timescale: duration('inverseSqrt: time to fall by √2'),
  decaySteps: duration('warmupStableDecay: length of the fall'),
  decayType: choice(['linear', 'cosine', '1-sqrt'], { default: undefined, help: 'warmupStableDecay' }),
  minLrRatio: real('warmupStableDecay: least rate over --lr'),
  patience: count('reduceLROnPlateau: bad epochs that are borne'),
  threshold: real('reduceLROnPlateau: by how much better is better'),
  thresholdMode: choice(['rel', 'abs'], { default: undefined, help: 'reduceLROnPlateau: of the best, or in its unit' }),
  cooldown: count('reduceLROnPlateau: epochs after a cut that are not bad'),
  minLr: real('reduceLROnPlateau: the least rate'),
  eps: real('reduceLROnPlateau: least cut'),
};

type Parameter = keyof typeof parameterOptions;

interface Known {
  readonly required: readonly (Parameter | 'lr')[];
  readonly optional: readonly Parameter[];
  make(options: never): PureSchedule | ReduceLROnPlateau;
}

const known = {
  constantLr: { required: ['lr'], optional: ['factor', 'totalIters'], make: sched.constantLr },
  linearLr: { required: ['lr'], optional: ['startFactor', 'endFactor', 'totalIters'], make: sched.linearLr },
  cosineAnnealingLr: { required: ['lr', 'tMax'], optional: ['etaMin'], make: sched.cosineAnnealingLr },
  cosineAnnealingWarmRestarts: { required: ['lr', 't0'], optional: ['tMult', 'etaMin'], make: sched.cosineAnnealingWarmRestarts },
  stepLr: { required: ['lr', 'stepSize'], optional: ['gamma'], make: sched.stepLr },
  multiStepLr: { required: ['lr', 'milestones'], optional: ['gamma'], make: sched.multiStepLr },
  exponentialLr: { required: ['lr', 'gamma'], optional: [], make: sched.exponentialLr },
  polynomialLr: { required: ['lr'], optional: ['totalIters', 'power'], make: sched.polynomialLr },
  cyclicLr: { required: ['baseLr', 'maxLr'], optional: ['stepSizeUp', 'stepSizeDown', 'mode', 'gamma'], make: sched.cyclicLr },
  oneCycleLr: {
    required: ['maxLr'],
    optional: ['totalSteps', 'pctStart', 'annealStrategy', 'divFactor', 'finalDivFactor', 'threePhase'],
    make: sched.oneCycleLr,
  },
  inverseSqrt: { required: ['lr', 'warmupSteps'], optional: ['timescale'], make: sched.inverseSqrt },
  warmupStableDecay: {
    required: ['lr', 'warmupSteps', 'decaySteps'],
    optional: ['totalSteps', 'decayType', 'minLrRatio'],
    make: sched.warmupStableDecay,
  },
  reduceLROnPlateau: {
    required: ['lr'],
    optional: ['mode', 'factor', 'patience', 'threshold', 'thresholdMode', 'cooldown', 'minLr', 'eps'],
    make: sched.reduceLROnPlateau,
  },
} as const satisfies Record<string, Known>;

export type ScheduleName = keyof typeof known;
export const scheduleNames = Object.keys(known) as ScheduleName[];

/** What a schedule is made of, after its name and --lr. */
export const scheduleParameters = {
  ...parameterOptions,
  warmup: duration('rise to the first rate for so long, then the schedule begins'),
  warmupFactor: number({ default: undefined, min: 0, max: 1, defaultText: '1/3', help: 'where --warmup starts, in units of the first rate' }),
  perEpoch: flag('move the schedule once an epoch: its lengths without a unit are then epochs'),
};

export type ScheduleParameter = keyof typeof scheduleParameters;

export const scheduleOptions = {
  steps: integer({ default: 100, min: 1, help: 'updates of the run' }),
  stepsPerEpoch: integer({ default: undefined, min: 1, defaultText: 'unknown', help: 'for lengths in epochs' }),
  lr: number({ default: 0.1, above: 0, help: 'learning rate that the schedule starts from' }),
  ...scheduleParameters,
  metrics: list('X,X,…', 'reduceLROnPlateau: the metric of each epoch', (item) => {
    const value = decimal(item);
    if (Number.isNaN(value)) throw new BadValue('must be numbers such as 1,0.9,0.95');
    return value;
  }),
  json: flag('print one JSON object: name, and lr, the rate in force during each step'),
  svg: path('outputFile', { default: undefined, help: 'a figure of the curve' }),
};

export type ScheduleValues = OptionValues<typeof scheduleOptions>;
type ParameterValues = Pick<ScheduleValues, ScheduleParameter | 'lr'>;

const refuse = (op: string, arg: string, rule: string, got: string, fix: string): never => {
  throw new UsageError({ op, arg, rule, got, fix });
};

/** What a name must have and may not have. @throws UsageError */
export function checkParameters(command: string, name: ScheduleName, given: ReadonlySet<string>): void {
  const { required, optional }: Known = known[name];
  const isLr = (required as readonly string[]).includes('lr');
  if (given.has('lr') && !isLr) refuse(command, '--lr', `must not be given with ${name}`, 'it', `its rates are ${required.map(flagOf).join(', ')}`);
  const missing = required.find((key) => key !== 'lr' && !given.has(key));
  if (missing) refuse(command, flagOf(missing), `must be given with ${name}`, 'nothing', `add ${flagOf(missing)}`);
  const own = [...required, ...optional] as readonly string[];
  const idle = Object.keys(parameterOptions).find((key) => given.has(key) && !own.includes(key));
  if (idle) refuse(command, flagOf(idle), `must be a parameter of ${name}`, 'it', `${name} has ${own.map(flagOf).join(', ')}`);
  const around = (['warmup', 'perEpoch'] as const).find((key) => given.has(key));
  if (around && name === 'reduceLROnPlateau') refuse(command, flagOf(around), 'must go with another schedule', name, `leave ${flagOf(around)} out`);
  if (given.has('warmupFactor') && !given.has('warmup')) refuse(command, '--warmup-factor', 'must go with --warmup', 'it alone', 'add --warmup');
}

/** @throws UsageError */
export function checkSchedule(command: string, { values, given, positionals }: Parsed<typeof scheduleOptions>): void {
  const name = positionals[0] as ScheduleName;
  checkParameters(command, name, given);
  const isPlateau = name === 'reduceLROnPlateau';
  if (isPlateau !== given.has('metrics')) {
    const rule = isPlateau ? `must be given with ${name}` : 'must go with reduceLROnPlateau';
    refuse(command, '--metrics', rule, isPlateau ? 'nothing' : name, isPlateau ? 'add --metrics 1,0.9,0.95' : 'leave it out');
  }
  const idle = (['steps', 'stepsPerEpoch'] as const).find((key) => isPlateau && given.has(key));
  if (idle) refuse(command, flagOf(idle), 'must go with another schedule', name, 'there are as many steps as metrics');
  const curve = asUsage(command, () => curveOf(name, values), scheduleOptions, { flag: '--steps', text: String(values.steps), values });
  if (!curve.every(Number.isFinite)) refuse(command, flagOf('steps'), 'must leave rates finite', String(values.steps), 'make the run shorter');
}

/** Parameters of what --warmup makes. */
const warmupFlags: Readonly<Record<string, string>> = { totalIters: '--warmup', startFactor: '--warmup-factor' };

/** A run's length, as a command line gives it. */
interface AskedLength {
  readonly flag: string;
  readonly text: string;
  /** Options that were given, or undefined: what was not given is not at fault. */
  readonly values: Readonly<Record<string, unknown>>;
}

/**
 * What a schedule refuses, in words of the command line, whose options `table` has.
 * @param length what is at fault where the schedule has no rate for a step
 */
export function asUsage<T>(command: string, make: () => T, table: object = scheduleOptions, length?: AskedLength): T {
  try {
    return make();
  } catch (error) {
    if (!(error instanceof ForkstepError) || error instanceof UsageError) throw error;
    const [, key, rest] = /^(\w+)(.*)$/.exec(error.arg) ?? [undefined, error.arg, ''];
    const isDefault = length && Object.hasOwn(scheduleParameters, key) && length.values[key] === undefined && error.op !== 'warmup';
    if (length && (key === 'step' || isDefault)) {
      const rule = `must fit ${error.op}, whose ${error.arg} ${error.expected}`;
      throw new UsageError({ op: command, arg: length.flag, rule, got: length.text, fix: error.fix }, { cause: error });
    }
    const own = error.op === 'warmup' ? warmupFlags[key] : undefined;
    const isOption = Object.hasOwn(table, key) && error.got !== undefined;
    const arg = own ?? (isOption || key === 'stepsPerEpoch' || key === 'schedule' ? `${flagOf(key)}${rest}` : error.arg);
    throw new UsageError({ op: command, arg, rule: error.expected, got: error.got, fix: `see ${command} --help` }, { cause: error });
  }
}

/** The schedule with the parameters that were given. @throws AttrError for those it refuses */
export function buildSchedule(name: ScheduleName, values: ParameterValues): PureSchedule | ReduceLROnPlateau {
  const { required, optional, make }: Known = known[name];
  const own = [...required, ...optional].map((key) => [key, values[key]] as const).filter(([, value]) => value !== undefined && value !== false);
  const made = make(Object.fromEntries(own) as never);
  if (!(made instanceof sched.PureSchedule)) return made;
  const { warmup, warmupFactor, perEpoch } = values;
  const whole = warmup ? sched.warmup(made, { totalIters: warmup, ...(warmupFactor !== undefined && { startFactor: warmupFactor }) }) : made;
  return perEpoch ? sched.perEpoch(whole) : whole;
}

/** The rate in force during each step; of a plateau, during each epoch. */
export function curveOf(name: ScheduleName, values: ScheduleValues): number[] {
  const schedule = buildSchedule(name, values);
  return schedule instanceof sched.PureSchedule
    ? schedule.preview(values.steps, { stepsPerEpoch: values.stepsPerEpoch })
    : schedule.preview(values.metrics ?? []);
}
