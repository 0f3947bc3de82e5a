/** A run that goes on from a checkpoint is the unbroken run, bit for bit; and what is no such checkpoint is refused. */
import { describe, expect, test } from 'vitest';
import { AttrError, DataError, ShapeError } from '../../src/gpu/errors.ts';
import type { Module } from '../../src/nn/module.ts';
import { asPublished, ConstantSchedule, cosineAnnealingLr, dog, epochs, hypergradient, percent, reduceLROnPlateau, robust, scheduleFree, slsArmijo, stepLr, TrialScheduler, warmup } from '../../src/sched/index.ts';
import type { Schedule, TrialEvent } from '../../src/sched/index.ts';
import { decodeCheckpoint, encodeCheckpoint, type Checkpoint } from '../../src/train/checkpoint.ts';
import type { LoggedStep } from '../../src/train/stepLog.ts';
import type { Trainer } from '../../src/train/trainer.ts';
import type { Evaluation, RunCallbacks, TrainerOptions } from '../../src/train/trainerOptions.ts';
import { useDevice } from '../support/device.ts';
import { minMax } from '../support/minMax.ts';
import { ConvNet, LinearNet, randomDataset, withTrainer } from './nets.ts';

useDevice();

type Recipe = Partial<Omit<TrainerOptions, 'schedule' | 'model'>> & { readonly schedule: () => Schedule; readonly model?: (seed: number) => Module };

/** 5 steps an epoch, 15 in all. Another seed gives other weights to begin with: those of a checkpoint replace them. */
function optionsOf({ schedule, model = (seed) => new LinearNet(undefined, undefined, seed), ...more }: Recipe, seed = 3): TrainerOptions {
  return { dataset: randomDataset(), batchSize: 4, epochs: 3, ...more, schedule: schedule(), model: model(seed) };
}

interface Told {
  readonly steps: LoggedStep[];
  readonly events: TrialEvent[];
  readonly evaluations: Evaluation[];
  readonly checkpoints: Checkpoint[];
}

async function follow(trainer: Trainer, more: RunCallbacks = {}): Promise<Told> {
  const told: Told = { steps: [], events: [], evaluations: [], checkpoints: [] };
  await trainer.run({
    onSteps: (some) => told.steps.push(...some),
    onEvent: (event) => told.events.push(event),
    onEvaluation: (one) => told.evaluations.push(one),
    onCheckpoint: (one) => void told.checkpoints.push(one),
    ...more,
  });
  return told;
}

/** Through the bytes of a file, as another process would read it. */
const reread = (checkpoint: Checkpoint): Checkpoint => decodeCheckpoint(encodeCheckpoint(checkpoint)).checkpoint;

const f16Scaling = { initScale: 2 ** 24, growthInterval: 2 };
const ownScore = (losses: readonly number[]): number[] => losses.map((loss) => Math.exp(-loss));
const conv = (seed: number): Module => new ConvNet([0.1, 0.2], seed);
const trial = (more: Parameters<typeof minMax>[0] = {}) => () => new TrialScheduler(minMax({ every: { steps: 2 }, factors: [2, 1, 0.5], ...more }));

