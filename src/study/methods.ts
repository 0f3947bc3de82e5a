/** Every way to set the learning rate that a study can compare, by name: one entry each. */
import {
  aliG, asPublished, cdat, ConstantSchedule, constantLr, cosineAnnealingLr, dog, hypergradient, linearLr, pal, percent, perEpoch, robust,
  scheduleFree, slsArmijo, sps, stepLr, steps, TrialScheduler, warmup,
} from '../sched/index.ts';
import type { AlrOptions, ControlName, FactorSetName, Schedule, TrialOptions } from '../sched/index.ts';
import type { MethodOptions } from './recipe.ts';

/** Where a method stands in tables and pictures. */
export type Family = 'schedule' | 'control' | 'trial' | 'rule' | 'tree';

/** What a method is told of the run. */
export interface Frame {
  /** Learning rate to start from. */
  readonly lr: number;
  readonly epochs: number;
  readonly options: MethodOptions;
}

interface Described {
  /** As tables and legends name it. */
  readonly title: string;
  readonly family: Family;
  /** What it does, in one line, with every number that somebody chose. */
  readonly note: string;
  /** Whether it starts from a rate. One that does not is run from one first rate alone, as all others would be the same run. */
  readonly takesRate: boolean;
  /** Whether it takes options of the trial scheduler. */
  readonly takesOptions: boolean;
  /** Share of the epochs of other runs, where it is to cost as much as they do. @default 1 */
  readonly epochShare?: number;
}

/** Sets the rate of one training, by a fresh schedule for each run. */
export interface ScheduledMethod extends Described {
  schedule(frame: Frame): Schedule;
}

/** Trains several models from one another. */
export interface TreeMethod extends Described {
  tree(frame: Frame): AlrOptions;
}

export type Method = ScheduledMethod | TreeMethod;

export type MethodName =
  | 'constant' | 'torchConstantLr' | 'linearDefault' | 'linearDecay' | 'cosine' | 'step'
  | 'published3' | 'published5' | 'published7' | 'robust' | 'robustInverseSqrt' | 'robustNoDecay' | 'gate' | 'gateNoDecay' | 'minMax'
  | 'blindDrift' | 'shuffledLosses' | 'robustShuffled' | 'robustBlind'
  | 'slsArmijo' | 'pal' | 'cdat' | 'hypergradient' | 'sps' | 'aliG' | 'dog' | 'scheduleFree'
  | 'alr' | 'alrEqualCost';

/** So many epochs of 100, in a run of any length: PyTorch's defaults count epochs, and the paper's runs have 100. */
const shareOf = (epochs: number, of100: number): number => Math.max(1, Math.round((epochs * of100) / 100));

/** A schedule in closed form, which takes no options. */
const closed = (title: string, note: string, schedule: (frame: Frame) => Schedule): ScheduledMethod =>
  ({ title, family: 'schedule', note, takesRate: true, takesOptions: false, schedule });

const published = (factors: FactorSetName, title: string): ScheduledMethod => ({
  title,
  family: 'trial',
  note: `asPublished('${factors}'): min-max, e^−x, once an epoch, on the training batch, along the raw gradient, no anchor`,
  takesRate: true,
  takesOptions: true,
  schedule: ({ lr, options }) => new TrialScheduler(asPublished(factors, { lr, ...options })),
});

/** Of the preset: what makes it a gate that may climb all the time, and so asks for a larger share. */
export const gateOptions = { c: 0.25, search: null, bounds: [1e-8, 10] } as const;

/** Of the preset: what makes it the published score under a decay. */
export const minMaxOptions = { score: 'exp', direction: 'optimizer', search: null, bounds: [1e-8, 10] } as const;

/** About the preset without its trials: up to its bound over a fifth of the run, then its envelope. */
export const blindRobust = (): Schedule =>
  warmup(cosineAnnealingLr({ lr: 1, tMax: percent(100) }), { totalIters: percent(20), startFactor: 0.005 });

/** The preset but for some of its options. */
const robustWith = (title: string, own: Partial<TrialOptions>, note: string): ScheduledMethod => ({
  title, family: 'trial', note, takesRate: true, takesOptions: true,
  schedule: ({ lr, options }) => new TrialScheduler(robust({ lr, ...own, ...options })),
});

/** The published rule with 5 factors, but for what its losses say. */
const control = (name: ControlName, title: string, note: string): ScheduledMethod => ({
  title,
  family: 'control',
  note,
  takesRate: true,
  takesOptions: false,
  schedule: ({ lr }) => new TrialScheduler(asPublished('factor5', { lr, control: name })),
});

/** A rule with its authors' defaults, that starts from the first rate. */
const rule = (title: string, note: string, schedule: (lr: number) => Schedule): ScheduledMethod =>
  ({ title, family: 'rule', note, takesRate: true, takesOptions: false, schedule: ({ lr }) => schedule(lr) });

/** A rule with its authors' defaults, that finds its first rate itself. */
const rateless = (title: string, note: string, schedule: () => Schedule): ScheduledMethod =>
  ({ title, family: 'rule', note, takesRate: false, takesOptions: false, schedule });

/** One beam: the technique's own paper is not at hand, which tells how many it had. */
const alr = (title: string, note: string): TreeMethod =>
  ({ title, family: 'tree', note, takesRate: true, takesOptions: false, tree: ({ lr }) => ({ lr, beam: 1, factors: 'factor3' }) });

