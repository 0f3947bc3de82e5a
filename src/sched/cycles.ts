/** Schedules of a shape of their own: cyclic ones, one cycle over a run, and those with a warm-up in them. e is the update, from 0. */
import { AttrError } from '../gpu/errors.ts';
import { checkDuration, percent, steps, stepsOf, type Duration, type RunLength } from './durations.ts';
import { checkNumber, checkWord, PureSchedule } from './pure.ts';
import { checkLr, checkNames } from './schedule.ts';

export interface CyclicLrOptions {
  /** Where cycles begin and end. */
  readonly baseLr: number;
  /** Their peak. */
  readonly maxLr: number;
  /** ≥ 1 step. @default steps(2000) */
  readonly stepSizeUp?: Duration;
  /** ≥ 1 step. @default stepSizeUp */
  readonly stepSizeDown?: Duration;
  /** Heights of the peaks: all alike; halved each cycle; times gamma^e. @default 'triangular' */
  readonly mode?: 'triangular' | 'triangular2' | 'exp_range';
  /** > 0, of mode 'exp_range'. @default 1 */
  readonly gamma?: number;
}

/**
 * baseLr + (maxLr − baseLr) · s · scale: s rises from 0 to 1 in stepSizeUp steps and falls back in stepSizeDown. Momentum is not cycled.
 * @throws AttrError for parameters out of range
 * @source Smith, Cyclical learning rates (2017); PyTorch `lr_scheduler.CyclicLR(cycle_momentum=False)`
 */
export function cyclicLr(options: CyclicLrOptions): PureSchedule {
  const op = 'cyclicLr';
  const { baseLr, maxLr, stepSizeUp = steps(2000), stepSizeDown = stepSizeUp, mode = 'triangular', gamma = 1 } = options;
  checkNames(op, options, ['baseLr', 'maxLr', 'stepSizeUp', 'stepSizeDown', 'mode', 'gamma']);
  checkNumber(op, 'baseLr', baseLr, { min: 0 });
  checkNumber(op, 'maxLr', maxLr, { above: 0, min: baseLr });
  checkWord(op, 'mode', mode, ['triangular', 'triangular2', 'exp_range']);
  checkNumber(op, 'gamma', gamma, { above: 0 });
  if (options.gamma !== undefined && mode !== 'exp_range') {
    throw new AttrError({ op, arg: 'gamma', rule: "must go with mode 'exp_range'", got: gamma, fix: 'leave it out' });
  }
  checkDuration(op, 'stepSizeUp', stepSizeUp);
  checkDuration(op, 'stepSizeDown', stepSizeDown);
  const rate = (e: number, run: RunLength) => {
    const up = stepsOf(op, 'stepSizeUp', stepSizeUp, run, 1);
    const down = stepsOf(op, 'stepSizeDown', stepSizeDown, run, 1);
    const within = e % (up + down);
    const rise = within <= up ? within / up : (up + down - within) / down;
    const scale = { triangular: 1, triangular2: 0.5 ** Math.floor(e / (up + down)), exp_range: gamma ** e }[mode];
    return baseLr + (maxLr - baseLr) * rise * scale;
  };
  const parameters = { baseLr, maxLr, stepSizeUp, stepSizeDown, mode, gamma };
  return new PureSchedule({ kind: op, lr: baseLr, isFactor: false, parameters, rate });
}

export interface OneCycleLrOptions {
  /** The peak. */
  readonly maxLr: number;
  /** ≥ 2 steps; asked beyond its last one, the schedule throws. @default percent(100) */
  readonly totalSteps?: Duration;
  /** Share of the cycle that rises, in (0, 1). @default 0.3 */
  readonly pctStart?: number;
  /** @default 'cos' */
  readonly annealStrategy?: 'cos' | 'linear';
  /** It starts at maxLr / divFactor. > 0, @default 25 */
  readonly divFactor?: number;
  /** It ends at maxLr / divFactor / finalDivFactor. > 0, @default 1e4 */
  readonly finalDivFactor?: number;
  /** Falls to where it started as fast as it rose, and then to the end. @default false */
  readonly threePhase?: boolean;
}

/**
 * From maxLr / divFactor up to maxLr and down to the end, in two phases or three that end at the steps pctStart · T − 1, [2 · pctStart · T − 2,]
 * T − 1. Momentum is not cycled.
 * @throws AttrError for parameters out of range
 * @source Smith & Topin, Super-convergence (2018); PyTorch `lr_scheduler.OneCycleLR(cycle_momentum=False)`
 */