const recipes: Record<string, Recipe> = {
  'a constant rate, plain SGD': { schedule: () => new ConstantSchedule({ lr: 0.05 }) },
  'a constant rate with an envelope, momentum': { schedule: () => new ConstantSchedule({ lr: 0.05, envelope: 'cosine' }), optimizer: { momentum: 0.9 } },
  'closed form, Nesterov, weight decay, batch norms': {
    schedule: () => warmup(cosineAnnealingLr({ lr: 0.1, tMax: percent(100) }), { totalIters: epochs(1) }),
    optimizer: { momentum: 0.9, nesterov: true, weightDecay: 1e-3 }, model: conv,
  },
  'a plateau': { schedule: () => reduceLROnPlateau({ lr: 0.02, patience: 0, factor: 0.5, threshold: 0.9 }), optimizer: { momentum: 0.8, dampening: 0.3 } },
  'trials as published': { schedule: () => new TrialScheduler(asPublished('factor3')), optimizer: { momentum: 0.9 } },
  'trials along the optimizer, momentum, crops': { schedule: trial(), optimizer: { momentum: 0.9, weightDecay: 1e-3 }, augment: 'crop-flip', model: conv },
  'trials scored by their gain, on held-out images': { schedule: trial({ score: 'relGain', normalize: 'none', batch: 'heldOut' }), augment: 'crop-flip' },
  "trials with a score of one's own": { schedule: trial({ score: ownScore, normalize: 'none', batch: 'both' }), optimizer: { momentum: 0.9 } },
  'trials over momentum and weight decay': {
    schedule: trial({ factors: { lr: [2, 1, 0.5], momentum: [0.8, 0.95], weightDecay: [1e-4, 1e-2] } }), optimizer: { momentum: 0.9, weightDecay: 1e-3 },
  },
  'trials by paired noise, two batches': { schedule: trial({ score: 'pairedNoise', batch: 'both' }), optimizer: { momentum: 0.9 } },
  'trials by the Armijo gate': { schedule: trial({ score: 'armijo' }), optimizer: { momentum: 0.9, nesterov: true, weightDecay: 1e-3 } },
  'the preset: a search, then no more than it found': {
    schedule: () => new TrialScheduler(robust({ lr: 0.05, search: { events: 3, every: 2 }, every: { steps: 2 } })), optimizer: { momentum: 0.9 },
  },
  'trials whose losses are shuffled': { schedule: trial({ control: 'shuffledLosses' }), optimizer: { momentum: 0.9 } },
  'blind drift': {
    schedule: () => new TrialScheduler(asPublished('factor5', { every: { steps: 2 }, control: 'blindDrift' })), optimizer: { momentum: 0.9 },
  },
  'trials over a base': { schedule: trial({ base: stepLr({ lr: 0.1, stepSize: epochs(1), gamma: 0.5 }) }), optimizer: { momentum: 0.9 } },
  'mixed precision with skipped steps': {
    schedule: () => cosineAnnealingLr({ lr: 0.1, tMax: percent(100) }), precision: 'mixed', lossScaling: f16Scaling, optimizer: { momentum: 0.9 },
  },
  'a rule with words of its own': { schedule: () => slsArmijo({ trials: 4 }), model: conv },
  'a rule that keeps the direction before': { schedule: () => hypergradient({ lr: 0.02, hypergradLr: 1e-3 }), optimizer: { momentum: 0.9, nesterov: true } },
  'a rule with a start and an average': { schedule: () => dog({ repsRel: 1e-2 }), model: conv },
  'a rule with a second point, in mixed precision': {
    schedule: () => scheduleFree({ lr: 0.1 }), model: conv, precision: 'mixed', lossScaling: f16Scaling,
  },
  'mixed precision with skipped steps and a search': {
    schedule: () => new TrialScheduler(robust({ lr: 0.05, search: { events: 3, every: 2 }, every: { steps: 2 } })), precision: 'mixed',
    lossScaling: f16Scaling, optimizer: { momentum: 0.9 },
  },
  'mixed precision with skipped steps and trials': { schedule: trial(), precision: 'mixed', lossScaling: f16Scaling, optimizer: { momentum: 0.9 } },
};

