/** Schedules made of schedules. */
import { AttrError } from '../gpu/errors.ts';
import { checkDuration, stepsOf, type Duration, type RunLength } from './durations.ts';
import { checkNumber, PureSchedule } from './pure.ts';
import { checkNames } from './schedule.ts';

const refuse = (op: string, arg: string, rule: string, got: unknown, fix: string): never => {
  throw new AttrError({ op, arg, rule, got, fix });
};

/** As PyTorch, which refuses it there too: what depends on metrics has no value at a step. */
function checkPure(op: string, arg: string, schedule: PureSchedule): void {
  if (schedule instanceof PureSchedule) return;
  refuse(op, arg, 'must be a schedule in closed form', (schedule as object)?.constructor?.name ?? schedule, 'pass one such as linearLr(…)');
}

function checkList(op: string, schedules: readonly PureSchedule[]): void {
  if (!Array.isArray(schedules) || schedules.length === 0) {
    refuse(op, 'schedules', 'must be a list of at least one', schedules, 'pass [linearLr(…), cosineAnnealingLr(…)]');
  }
  schedules.forEach((schedule, i) => checkPure(op, `schedules[${i}]`, schedule));
}

/**
 * One schedule after the other: schedule i begins anew, at its own step 0, at milestones[i − 1]. In it, percent are of its own stretch,
 * which for the last one ends with the run.
 * @param milestones one fewer than schedules, rising
 * @throws AttrError for lists that do not fit, and milestones that do not rise
 * @source PyTorch `lr_scheduler.SequentialLR`
 */
export function sequential(schedules: readonly PureSchedule[], milestones: readonly Duration[]): PureSchedule {
  const op = 'sequential';
  checkList(op, schedules);
  if (!Array.isArray(milestones) || milestones.length !== schedules.length - 1) {
    refuse(op, 'milestones', `must be ${schedules.length - 1}, one fewer than schedules`, milestones?.length, 'give one between each two');
  }
  const [own, ends] = [[...schedules], [...milestones]];
  ends.forEach((one, i) => checkDuration(op, `milestones[${i}]`, one));
  const rate = (e: number, run: RunLength) => {
    const at = ends.map((one, i) => stepsOf(op, `milestones[${i}]`, one, run));
    at.forEach((one, i) => i > 0 && one <= at[i - 1] && refuse(op, `milestones[${i}]`, `must be > ${at[i - 1]} steps`, one, 'let them rise'));
    const next = at.findIndex((one) => e < one);
    const i = next === -1 ? at.length : next;
    const start = i === 0 ? 0 : at[i - 1];
    const end = i < at.length ? at[i] : run.totalSteps;
    return own[i].spec.rate(e - start, { ...run, totalSteps: end === undefined ? undefined : end - start });
  };
  const parameters = { schedules: own.map((schedule) => schedule.state()), milestones: ends };
  return new PureSchedule({ kind: op, lr: schedules[0].lr, isFactor: schedules.every(({ spec }) => spec.isFactor), parameters, rate });
}

/**
 * Several schedules of one rate at once: lr times the factor of each.
 * @throws AttrError where their lr differ, and for one that is no factor on its lr: cyclicLr, oneCycleLr, cosines with etaMin > 0
 * @source PyTorch `lr_scheduler.ChainedScheduler`; differences: it is a product for ever, where PyTorch's recursion leaves it after a cosine's
 * first tMax, and where LambdaLR and CosineAnnealingWarmRestarts, which set the rate anew, drop what the schedules before them made of it
 */
export function chained(schedules: readonly PureSchedule[]): PureSchedule {
  const op = 'chained';
  checkList(op, schedules);
  const [{ lr }] = schedules;
  schedules.forEach(({ lr: own, spec }, i) => {
    if (own !== lr) refuse(op, `schedules[${i}].lr`, `must be ${lr}, as the first one's`, own, 'they are factors on one rate');
    if (!spec.isFactor) refuse(op, `schedules[${i}]`, 'must be a factor on lr', spec.kind, 'let it follow: sequential');
  });
  const own = [...schedules];
  const rate = (e: number, run: RunLength) => own.reduce((product, { spec }) => product * (spec.rate(e, run) / lr), lr);
  return new PureSchedule({ kind: op, lr, isFactor: true, parameters: { schedules: schedules.map((one) => one.state()) }, rate });
}

export interface WarmupOptions {
  readonly totalIters: Duration;
  /** Of the schedule's first rate, in [0, 1]. @default 1/3 */
  readonly startFactor?: number;
}

/**
 * totalIters steps on a straight line from startFactor times the schedule's first rate to that rate, then the schedule from its own step 0.
 * With 1/3 the steps are those of PyTorch's SequentialLR([LinearLR(…), schedule], [totalIters]).
 * @throws AttrError for parameters out of range
 */
export function warmup(schedule: PureSchedule, { totalIters, startFactor = 1 / 3, ...rest }: WarmupOptions): PureSchedule {
  const op = 'warmup';
  checkPure(op, 'schedule', schedule);
  checkNames(op, rest, ['totalIters', 'startFactor']);
  checkDuration(op, 'totalIters', totalIters);
  checkNumber(op, 'startFactor', startFactor, { min: 0, max: 1 });
  const rate = (e: number, run: RunLength) => {
    const W = stepsOf(op, 'totalIters', totalIters, run);
    const rest = run.totalSteps === undefined ? run : { ...run, totalSteps: run.totalSteps - W };
    if (e >= W) return schedule.spec.rate(e - W, rest);
    try {
      return schedule.spec.rate(0, rest) * (startFactor + ((1 - startFactor) * e) / W);
    } catch (cause) {
      // A run that ends within the warm-up leaves the schedule no length: one that goes by it has no first rate then.
      if (!(cause instanceof AttrError && run.totalSteps !== undefined && run.totalSteps <= W)) throw cause;
      // What it refuses in a long run too has another reason, which it tells itself.
      schedule.spec.rate(0, { ...run, totalSteps: 1_000_000 });
      const rule = `must be < ${run.totalSteps} steps, the run's: ${schedule.spec.kind} goes by what is left of it`;
      const got = `${JSON.stringify(totalIters)} = ${W} steps`;
      throw new AttrError({ op, arg: 'totalIters', rule, got, fix: 'make the warm-up shorter, or the run longer' }, { cause });
    }
  };
  const { lr, spec } = schedule;
  return new PureSchedule({ kind: op, lr, isFactor: spec.isFactor, parameters: { schedule: schedule.state(), totalIters, startFactor }, rate });
}

/**
 * The schedule moved once an epoch instead of once an update, as where PyTorch's `scheduler.step()` ends an epoch: update t runs at its rate
 * of step ⌊t / stepsPerEpoch⌋. In it a step is an epoch.
 * @throws AttrError where stepsPerEpoch is unknown
 */
export function perEpoch(schedule: PureSchedule): PureSchedule {
  const op = 'perEpoch';
  checkPure(op, 'schedule', schedule);
  const rate = (e: number, { totalSteps, stepsPerEpoch }: RunLength) => {
    const length = stepsOf(op, 'an epoch', { epochs: 1 }, { stepsPerEpoch });
    return schedule.spec.rate(Math.floor(e / length), {
      totalSteps: totalSteps === undefined ? undefined : Math.ceil(totalSteps / length),
      stepsPerEpoch: 1,
    });
  };
  const { lr, spec } = schedule;
  return new PureSchedule({ kind: op, lr, isFactor: spec.isFactor, parameters: { schedule: schedule.state() }, rate });
}
