/** `forkstep train --schedule RULE`. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { parseArgs, UsageError } from '../../src/cli/args.ts';
import { checkTrain, trainOptions } from '../../src/cli/options.ts';
import { buildRule, isRule, ruleNames } from '../../src/cli/ruleOptions.ts';
import { trainSchedule } from '../../src/cli/run/setup.ts';
import {
  AdaptiveSchedule, aliG, cdat, dog, epochs, hypergradient, pal, scheduleFree, slsArmijo, sps, type Schedule,
} from '../../src/sched/index.ts';
import { buildCli, forkstep } from '../support/builtCli.ts';

const folder = mkdtempSync(join(tmpdir(), 'forkstep-rules-'));
beforeAll(buildCli);
afterAll(() => rmSync(folder, { recursive: true }));

const of = (line: string): Schedule => {
  const parsed = parseArgs('forkstep train', trainOptions, line.split(' '));
  checkTrain('forkstep train', parsed);
  const { name, schedule } = trainSchedule(parsed.values);
  expect(name).toBe(parsed.values.schedule);
  return schedule;
};

describe('a rule from its parameters', () => {
  it.each<[string, AdaptiveSchedule]>([
    ['slsArmijo', slsArmijo()],
    [
      'slsArmijo --init-lr 2 --c 0.2 --beta 0.5 --trials 4 --reset grow --gamma 3 --max-lr 5 --fallback-lr 1e-5 --memory-budget 1MiB',
      slsArmijo({ initLr: 2, c: 0.2, beta: 0.5, trials: 4, reset: 'grow', gamma: 3, maxLr: 5, fallbackLr: 1e-5 }),
    ],
    ['pal --measuring-step 0.1 --max-step 2 --momentum 0.4', pal({ measuringStep: 0.1, maxStep: 2 })],
    ['pal --update-factor 1.5', pal({ updateFactor: 1.5 })],
    ['cdat --sigma 1 --beta 0 --eps 1e-6 --span 0.1 --max-lr 3', cdat({ sigma: 1, beta: 0, eps: 1e-6, span: 0.1, maxLr: 3 })],
    ['hypergradient', hypergradient({ lr: 0.005 })],
    [
      'hypergradient --lr 0.1 --hypergrad-lr 1e-4 --min-lr 0 --max-lr 1 --momentum 0.9 --nesterov',
      hypergradient({ lr: 0.1, hypergradLr: 1e-4, minLr: 0, maxLr: 1 }),
    ],
    ['sps --c 1 --gamma 1.5 --init-lr 0.5', sps({ c: 1, gamma: 1.5, initLr: 0.5 })],
    ['sps --max-lr 2 --f-star 0.1 --eps 1e-6', sps({ maxLr: 2, fStar: 0.1, eps: 1e-6 })],
    ['aliG --max-lr 0.3 --eps 1e-4', aliG({ maxLr: 0.3, eps: 1e-4 })],
    ['dog', dog()],
    ['dog --reps-rel 1e-3 --eps 1e-6 --gamma 4 --weight-decay 0.1', dog({ repsRel: 1e-3, eps: 1e-6, gamma: 4 })],
    ['dog --no-average', dog({ average: false })],
    [
      'scheduleFree --lr 1 --beta 0.95 --warmup-steps 2epochs --r 1 --weight-lr-power 1 --statistic-batches 9',
      scheduleFree({ lr: 1, beta: 0.95, warmupSteps: epochs(2), r: 1, weightLrPower: 1, statisticBatches: 9 }),
    ],
  ])('--schedule %s', (line, want) => {
    expect(of(`--schedule ${line}`)).toBeInstanceOf(AdaptiveSchedule);
    expect(of(`--schedule ${line}`).state()).toEqual(want.state());
  });

  it.each([
    ['sps --lr 0.1', '--lr', 'must not be given with sps'], ['sps --beta 0.1', '--beta', 'must be a parameter of sps'],
    ['sps --t-max 5', '--t-max', 'must be a parameter of sps'], ['sps --c 0', '--c', /> 0/],
    ['sps --warmup 5', '--warmup', 'must be a parameter of sps'],
    ['aliG --per-epoch', '--per-epoch', 'must be a parameter of aliG'], ['hypergradient --lr 1 --max-lr 0.5', '--lr', /must lie in/],
    ['dog --momentum 0.9', '--momentum', 'must be 0 with dog'],
    ['scheduleFree --momentum 0.9', '--momentum', 'must be 0 with scheduleFree'],
    ['scheduleFree --beta 1', '--beta', /≤/], ['dog --scheduler trial', '--scheduler', /must not be given/],
    ['pal --scheduler constant', '--scheduler', /must not be given/], ['pal --factors 2,1', '--factors', /must go with --scheduler trial/],
    ['sps --memory-budget 1MiB', '--memory-budget', /must go with --scheduler trial/],
    ['sps --envelope cosine', '--envelope', /must not be given/],
    ['slsArmijo --trials 300', '--trials', /≤ 256/], ['stepLr --step-size 5 --beta 0.5', '--beta', 'must be a parameter of stepLr'],
  ])('--schedule %s is refused: %s', (line, arg, rule) => {
    let error: unknown;
    try {
      of(`--schedule ${line}`);
    } catch (thrown) {
      error = thrown;
    }
    expect(error).toBeInstanceOf(UsageError);
    const expected: unknown = typeof rule === 'string' ? rule : expect.stringMatching(rule);
    expect(error).toMatchObject({ op: 'forkstep train', arg, expected });
  });

  it('is there for each rule, by its name', () => {
    const { values } = parseArgs('forkstep train', trainOptions, []);
    expect(ruleNames).toHaveLength(8);
    for (const name of ruleNames) {
      expect(isRule(name)).toBe(true);
      expect(buildRule(name, values).spec.kind).toBe(name);
    }
    expect(isRule('stepLr')).toBe(false);
    expect(isRule(undefined)).toBe(false);
  });
});

it('forkstep train --schedule slsArmijo trains, and its steps say what the rule saw', () => {
  const out = join(folder, 'run');
  const line = 'train --schedule slsArmijo --trials 3 --width 2 --batch 4 --train-limit 8 --test-limit 4 --epochs 1';
  const { code, stderr } = forkstep([...line.split(' '), '--out', out]);
  expect(stderr).toContain('slsArmijo: 2 steps of 4 images');
  expect(code).toBe(0);
  interface StepLine {
    readonly type: string;
    readonly lr: number;
    readonly rule: { readonly facts: object; readonly words: { readonly accepted: number }; readonly losses: readonly number[] };
  }
  const lines = readFileSync(join(out, 'events.jsonl'), 'utf8').trim().split('\n').map((text) => JSON.parse(text) as StepLine);
  const steps = lines.filter(({ type }) => type === 'step');
  expect(steps).toHaveLength(2);
  for (const { lr, rule } of steps) {
    expect(Object.keys(rule.facts)).toEqual(['slope']);
    expect(rule.losses).toHaveLength(4);
    expect(lr === 1e-6).toBe(rule.words.accepted < 0);
  }
  const report = readFileSync(join(out, 'report.html'), 'utf8');
  expect(report).toContain('slsArmijo');
});
