/** Branches side by side against the same branches trained one by one; groups; divergence; the tree around them. */
import { describe, expect, test } from 'vitest';
import { modelParts } from '../../src/graph/modelStack.ts';
import { flagNonFiniteLoss } from '../../src/kernels/sgd.ts';
import type { Module } from '../../src/nn/module.ts';
import { AlrTrainer } from '../../src/train/alrTrainer.ts';
import type { AlrEpoch, AlrTrainerOptions } from '../../src/train/alrOptions.ts';
import { ConstantSchedule } from '../../src/sched/schedule.ts';
import { decodeAlrCheckpoint, decodeCheckpoint, encodeCheckpoint, type AlrCheckpoint } from '../../src/train/checkpoint.ts';
import { Trainer } from '../../src/train/trainer.ts';
import type { LoggedStep } from '../../src/train/stepLog.ts';
import { expectClose } from '../support/close.ts';
import { useDevice } from '../support/device.ts';
import { LesserDevice } from '../support/lesserDevice.ts';
import { countCalls, totalBytes, withLiveBuffers } from './gpuCalls.ts';
import { ConvNet, LinearNet, randomDataset, ratesAt } from './nets.ts';

const shared = useDevice();

const factors = [2, 1, 0.5];
const momentumSgd = { momentum: 0.9, weightDecay: 5e-4 };

const options = (more: Partial<AlrTrainerOptions> = {}): AlrTrainerOptions => ({
  model: new ConvNet(), dataset: randomDataset({ train: 44 }), batchSize: 4, epochs: 1, optimizer: momentumSgd, lr: 0.05, factors,
  augment: 'crop-flip', seed: 3, ...more,
});

/** Makes a trainer, lends it, closes it: afterwards its model holds the best beam's weights. */
async function withAlr<T>(given: AlrTrainerOptions, use: (trainer: AlrTrainer) => Promise<T>): Promise<T> {
  const trainer = await AlrTrainer.create(given);
  try {
    return await use(trainer);
  } finally {
    await trainer.close();
  }
}

const weightsOf = (model: Module): number[][] => model.variables().map(({ data }) => [...data]);

/** The same branch by a trainer of its own. */
async function alone(lr: number, more: Partial<AlrTrainerOptions>): Promise<{ steps: LoggedStep[]; weights: number[][] }> {
  const { model, lr: _lr, factors: _factors, beam: _beam, memoryBudget: _budget, resume: _resume, ...others } = options(more);
  const trainer = await Trainer.create({ ...others, model, schedule: new ConstantSchedule({ lr }) });
  for (let step = 0; step < trainer.totalSteps; step++) await trainer.trainStep();
  const steps = await trainer.losses();
  await trainer.close();
  return { steps, weights: weightsOf(model) };
}

interface Finished { events: AlrEpoch[]; steps: LoggedStep[]; weights: number[][]; groups: number[] }

async function finish(more: Partial<AlrTrainerOptions> = {}): Promise<Finished> {
  const given = options(more);
  const [events, steps]: [AlrEpoch[], LoggedStep[]] = [[], []];
  const groups = await withAlr(given, async (trainer) => {
    await trainer.run({ onEvent: (event) => events.push(event), onSteps: (some) => steps.push(...some) });
    return trainer.plans.groups.map(({ models }) => models);
  });
  return { events, steps, weights: weightsOf(given.model), groups };
}

const optimizers = {
  'momentum and weight decay': momentumSgd,
  nesterov: { momentum: 0.8, nesterov: true, weightDecay: 1e-3 },
  dampening: { momentum: 0.8, dampening: 0.3 },
  'plain SGD': {},
};

