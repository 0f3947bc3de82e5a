/** The options of the commands that say how trials are scored, and the trial scheduler's options that they come to. */
import { ForkstepError } from '../gpu/errors.ts';
import { presets, TrialScheduler } from '../sched/index.ts';
import type { Cadence, EnvelopeName, Factors, PresetName, PureSchedule, TrialOptions, TrialSearch } from '../sched/index.ts';
import { UsageError, choice, flagOf, number } from './args.ts';
import type { OptionValues } from './args.ts';

const onOff = ['on', 'off'] as const;

export const scoringOptions = {
  score: choice(['exp', 'relGain', 'rank', 'pairedNoise', 'armijo'], {
    default: undefined,
    defaultText: "the preset's, exp|armijo",
    help: 'how losses become weights',
  }),
  normalize: choice(['minMax', 'zScore', 'mean', 'sum', 'l2', 'none'], {
    default: undefined,
    defaultText: 'minMax with the score exp, none with others',
    help: 'what is made of losses before',
  }),
  tau: number({ default: undefined, above: 0, defaultText: '1', help: 'temperature of exp, relGain and rank' }),
  kappa: number({ default: undefined, above: 0, defaultText: '1', help: 'standard errors that pairedNoise takes for noise' }),
  armijoC: number({
    default: undefined,
    above: 0,
    below: 1,
    defaultText: '0.1',
    help: 'share of the linear decrease that armijo asks for',
  }),
  anchor: choice(onOff, {
    default: undefined,
    defaultText: "the preset's, off|on, but off with armijo",
    help: 'equal scores leave the rate alone, whatever the factors',
  }),
  hold: choice(onOff, {
    default: undefined,
    defaultText: "the preset's, off|on",
    help: 'losses equal within rounding leave the rate alone',
  }),
  scoreOn: choice(['same', 'heldOut', 'both'], {
    default: undefined,
    defaultText: 'same',
    help: 'what trials are scored on: the training batch, other training images, or both',
  }),
  direction: choice(['gradient', 'accumulated', 'optimizer'], {
    default: undefined,
    defaultText: "the preset's, gradient|accumulated",
    help: 'trials step along the raw gradient, along all that momentum makes of it, or as the optimizer would',
  }),
  control: choice(['blindDrift', 'shuffledLosses'], {
    default: undefined,
    defaultText: 'none',
    help: 'a run to compare with: equal losses and no trials (not with armijo), or losses handed out among the factors at random',
  }),
};

type ScoringValues = OptionValues<typeof scoringOptions>;

/** What the trial scheduler is made of on the command line. */
export interface TrialValues extends ScoringValues {
  preset: PresetName;
  lr: number;
  factors: Factors | undefined;
  every: Cadence | undefined;
  search: TrialSearch | 'none' | undefined;
  envelope: EnvelopeName | undefined;
  scoreBatch: number | undefined;
}

/** The key of the command's option for each of the scheduler's, where they differ. */
const keyOf: Record<string, string> = { batch: 'scoreOn', c: 'armijoC' };

/**
 * The options of the trial scheduler: a preset, and what the user set himself. With a base, the scale starts from 1 and nothing else
 * decays.
 */
export function trialOptionsOf(values: TrialValues, base: PureSchedule | null = null): TrialOptions {
  const { factors, every, envelope, scoreBatch, score, normalize, tau, kappa, armijoC: c, scoreOn: batch, direction, control } = values;
  const [anchor, hold] = [values.anchor, values.hold].map((word) => word && word === 'on');
  const search = values.search === 'none' ? null : values.search;
  const given = { search, factors, every, envelope, scoreBatch, score, normalize, tau, kappa, c, anchor, hold, batch, direction, control };
  const chosen = Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined)) as Partial<TrialOptions>;
  return presets[values.preset]({ ...chosen, ...(base ? { base } : { lr: values.lr }) });
}

/** @throws UsageError for choices that the trial scheduler refuses, in words of the command line */
export function checkTrials(
  command: string,
  values: TrialValues & { batch: number; memoryBudget: number | undefined },
  base: PureSchedule | null = null,
): void {
  const refuse = (arg: string, rule: string, got: string, fix: string): never => {
    throw new UsageError({ op: command, arg, rule, got, fix });
  };
  if (values.control === 'blindDrift' && values.memoryBudget !== undefined)
    refuse('--memory-budget', 'must not be given with --control blindDrift', 'it', 'leave it out: no trial is run');
  const images = (values.scoreBatch ?? values.batch) * (values.scoreOn === 'both' ? 2 : 1);
  if (values.score === 'pairedNoise' && images < 2)
    refuse('--score-batch', 'must be ≥ 2 with --score pairedNoise', String(images), 'one image has no standard error');
  try {
    new TrialScheduler(trialOptionsOf(values, base));
  } catch (error) {
    if (!(error instanceof ForkstepError)) throw error;
    const key = keyOf[error.arg] ?? error.arg;
    const arg = Object.hasOwn(scoringOptions, key) ? flagOf(key) : error.arg;
    // What does not go with a score that nobody named, but the preset.
    const named = values.score === undefined && error.expected.includes('score') ? 'name another --score, or ' : '';
    throw new UsageError({ op: command, arg, rule: error.expected, got: error.got, fix: `${named}see ${command} --help` }, { cause: error });
  }
}