describe('a run that goes on from a checkpoint', () => {
  test.each(Object.entries(recipes))('%s', async (_, recipe) => {
    const whole = await withTrainer(optionsOf(recipe), (trainer) => follow(trainer, { checkpointEvery: { steps: 1 } }));
    expect(whole.checkpoints.map(({ state }) => state.step)).toEqual(Array.from({ length: 15 }, (_, i) => i + 1));
    if (recipe.precision === 'mixed') expect(whole.steps.filter(({ skipped }) => skipped).length).toBeGreaterThan(2);
    // Its first step, in an epoch, at an epoch's end, before the last.
    for (const at of [1, 7, 10, 14]) {
      const resume = reread(whole.checkpoints[at - 1]);
      const options = { ...optionsOf(recipe, 11), resume };
      const rest = await withTrainer(options, async (trainer) => {
        expect(trainer.step).toBe(at);
        return follow(trainer, { checkpointEvery: { steps: 1 }, logEvery: 3 });
      });
      expect(rest.steps).toEqual(whole.steps.slice(at));
      expect(rest.events).toEqual(whole.events.filter(({ step }) => step >= at));
      expect(rest.evaluations).toEqual(whole.evaluations.filter(({ step }) => step > at));
      // Weights, statistics, momentum, loss scale, schedule and counts, after every step.
      expect(rest.checkpoints).toEqual(whole.checkpoints.slice(at));
      if (options.schedule instanceof TrialScheduler) expect(options.schedule.events).toEqual(whole.events);
    }
  });

  test('need not have told of anything: a loop of one\'s own', async () => {
    const recipe = recipes['trials along the optimizer, momentum, crops'];
    const whole = await withTrainer(optionsOf(recipe), (trainer) => follow(trainer));
    const [resume, untold] = await withTrainer(optionsOf(recipe), async (trainer) => {
      for (let i = 0; i < 7; i++) await trainer.trainStep();
      const checkpoint = await trainer.checkpoint();
      return [checkpoint, [await trainer.losses(), await trainer.events()]];
    });
    expect(untold).toEqual([whole.steps.slice(0, 7), whole.events.filter(({ step }) => step < 7)]);
    const rest = await withTrainer({ ...optionsOf(recipe, 11), resume }, (trainer) => follow(trainer));
    expect(rest.steps).toEqual(whole.steps.slice(7));
    expect(rest.checkpoints.at(-1)).toEqual(whole.checkpoints.at(-1));
  });

  test('may take the scheduler of the run that was closed', async () => {
    const options = optionsOf(recipes['trials along the optimizer, momentum, crops']);
    const resume = await withTrainer(options, async (trainer) => {
      for (let i = 0; i < 7; i++) await trainer.trainStep();
      return trainer.checkpoint();
    });
    await withTrainer({ ...options, resume }, async (trainer) => {
      await trainer.trainStep();
      expect(trainer.step).toBe(8);
    });
  });

  test('holds no more memory than one from the start', async () => {
    const recipe = recipes['mixed precision with skipped steps and trials'];
    const [memory, resume] = await withTrainer(optionsOf(recipe), async (trainer) => {
      const before = trainer.memory;
      await trainer.trainStep();
      const checkpoint = await trainer.checkpoint();
      expect(trainer.memory).toEqual(before);
      return [before, checkpoint];
    });
    await withTrainer({ ...optionsOf(recipe), resume }, async (trainer) => expect(trainer.memory).toEqual(memory));
  });
});

describe('checkpoints of a run', () => {
  const stepsOf = async (callbacks: RunCallbacks, more: Partial<Recipe> = {}): Promise<number[]> => {
    const made = await withTrainer(optionsOf({ schedule: () => new ConstantSchedule({ lr: 0.05 }), ...more }), (trainer) => follow(trainer, callbacks));
    return made.checkpoints.map(({ state }) => state.step);
  };

  test.each<[string, RunCallbacks, number[]]>([
    ['every epoch unless told otherwise', {}, [5, 10, 15]],
    ['every so many epochs, and at the end', { checkpointEvery: { epochs: 2 } }, [10, 15]],
    ['every so many steps, and at the end', { checkpointEvery: { steps: 6 } }, [6, 12, 15]],
    ['at the end where the clock has not come round', { checkpointEvery: { minutes: 1e6 } }, [15]],
    ['after every step where it always has', { checkpointEvery: { minutes: 1e-9 } }, Array.from({ length: 15 }, (_, i) => i + 1)],
  ])('are made %s', async (_, callbacks, steps) => expect(await stepsOf(callbacks)).toEqual(steps));

  test('are made where a signal ends the run, after all before them was told', async () => {
    const controller = new AbortController();
    const log: string[] = [];
    await stepsOf({
      signal: controller.signal, logEvery: 4, checkpointEvery: { steps: 3 },
      onSteps: (steps) => {
        log.push(...steps.map(({ step }) => `step ${step}`));
        if (log.includes('step 3')) controller.abort();
      },
      onCheckpoint: async ({ state }) => {
        await new Promise((resolve) => setTimeout(resolve));
        log.push(`checkpoint ${state.step}`);
      },
    });
    expect(log.slice(0, 5)).toEqual(['step 0', 'step 1', 'step 2', 'checkpoint 3', 'step 3']);
    const made = log.filter((line) => line.startsWith('step')).length;
    expect(log.at(-1)).toBe(`checkpoint ${made}`);
  });

  test('are none once the run has diverged', async () => {
    const schedule = () => stepLr({ lr: 1e38, stepSize: epochs(1) });
    const bright = { ...randomDataset(), mean: [0, 0, 0], std: [1e-3, 1e-3, 1e-3] } as TrainerOptions['dataset'];
    expect(await stepsOf({}, { schedule, dataset: bright })).toEqual([]);
    await withTrainer(optionsOf({ schedule, dataset: bright }), async (trainer) => {
      for (let i = 0; i < 3; i++) await trainer.trainStep();
      await expect(trainer.checkpoint()).rejects.toThrow(expect.objectContaining({ op: 'checkpoint', arg: 'run' }));
    });
  });

  test.each<[string, RunCallbacks]>([
    ['nobody to take them', { checkpointEvery: { steps: 1 }, onCheckpoint: undefined }],
    ['a count that is none', { checkpointEvery: { steps: 0.5 } }],
    ['no time', { checkpointEvery: { minutes: 0 } }],
    ['another unit', { checkpointEvery: { hours: 1 } as never }],
    ['two units', { checkpointEvery: { steps: 1, epochs: 1 } }],
  ])('are refused with %s', async (_, callbacks) => {
    await expect(stepsOf(callbacks)).rejects.toThrow(expect.objectContaining({ op: 'Trainer.run', arg: 'checkpointEvery' }));
  });
});