describe('side by side equals one by one', () => {
  test.each(Object.entries(optimizers))('%s: losses and weights after 11 steps', async (_, optimizer) => {
    const { events: [event], steps, weights } = await finish({ optimizer });
    const branches: Awaited<ReturnType<typeof alone>>[] = [];
    for (const factor of factors) branches.push(await alone(0.05 * factor, { optimizer }));
    branches.forEach(({ steps: own }, i) => {
      const loss = own.reduce((sum, one) => sum + one.loss, 0) / own.length;
      expectClose([event.candidates[i].loss], [loss], { atol: 0, rtol: 1e-5 });
    });
    const best = event.kept[0];
    expect(event.candidates.map(({ loss }) => loss)).toHaveLength(3);
    expect(Math.min(...event.candidates.map(({ loss }) => loss))).toBe(event.candidates[best].loss);
    expect(steps.map(({ step, lr }) => ({ step, lr }))).toEqual(branches[best].steps.map(({ step, lr }) => ({ step, lr })));
    expectClose(steps.map(({ loss }) => loss), branches[best].steps.map(({ loss }) => loss), { atol: 0, rtol: 1e-5 });
    weights.forEach((values, i) => {
      const expected = branches[best].weights[i];
      const scale = Math.max(...expected.map(Math.abs));
      expectClose(values, expected, { atol: 1e-5 * scale, rtol: 1e-5 });
    });
    // Rates that make a difference: the comparison could fail.
    expect(new Set(event.candidates.map(({ loss }) => loss)).size).toBe(3);
  });

  test('in groups as all at once, bit for bit', async () => {
    const together = await finish({ epochs: 2, beam: 2 });
    const grouped = await finish({ epochs: 2, beam: 2, memoryBudget: 0 });
    expect(together.groups).toEqual([6]);
    expect(grouped.groups).toEqual([1, 1, 1, 1, 1, 1]);
    expect({ ...grouped, groups: [] }).toEqual({ ...together, groups: [] });
  });

  test('in groups where a binding holds little, and with weights in several buffers', async () => {
    const together = await finish({ beam: 2 });
    // An activation of one model's batch takes 4,096 bytes.
    for (const [limit, groups] of [[4 * 4096, [3, 3]], [4096, [1, 1, 1, 1, 1, 1]], [1024, [1, 1, 1, 1, 1, 1]]] as const) {
      const device = new LesserDevice(shared(), { maxStorageBufferBindingSize: limit });
      const cut = await finish({ beam: 2, device });
      expect(cut.groups).toEqual(groups);
      expect({ ...cut, groups: [] }).toEqual({ ...together, groups: [] });
    }
  });

  test('norms whose running statistics move at different speeds', async () => {
    const momenta = [0.3, 0.05] as const;
    const { events: [event], weights } = await finish({ model: new ConvNet(momenta) });
    const { weights: expected } = await alone(event.candidates[event.kept[0]].lr, { model: new ConvNet(momenta) });
    weights.forEach((values, i) => expectClose(values, expected[i], { atol: 1e-5, rtol: 1e-5 }));
  });

  test('a step makes nothing, reads nothing back and is one submit', async () => {
    await withAlr(options({ epochs: 2, maxSteps: 20 }), async (trainer) => {
      await trainer.trainStep();
      await trainer.trainStep();
      const calls = await countCalls(() => trainer.trainStep());
      expect(Object.fromEntries(Object.entries(calls).filter(([, count]) => count > 0))).toEqual({
        beginComputePass: 1, dispatchWorkgroups: trainer.dispatchesPerStep, submit: 1, writeBuffer: 1,
      });
      await trainer.endEpoch();
    });
  });

  test('holds no buffer that its report does not count', async () => {
    await withLiveBuffers(async (live) => {
      await withAlr(options({ beam: 2 }), async (trainer) => {
        const { total, parameters, optimizer } = trainer.memory;
        expect(total).toBe(totalBytes(live));
        // Two beams and six branches.
        expect(parameters).toBe(optimizer);
        expect(parameters).toBeGreaterThanOrEqual(8 * weightsOf(trainer.options.model).flat().length * 3.5);
      });
      expect(live.size).toBe(0);
    });
  });
});

/** A rate at which the first step's weights are not finite, or the second one's loss. */
const overflowing = 1e37;

