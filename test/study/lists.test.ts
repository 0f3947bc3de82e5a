/** What a study consists of: names, recipes, methods, costs. Nothing is trained here. */
import { describe, expect, it } from 'vitest';
import type { Schedule, TrialScheduler } from '../../src/sched/index.ts';
import { eventForwards, expectedCost, forwardMacs, totalCost } from '../../src/study/cost.ts';
import { methodNames, methods, type Frame, type MethodName } from '../../src/study/methods.ts';
import { canonicalJson, runId, type Recipe } from '../../src/study/recipe.ts';
import { scaleNames, scales } from '../../src/study/scales.ts';
import { makeStudy, studyNames } from '../../src/study/studies.ts';

const recipe: Recipe = { ...scales.small.base, method: 'cosine', options: {}, seed: 1 };

describe('the name of a run', () => {
  it('is readable, and that of its content whatever the order it is written in', () => {
    // Results that are committed bear such names: a change of this one would make them anew.
    expect(runId(recipe)).toBe('cosine-lr0.005-s1-' + runId(recipe).slice(-10));
    const reversed = Object.fromEntries(Object.entries(recipe).reverse()) as unknown as Recipe;
    expect(runId(reversed)).toBe(runId(recipe));
    expect(runId({ ...recipe, options: { tau: undefined } })).toBe(runId(recipe));
  });

  it('tells every difference', () => {
    const changes: Partial<Recipe>[] = [
      { seed: 2 }, { lr: 0.0051 }, { train: 3999 }, { options: { anchor: true } }, { options: { anchor: false } }, { stem: 'cifar' },
      { optimizer: { ...recipe.optimizer, momentum: 0.9 } }, { method: 'step' }, { augment: 'crop-flip' },
      { options: { factors: [2, 1] } }, { options: { factors: [1, 2] } },
    ];
    expect(new Set([recipe, ...changes.map((change) => ({ ...recipe, ...change }))].map(runId)).size).toBe(changes.length + 1);
  });

  it('is FNV-1a of the canonical text', () => {
    expect(canonicalJson({ b: [1, { d: null, c: 'x' }], a: undefined })).toBe('{"b":[1,{"c":"x","d":null}]}');
    // By hand from offset basis and prime, in another arithmetic.
    let [high, low] = [0xcbf29ce4, 0x84222325];
    for (const unit of canonicalJson(recipe)) {
      low = (low ^ unit.charCodeAt(0)) >>> 0;
      const product = BigInt(low) * 0x1b3n;
      const carried = Number(product >> 32n) + Math.imul(high, 0x1b3) + ((low << 8) >>> 0);
      [high, low] = [carried >>> 0, Number(product & 0xffffffffn)];
    }
    const hash = [high, low].map((half) => half.toString(16).padStart(8, '0')).join('');
    expect(runId(recipe).slice(-10)).toBe(hash.slice(0, 10));
  });

  it('is safe as the name of a file', () => {
    for (const name of studyNames) for (const { id } of makeStudy(name, 'paper', 2).runs) expect(id).toMatch(/^[A-Za-z0-9.-]+$/);
  });
});

/** A fresh schedule of a method that has one. */
function scheduleOf(name: MethodName, frame: Frame): Schedule {
  const method = methods[name];
  if ('tree' in method) throw new Error(`${name} is a tree`);
  return method.schedule(frame);
}
const scheduled = methodNames.filter((name) => 'schedule' in methods[name]);

