/** `tune: true`: where choices come from, that they reach every plan, and that runs stay the same to the bit. */
import { mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { AttrError } from '../../src/gpu/errors.ts';
import { choiceName, problemName } from '../../src/graph/lower/convProblem.ts';
import { Tuner } from '../../src/graph/tune/tuner.ts';
import { TrialScheduler, type TrialEvent } from '../../src/sched/trialScheduler.ts';
import { Trainer } from '../../src/train/trainer.ts';
import type { TrainerOptions } from '../../src/train/trainerOptions.ts';
import { expectClose } from '../support/close.ts';
import { useDevice } from '../support/device.ts';
import { minMax } from '../support/minMax.ts';
import { ConvNet, randomDataset, withTrainer } from './nets.ts';

const device = useDevice();

let folder = '';
const cache = (): string => join(folder, 'forkstep');
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'forkstep-tune-'));
  vi.stubEnv('XDG_CACHE_HOME', folder);
});
afterEach(() => {
  vi.unstubAllEnvs();
  vi.restoreAllMocks();
  rmSync(folder, { recursive: true });
});

const dataset = randomDataset({ train: 40, size: 16 });
const options = (more: Partial<TrainerOptions> = {}): TrainerOptions => ({
  model: new ConvNet(), dataset, batchSize: 8, epochs: 1, optimizer: { momentum: 0.9 },
  schedule: new TrialScheduler(minMax({ lr: 0.05, every: { steps: 2 } })), ...more,
});

/** Losses of all steps, events and the evaluation. */
async function run(more: Partial<TrainerOptions> = {}) {
  return withTrainer(options(more), async (trainer) => {
    const losses: number[] = [];
    const events: TrialEvent[] = [];
    const { evaluation } = await trainer.run({
      onSteps: (steps) => losses.push(...steps.map(({ loss }) => loss)), onEvent: (event) => events.push(event),
    });
    return { losses, trialLosses: events.map((event) => event.losses), test: evaluation!.testLoss, passes: trainer.plans.trials!.passes };
  });
}

/** Every tuner that is opened measures by clocks on which all but the estimated choice of each problem take half. */
function turnAllChoices() {
  const tuners: Tuner[] = [];
  const open = Tuner.open.bind(Tuner);
  vi.spyOn(Tuner, 'open').mockImplementation(async (on, more) => {
    const seen: string[] = [];
    const meter = {
      clocks: ['given'],
      // A subject's first sample is of its estimated choice, alone.
      sample: async ({ label }: { label: string }) => (seen.push(label), [label === seen[0] ? 10 : 5]),
      leastMs: 1, release: () => {},
    };
    const tuner = await open(on, { ...more, meter });
    const { tune } = tuner;
    vi.spyOn(tuner, 'tune').mockImplementation((graphs, onProgress) =>
      tune.call(tuner, graphs, (...progress) => (seen.splice(0), onProgress?.(...progress))));
    tuners.push(tuner);
    return tuner;
  });
  return tuners;
}