describe('a branch that diverges', () => {
  test('is scored infinite and never kept; the others go on as if it were not there, bit for bit', async () => {
    // A rate that learns nothing is the worst of those that do not diverge.
    const still = await finish({ factors: [1, 1e-6, 0.5], beam: 3 });
    const wild = await finish({ factors: [1, overflowing, 0.5], beam: 3 });
    const [a, b] = [still.events[0], wild.events[0]];
    expect(a.kept).toHaveLength(3);
    expect(a.kept[2]).toBe(1);
    expect(b.candidates[1].loss).toBe(Infinity);
    expect([0, 2].map((i) => b.candidates[i])).toEqual([0, 2].map((i) => a.candidates[i]));
    expect(b.kept).toEqual(a.kept.slice(0, 2));
    expect(wild.weights).toEqual(still.weights);
    expect(wild.steps).toEqual(still.steps);
  });

  test('stands still: weights, momentum and statistics are those before the step that was refused', async () => {
    const given = options({ factors: [1, overflowing, 0.5] });
    await withAlr(given, async (trainer) => {
      const [{ stack }] = trainer.plans.groups;
      const kept = async () => {
        const all: number[][] = [];
        for (const part of modelParts) {
          for (const i of stack.variables[part].keys()) {
            const { buffer, offset, size } = stack.at(part, i, 1);
            all.push([...new Float32Array(await shared().read(buffer, offset, size))]);
          }
        }
        return all;
      };
      const losses: number[][] = [];
      while (!Number.isNaN((losses.at(-1) ?? [0, 0])[1])) {
        await trainer.trainStep();
        losses.push(await trainer.losses());
      }
      // The first step was made: a batch of weights of 1e36 is what overflows.
      expect(losses).toHaveLength(2);
      const then = await kept();
      expect(then.flat().every(Number.isFinite)).toBe(true);
      for (let step = 0; step < 3; step++) await trainer.trainStep();
      expect(await kept()).toEqual(then);
      expect((await trainer.losses()).map(Number.isFinite)).toEqual([true, false, true]);
    });
  });

  test('is told by its loss alone, where gradients and weights are finite', async () => {
    // Logits of either sign near the largest float32: their difference is none, their softmax is 0 and 1.
    const given = options({ model: new LinearNet(), factors: [1, 2e37, 1e37], lr: 1, augment: 'none', optimizer: {} });
    await withAlr(given, async (trainer) => {
      for (let step = 0; step < 5; step++) await trainer.trainStep();
      const { buffer, offset } = trainer.plans.flags;
      expect([...new Uint32Array(await shared().read(buffer, offset, 12))]).toEqual([0, flagNonFiniteLoss, flagNonFiniteLoss]);
    });
  });

  test('leaves the model as it was where all do, with the rate times the least factor; later epochs go on from there', async () => {
    const before = weightsOf(new ConvNet());
    const all = await finish({ lr: overflowing, factors: [2, 1] });
    expect(all.events).toHaveLength(1);
    expect(all.events[0]).toMatchObject({ allNonFinite: true, rates: [overflowing], kept: [] });
    expect(all.weights).toEqual(before);
    expect(all.steps).toEqual([]);
    // The second epoch has the second order, and is the optimizer's first.
    const rescued = await finish({ lr: overflowing, factors: [1, 5e-39], epochs: 2, optimizer: { momentum: 0.8, dampening: 0.3 } });
    expect(rescued.events[0].kept).toEqual([1]);
    expect(rescued.events[1].candidates.map(({ lr }) => lr)).toEqual([overflowing * 5e-39, overflowing * 5e-39 * 5e-39]);
  });
});