export function oneCycleLr(options: OneCycleLrOptions): PureSchedule {
  const op = 'oneCycleLr';
  const { maxLr, totalSteps = percent(100), pctStart = 0.3, annealStrategy = 'cos', divFactor = 25, finalDivFactor = 1e4 } = options;
  const { threePhase = false } = options;
  checkNames(op, options, ['maxLr', 'totalSteps', 'pctStart', 'annealStrategy', 'divFactor', 'finalDivFactor', 'threePhase']);
  checkNumber(op, 'maxLr', maxLr, { above: 0 });
  checkDuration(op, 'totalSteps', totalSteps);
  checkNumber(op, 'pctStart', pctStart, { above: 0, max: threePhase ? 0.5 : 1 });
  checkWord(op, 'annealStrategy', annealStrategy, ['cos', 'linear']);
  checkNumber(op, 'divFactor', divFactor, { above: 0 });
  checkNumber(op, 'finalDivFactor', finalDivFactor, { above: 0 });
  if (typeof threePhase !== 'boolean') {
    throw new AttrError({ op, arg: 'threePhase', rule: 'must be true or false', got: threePhase, fix: 'leave it out for false' });
  }
  const first = maxLr / divFactor;
  const last = first / finalDivFactor;
  const anneal = (from: number, to: number, share: number) =>
    annealStrategy === 'cos' ? to + ((from - to) / 2) * (1 + Math.cos(Math.PI * share)) : from + (to - from) * share;
  const rate = (e: number, run: RunLength) => {
    const T = stepsOf(op, 'totalSteps', totalSteps, run, 2);
    if (e >= T) throw new AttrError({ op, arg: 'step', rule: `must be < totalSteps (${T})`, got: e, fix: 'make the cycle as long as the run' });
    const top = pctStart * T - 1;
    const rates = threePhase ? [first, maxLr, first, last] : [first, maxLr, last];
    const ends = threePhase ? [0, top, 2 * top, T - 1] : [0, top, T - 1];
    const i = ends.findIndex((end, k) => k > 0 && (e <= end || k === ends.length - 1)) - 1;
    const span = ends[i + 1] - ends[i];
    return anneal(rates[i], rates[i + 1], span > 0 ? (e - ends[i]) / span : 1);
  };
  const parameters = { maxLr, totalSteps, pctStart, annealStrategy, divFactor, finalDivFactor, threePhase };
  return new PureSchedule({ kind: op, lr: first, isFactor: false, parameters, rate });
}

export interface InverseSqrtOptions {
  /** The peak, at the end of the warm-up. */
  readonly lr: number;
  /** Linear from 0. */
  readonly warmupSteps: Duration;
  /** In how many steps the rate falls to lr/√2 after the warm-up. ≥ 1 step, @default warmupSteps */
  readonly timescale?: Duration;
}

/**
 * lr · e/W for e < W, then lr · √(s / (e − W + s)); W = warmupSteps, s = timescale.
 * @throws AttrError for parameters out of range
 * @source Vaswani et al., Attention is all you need (2017), §5.3; transformers `get_inverse_sqrt_schedule`
 */
export function inverseSqrt({ lr, warmupSteps, timescale = warmupSteps, ...rest }: InverseSqrtOptions): PureSchedule {
  const op = 'inverseSqrt';
  checkNames(op, rest, ['lr', 'warmupSteps', 'timescale']);
  checkLr(op, lr);
  checkDuration(op, 'warmupSteps', warmupSteps);
  checkDuration(op, 'timescale', timescale);
  const rate = (e: number, run: RunLength) => {
    const W = stepsOf(op, 'warmupSteps', warmupSteps, run);
    if (e < W) return (lr * e) / W;
    const s = stepsOf(op, 'timescale', timescale, run, 1);
    return lr * Math.sqrt(s / (e - W + s));
  };
  return new PureSchedule({ kind: op, lr, isFactor: true, parameters: { warmupSteps, timescale }, rate });
}

/** Share of the decay that is over, 0 … 1 → share of the rate that is left. */
const wsdDecays = {
  linear: (p: number) => 1 - p,
  cosine: (p: number) => (1 + Math.cos(Math.PI * p)) / 2,
  '1-sqrt': (p: number) => 1 - Math.sqrt(p),
};

export interface WarmupStableDecayOptions {
  /** That of the stable phase. */
  readonly lr: number;
  /** Linear from minLrRatio · lr. */
  readonly warmupSteps: Duration;
  readonly decaySteps: Duration;
  /** Of the three phases together; the decay is its end. @default percent(100) */
  readonly totalSteps?: Duration;
  /** @default 'cosine' */
  readonly decayType?: keyof typeof wsdDecays;
  /** Where warm-up begins and decay ends, in units of lr, in [0, 1]. @default 0 */
  readonly minLrRatio?: number;
}

/**
 * Up in warmupSteps, level, and down in the last decaySteps of totalSteps; minLrRatio · lr from there on.
 * @throws AttrError for parameters out of range, and phases longer than the whole
 * @source transformers `get_wsd_schedule`
 */
export function warmupStableDecay(options: WarmupStableDecayOptions): PureSchedule {
  const op = 'warmupStableDecay';
  const { lr, warmupSteps, decaySteps, totalSteps = percent(100), decayType = 'cosine', minLrRatio = 0 } = options;
  checkNames(op, options, ['lr', 'warmupSteps', 'decaySteps', 'totalSteps', 'decayType', 'minLrRatio']);
  checkLr(op, lr);
  for (const [name, value] of Object.entries({ warmupSteps, decaySteps, totalSteps })) checkDuration(op, name, value);
  checkWord(op, 'decayType', decayType, Object.keys(wsdDecays));
  checkNumber(op, 'minLrRatio', minLrRatio, { min: 0, max: 1 });
  const rate = (e: number, run: RunLength) => {
    const [W, D] = [stepsOf(op, 'warmupSteps', warmupSteps, run), stepsOf(op, 'decaySteps', decaySteps, run)];
    const T = stepsOf(op, 'totalSteps', totalSteps, run, 1);
    if (W + D > T) {
      const rule = `must be ≥ warmupSteps + decaySteps (${W + D})`;
      throw new AttrError({ op, arg: 'totalSteps', rule, got: T, fix: 'shorten a phase' });
    }
    const left = e < W ? e / W : e < T - D ? 1 : e < T ? wsdDecays[decayType]((e - T + D) / D) : 0;
    return lr * (minLrRatio + (1 - minLrRatio) * left);
  };
  const parameters = { warmupSteps, decaySteps, totalSteps, decayType, minLrRatio };
  return new PureSchedule({ kind: op, lr, isFactor: true, parameters, rate });
}
