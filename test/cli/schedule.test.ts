/** `forkstep schedule` and `forkstep train --schedule`. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { parseArgs, UsageError } from '../../src/cli/args.ts';
import { checkTrain, trainOptions } from '../../src/cli/options.ts';
import { trainSchedule } from '../../src/cli/run/setup.ts';
import { buildSchedule, checkSchedule, curveOf, scheduleNames, scheduleOptions, type ScheduleName } from '../../src/cli/scheduleOptions.ts';
import {
  constantLr, cosineAnnealingLr, epochs, exponentialLr, multiStepLr, oneCycleLr, percent, perEpoch, reduceLROnPlateau, steps, TrialScheduler, warmup,
} from '../../src/sched/index.ts';
import { buildCli, forkstep } from '../support/builtCli.ts';

const folder = mkdtempSync(join(tmpdir(), 'forkstep-schedule-'));
beforeAll(buildCli);
afterAll(() => rmSync(folder, { recursive: true }));

const command = 'forkstep schedule';
function curve(line: string): number[] {
  const parsed = parseArgs(command, scheduleOptions, line.split(' '));
  checkSchedule(command, parsed);
  return curveOf(parsed.positionals[0] as ScheduleName, parsed.values);
}

const thrown = (call: () => unknown): unknown => {
  try {
    return call();
  } catch (error) {
    return error;
  }
};

describe('a schedule from its parameters', () => {
  const lr = 0.1;
  it.each<[string, readonly number[]]>([
    ['cosineAnnealingLr --steps 60 --t-max 50 --eta-min 0.01', cosineAnnealingLr({ lr, tMax: steps(50), etaMin: 0.01 }).preview(60)],
    ['cosineAnnealingLr --steps 60 --t-max 50%', cosineAnnealingLr({ lr, tMax: percent(50) }).preview(60)],
    ['constantLr --lr 0.2 --total-iters 3epochs --steps-per-epoch 4', constantLr({ lr: 0.2, totalIters: epochs(3) }).preview(100, { stepsPerEpoch: 4 })],
    ['multiStepLr --milestones 5,60%', multiStepLr({ lr, milestones: [steps(5), percent(60)] }).preview(100)],
    ['oneCycleLr --max-lr 1 --three-phase --steps 40', oneCycleLr({ maxLr: 1, threePhase: true }).preview(40)],
    [
      'exponentialLr --gamma 0.9 --per-epoch --steps-per-epoch 5 --warmup 2 --warmup-factor 0',
      perEpoch(warmup(exponentialLr({ lr, gamma: 0.9 }), { totalIters: steps(2), startFactor: 0 })).preview(100, { stepsPerEpoch: 5 }),
    ],
    ['reduceLROnPlateau --metrics 1,1,0.5,0.6 --patience 0', reduceLROnPlateau({ lr, patience: 0 }).preview([1, 1, 0.5, 0.6])],
  ])('%s', (line, want) => expect(curve(line)).toEqual(want));

  it.each([
    ['stepLr', '--step-size', 'must be given with stepLr'],
    ['stepLr --step-size 2 --t-max 3', '--t-max', 'must be a parameter of stepLr'],
    ['cyclicLr --base-lr 0.1 --max-lr 1 --lr 2', '--lr', 'must not be given with cyclicLr'],
    ['cyclicLr --base-lr 0.1 --max-lr 1 --mode min', '--mode', /triangular/],
    ['linearLr --start-factor 2', '--start-factor', /≤ 1/],
    ['stepLr --step-size 3epochs', '--steps-per-epoch', /stepSize in epochs/],
    ['stepLr --step-size 1.5', '--step-size', /must be a length/], ['stepLr --step-size 101%', '--step-size', /must be a length/],
    ['oneCycleLr --max-lr 1 --total-steps 9', '--steps', 'must fit oneCycleLr, whose step must be < totalSteps (9)'],
    ['cosineAnnealingLr --steps 50 --t-max 100% --warmup 50', '--warmup', /must be < 50 steps, the run's/],
    ['cosineAnnealingLr --steps 10 --t-max 5epochs --warmup 50', '--steps-per-epoch', /must be an integer ≥ 1/],
    ['oneCycleLr --max-lr 1 --steps 1', '--steps', /must fit oneCycleLr, whose totalSteps must be ≥ 2 steps/],
    ['exponentialLr --gamma 1e9', '--steps', 'must leave rates finite'],
    ['exponentialLr --gamma 1 --metrics 1', '--metrics', 'must go with reduceLROnPlateau'],
    ['reduceLROnPlateau', '--metrics', 'must be given with reduceLROnPlateau'], ['reduceLROnPlateau --metrics 1,x', '--metrics', /must be numbers/],
    ['reduceLROnPlateau --metrics 1 --steps 3', '--steps', 'must go with another schedule'],
    ['reduceLROnPlateau --metrics 1 --per-epoch', '--per-epoch', 'must go with another schedule'],
    ['polynomialLr --warmup-factor 0.1', '--warmup-factor', 'must go with --warmup'],
  ])('%s is refused: %s', (line, arg, rule) => {
    const error = thrown(() => curve(line));
    expect(error).toBeInstanceOf(UsageError);
    expect(error).toMatchObject({ op: command, arg, expected: typeof rule === 'string' ? rule : expect.stringMatching(rule) });
  });

  it('is one of all that have numbers for parameters', () => {
    expect(scheduleNames).toHaveLength(13);
    // A parameter that no schedule has would be accepted nowhere.
    const { values } = parseArgs(command, scheduleOptions, []);
    const lengths = { tMax: steps(2), t0: steps(2), stepSize: steps(2), milestones: [steps(2)], warmupSteps: steps(1), decaySteps: steps(1) };
    const some = { ...values, ...lengths, gamma: 0.5, baseLr: 0.1, maxLr: 1 };
    for (const name of scheduleNames) {
      const made = thrown(() => buildSchedule(name, name === 'cyclicLr' ? { ...some, gamma: undefined } : some));
      expect(made, name).not.toBeInstanceOf(Error);
    }
  });
});

describe('forkstep schedule, built', () => {
  it('prints JSON and draws the curve', () => {
    const svg = join(folder, 'curves', 'cosine.svg');
    const { code, stdout, stderr } = forkstep(['schedule', 'cosineAnnealingLr', '--lr', '0.1', '--steps', '50', '--t-max', '50', '--json', '--svg', svg]);
    expect([code, stderr]).toEqual([0, '']);
    expect(JSON.parse(stdout)).toEqual({ name: 'cosineAnnealingLr', lr: cosineAnnealingLr({ lr: 0.1, tMax: steps(50) }).preview(50) });
    const text = readFileSync(svg, 'utf8');
    expect(text).toMatch(/^<svg /);
    expect(text.match(/<circle/g)).toHaveLength(50);
  });

  it('prints a table for people', () => {
    const { code, stdout } = forkstep(['schedule', 'stepLr', '--steps', '3', '--step-size', '2']);
    expect([code, stdout]).toEqual([0, '  step      learning rate\n  0         0.1\n  1         0.1\n  2         0.01\n']);
  });

  it('refuses in one line', () => {
    expect(forkstep(['schedule', 'cosineAnnealingLr'])).toEqual({
      code: 2, stdout: '', stderr: 'forkstep schedule: --t-max must be given with cosineAnnealingLr, got nothing; add --t-max\n',
    });
  });
});

describe('forkstep train --schedule', () => {
  const of = (line: string) => {
    const parsed = parseArgs('forkstep train', trainOptions, line.split(' '));
    checkTrain('forkstep train', parsed);
    return trainSchedule(parsed.values);
  };

  it('is the schedule, or the base of trials', () => {
    const cosine = '--schedule cosineAnnealingLr --t-max 100% --lr 0.1';
    const rates = cosineAnnealingLr({ lr: 0.1, tMax: percent(100) });
    expect(of(cosine).name).toBe('cosineAnnealingLr');
    expect(of(cosine).schedule.lrAt(3, 10)).toBe(rates.lrAt(3, 10));
    const { name, schedule } = of(`${cosine} --scheduler trial --preset robust`);
    expect(name).toBe('trial on cosineAnnealingLr');
    expect(schedule).toBeInstanceOf(TrialScheduler);
    expect((schedule as TrialScheduler).lr).toBe(1);
    expect(schedule.lrAt(3, 10)).toBe(rates.lrAt(3, 10));
    expect(of('--lr 0.1').name).toBe('trial');
    expect(of('--lr 0.1 --scheduler constant').schedule.lrAt(3, 10)).toBe(0.1);
  });

  it.each([
    ['--t-max 5', '--t-max'], ['--schedule stepLr --step-size 5 --scheduler constant', '--schedule'], ['--schedule stepLr', '--step-size'],
    ['--schedule reduceLROnPlateau --scheduler trial', '--schedule'], ['--schedule stepLr --step-size 5 --factors factor3', '--factors'],
    ['--schedule stepLr --step-size 5 --scheduler trial --envelope cosine', '--envelope'], ['--schedule stepLr --step-size 5 --gamma 0', '--gamma'],
  ])('refuses %s', (line, arg) => {
    const error = thrown(() => of(line));
    expect(error).toBeInstanceOf(UsageError);
    expect(error).toMatchObject({ arg });
  });
});