describe('the tree on the GPU', () => {
  test('beams begin with what was kept: weights, momentum and statistics, over three epochs of one-by-one training', async () => {
    const { events, weights } = await finish({ epochs: 3, beam: 2, factors: [2, 1] });
    expect(events.map(({ candidates }) => candidates.length)).toEqual([2, 4, 4]);
    // The line that leads to the best: its rates epoch by epoch, from the last event back.
    const line: number[] = [];
    let beam = 0;
    for (const event of [...events].reverse()) {
      const candidate = event.candidates[event.kept[beam]];
      line.unshift(candidate.lr);
      beam = candidate.beam;
    }
    const { model, lr: _lr, factors: _factors, beam: _beam, resume: _resume, ...others } = options({ epochs: 3 });
    const schedule = ratesAt((step) => line[Math.floor(step / 11)]);
    const trainer = await Trainer.create({ ...others, model, schedule });
    for (let step = 0; step < 33; step++) await trainer.trainStep();
    const steps = await trainer.losses();
    await trainer.close();
    const last = steps.slice(22).reduce((sum, { loss }) => sum + loss, 0) / 11;
    expectClose([events[2].candidates[events[2].kept[0]].loss], [last], { atol: 0, rtol: 1e-5 });
    weightsOf(model).forEach((values, i) => {
      expectClose(weights[i], values, { atol: 2e-5 * Math.max(...values.map(Math.abs)), rtol: 2e-5 });
    });
    expect(events.map(({ forwards }) => forwards)).toEqual([2, 6, 10].map((branches) => 3 * 11 * branches));
    expect(events.map(({ step }) => step)).toEqual([11, 22, 33]);
  });

  test('a fresh trainer goes on from a checkpoint bit for bit', async () => {
    const whole = await finish({ epochs: 3, beam: 2 });
    const first = await AlrTrainer.create(options({ epochs: 3, beam: 2 }));
    for (let step = 0; step < 22; step++) {
      await first.trainStep();
      if (step % 11 === 10) await first.endEpoch();
    }
    const bytes = encodeCheckpoint(await first.checkpoint(), 'a note');
    await first.trainStep();
    // Within an epoch it is that of its beginning.
    expect(encodeCheckpoint(await first.checkpoint(), 'a note')).toEqual(bytes);
    await first.close();
    const { checkpoint: resume, notes } = decodeAlrCheckpoint(bytes);
    expect(notes).toBe('a note');
    expect(() => decodeCheckpoint(bytes)).toThrow('file must be a checkpoint of Trainer, got one of AlrTrainer; use decodeAlrCheckpoint');
    const rest = await finish({ epochs: 3, beam: 2, model: new ConvNet(undefined, 77), resume });
    expect(rest.events).toEqual(whole.events.slice(2));
    expect(rest.weights).toEqual(whole.weights);
    expect(rest.steps).toEqual(whole.steps.slice(22));
  });

  test('a run tells its checkpoints, of whole epochs alone; each goes on as the run did, and not with other options', async () => {
    const given = { epochs: 4, maxSteps: 38 };
    const [checkpoints, before]: [AlrCheckpoint[], number[]] = [[], []];
    const [steps, kept]: [LoggedStep[], Partial<AlrTrainerOptions>] = [[], given];
    await withAlr(options(given), (trainer) => trainer.run({
      onSteps: (some) => steps.push(...some),
      onCheckpoint: (checkpoint) => {
        before.push(steps.length);
        checkpoints.push(checkpoint);
      },
      checkpointEvery: { epochs: 2 },
    }));
    // The last epoch is cut short: what can be gone on from is its beginning.
    expect(checkpoints.map(({ state }) => state.step)).toEqual([22, 33]);
    expect(before).toEqual([22, 33]);
    const rest = await finish({ ...kept, model: new ConvNet(undefined, 77), resume: checkpoints[0] });
    expect(rest.steps).toEqual(steps.slice(22));
    const other = (more: Partial<AlrTrainerOptions>) => AlrTrainer.create(options({ ...kept, ...more, resume: checkpoints[0] }));
    for (const [more, arg] of [
      [{ lr: 0.1 }, 'lr'], [{ factors: [2, 1] }, 'factors'], [{ seed: 4 }, 'seed'], [{ batchSize: 2 }, 'batchSize'], [{ optimizer: {} }, 'optimizer.momentum'],
      [{ dataset: randomDataset({ train: 48 }) }, 'dataset.train.count'], [{ epochs: 1 }, 'epochs'],
    ] as const) await expect(other(more)).rejects.toMatchObject({ op: 'AlrTrainer', arg });
    // What it may be: longer, as no rate depends on the length.
    const longer = await finish({ ...kept, maxSteps: undefined, resume: checkpoints[0] });
    expect(longer.steps.slice(0, 11)).toEqual(steps.slice(22, 33));
  });

  test.each([{ steps: 5 }, { epochs: 0 }, { minutes: 0 }])('no checkpoint every %j', async (checkpointEvery) => {
    const run = withAlr(options(), (trainer) => trainer.run({ onCheckpoint: () => {}, checkpointEvery: checkpointEvery as { epochs: number } }));
    await expect(run).rejects.toThrow('AlrTrainer.run: checkpointEvery must be { epochs } or { minutes }');
  });

  test('an epoch that is cut short is judged by what it had; evaluation is of the best', async () => {
    const given = options({ epochs: 2, maxSteps: 15 });
    const [events, evaluations]: [AlrEpoch[], { step: number; testLoss: number }[]] = [[], []];
    const result = await withAlr(given, async (trainer) => {
      const done = await trainer.run({ onEvent: (event) => events.push(event), onEvaluation: (one) => evaluations.push(one) });
      expect(await trainer.evaluate()).toEqual(done.evaluation);
      return done;
    });
    expect(events.map(({ step }) => step)).toEqual([11, 15]);
    expect(evaluations.map(({ step }) => step)).toEqual([11, 15]);
    expect(result).toMatchObject({ steps: 15, forwards: 3 * 3 * 15, aborted: false });
    const { model, dataset } = given;
    const trainer = await Trainer.create({ model, dataset, batchSize: 4, schedule: new ConstantSchedule({ lr: 1 }) });
    const { testLoss } = await trainer.evaluate();
    await trainer.close();
    expect(result.evaluation!.testLoss).toBe(testLoss);
    expect(evaluations[0].testLoss).not.toBe(testLoss);
  });
});