describe('a checkpoint', () => {
  const recipe: Recipe = { schedule: () => cosineAnnealingLr({ lr: 0.1, tMax: percent(50) }), optimizer: { momentum: 0.9 }, seed: 5 };
  const made = (of: Recipe = recipe): Promise<Checkpoint> =>
    withTrainer(optionsOf(of), async (trainer) => {
      for (let i = 0; i < 6; i++) await trainer.trainStep();
      return trainer.checkpoint();
    });
  const refusal = async (resume: Checkpoint, more: Partial<Recipe>): Promise<unknown> => {
    try {
      await withTrainer({ ...optionsOf({ ...recipe, ...more }), resume }, async () => undefined);
    } catch (error) {
      return error;
    }
    return null;
  };

  test('is of one recipe: what differs is named, with what it was and what it is', async () => {
    const checkpoint = await made();
    const others: [Partial<Recipe>, string][] = [
      [{ batchSize: 5 }, 'batchSize'], [{ seed: 6 }, 'seed'], [{ shuffle: false }, 'shuffle'], [{ augment: 'crop-flip' }, 'augment'],
      [{ labelSmoothing: 0.1 }, 'labelSmoothing'], [{ precision: 'mixed' }, 'precision'],
      [{ optimizer: { momentum: 0.8 } }, 'optimizer.momentum'], [{ optimizer: { momentum: 0.9, nesterov: true } }, 'optimizer.nesterov'],
      [{ dataset: randomDataset({ seed: 2 }) }, 'dataset.train.crc32c'],
      [{ schedule: () => cosineAnnealingLr({ lr: 0.2, tMax: percent(50) }) }, 'schedule.lr'],
      [{ schedule: () => new ConstantSchedule({ lr: 0.1 }) }, 'schedule.kind'],
    ];
    for (const [more, arg] of others) {
      const error = await refusal(checkpoint, more);
      expect(error).toBeInstanceOf(AttrError);
      expect((error as AttrError).arg).toBe(arg);
    }
    const error = await refusal(checkpoint, { batchSize: 5 });
    expect((error as Error).message).toBe('Trainer: batchSize must be 4, as in the run that is resumed, got 5; resume with the options of its run');
  });

  test('is of one scheduler, its score and its cadence', async () => {
    const of = (more: Parameters<typeof minMax>[0]): Recipe => ({ ...recipe, schedule: trial(more) });
    const checkpoint = await made(of({}));
    const others = [
      [{ every: { steps: 3 } }, 'schedule.every.steps'],
      [{ score: ownScore, normalize: 'none' }, 'schedule.normalize'],
      [{ normalize: 'zScore' }, 'schedule.normalize'],
      [{ envelope: 'linear' }, 'schedule.envelope'],
    ] as const;
    for (const [more, arg] of others) expect(await refusal(checkpoint, of(more))).toMatchObject({ arg });
  });

  test('is of one model', async () => {
    const checkpoint = await made();
    expect(await refusal(checkpoint, { model: conv })).toBeInstanceOf(DataError);
    expect(await refusal(checkpoint, { model: (seed) => new LinearNet(undefined, 7, seed) })).toBeInstanceOf(ShapeError);
    const tensors = new Map([...checkpoint.tensors].filter(([name]) => name !== 'momentum.fc.bias'));
    expect(await refusal({ ...checkpoint, tensors }, {})).toMatchObject({ arg: 'tensor momentum.fc.bias' });
  });

  test('leaves a model and a scheduler that it does not fit as they were', async () => {
    const checkpoint = await made({ ...recipe, schedule: trial() });
    const model = new LinearNet(undefined, undefined, 8);
    const before = model.fc.weight.data.slice();
    const schedule = new TrialScheduler(minMax({ every: { steps: 2 }, factors: [2, 1, 0.5] }));
    const state = { ...checkpoint.state, schedule: { ...checkpoint.state.schedule, events: 'none' } };
    const options = { ...optionsOf({ ...recipe, schedule: () => schedule, model: () => model }), resume: { ...checkpoint, state } };
    await expect(withTrainer(options, async () => undefined)).rejects.toThrow(expect.objectContaining({ arg: 'state.events' }));
    expect([model.fc.weight.data, schedule.events]).toEqual([before, []]);
    await withTrainer({ ...options, resume: undefined }, async (trainer) => trainer.trainStep());
  });

  test('goes on for longer or shorter where the rates so far do not depend on it', async () => {
    const constant: Recipe = { ...recipe, schedule: () => new ConstantSchedule({ lr: 0.05 }) };
    const checkpoint = await made(constant);
    const longer = await withTrainer({ ...optionsOf({ ...constant, epochs: 5 }), resume: checkpoint }, (trainer) => follow(trainer));
    const whole = await withTrainer(optionsOf({ ...constant, epochs: 5 }), (trainer) => follow(trainer));
    expect(longer.steps).toEqual(whole.steps.slice(6));
    const shorter = await withTrainer({ ...optionsOf({ ...constant, maxSteps: 6 }), resume: checkpoint }, (trainer) => follow(trainer));
    expect(shorter.steps).toEqual([]);
    expect(await refusal(checkpoint, { ...constant, maxSteps: 5 })).toMatchObject({ arg: 'maxSteps', got: '5 steps' });
    const rule: Recipe = { ...recipe, optimizer: {}, schedule: () => scheduleFree({ lr: 0.1, warmupSteps: percent(20) }) };
    const ruled = await made(rule);
    expect(await refusal(ruled, { ...rule, epochs: 5 })).toMatchObject({ arg: 'epochs', got: '25 steps' });
    const annealed = await made();
    expect(await refusal(annealed, { epochs: 5 })).toMatchObject({ arg: 'epochs', got: '25 steps', expected: expect.stringContaining('15 steps') as string });
    // Its rates have not changed yet.
    const late: Recipe = { ...recipe, schedule: () => warmup(cosineAnnealingLr({ lr: 0.1, tMax: percent(100) }), { totalIters: epochs(2) }) };
    expect(await refusal(await made(late), { ...late, epochs: 5 })).toBeNull();
  });
});

