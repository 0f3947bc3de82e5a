/** Whole trainings whose rate a rule sets, against the same in PyTorch's float64 (test/goldens/make_rules.py). */
import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import type { ImageDataset, ImageSet } from '../../src/data/dataset.ts';
import { flatten, relu } from '../../src/graph/functional.ts';
import type { Tensor } from '../../src/graph/tensor.ts';
import { Linear } from '../../src/nn/layers.ts';
import { Module } from '../../src/nn/module.ts';
import { CounterRandom, STREAM } from '../../src/nn/random.ts';
import { loadStateDict, stateDict } from '../../src/nn/stateDict.ts';
import * as sched from '../../src/sched/index.ts';
import type { AdaptiveSchedule, RuleName } from '../../src/sched/index.ts';
import type { SgdOptions } from '../../src/optim/sgd.ts';
import type { LoggedStep } from '../../src/train/stepLog.ts';
import type { Evaluation, TrainerOptions } from '../../src/train/trainerOptions.ts';
import { generatedStateDict, randomBits, uniform } from '../goldens/generate.ts';
import { expectClose } from '../support/close.ts';
import { useDevice } from '../support/device.ts';
import { ConvNet, withTrainer } from './nets.ts';

useDevice();

interface Case {
  readonly net: 'mlp' | 'conv';
  readonly rule: RuleName;
  readonly options: Record<string, unknown>;
  readonly optimizer: Record<string, number | boolean>;
  readonly losses: number[];
  readonly rates: number[];
  readonly projections: Record<string, number>;
  readonly testLoss: number;
  readonly nearest?: number;
}

type Setting = Record<'seed' | 'train' | 'test' | 'size' | 'classes' | 'batchSize' | 'steps', number> & Record<'mean' | 'std', number[]>;

const golden = readFileSync(new URL('../goldens/rules.json', import.meta.url), 'utf8');
const { setting, cases } = JSON.parse(golden) as { readonly setting: Setting; readonly cases: Case[] };

class Mlp extends Module {
  readonly fc1: Linear;
  readonly fc2: Linear;

  constructor() {
    super();
    const random = new CounterRandom(3, STREAM.init);
    this.fc1 = new Linear(3 * setting.size ** 2, 12, { random });
    this.fc2 = new Linear(12, setting.classes, { random });
  }

  override forward(x: Tensor): Tensor {
    return this.fc2.forward(relu(this.fc1.forward(flatten(x))));
  }
}

function modelOf(net: Case['net']): Module {
  const model = net === 'mlp' ? new Mlp() : new ConvNet();
  const specs = [...stateDict(model)].map(([name, { shape }]) => ({ name, shape }));
  loadStateDict(model, generatedStateDict(specs, setting.seed));
  return model;
}

function imagesOf(part: 'train' | 'test'): ImageSet {
  const { seed, size, classes } = setting;
  const count = setting[part];
  return {
    name: part, count, channels: 3, height: size, width: size,
    images: Uint8Array.from(randomBits(`${part}.images`, seed, count * 3 * size * size), (bits) => bits >>> 24),
    labels: Uint8Array.from(randomBits(`${part}.labels`, seed, count), (bits) => bits % classes),
    classes: Array.from({ length: classes }, (_, i) => `class ${i}`),
  };
}

const { mean, std } = setting;
const dataset: ImageDataset = { name: 'procedural', train: imagesOf('train'), test: imagesOf('test'), mean, std };

/** The golden's options in forkstep's words: lengths have a unit. */
const scheduleOf = ({ rule, options: { warmup, ...options } }: Case): AdaptiveSchedule =>
  (sched[rule] as (options: object) => AdaptiveSchedule)({
    ...options, ...(warmup !== undefined && { warmupSteps: sched.steps(warmup as number) }),
  });

const camel = ({ weight_decay: weightDecay, ...rest }: Case['optimizer']): SgdOptions =>
  ({ ...rest, ...(weightDecay !== undefined && { weightDecay: weightDecay as number }) });

async function train(one: Case, more: Partial<TrainerOptions> = {}) {
  const model = modelOf(one.net);
  const schedule = scheduleOf(one);
  const [steps, evaluations]: [LoggedStep[], Evaluation[]] = [[], []];
  const made: TrainerOptions = {
    model, dataset, schedule, batchSize: setting.batchSize, epochs: 9, maxSteps: setting.steps, shuffle: false,
    optimizer: camel(one.optimizer), ...more,
  };
  await withTrainer(made, async (trainer) => {
    await trainer.run({ onSteps: (some) => steps.push(...some), onEvaluation: (evaluation) => evaluations.push(evaluation) });
  });
  return { model, schedule, steps, evaluations };
}

/** Of a parameter in PyTorch's layout. */
function projection(model: Module, name: string): number {
  const { data } = stateDict(model).get(name)!;
  const along = uniform(`projection.${name}`, setting.seed, data.length);
  return (data as Float32Array).reduce((sum, value, i) => sum + value * along[i], 0);
}

/**
 * Float32 is mostly 100 times nearer than 1e-5, DoG's first distances but to 1e-3: steps of 1e-6 change few bits of a weight. Curvatures
 * from second differences have few digits, and large rates on batch norms over few values carry rounding on.
 */
function toleranceOf({ net, rule, options }: Case): number {
  if (rule === 'pal' && net === 'conv') return 1e-2;
  return rule !== 'cdat' ? 1e-5 : options.span === undefined ? 2e-3 : 1e-4;
}

describe.each(cases)('$net, $rule $options, $optimizer', (one) => {
  const rtol = toleranceOf(one);

  test('losses, rates, final weights and the test loss are those of float64', async () => {
    if (one.nearest !== undefined) expect(one.nearest).toBeGreaterThan(1e-3);
    const { model, steps, evaluations, schedule } = await train(one);
    expectClose(steps.map(({ loss }) => loss), one.losses, { atol: 0, rtol });
    expectClose(steps.map(({ lr }) => lr), one.rates, { atol: 0, rtol: one.rule === 'dog' ? Math.max(rtol, 1e-3) : 3 * rtol });
    const names = Object.keys(one.projections);
    expectClose(names.map((name) => projection(model, name)), Object.values(one.projections), { atol: 1e-6, rtol: 5 * rtol });
    expectClose([evaluations.at(-1)!.testLoss], [one.testLoss], { atol: 0, rtol });
    expect(schedule.lr).toBe(steps.at(-1)!.lr);
    expect(schedule.words).toEqual(steps.at(-1)!.rule!.words);
  });
});