/** Total: a name without an entry does not compile. Lengths of PyTorch's defaults are those of 100 epochs, in proportion. */
export const methods: Record<MethodName, Method> = {
  constant: closed('constant', 'no scheduler', ({ lr }) => new ConstantSchedule({ lr })),
  torchConstantLr: closed('ConstantLR()', "PyTorch's class of that name: a third of the rate for 5 % of the run, then constant",
    ({ lr, epochs }) => perEpoch(constantLr({ lr, totalIters: steps(shareOf(epochs, 5)) }))),
  linearDefault: closed('linear: LinearLR()', "PyTorch's defaults: from a third to the whole rate over 5 % of the run, then constant",
    ({ lr, epochs }) => perEpoch(linearLr({ lr, totalIters: steps(shareOf(epochs, 5)) }))),
  linearDecay: closed('linear: decay', 'from the rate to 0 over the run, once an epoch', ({ lr, epochs }) =>
    perEpoch(linearLr({ lr, startFactor: 1, endFactor: 0, totalIters: steps(epochs) }))),
  cosine: closed('cosine', 'CosineAnnealingLR(T_max = epochs), once an epoch', ({ lr, epochs }) =>
    perEpoch(cosineAnnealingLr({ lr, tMax: steps(epochs) }))),
  step: closed('step', 'StepLR(step_size = 30 % of the run, gamma = 0.1): 30 epochs of 100', ({ lr, epochs }) =>
    perEpoch(stepLr({ lr, stepSize: steps(shareOf(epochs, 30)) }))),
  published3: published('factor3', 'published, 3 factors'),
  published5: published('factor5', 'published, 5 factors'),
  published7: published('factor7', 'published, 7 factors'),
  robust: robustWith('robust', {},
    'robust(): the largest of 7 factors that keeps a tenth of the linear decrease; 8 events 32 steps apart, then 4 an epoch that raise it no higher; × cosine'),
  robustInverseSqrt: robustWith('robust, × 1/√(1 + epochs)', { envelope: 'inverseSqrt' },
    "robust({ envelope: 'inverseSqrt' }): a decay that need not know the run's length"),
  robustNoDecay: robustWith('robust, no decay', { envelope: 'none' }, "robust({ envelope: 'none' }): what its trials do by themselves"),
  gate: robustWith('gate, no search, × cosine', gateOptions,
    'robust({ c: 0.25, search: null, bounds: [1e-8, 10] }): the largest factor that keeps a quarter of it, 4 events an epoch that can raise it too'),
  gateNoDecay: robustWith('gate, no search, no decay', { ...gateOptions, envelope: 'none' }, 'what that gate does by itself'),
  minMax: robustWith('min-max × cosine', minMaxOptions,
    'the published score with 7 factors, 4 events an epoch, along the step to be made, held where losses are equal, × cosine'),
  blindDrift: control('blindDrift', 'control: blind drift',
    'published, 5 factors, told equal losses: no trial is run, the rate falls by 0.87 an event'),
  shuffledLosses: control('shuffledLosses', 'control: shuffled losses',
    'published, 5 factors, its losses dealt out among the factors at random'),
  robustShuffled: {
    ...robustWith('control: robust, shuffled', { control: 'shuffledLosses' }, 'robust(), its losses dealt out among the factors at random'),
    family: 'control',
  },
  robustBlind: {
    ...closed('control: robust, blind', 'about what robust() would do if it looked at no loss: from 0.005 to its bound, 1, over a fifth of the run, × cosine',
      blindRobust),
    family: 'control', takesRate: false,
  },
  slsArmijo: rule('SLS: Armijo', 'searches each step down by 0.9 from 2^(1/B) times the last rate, at first from the rate; 10 trials, c = 0.1',
    (lr) => slsArmijo({ initLr: lr })),
  pal: rateless('PAL', 'the parabola through a trial at distance 1 along the step, 1.67 times to its minimum, at most 3.16', () => pal()),
  cdat: rateless('CDAT', 'twice the slope over the curvature along the step, averaged with 0.9: two trials a step', () => cdat()),
  hypergradient: rule('hypergradient', 'moves the rate down its own gradient by 1e-6 of it', (lr) => hypergradient({ lr })),
  sps: rule('SPS', 'Polyak step with f* = 0, c = 0.5, at most the rate at first, then at most twice as large an epoch', (lr) => sps({ initLr: lr })),
  aliG: rule('ALI-G', 'Polyak step with f* = 0, at most the rate', (lr) => aliG({ maxLr: lr })),
  dog: rateless('DoG', 'distance from the first weights over the root of the sum of squared gradients; evaluated at an average of the weights',
    () => dog()),
  scheduleFree: rule('Schedule-Free SGD', 'averages in the place of a decay, β = 0.9; its authors take 10 to 50 times the rate of a schedule',
    (lr) => scheduleFree({ lr })),
  alr: alr('ALR', 'M = 1 beam, N = 3 factors 2, 1, ½, a whole epoch a branch, the least mean training loss goes on: three times the cost'),
  alrEqualCost: { ...alr('ALR at equal cost', 'the same with a third of the epochs, in whole ones: 1.5 times the cost of other runs at smoke, 0.9 at small, 0.99 at paper'), epochShare: 1 / 3 },
};

export const methodNames = Object.keys(methods) as MethodName[];
