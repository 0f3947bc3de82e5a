/** One run on the GPU: its result is what the trainer did. */
import { describe, expect, it } from 'vitest';
import { proceduralDataset } from '../../src/data/procedural.ts';
import { DeviceError, FileError } from '../../src/gpu/errors.ts';
import { expectedCost } from '../../src/study/cost.ts';
import { methodNames } from '../../src/study/methods.ts';
import { Datasets, LocalExecutor } from '../../src/study/local.node.ts';
import type { Recipe } from '../../src/study/recipe.ts';
import { parseResult, type FinishedRun } from '../../src/study/result.ts';
import type { RunJob } from '../../src/study/runJob.ts';
import { runRecipe } from '../../src/study/runRecipe.ts';
import { scales } from '../../src/study/scales.ts';
import { useDevice } from '../support/device.ts';

const device = useDevice();
const base: Recipe = { ...scales.smoke.base, train: 40, test: 24, batch: 8, epochs: 2, method: 'constant', options: {}, seed: 3 };
const run = (change: Partial<Recipe> = {}, job: Partial<RunJob> = {}) => {
  const recipe = { ...base, ...change };
  return runRecipe({ recipe, dataset: proceduralDataset({ seed: recipe.seed }), device: device(), version: '1.2.3', ...job });
};
const told = async (change?: Partial<Recipe>): Promise<FinishedRun> => (await run(change))!;