describe("a checkpoint's file", () => {
  const checkpoint: Checkpoint = {
    tensors: new Map([['model.w', { dtype: 'F32', shape: [3], data: Float32Array.of(1, 2, 3) }]]),
    state: {
      step: 7, epoch: 1, batch: 2, updates: 7, skipped: 0, totalSteps: 15, schedule: { kind: 'constant', lr: 0.1 }, lossScaler: null, adapter: 'x', recipe: {},
    },
  };
  const bytes = encodeCheckpoint(checkpoint, { notes: ['of one\'s own', 1, null] });

  test('gives back what went in, and a reader of safetensors finds it', async () => {
    expect(decodeCheckpoint(bytes)).toEqual({ checkpoint, notes: { notes: ['of one\'s own', 1, null] } });
    const { decodeSafetensors } = await import('../../src/nn/safetensors.ts');
    expect(decodeSafetensors(bytes)).toMatchObject({ metadata: { format: 'forkstep checkpoint', version: '1', step: '7' } });
  });

  test('is refused with any bit of any byte turned, and cut off anywhere', () => {
    for (let i = 0; i < bytes.length; i++) {
      const damaged = bytes.slice();
      damaged[i] ^= 1 << (i % 8);
      expect(() => decodeCheckpoint(damaged)).toThrow(DataError);
      expect(() => decodeCheckpoint(bytes.subarray(0, i))).toThrow(DataError);
    }
    expect(() => decodeCheckpoint(Uint8Array.of(...bytes, 0))).toThrow(DataError);
  });

  test('says what is wrong with it', () => {
    const say = (of: Uint8Array): string => {
      try {
        decodeCheckpoint(of);
      } catch (error) {
        return (error as Error).message;
      }
      return '';
    };
    expect(say(bytes.subarray(0, bytes.length - 1))).toMatch(/^decodeCheckpoint: file must have the checksum [0-9a-f]{8} that it names, got [0-9a-f]{8}; it is cut off or damaged: take an earlier copy$/);
    expect(say(new Uint8Array(0))).toBe('decodeCheckpoint: file must be a checkpoint of forkstep, got 0 bytes of something else; name another file');
  });
});