describe('the methods', () => {
  /** Rate in force during some epochs of 100, of 10 steps each, from 0.005. */
  const during = (method: MethodName, ...epochs: number[]): number[] => {
    const schedule = scheduleOf(method, { lr: 0.005, epochs: 100, options: {} });
    return epochs.map((epoch) => schedule.lrAt(epoch * 10 + 9, 1000, 10));
  };
  const close = (values: number[], expected: number[]): void => values.forEach((value, i) => expect(value).toBeCloseTo(expected[i], 7));

  it("have PyTorch's rates of 100 epochs (learning rates of torch 1.13)", () => {
    close(during('constant', 0, 50, 99), [0.005, 0.005, 0.005]);
    close(during('torchConstantLr', 0, 4, 5, 99), [0.005 / 3, 0.005 / 3, 0.005, 0.005]);
    close(during('linearDefault', 0, 1, 2, 4, 5, 99), [0.005 / 3, 0.0023333333, 0.003, 0.0043333333, 0.005, 0.005]);
    close(during('linearDecay', 0, 10, 50, 99), [0.005, 0.0045, 0.0025, 5e-5]);
    close(during('cosine', 0, 10, 50, 75, 99), [0.005, 0.00487764, 0.0025, 0.00073223, 1.2336e-6]);
    close(during('step', 0, 29, 30, 59, 60, 99), [0.005, 0.005, 0.0005, 0.0005, 5e-5, 5e-6]);
  });

  it('have lengths in proportion in shorter runs, of an epoch at least', () => {
    const rate = (method: MethodName, epochs: number, epoch: number) =>
      scheduleOf(method, { lr: 1, epochs, options: {} }).lrAt(epoch * 10, epochs * 10, 10);
    expect([rate('step', 10, 2), rate('step', 10, 3), rate('step', 2, 0), rate('step', 2, 1)]).toEqual([1, 0.1, 1, 0.1]);
    expect([rate('linearDefault', 10, 0), rate('linearDefault', 10, 1)]).toEqual([1 / 3, 1]);
  });

  it('take the first rate where they say so, and nowhere else', () => {
    for (const name of scheduled) {
      const [small, large] = [0.01, 0.1].map((lr) => JSON.stringify(scheduleOf(name, { lr, epochs: 10, options: {} }).state()));
      expect([name, small !== large]).toEqual([name, methods[name].takesRate]);
    }
  });

  it('make a fresh schedule each time, and take options where they say so', () => {
    for (const name of scheduled) {
      const frame = { lr: 0.01, epochs: 10, options: {} };
      expect(scheduleOf(name, frame)).not.toBe(scheduleOf(name, frame));
    }
    const made = scheduleOf('published5', { lr: 0.01, epochs: 10, options: { score: 'rank', normalize: 'none', anchor: true } });
    expect((made as TrialScheduler).options).toMatchObject({ score: 'rank', normalize: 'none', anchor: true, factors: [4, 2, 1, 0.5, 0.125] });
  });
});

describe('the studies', () => {
  const every = studyNames.flatMap((name) => scaleNames.map((scale) => [name, scale] as const));

  it.each(every)('%s at %s: rows and runs are one another', (name, scale) => {
    const study = makeStudy(name, scale, 2);
    expect(new Set(study.rows.map(({ key }) => key)).size).toBe(study.rows.length);
    expect(study.runs).toHaveLength(2 * study.rows.length);
    // Rows of one study are different settings.
    expect(new Set(study.runs.map(({ id }) => id)).size).toBe(study.runs.length);
    for (const { row, id, recipe: own } of study.runs) {
      const { seed, ...rest } = own;
      expect(rest).toEqual(study.rows.find(({ key }) => key === row)!.recipe);
      expect([0, 1]).toContain(seed);
      expect(id).toBe(runId(own));
      if (Object.keys(own.options).length > 0) expect(methods[own.method].takesOptions).toBe(true);
    }
    for (const { of } of study.bests) for (const key of of) expect(study.rows.some((row) => row.key === key)).toBe(true);
  });

  it('the table has every method, and at paper scale for both stems', () => {
    for (const scale of scaleNames) {
      const { rows } = makeStudy('table', scale, 1);
      for (const stem of scales[scale].stems) {
        const own = rows.filter(({ recipe: { stem: of, lr } }) => of === stem && lr === 0.005);
        expect(own.map(({ recipe: { method } }) => method)).toEqual(methodNames);
      }
    }
    expect(scales.paper).toMatchObject({
      stems: ['imagenet', 'cifar'], base: { dataset: 'cifar10', train: 50_000, test: 10_000, width: 64, epochs: 100, batch: 32, lr: 0.005 },
    });
  });

  it("the paper's column stands beside what it may be of, on CIFAR-10 alone", () => {
    const column = (scale: 'smoke' | 'small') => makeStudy('table', scale, 1).rows.flatMap(({ key, paper }) => (paper === undefined ? [] : [[key, paper]]));
    expect(column('smoke')).toEqual([]);
    expect(Object.fromEntries(column('small'))).toEqual({
      constant: 83.5, torchConstantLr: 83.5, linearDefault: 85.2, linearDecay: 85.2, cosine: 85, step: 84.4, published3: 87, published5: 87, published7: 87,
    });
  });

  it('over first rates have each method from every one, those that start from none once', () => {
    const { rows } = makeStudy('robustness', 'small', 1);
    for (const name of methodNames) {
      const own = rows.filter(({ recipe: { method } }) => method === name).map(({ recipe: { lr } }) => lr);
      expect([name, own]).toEqual([name, methods[name].takesRate ? scales.small.rates.robustness : [0.005]]);
    }
  });

  it('seed by seed, so that what is there can be compared; equal rows of two studies are one run', () => {
    const { runs, rows } = makeStudy('table', 'small', 3);
    expect(runs.map(({ recipe: { seed } }) => seed)).toEqual([0, 1, 2].flatMap((seed) => rows.map(() => seed)));
    const table = new Set(runs.map(({ id }) => id));
    const shared = makeStudy('robustness', 'small', 3).runs.filter(({ id }) => table.has(id));
    expect(shared.length).toBeGreaterThanOrEqual(3 * methodNames.length);
    // The preset's own score is the preset's own run.
    const [plain] = makeStudy('scores', 'small', 1).runs.filter(({ row }) => row === 'exp, minMax');
    expect(table.has(plain.id)).toBe(true);
  });

  it.each([0, -1, 1.5, NaN])('refuse %s seeds', (seeds) => {
    expect(() => makeStudy('table', 'smoke', seeds)).toThrow(expect.objectContaining({ arg: 'seeds' }));
  });
});

