/** Every way to set the learning rate that a study can compare, by name: one entry each. */
import {
  asPublished, ConstantSchedule, constantLr, cosineAnnealingLr, linearLr, perEpoch, robust, stepLr, steps, TrialScheduler,
} from '../sched/index.ts';
import type { ControlName, FactorSetName, Schedule } from '../sched/index.ts';
import type { MethodOptions } from './recipe.ts';

/** Where a method stands in tables and pictures. */
export type Family = 'schedule' | 'control' | 'trial';

/** What a method is told of the run. */
export interface Frame {
  /** Learning rate to start from. */
  readonly lr: number;
  readonly epochs: number;
  readonly options: MethodOptions;
}

export interface Method {
  /** As tables and legends name it. */
  readonly title: string;
  readonly family: Family;
  /** What it does, in one line, with every number that somebody chose. */
  readonly note: string;
  /** Whether it takes options of the trial scheduler. */
  readonly takesOptions: boolean;
  /** A fresh schedule for one run. */
  schedule(frame: Frame): Schedule;
}

export type MethodName =
  | 'constant' | 'torchConstantLr' | 'linearDefault' | 'linearDecay' | 'cosine' | 'step'
  | 'published3' | 'published5' | 'published7' | 'robust'
  | 'blindDrift' | 'shuffledLosses';

/** So many epochs of 100, in a run of any length: PyTorch's defaults count epochs, and the paper's runs have 100. */
const shareOf = (epochs: number, of100: number): number => Math.max(1, Math.round((epochs * of100) / 100));

/** A schedule in closed form, which takes no options. */
const closed = (title: string, note: string, schedule: (frame: Frame) => Schedule): Method =>
  ({ title, family: 'schedule', note, takesOptions: false, schedule });

const published = (factors: FactorSetName, title: string): Method => ({
  title,
  family: 'trial',
  note: `asPublished('${factors}'): min-max, e^−x, once an epoch, on the training batch, along the raw gradient, no anchor`,
  takesOptions: true,
  schedule: ({ lr, options }) => new TrialScheduler(asPublished(factors, { lr, ...options })),
});

/** The published rule with 5 factors, but for what its losses say. */
const control = (name: ControlName, title: string, note: string): Method => ({
  title,
  family: 'control',
  note,
  takesOptions: false,
  schedule: ({ lr }) => new TrialScheduler(asPublished('factor5', { lr, control: name })),
});

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
  robust: {
    title: 'robust',
    family: 'trial',
    note: 'robust(): 7 factors, 4 events an epoch, along the step to be made, anchored, held where losses are equal, × cosine',
    takesOptions: true,
    schedule: ({ lr, options }) => new TrialScheduler(robust({ lr, ...options })),
  },
  blindDrift: control('blindDrift', 'control: blind drift', 'published, 5 factors, told equal losses: no trial is run, the rate falls by 0.87 an event'),
  shuffledLosses: control('shuffledLosses', 'control: shuffled losses', 'published, 5 factors, its losses dealt out among the factors at random'),
};

export const methodNames = Object.keys(methods) as MethodName[];