describe('a run', () => {
  it('has accuracy and loss by epoch, rates, events, cost, and survives JSON', async () => {
    const result = await told({ method: 'minMax' });
    expect(result).toMatchObject({ status: 'done', steps: 10, version: '1.2.3', divergence: null, eventCount: 8, recipe: { ...base, method: 'minMax' } });
    expect(result.epochs.map(({ epoch, step }) => [epoch, step])).toEqual([[1, 5], [2, 10]]);
    expect(result.epochs[1]).toMatchObject({ testAccuracy: result.testAccuracy, testLoss: result.testLoss });
    expect(result.testAccuracy! * 24).toBeCloseTo(Math.round(result.testAccuracy! * 24), 9);
    expect(result.lr[0][0]).toBe(0);
    expect(result.events.map(({ step }) => step)).toEqual([0, 1, 2, 3, 5, 6, 7, 8]);
    expect(result.cost).toEqual(expectedCost(result.recipe));
    expect(result.trainMs).toBeGreaterThan(0);
    expect(parseResult(JSON.stringify(result), 'file')).toEqual(result);
  });

  it('is the same again, and another with another seed', async () => {
    const bare = ({ trainMs: _t, evaluationMs: _e, ...rest }: FinishedRun) => rest;
    const [first, second, other] = [await told({ epochs: 1 }), await told({ epochs: 1 }), await told({ epochs: 1, seed: 4 })];
    expect(bare(second)).toEqual(bare(first));
    expect(other.testLoss).not.toBe(first.testLoss);
  });

  it('that diverges says where, has no accuracy, and costs what was made', async () => {
    const result = await told({ lr: 1e30 });
    expect(result).toMatchObject({ status: 'diverged', testAccuracy: null, testLoss: null });
    expect(result.divergence!.step).toBe(result.steps);
    expect(result.divergence!.reason).toMatch(/not finite/);
    expect(result.cost.training).toBe(3 * 8 * result.steps);
  });

  it('of a tree that diverges has no accuracy either', async () => {
    const result = await told({ method: 'alr', lr: 1000, train: 16, epochs: 1 });
    expect(result).toMatchObject({ status: 'diverged', testAccuracy: null, testLoss: null, steps: 2, divergence: { step: 2 } });
    expect(result.divergence!.reason).toMatch(/^the test loss is not finite/);
    expect(parseResult(JSON.stringify(result), 'file')).toEqual(result);
  });

  it('of a tree whose losses are none from the first weights on has them as no number', async () => {
    const result = await told({ method: 'alr', lr: 1e12, train: 16, epochs: 1 });
    expect(result).toMatchObject({ status: 'done', epochs: [{ epoch: 1, trainLoss: null }] });
    expect(result.testLoss).toBeLessThan(3);
  });

  it('that is stopped has no result; one that was done by then has', async () => {
    const controller = new AbortController();
    const stopped = await run({}, { signal: controller.signal, onProgress: (done) => void (done >= 3 && controller.abort()) });
    expect(stopped).toBeNull();
    const late = new AbortController();
    const whole = await run({ epochs: 1 }, { signal: late.signal, onProgress: (done, total) => void (done === total && late.abort()) });
    expect(whole).toMatchObject({ status: 'done', steps: 5 });
  });

  it('that is stopped again and again goes on bit for bit', async () => {
    const bare = ({ trainMs: _t, evaluationMs: _e, ...rest }: FinishedRun) => rest;
    const kept = new Map<string, Uint8Array>();
    const keeper = { load: (id: string) => kept.get(id) ?? null, save: (id: string, bytes: Uint8Array) => void kept.set(id, bytes) };
    let result: FinishedRun | null = null;
    const begun: number[] = [];
    while (!result) {
      const controller = new AbortController();
      let steps = 0;
      // After the third step that is told: within an epoch, and behind its end.
      const onProgress = (_: number, __: number, before: number) => {
        if (steps++ === 0) begun.push(before);
        if (steps === 1) controller.abort();
      };
      result = await run({ method: 'minMax' }, { keeper, signal: controller.signal, onProgress });
    }
    expect(begun[0]).toBe(0);
    expect(begun.length).toBeGreaterThan(1);
    expect(begun.slice(1).every((before, i) => before > begun[i])).toBe(true);
    expect(bare(result)).toEqual(bare(await told({ method: 'minMax' })));
  });

  it('of a tree that is stopped between epochs goes on bit for bit', async () => {
    const bare = ({ trainMs: _t, evaluationMs: _e, ...rest }: FinishedRun) => rest;
    const kept = new Map<string, Uint8Array>();
    const keeper = { load: (id: string) => kept.get(id) ?? null, save: (id: string, bytes: Uint8Array) => void kept.set(id, bytes) };
    const tree = { method: 'alr', epochs: 4 } as const;
    const controller = new AbortController();
    const stopped = await run(tree, { keeper, signal: controller.signal, onProgress: (done) => void (done === 10 && controller.abort()) });
    expect([stopped, kept.size]).toEqual([null, 1]);
    const begun = new Set<number>();
    const result = (await run(tree, { keeper, onProgress: (_, __, before) => void begun.add(before) }))!;
    expect([...begun]).toEqual([10]);
    expect(bare(result)).toEqual(bare(await told(tree)));
  });

  it('begins anew where what was kept is damaged, or of another run', async () => {
    const kept = new Map<string, Uint8Array>();
    const save = (id: string, bytes: Uint8Array) => void kept.set(id, bytes);
    await run({ epochs: 1 }, { keeper: { load: () => null, save } });
    const [whole] = [...kept.values()];
    const damaged = whole.slice();
    damaged[damaged.length - 1] ^= 1;
    const { testLoss } = await told({ seed: 4 });
    const reasons: string[] = [];
    const job = (bytes: Uint8Array) => ({ keeper: { load: () => bytes, save }, onAnew: (why: string) => void reasons.push(why) });
    for (const bytes of [whole, damaged]) expect(await run({ seed: 4 }, job(bytes))).toMatchObject({ testLoss });
    expect(reasons).toHaveLength(2);
    for (const why of reasons) expect(why).toMatch(/^[^\n]+: .+, got .+; .+$/);
  });

  it('does not begin anew where it is the device that fails', async () => {
    const kept: Uint8Array[] = [];
    await run({ epochs: 1 }, { keeper: { load: () => null, save: (_, bytes) => void kept.push(bytes) } });
    const set = proceduralDataset({ seed: 3 });
    let asked = 0;
    const dataset = {
      ...set,
      get train() {
        if (asked++ > 0) return set.train;
        throw new DeviceError({ op: 'upload', arg: 'device', rule: 'must have memory', got: 'too little', fix: 'use a smaller batch' });
      },
    };
    const why: string[] = [];
    const again = run({ epochs: 1 }, { dataset, keeper: { load: () => kept[0], save: () => {} }, onAnew: (one) => why.push(one) });
    await expect(again).rejects.toThrow(DeviceError);
    expect([kept.length > 0, why]).toEqual([true, []]);
  });

  it('whose checkpoint cannot be written is no failed run: the study ends', async () => {
    const keeper = {
      load: () => null,
      save: () => {
        throw new FileError({ op: 'forkstep', arg: '/x', rule: 'must be a file that can be written', got: 'ENOSPC', fix: 'free some space' });
      },
    };
    const executor = new LocalExecutor(new Datasets(undefined), '1.2.3', keeper, () => {});
    const controller = new AbortController();
    await expect(executor.run(base, controller.signal, () => controller.abort())).rejects.toThrow(FileError);
    await executor.close();
  });

  it('of every method ends, at the cost that was told before', async () => {
    for (const method of methodNames) {
      const { status, cost, recipe } = await told({ method, epochs: 1, train: 16 });
      expect([method, status, cost]).toEqual([method, 'done', expectedCost(recipe)]);
    }
  });
});