test('a loop of one\'s own ends an epoch before it goes on', async () => {
  const trainer = await AlrTrainer.create(options());
  try {
    for (let i = 0; i < trainer.stepsPerEpoch; i++) await trainer.trainStep();
    await expect(trainer.trainStep()).rejects.toMatchObject({ arg: 'trainStep', fix: 'call endEpoch() first' });
    await trainer.endEpoch();
    await trainer.trainStep();
    expect(trainer.step).toBe(trainer.stepsPerEpoch + 1);
  } finally {
    await trainer.close();
  }
});

describe('refuses', () => {
  test.each<[string, Partial<AlrTrainerOptions>, string, string]>([
    ['a rate of 0', { lr: 0 }, 'AlrTree', 'lr'],
    ['more rates than beams', { lr: [0.1, 0.2], beam: 1 }, 'AlrTree', 'lr'],
    ['no beam', { beam: 0 }, 'AlrTree', 'beam'],
    ['a factor twice', { factors: [1, 1] }, 'resolveFactors', 'factors[1]'],
    ['a negative budget', { memoryBudget: -1 }, 'AlrTrainer', 'memoryBudget'],
    ['a batch of 0', { batchSize: 0 }, 'AlrTrainer', 'batchSize'],
    ['half an epoch', { epochs: 0.5 }, 'AlrTrainer', 'epochs'],
    ['an unknown order', { shuffle: 'no' as unknown as boolean }, 'AlrTrainer', 'shuffle'],
    ['an unknown option', { shuffel: true } as Partial<AlrTrainerOptions>, 'AlrTrainer', 'shuffel'],
  ])('%s', async (_, more, op, arg) => {
    await expect(AlrTrainer.create(options(more))).rejects.toMatchObject({ op, arg });
  });
});
