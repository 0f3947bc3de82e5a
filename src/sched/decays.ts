/**
 * PyTorch's schedules that multiply a rate, in closed form. e is the update, from 0; b is lr. PyTorch's own objects are moved by `step()`:
 * once an update is what these do, once an epoch is `perEpoch` of them.
 */
import { AttrError } from '../gpu/errors.ts';
import { checkDuration, steps, stepsOf, type Duration, type RunLength } from './durations.ts';
import { checkNumber, PureSchedule } from './pure.ts';
import { checkLr, checkNames } from './schedule.ts';

const cosine = (share: number): number => (1 + Math.cos(Math.PI * share)) / 2;

/** A schedule lr · factor(e). @throws AttrError for a rate that is not > 0 */
function factorSchedule<T extends { lr: number }>(
  kind: string,
  { lr, ...parameters }: T,
  factor: (step: number, run: RunLength) => number,
): PureSchedule {
  checkLr(kind, lr);
  return new PureSchedule({ kind, lr, isFactor: true, parameters, rate: (step, run) => lr * factor(step, run) });
}

export interface ConstantLrOptions {
  readonly lr: number;
  /** In [0, 1]. @default 1/3 */
  readonly factor?: number;
  /** @default steps(5) */
  readonly totalIters?: Duration;
}

/**
 * b · factor for e < totalIters, then b; with totalIters of 0 b, where PyTorch stays at b · factor. For a rate that never changes factor 1, or
 * `ConstantSchedule`.
 * @throws AttrError for parameters out of range
 * @source PyTorch `lr_scheduler.ConstantLR`
 */
export function constantLr({ lr, factor = 1 / 3, totalIters = steps(5), ...rest }: ConstantLrOptions): PureSchedule {
  const op = 'constantLr';
  checkNames(op, rest, ['lr', 'factor', 'totalIters']);
  checkNumber(op, 'factor', factor, { min: 0, max: 1 });
  checkDuration(op, 'totalIters', totalIters);
  return factorSchedule(op, { lr, factor, totalIters }, (e, run) => (e < stepsOf(op, 'totalIters', totalIters, run) ? factor : 1));
}

export interface LinearLrOptions {
  readonly lr: number;
  /** In (0, 1]. @default 1/3 */
  readonly startFactor?: number;
  /** In [0, 1]. @default 1 */
  readonly endFactor?: number;
  /** @default steps(5) */
  readonly totalIters?: Duration;
}

/**
 * b · (s + (E − s) · min(e, T)/T), s = startFactor, E = endFactor, T = totalIters.
 * @throws AttrError for parameters out of range
 * @source PyTorch `lr_scheduler.LinearLR`
 */
export function linearLr({ lr, startFactor = 1 / 3, endFactor = 1, totalIters = steps(5), ...rest }: LinearLrOptions): PureSchedule {
  const op = 'linearLr';
  checkNames(op, rest, ['lr', 'startFactor', 'endFactor', 'totalIters']);
  checkNumber(op, 'startFactor', startFactor, { above: 0, max: 1 });
  checkNumber(op, 'endFactor', endFactor, { min: 0, max: 1 });
  checkDuration(op, 'totalIters', totalIters);
  return factorSchedule(op, { lr, startFactor, endFactor, totalIters }, (e, run) => {
    const T = stepsOf(op, 'totalIters', totalIters, run, 1);
    return startFactor + ((endFactor - startFactor) * Math.min(e, T)) / T;
  });
}

export interface CosineAnnealingLrOptions {
  readonly lr: number;
  /** Half a period, ≥ 1 step. */
  readonly tMax: Duration;
  /** ≥ 0. @default 0 */
  readonly etaMin?: number;
}

/**
 * m + (b − m) · (1 + cos πe/tMax)/2, m = etaMin. After tMax it rises again, with period 2 · tMax.
 * @throws AttrError for parameters out of range
 * @source PyTorch `lr_scheduler.CosineAnnealingLR`
 */
export function cosineAnnealingLr({ lr, tMax, etaMin = 0, ...rest }: CosineAnnealingLrOptions): PureSchedule {
  const op = 'cosineAnnealingLr';
  checkNames(op, rest, ['lr', 'tMax', 'etaMin']);
  checkLr(op, lr);
  checkNumber(op, 'etaMin', etaMin, { min: 0 });
  checkDuration(op, 'tMax', tMax);
  const rate = (e: number, run: RunLength) => etaMin + (lr - etaMin) * cosine(e / stepsOf(op, 'tMax', tMax, run, 1));
  return new PureSchedule({ kind: op, lr, isFactor: etaMin === 0, parameters: { tMax, etaMin }, rate });
}

export interface CosineAnnealingWarmRestartsOptions {
  readonly lr: number;
  /** The first period, ≥ 1 step. */
  readonly t0: Duration;
  /** Each period is so many times the one before, an integer ≥ 1. @default 1 */
  readonly tMult?: number;
  /** ≥ 0. @default 0 */
  readonly etaMin?: number;
}

/**
 * m + (b − m) · (1 + cos πc/T)/2, c the steps since the last restart and T the period: t0, t0 · tMult, t0 · tMult², …
 * @throws AttrError for parameters out of range
 * @source Loshchilov & Hutter, SGDR (2017); PyTorch `lr_scheduler.CosineAnnealingWarmRestarts`
 */
