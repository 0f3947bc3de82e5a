/** Choices by measurement: what is measured, what is taken, and what is kept of it. Clocks are given, so that no test depends on a time. */
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import type { AdapterSummary } from '../../src/gpu/device.ts';
import { grad } from '../../src/autograd/grad.ts';
import { batchNorm, cast, conv2d, mul, relu, sum } from '../../src/graph/functional.ts';
import { fuse } from '../../src/graph/fuse/index.ts';
import type { LowerContext } from '../../src/graph/lower/context.ts';
import { choiceName } from '../../src/graph/lower/convProblem.ts';
import { lowerContextOf } from '../../src/graph/plan.ts';
import { evaluate } from '../../src/graph/run.ts';
import type { Tensor } from '../../src/graph/tensor.ts';
import { measure } from '../../src/graph/tune/measure.ts';
import { meterOf, type Meter } from '../../src/graph/tune/meter.ts';
import { recordName, TuningRecord, type Machine, type TextStore } from '../../src/graph/tune/record.ts';
import { collectSubjects, type Subject } from '../../src/graph/tune/subject.ts';
import { machineOf, Tuner } from '../../src/graph/tune/tuner.ts';
import { LesserDevice } from '../support/lesserDevice.ts';
import { useDevice } from '../support/device.ts';
import { expectClose } from '../support/close.ts';
import { randomNd } from '../support/random.ts';
import { constant, parameter } from '../support/tensors.ts';

const device = useDevice();

/** A store in memory, whose texts tests may spoil. */
function memoryStore(texts = new Map<string, string>()): TextStore & { texts: Map<string, string>; writes: number } {
  const store = {
    texts,
    writes: 0,
    read: async (name: string) => texts.get(name) ?? null,
    write: async (name: string, text: string) => {
      store.writes++;
      texts.set(name, text);
    },
    place: (name: string) => `memory of ${name}`,
  };
  return store;
}

/** Plans take what `timeOf` says of their choice's name, on each of several clocks. */
const meterBy = (timeOf: (choice: string) => readonly number[]): Meter & { samples: string[]; released: number } => {
  const meter = {
    clocks: ['one', 'other'],
    samples: [] as string[],
    released: 0,
    sample: async ({ label }: { label: string }) => {
      meter.samples.push(label);
      return timeOf(label);
    },
    leastMs: 1,
    release: () => void meter.released++,
  };
  return meter;
};

const [x, weight] = [randomNd([2, 12, 13, 22], 1), randomNd([3, 3, 22, 18], 2)].map((value) => parameter(value));
const dy = constant(randomNd([2, 12, 13, 18], 3));
const weight6 = parameter(randomNd([3, 3, 6, 9], 4));
/** A convolution with both gradients: three subjects. */
const outputs = (): Tensor[] => {
  const y = conv2d(x, weight, { padding: 1 });
  return [y, ...grad(sum(mul(y, dy)), [x, weight])];
};
const graph = { outputs };
const subjects = (lowering: LowerContext = lowerContextOf(device())): Subject[] =>
  collectSubjects([graph], lowering, device().limits.maxStorageBufferBindingSize);
const namesOf = ({ choices }: Subject): string[] => choices.map(choiceName);

