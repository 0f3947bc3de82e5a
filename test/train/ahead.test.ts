/** The host keeps ahead of the GPU while it trains, and does not burn a core while it waits. */
import { beforeAll, expect, test } from 'vitest';
import { ConstantSchedule } from '../../src/sched/schedule.ts';
import { TrialScheduler } from '../../src/sched/trialScheduler.ts';
import type { TrainerOptions } from '../../src/train/trainerOptions.ts';
import { testDevice, useDevice } from '../support/device.ts';
import { minMax } from '../support/minMax.ts';
import { ConvNet, randomDataset, withTrainer } from './nets.ts';

const device = useDevice();
// The classes that are patched below.
beforeAll(async () => void (await testDevice()));

const options = (more: Partial<TrainerOptions> = {}): TrainerOptions => ({
  model: new ConvNet(), dataset: randomDataset(), schedule: new ConstantSchedule({ lr: 0.05 }), batchSize: 4, epochs: 10, ...more,
});

/** Puts `make(real)` in the place of a method while `run` runs. */
async function patched<T>(type: { prototype: object }, name: string, make: (real: (...args: never[]) => unknown) => unknown, run: () => Promise<T>) {
  const prototype = type.prototype as Record<string, unknown>;
  const real = prototype[name];
  prototype[name] = make(real as (...args: never[]) => unknown);
  try {
    return await run();
  } finally {
    prototype[name] = real;
  }
}

/** Microtasks and the events that they wait for; nothing of the GPU's is needed for what is expected then. */
const turns = async (): Promise<void> => {
  for (let i = 0; i < 20; i++) await new Promise((resolve) => setImmediate(resolve));
};

test('two steps are under way when a third is submitted, and no fourth before the first is done', async () => {
  await withTrainer(options(), async (trainer) => {
    // What the GPU has done is told by hand.
    const done: (() => void)[] = [];
    const steps: Promise<void>[] = [];
    let submits = 0;
    const count = (real: (...args: never[]) => unknown) =>
      function (this: object, ...args: never[]) {
        submits++;
        return real.apply(this, args);
      };
    await patched(GPUQueue, 'submit', count, () =>
      patched(GPUQueue, 'onSubmittedWorkDone', () => () => new Promise<void>((resolve) => done.push(resolve)), async () => {
        /** Whether each step has resolved so far. */
        const resolved: boolean[] = [];
        const step = async (): Promise<void> => {
          const index = resolved.push(false) - 1;
          steps.push(trainer.trainStep().then(() => void (resolved[index] = true)));
          await turns();
        };
        await step();
        await step();
        expect({ submits, resolved }).toEqual({ submits: 2, resolved: [true, true] });
        await step();
        expect({ submits, resolved }).toEqual({ submits: 3, resolved: [true, true, false] });
        done[1]?.();
        await turns();
        expect(resolved).toEqual([true, true, false]);
        done[0]?.();
        await turns();
        expect(resolved).toEqual([true, true, true]);
        // The second one is done, so a fourth need not wait.
        await step();
        expect({ submits, resolved }).toEqual({ submits: 4, resolved: [true, true, true, true] });
      }).finally(async () => {
        for (const resolve of done) resolve();
        await Promise.all(steps);
      }),
    );
    expect(await trainer.losses()).toHaveLength(4);
  });
});

test.each([
  ['without events', () => new ConstantSchedule({ lr: 0.05 })],
  ['with events', () => new TrialScheduler(minMax({ every: { steps: 2 } }))],
])('a run that is told of every step submits the next one before it waits for the log (%s)', async (_, schedule) => {
  await withTrainer(options({ schedule: schedule(), epochs: 2 }), async (trainer) => {
    let steps = 0;
    /** Steps submitted when the n-th read of the log came back. */
    const known: number[] = [];
    const countSteps = (real: (...args: never[]) => unknown) =>
      function (this: object, ...args: never[]) {
        if ((args[0] as GPUComputePassDescriptor | undefined)?.label === 'step') steps++;
        return real.apply(this, args);
      };
    const told: number[] = [];
    await patched(GPUCommandEncoder, 'beginComputePass', countSteps, () =>
      trainer.run({
        logEvery: 1, evaluate: false,
        onSteps: (some) => {
          told.push(...some.map(({ step }) => step));
          known.push(steps);
        },
      }),
    );
    expect(told).toEqual(Array.from({ length: 10 }, (_, i) => i));
    // One ahead, but at the end.
    expect(known).toEqual([2, 3, 4, 5, 6, 7, 8, 9, 10, 10]);
  });
});

test('a callback that throws ends the run with what it threw, once', async () => {
  await withTrainer(options(), async (trainer) => {
    const run = trainer.run({
      logEvery: 1,
      onSteps: () => {
        throw new Error('enough');
      },
    });
    await expect(run).rejects.toThrow('enough');
    await trainer.trainStep();
    expect((await trainer.losses()).length).toBeGreaterThan(0);
  });
});

test('on a software adapter every poll of a pending wait sleeps first', async () => {
  expect(device().adapter.isSoftware).toBe(true);
  const own = Object.getOwnPropertyDescriptor(globalThis, 'setImmediate')!;
  const real = setImmediate;
  const polls = { asleep: 0, awake: 0 };
  let stepPolls = polls;
  let waits = 0;
  const countWaits = (original: (...args: never[]) => unknown) =>
    function (this: object, ...args: never[]) {
      waits++;
      return original.apply(this, args);
    };
  await withTrainer(options({ epochs: 4 }), async (trainer) => {
    let current = real;
    Object.defineProperty(globalThis, 'setImmediate', {
      configurable: true,
      get: () => {
        polls[current === real ? 'awake' : 'asleep']++;
        return current;
      },
      set: (value: typeof setImmediate) => (current = value),
    });
    try {
      await patched(GPUQueue, 'onSubmittedWorkDone', countWaits, () =>
        patched(GPUBuffer, 'mapAsync', countWaits, async () => {
          // Of steps alone, then with reads of their log, then of what an evaluation reads.
          for (let i = 0; i < 10; i++) await trainer.trainStep();
          stepPolls = { ...polls };
          await trainer.run({ logEvery: 2 });
          await trainer.evaluate();
        }),
      );
    } finally {
      Object.defineProperty(globalThis, 'setImmediate', own);
    }
    expect(current).toBe(real);
  });
  expect(waits).toBeGreaterThan(20);
  // Few where the adapter is done before the first poll.
  expect(polls.asleep).toBeGreaterThan(0);
  // A call that begins to poll does so before its promise is there to be waited for.
  expect(polls.awake).toBeLessThanOrEqual(waits);
  expect(stepPolls.awake).toBeLessThanOrEqual(10);
});