export function cosineAnnealingWarmRestarts(
  { lr, t0, tMult = 1, etaMin = 0, ...rest }: CosineAnnealingWarmRestartsOptions,
): PureSchedule {
  const op = 'cosineAnnealingWarmRestarts';
  checkNames(op, rest, ['lr', 't0', 'tMult', 'etaMin']);
  checkLr(op, lr);
  checkNumber(op, 'tMult', tMult, { min: 1, isInteger: true });
  checkNumber(op, 'etaMin', etaMin, { min: 0 });
  checkDuration(op, 't0', t0);
  const rate = (e: number, run: RunLength) => {
    let period = stepsOf(op, 't0', t0, run, 1);
    let since = tMult === 1 ? e % period : e;
    for (; since >= period; period *= tMult) since -= period;
    return etaMin + (lr - etaMin) * cosine(since / period);
  };
  return new PureSchedule({ kind: op, lr, isFactor: etaMin === 0, parameters: { t0, tMult, etaMin }, rate });
}

export interface StepLrOptions {
  readonly lr: number;
  /** ≥ 1 step. */
  readonly stepSize: Duration;
  /** > 0. @default 0.1 */
  readonly gamma?: number;
}

/**
 * b · gamma^⌊e/stepSize⌋.
 * @throws AttrError for parameters out of range
 * @source PyTorch `lr_scheduler.StepLR`
 */
export function stepLr({ lr, stepSize, gamma = 0.1, ...rest }: StepLrOptions): PureSchedule {
  const op = 'stepLr';
  checkNames(op, rest, ['lr', 'stepSize', 'gamma']);
  checkNumber(op, 'gamma', gamma, { above: 0 });
  checkDuration(op, 'stepSize', stepSize);
  return factorSchedule(op, { lr, stepSize, gamma }, (e, run) => gamma ** Math.floor(e / stepsOf(op, 'stepSize', stepSize, run, 1)));
}

export interface MultiStepLrOptions {
  readonly lr: number;
  /** In any order; one that is there twice counts twice. */
  readonly milestones: readonly Duration[];
  /** > 0. @default 0.1 */
  readonly gamma?: number;
}

/**
 * b · gamma^(milestones ≤ e).
 * @throws AttrError for parameters out of range
 * @source PyTorch `lr_scheduler.MultiStepLR`
 */
export function multiStepLr({ lr, milestones, gamma = 0.1, ...rest }: MultiStepLrOptions): PureSchedule {
  const op = 'multiStepLr';
  checkNames(op, rest, ['lr', 'milestones', 'gamma']);
  checkNumber(op, 'gamma', gamma, { above: 0 });
  if (!Array.isArray(milestones)) {
    throw new AttrError({ op, arg: 'milestones', rule: 'must be a list of lengths', got: milestones, fix: 'pass [percent(50), percent(75)]' });
  }
  const own = [...(milestones as readonly Duration[])];
  own.forEach((one, i) => checkDuration(op, `milestones[${i}]`, one));
  return factorSchedule(op, { lr, milestones: own, gamma }, (e, run) => {
    const passed = own.filter((one, i) => stepsOf(op, `milestones[${i}]`, one, run) <= e);
    return gamma ** passed.length;
  });
}

/**
 * b · gamma^e.
 * @param options.gamma > 0, of every update: `perEpoch` of it makes it of every epoch
 * @throws AttrError for parameters out of range
 * @source PyTorch `lr_scheduler.ExponentialLR`
 */
export function exponentialLr({ lr, gamma, ...rest }: { readonly lr: number; readonly gamma: number }): PureSchedule {
  const op = 'exponentialLr';
  checkNames(op, rest, ['lr', 'gamma']);
  checkNumber(op, 'gamma', gamma, { above: 0 });
  return factorSchedule(op, { lr, gamma }, (e) => gamma ** e);
}

export interface PolynomialLrOptions {
  readonly lr: number;
  /** @default steps(5) */
  readonly totalIters?: Duration;
  /** > 0. @default 1 */
  readonly power?: number;
}

/**
 * b · (1 − min(e, T)/T)^power, T = totalIters: 0 from T on.
 * @throws AttrError for parameters out of range
 * @source PyTorch `lr_scheduler.PolynomialLR`
 */
export function polynomialLr({ lr, totalIters = steps(5), power = 1, ...rest }: PolynomialLrOptions): PureSchedule {
  const op = 'polynomialLr';
  checkNames(op, rest, ['lr', 'totalIters', 'power']);
  checkNumber(op, 'power', power, { above: 0 });
  checkDuration(op, 'totalIters', totalIters);
  return factorSchedule(op, { lr, totalIters, power }, (e, run) => {
    const T = stepsOf(op, 'totalIters', totalIters, run, 1);
    return (1 - Math.min(e, T) / T) ** power;
  });
}

export interface LambdaLrOptions {
  readonly lr: number;
  /** The update, from 0, and the run's length → factor on lr. Must be pure. Not part of `state()`. */
  readonly lrLambda: (step: number, run: RunLength) => number;
}

/**
 * b · lrLambda(e).
 * @throws AttrError for parameters out of range, and a factor that is not finite and ≥ 0 when the rate is asked
 * @source PyTorch `lr_scheduler.LambdaLR`
 */
export function lambdaLr({ lr, lrLambda, ...rest }: LambdaLrOptions): PureSchedule {
  const op = 'lambdaLr';
  checkNames(op, rest, ['lr', 'lrLambda']);
  if (typeof lrLambda !== 'function') {
    throw new AttrError({ op, arg: 'lrLambda', rule: 'must be a function', got: lrLambda, fix: 'pass (step) => 0.95 ** step' });
  }
  return factorSchedule(op, { lr }, (e, run) => {
    const factor = lrLambda(e, run);
    checkNumber(op, `lrLambda(${e})`, factor, { min: 0 });
    return factor;
  });
}