describe('tuning', () => {
  test('is off by default: nothing is measured, read or kept', async () => {
    const open = vi.spyOn(Tuner, 'open');
    await run();
    expect(open).not.toHaveBeenCalled();
    expect(readdirSync(folder)).toEqual([]);
  });

  test('gives the losses that estimates give, and the next run takes its choices as they are', async () => {
    const tuners = turnAllChoices();
    const told: [number, number][] = [];
    const tuned = await run({ tune: true, onTune: (done, total) => told.push([done, total]) });
    // Gradients of 3 layers' weights and 2 inputs. Forward: two convolutions in training, two and a linear layer in evaluation (which takes no
    // moments; in training the linear layer is in the loss's kernel), two in an event.
    expect(told).toEqual(Array.from({ length: told.length }, (_, i) => [i, told.length - 1]));
    expect(told.length - 1).toBe(tuners[0].verdicts.size);
    const problems = [...tuners[0].verdicts.keys()];
    const count = (what: RegExp) => problems.filter((problem) => what.test(problem)).length;
    expect([count(/kind=backwardWeight/), count(/kind=backwardInput/)]).toEqual([3, 2]);
    expect([count(/eventTrials=1 .*kind=forward/), count(/eventTrials=7 .*kind=forward/)]).toEqual([5, 2]);
    expect(readdirSync(cache())).toEqual([expect.stringMatching(/^tuning-[0-9a-f]{16}\.json$/)]);

    const estimated = await run();
    expectClose(tuned.losses, estimated.losses, { atol: 0, rtol: 1e-4 });
    expectClose(tuned.trialLosses.flat(), estimated.trialLosses.flat(), { atol: 0, rtol: 1e-3 });
    expectClose([tuned.test], [estimated.test], { atol: 0, rtol: 1e-3 });
    const onTune = vi.fn();
    expect(await run({ tune: true, onTune })).toEqual(tuned);
    expect(onTune).not.toHaveBeenCalled();
  });

  test('reaches every convolution of every plan', async () => {
    const tuners = turnAllChoices();
    await withTrainer(options({ tune: true }), async ({ plans }) => {
      const [{ verdicts }] = tuners;
      const kernels = [plans.gradient, plans.evaluation!, plans.event!].flatMap(({ kernelNames }) => kernelNames).join('\n');
      expect([...verdicts.values()].some(({ choice }) => choice.splits > 1)).toBe(true);
      expect(kernels).toContain('sumPartials');
    });
    // No plan asked for a problem that was not measured.
    const [tuner] = tuners;
    const asked = new Set<string>();
    const { choose } = tuner.lowering;
    Object.assign(tuner.lowering, {
      choose: (...[problem, choices, launches]: Parameters<NonNullable<typeof choose>>) => {
        asked.add(problemName(problem));
        const choice = choose!(problem, choices, launches);
        expect(choiceName(choice)).toBe(choiceName(tuner.verdicts.get(problemName(problem))!.choice));
        return choice;
      },
    });
    vi.mocked(Tuner.open).mockResolvedValue(tuner);
    await withTrainer(options({ tune: true }), async () => {});
    expect([...asked].sort()).toEqual([...tuner.verdicts.keys()].sort());
  });

  test('leaves losses as they are however an event is cut into passes, bit for bit', async () => {
    turnAllChoices();
    const cut = await run({ tune: true });
    const whole = await run({ tune: true, memoryBudget: 2 ** 24 });
    expect(cut.passes.length).toBeGreaterThan(1);
    expect(whole.passes).toEqual([7]);
    expect(whole.trialLosses).toEqual(cut.trialLosses);
    expect(whole.losses).toEqual(cut.losses);
  });

  test('leaves no bytes of what it measured on', async () => {
    const bytes = async (more: Partial<TrainerOptions>) => withTrainer(options(more), async ({ memory }) => {
      expect(device().liveBytes - before).toBe(memory.total);
      return memory.total;
    });
    const before = device().liveBytes;
    await bytes({ tune: true });
    await bytes({});
  });
});

describe('choices that cannot be kept', () => {
  test('end no run, and are told of once', async () => {
    // A file where the folder would be.
    writeFileSync(cache(), 'in the way');
    const warn = vi.spyOn(console, 'warn').mockImplementation(() => {});
    turnAllChoices();
    const { losses } = await run({ tune: true });
    expect(losses.every(Number.isFinite)).toBe(true);
    expect(warn).toHaveBeenCalledTimes(1);
    expect(warn.mock.calls[0][0]).toContain(cache());
    expect(readFileSync(cache(), 'utf8')).toBe('in the way');
  });

  test('leave no unfinished file', async () => {
    mkdirSync(cache());
    turnAllChoices();
    await run({ tune: true });
    const [file] = readdirSync(cache());
    rmSync(join(cache(), file));
    // The name is taken by a folder: the rename fails.
    mkdirSync(join(cache(), file));
    vi.spyOn(console, 'warn').mockImplementation(() => {});
    await run({ tune: true });
    expect(readdirSync(cache())).toEqual([file]);
  });
});

test.each([
  ['tune', { tune: 'yes' }],
  ['onTune', { onTune: () => {} }],
])('%s: %j is refused', async (arg, more) => {
  const error = await Trainer.create(options(more as never)).catch((thrown: unknown) => thrown);
  expect(error).toBeInstanceOf(AttrError);
  expect(error).toMatchObject({ op: 'Trainer', arg });
});