describe('measuring a convolution', () => {
  const timed = async (subject: Subject, timeOf: (choice: string) => readonly number[]) => {
    const verdict = await measure(device(), subject, meterBy(timeOf));
    return { ...verdict, choice: choiceName(verdict.choice) };
  };

  test('takes the fastest, and says by how much', async () => {
    for (const subject of subjects()) {
      const [first, ...others] = namesOf(subject);
      for (const fastest of others) {
        const { choice, timesFirst, firstMs } = await timed(subject, (name) => [name === fastest ? 3 : name === first ? 4 : 5]);
        expect([choice, timesFirst, firstMs]).toEqual([fastest, 0.75, [4]]);
      }
    }
  });

  test('keeps the default one where nothing is faster by 3 %', async () => {
    const [subject] = subjects();
    const [first, second] = namesOf(subject);
    expect(await timed(subject, (name) => [name === second ? 98 : 100])).toMatchObject({ choice: first, timesFirst: 1 });
    expect(await timed(subject, (name) => [name === second ? 96 : 100])).toMatchObject({ choice: second, timesFirst: 0.96 });
    expect(await timed(subject, (name) => [name === first ? 100 : 200])).toMatchObject({ choice: first, timesFirst: 1 });
  });

  test('asks all clocks: the worst says', async () => {
    const [subject] = subjects();
    const [first, second, third] = namesOf(subject);
    const times: Record<string, number[]> = { [second]: [50, 105], [third]: [90, 90] };
    expect(await timed(subject, (name) => times[name] ?? [100, 100])).toMatchObject({ choice: third, timesFirst: 0.9 });
    expect(await timed(subject, (name) => (name === second ? times[second] : [100, 100]))).toMatchObject({ choice: first });
  });

  test('never takes one that gives something else, or that does not compile', async () => {
    const [subject] = subjects();
    const [, wrong, broken] = namesOf(subject);
    // Leaves out a launch's work: outputs stay as they were cleared.
    const spoilt: Subject = {
      ...subject,
      launches: (choice) =>
        subject.launches(choice).map((launch) => {
          if (choiceName(choice) === wrong) return { ...launch, grid: [0, 1, 1] };
          if (choiceName(choice) === broken) return { ...launch, kernel: { ...launch.kernel, source: `${launch.kernel.source} fn` } };
          return launch;
        }),
    };
    const { choice, failed } = await timed(spoilt, (name) => [name === wrong || name === broken ? 1 : 100]);
    expect(choice).toBe(choiceName(subject.choices[0]));
    expect([...failed.keys()].sort()).toEqual([wrong, broken].sort());
    expect(failed.get(wrong)).toMatch(/its result is 1 from the first's/);
    expect(failed.get(broken)).toMatch(/must compile/);
  });

  test('with norms in its loads and stores finds all choices to agree', async () => {
    const [a, b] = [[3, 3, 6, 9], [3, 3, 9, 5]].map((shape, i) => parameter(randomNd(shape, 5 + i)));
    const [scale, shift] = [7, 8].map((seed) => parameter(randomNd([9], seed)));
    const image = constant(randomNd([2, 9, 8, 6], 9));
    const y = conv2d(relu(batchNorm(conv2d(image, a, { padding: 1 }), scale, shift).y), b, { padding: 1 });
    const dz = constant(randomNd([2, 9, 8, 5], 10));
    const fused = fuse([y, ...grad(sum(mul(y, dz)), [a, b, scale, shift])]);
    const found = collectSubjects([{ outputs: () => fused }], lowerContextOf(device()), device().limits.maxStorageBufferBindingSize);
    for (const by of ['gradient', 'moments']) expect(found.filter(({ name }) => name.includes(`after={"by":"${by}"`)).length).toBe(1);
    expect(found).toHaveLength(5);
    for (const subject of found) {
      const meter = preferLast();
      const { failed } = await measure(device(), subject, meter);
      expect([...failed]).toEqual([]);
      for (const name of namesOf(subject)) expect(meter.samples).toContain(name);
    }
  });

  test('of f16 activations finds all choices to agree', async () => {
    const half = { outputs: () => [conv2d(cast(constant(randomNd([2, 9, 8, 6], 9)), 'f16'), weight6, { padding: 1 })] };
    const [subject, ...others] = collectSubjects([half], lowerContextOf(device()), device().limits.maxStorageBufferBindingSize);
    expect([subject.name.includes('isHalf=true'), others.length]).toEqual([true, 0]);
    const { failed } = await measure(device(), subject, preferLast());
    expect([...failed]).toEqual([]);
  });

  test('by real clocks ends with one of the choices', async () => {
    const meter = meterOf(device());
    try {
      const [subject] = subjects();
      const { choice, timesFirst, firstMs } = await measure(device(), subject, meter);
      expect(subject.choices).toContain(choice);
      expect(timesFirst).toBeGreaterThan(0);
      expect(timesFirst).toBeLessThanOrEqual(1);
      expect(firstMs.every((ms) => ms > 0)).toBe(true);
    } finally {
      meter.release();
    }
  });
});

describe('collecting', () => {
  test('finds each problem of a graph once', () => {
    const one = subjects().map(({ name }) => name);
    expect(one.map((name) => /kind=(\w+)/.exec(name)![1]).sort()).toEqual(['backwardInput', 'backwardWeight', 'forward']);
    const twice = collectSubjects([graph, graph], lowerContextOf(device()), 2 ** 30);
    expect(twice.map(({ name }) => name)).toEqual(one);
  });

  test('has trials as many as can be bound, under the name of all', () => {
    const event = (most: number[]) => ({ trials: 7, outputs: (count: number) => (most.push(count), outputs()) });
    const bytes = 2 * 12 * 13 * 24 * 4;
    const [free, tight] = [[] as number[], [] as number[]];
    const [{ name }] = collectSubjects([event(free)], lowerContextOf(device()), bytes);
    collectSubjects([event(tight)], lowerContextOf(device()), bytes - 1);
    expect(name).toContain('eventTrials=7');
    expect([free, tight]).toEqual([[4], [4, 3, 2, 1]]);
  });
});

/** Lets all but the first choice of each problem win. */
const preferLast = () => {
  const firsts = new Set(subjects().map((subject) => namesOf(subject)[0]));
  return meterBy((name) => [firsts.has(name) ? 10 : 5]);
};

describe('a tuner', () => {
  const open = (options: Parameters<typeof Tuner.open>[1] = {}) => Tuner.open(device(), { store: memoryStore(), meter: preferLast(), ...options });
  /** Names of the choices that a tuner's plans are lowered with. */
  const chosenBy = ({ lowering }: Tuner): string[] =>
    subjects({ ...lowering, choose: undefined }).map((subject) => {
      const problem = Object.fromEntries(subject.name.split(' ').map((part) => part.split('=')));
      return choiceName(lowering.choose!(problem as never, subject.choices, subject.launches));
    });

  test('lowers by estimate what it has not measured, and as measured what it has', async () => {
    const tuner = await open();
    const estimates = subjects().map((subject) => namesOf(subject)[0]);
    expect(chosenBy(tuner)).toEqual(estimates);
    await tuner.tune([graph]);
    const chosen = chosenBy(tuner);
    chosen.forEach((name, i) => expect(name).not.toBe(estimates[i]));
    expect([...tuner.verdicts.values()].map(({ choice }) => choiceName(choice))).toEqual(chosen);
    const [plain, tuned] = [await evaluate(outputs(), { device: device() }), await evaluate(outputs(), { device: device(), lowering: tuner.lowering })];
    tuned.forEach((values, i) => expectClose(values, plain[i], { atol: 1e-4, rtol: 1e-5 }));
  });

  test('tells how far it is, and frees its clocks', async () => {
    const meter = preferLast();
    const told: [number, number][] = [];
    await (await open({ meter })).tune([graph], (done, total) => told.push([done, total]));
    expect(told).toEqual([[0, 3], [1, 3], [2, 3], [3, 3]]);
    expect(meter.released).toBe(1);
  });

  test('takes from the store what an earlier one measured, without measuring', async () => {
    const store = memoryStore();
    const first = await open({ store });
    await first.tune([graph]);
    const meter = preferLast();
    const told = vi.fn();
    const second = await open({ store, meter });
    await second.tune([graph], told);
    expect([meter.samples, told.mock.calls, second.verdicts.size]).toEqual([[], [], 0]);
    expect(chosenBy(second)).toEqual(chosenBy(first));
  });

  test('measures anew where kernels have changed, or where a choice is none of today\'s', async () => {
    const store = memoryStore();
    await (await open({ store })).tune([graph]);
    const [[name, text]] = store.texts;
    const spoil = async (field: 'kernels' | 'choice') => {
      const all = JSON.parse(text) as { choices: Record<string, Record<string, string>> };
      Object.values(all.choices)[0][field] = 'another';
      store.texts.set(name, JSON.stringify(all));
      const tuner = await open({ store });
      await tuner.tune([graph]);
      expect([...tuner.verdicts.keys()]).toEqual([Object.keys(all.choices)[0]]);
    };
    await spoil('kernels');
    await spoil('choice');
  });

  test('of a device that binds less measures within that', async () => {
    const [subject] = subjects();
    const splits = subject.choices.filter((choice) => choice.splits > 1);
    expect(splits.length).toBeGreaterThan(0);
    const less = new LesserDevice(device(), { maxStorageBufferBindingSize: 2 * 12 * 13 * 24 * 4 });
    const meter = preferLast();
    await measure(less, subject, meter);
    expect(meter.samples.length).toBeGreaterThan(0);
    for (const choice of splits) expect(meter.samples).not.toContain(choiceName(choice));
  });
});

describe('the record', () => {
  const adapter: AdapterSummary = { vendor: 'v', architecture: 'a', device: 'd', description: 'driver 1', isSoftware: false, subgroupSize: null, matrices: null };
  const machine: Machine = { adapter, runtime: 'webgpu 1' };
  const entry = { choice: 'tile 64x64x16', kernels: 'k', timesFirst: 0.5 };
  const opened = async (store: TextStore, of = machine) => {
    const warnings: string[] = [];
    return { record: await TuningRecord.open(of, store, (message) => warnings.push(message)), warnings };
  };

  test('comes back in a fresh object', async () => {
    const store = memoryStore();
    await (await opened(store)).record.keep('p', entry);
    const { record, warnings } = await opened(store);
    expect([record.size, record.choiceFor('p', 'k'), record.choiceFor('p', 'other'), record.choiceFor('q', 'k')]).toEqual([1, 'tile 64x64x16', null, null]);
    expect(warnings).toEqual([]);
  });

  test('has another name with any other adapter, driver or runtime', () => {
    const others = Object.keys(adapter).map((field) => ({ ...machine, adapter: { ...adapter, [field]: 'other' } as unknown as AdapterSummary }));
    const names = [machine, ...others, { ...machine, runtime: 'webgpu 2' }].map(recordName);
    expect(new Set(names).size).toBe(names.length);
    expect(recordName({ runtime: 'webgpu 1', adapter: { ...adapter } })).toBe(names[0]);
    expect(names[0]).toMatch(/^tuning-[0-9a-f]{16}\.json$/);
  });

  test('of this machine names driver and Dawn', () => {
    const { runtime, adapter: own } = machineOf(device());
    expect(runtime).toMatch(/^webgpu \d+\.\d+\.\d+/);
    expect(own).toBe(device().adapter);
  });

  test.each([
    ['cut short', (text: string) => text.slice(0, -20)],
    ['no JSON', () => 'choices'],
    ['null', () => 'null'],
    ['without choices', (text: string) => JSON.stringify({ ...(JSON.parse(text) as object), choices: undefined })],
    ['a choice that is none', (text: string) => text.replace('"tile 64x64x16"', '7')],
    ['of another format', (text: string) => text.replace(/"format": \d+/, '"format": 0')],
    ['of another driver', (text: string) => text.replace('driver 1', 'driver 2')],
    ['of another runtime', (text: string) => text.replace('webgpu 1', 'webgpu 2')],
  ])('that is %s is told of once, ignored and written anew', async (_, spoil) => {
    const store = memoryStore();
    await (await opened(store)).record.keep('p', entry);
    const [[name, text]] = store.texts;
    store.texts.set(name, spoil(text));
    expect(store.texts.get(name)).not.toBe(text);
    const { record, warnings } = await opened(store);
    expect([record.size, warnings.length]).toEqual([0, 1]);
    expect(warnings[0]).toMatch(/^forkstep: the measured choices in memory of tuning-\w+\.json cannot be used and are made anew \(.+\)$/);
    await record.keep('q', entry);
    expect(warnings).toHaveLength(1);
    expect((await opened(store)).record.choiceFor('q', 'k')).toBe(entry.choice);
  });

  test('keeps what another process has kept meanwhile', async () => {
    const store = memoryStore();
    const [a, b] = [(await opened(store)).record, (await opened(store)).record];
    await a.keep('p', entry);
    await b.keep('q', entry);
    expect((await opened(store)).record.size).toBe(2);
  });

  test('that cannot be written or read is told of once, and nothing ends', async () => {
    const refuse = async () => Promise.reject(new Error('EROFS'));
    const { record, warnings } = await opened({ ...memoryStore(), write: refuse });
    await record.keep('p', entry);
    await record.keep('q', entry);
    expect(warnings).toEqual([`forkstep: measured choices cannot be kept in memory of ${record.name}: a later run may choose otherwise (EROFS)`]);
    expect(record.choiceFor('q', 'k')).toBe(entry.choice);
    expect((await opened({ ...memoryStore(), read: refuse })).warnings).toHaveLength(1);
  });
});

describe('warnings', () => {
  const warn = vi.spyOn(console, 'warn');
  beforeEach(() => void warn.mockReset());
  afterEach(() => void warn.mockReset());

  test('go to the console', async () => {
    const store = { ...memoryStore(), read: async () => 'damaged' };
    await Tuner.open(device(), { store });
    expect(warn).toHaveBeenCalledTimes(1);
  });
});