describe('costs', () => {
  it('are 3 an image of a step, and 1 an image of a trial', () => {
    const small = { ...recipe, train: 100, batch: 32, epochs: 4 };
    expect(expectedCost(small)).toEqual({ training: 3 * 32 * 3 * 4, trials: 0 });
    expect(expectedCost({ ...small, method: 'published5' })).toEqual({ training: 1152, trials: 4 * 5 * 32 });
    expect(expectedCost({ ...small, method: 'published5', options: { scoreBatch: 128, batch: 'both' } }).trials).toBe(4 * 5 * 128 * 2);
    // Both ask four times an epoch: here before each of its three steps.
    expect(expectedCost({ ...small, method: 'minMax' }).trials).toBe(4 * 3 * 7 * 32);
    // A gate asks for the loss at the weights too.
    expect(expectedCost({ ...small, method: 'gate' }).trials).toBe(4 * 3 * 8 * 32);
    // A search of 8 events, 32 steps apart, ends with the first step of the sixteenth epoch, which has three events after that.
    const searched = (epochs: number) => expectedCost({ ...small, train: 544, epochs, method: 'robust' }).trials / (8 * 32);
    expect([1, 2, 15, 16].map(searched)).toEqual([1, 2, 8, 11]);
    expect(totalCost(expectedCost(small))).toBe(1152);
  });

  it('count no trial of a blind drift, and those of shuffled losses', () => {
    const small = { ...recipe, train: 100, batch: 32, epochs: 4 };
    expect(expectedCost({ ...small, method: 'blindDrift' }).trials).toBe(0);
    expect(expectedCost({ ...small, method: 'shuffledLosses' }).trials).toBe(4 * 5 * 32);
  });

  it('count the trials that a rule makes every step', () => {
    const small = { ...recipe, train: 100, batch: 32, epochs: 4 };
    const forwards = (['sps', 'pal', 'cdat', 'slsArmijo'] as const).map((method) => expectedCost({ ...small, method }).trials / (12 * 32));
    expect(forwards).toEqual([0, 2, 3, 11]);
  });

  it('count every branch of a tree, at equal cost in a third of the epochs', () => {
    const table = makeStudy('table', 'paper', 1).rows;
    const [plain, tree, equal] = (['constant', 'alr', 'alrEqualCost'] as const).map((name) => table.find(({ recipe: { method } }) => method === name)!);
    expect([plain, tree, equal].map(({ recipe: { epochs } }) => epochs)).toEqual([100, 100, 33]);
    const cost = (row: typeof plain) => totalCost(expectedCost({ ...row.recipe, seed: 0 }));
    expect(cost(tree)).toBe(3 * cost(plain));
    expect(cost(equal) / cost(plain)).toBeCloseTo(0.99, 12);
  });

  it('at equal cost are what the note of that method says', () => {
    const times = scaleNames.map((scale) => {
      const { rows } = makeStudy('table', scale, 1);
      const [plain, equal] = ['constant', 'alrEqualCost'].map((name) => rows.find(({ recipe: { method } }) => method === name)!);
      const cost = (row: typeof plain) => totalCost(expectedCost({ ...row.recipe, seed: 0 }));
      return [scale, Number((cost(equal) / cost(plain)).toFixed(2))] as const;
    });
    expect(times).toEqual([['smoke', 1.5], ['small', 0.9], ['paper', 0.99]]);
    const [[first, most], ...others] = times;
    const said = [`${most} times the cost of other runs at ${first}`, ...others.map(([scale, cost]) => `${cost} at ${scale}`)].join(', ');
    expect(methods.alrEqualCost.note).toContain(said);
  });

  it('count the trial at the weights that some scores ask for', () => {
    const made = scheduleOf('published3', { lr: 0.1, epochs: 1, options: { score: 'relGain', normalize: 'none' } });
    expect(eventForwards(made, 10)).toBe(40);
  });

  it('know ResNet18: 555 million multiply-adds an image of 32 × 32 with the cifar stem', () => {
    expect(forwardMacs({ stem: 'cifar', width: 64 })).toBe(555_417_600);
    // 16² pixels of 7 × 7 × 3 × 64; stages at 8², 4², 2², 1².
    expect(forwardMacs({ stem: 'imagenet', width: 64 })).toBe(256 * 147 * 64 + (555_417_600 - 1_769_472) / 16);
  });
});
