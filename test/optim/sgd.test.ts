/** SGD on parameter memory against the float64 reference, which is itself held against PyTorch. */
import { describe, expect, test } from 'vitest';
import { AttrError } from '../../src/gpu/errors.ts';
import { Control } from '../../src/graph/control.ts';
import { Memory, type Arena } from '../../src/graph/memory.ts';
import { buildPlan, draft, type Draft, type Output } from '../../src/graph/plan.ts';
import { readStorage } from '../../src/graph/run.ts';
import { pack, Variable, type Storage } from '../../src/graph/tensor.ts';
import { VariableStore } from '../../src/graph/variables.ts';
import { resolveSgdOptions, Sgd, type SgdOptions } from '../../src/optim/sgd.ts';
import { expectClose } from '../support/close.ts';
import { useDevice } from '../support/device.ts';
import { nd, type Nd } from '../support/nd.ts';
import { randomNd } from '../support/random.ts';
import { sgdStep } from '../support/reference/sgd.ts';
import { constant } from '../support/tensors.ts';

const device = useDevice();

const shapes = [[3, 3, 3, 5], [7], [11, 13], [1], [64]];

/** An optimizer over parameters of odd sizes, driven from the host. */
class Bench {
  readonly memory = new Memory(device());
  readonly variables = shapes.map((shape, i) => new Variable('parameter', `p${i}`, shape, Float32Array.from(randomNd(shape, 10 + i).data)));
  readonly store = new VariableStore(this.memory, this.variables);
  readonly control = new Control(this.memory);
  readonly flags: Storage = this.memory.storage('slots', 'flags', 16);
  readonly rates: Storage = this.memory.storage('slots', 'rates', 16);
  readonly sgd: Sgd;

  constructor({ isFormed = false, ...options }: Row) {
    this.sgd = new Sgd(this.memory, this.store, options, !isFormed);
  }

  write({ buffer, offset }: Storage, values: Float32Array | Uint32Array): void {
    device().gpu.queue.writeBuffer(buffer, offset, values as Float32Array<ArrayBuffer>);
  }

  /** Puts gradients in their place, or what the gradient's graph makes of them. */
  async giveGradients(gradients: readonly Nd[]): Promise<void> {
    const { sgd, memory, variables, control } = this;
    const formed: Output[] = [];
    gradients.forEach((gradient, i) => {
      const given = constant(gradient);
      const direction = sgd.formedDirection(i, given, control.at('first'));
      if (direction === given) this.write(sgd.gradients.at(i), pack(variables[i], Float32Array.from(gradient.data)));
      else formed.push({ tensor: direction, storage: sgd.gradients.at(i) });
    });
    if (formed.length > 0) await this.#play(draft(memory, 'gradient', formed));
  }

  read(arena: Arena): Promise<Float32Array[]> {
    return Promise.all(this.variables.map(async (variable, i) => (await readStorage(device(), variable, arena.at(i))) as Float32Array));
  }

  /** Runs the launches of the direction, then those of the step. */
  async run(part: 'direction' | 'step'): Promise<void> {
    const { sgd, control, flags, rates } = this;
    const launches = part === 'direction' ? sgd.direction(control.at('first'), flags) : sgd.step(rates, flags);
    await this.#play(draft(this.memory, part, [], launches));
  }

  async #play(one: Draft): Promise<void> {
    const plan = await buildPlan(this.memory, one, { slots: [], places: [] });
    const encoder = device().gpu.createCommandEncoder();
    const pass = encoder.beginComputePass();
    plan.encode(pass);
    pass.end();
    device().gpu.queue.submit([encoder.finish()]);
  }
}

async function withBench<T>(options: Row, use: (bench: Bench) => Promise<T>): Promise<T> {
  const bench = new Bench(options);
  try {
    return await use(bench);
  } finally {
    bench.store.release();
    bench.memory.release();
  }
}

interface Row extends SgdOptions {
  /** The direction of matrices is made in the gradient's graph. */
  readonly isFormed?: boolean;
}

const rows: Row[] = [
  {},
  { weightDecay: 0.1 },
  { momentum: 0.9 },
  { momentum: 0.9, dampening: 0.3 },
  { momentum: 0.9, dampening: 1 },
  { momentum: 0.5, weightDecay: 5e-4 },
  { momentum: 0.7, dampening: -0.5, weightDecay: 0.2 },
  { momentum: 0.9, nesterov: true },
  { momentum: 0.9, nesterov: true, weightDecay: 0.05 },
  { momentum: 0.9, isFormed: true },
  { momentum: 0.5, weightDecay: 5e-2, isFormed: true },
];

describe.each(rows)('sgd %o', (options) => {
  test('five steps: direction, momentum and weights are those of float64', async () => {
    await withBench(options, async (bench) => {
      const { sgd, store, variables } = bench;
      let weights = variables.map(({ shape, data }) => nd(shape, data));
      let buffers: (Nd | null)[] = weights.map(() => null);
      for (let step = 0; step < 5; step++) {
        const lr = Math.fround(0.3 / (step + 1));
        const gradients = shapes.map((shape, i) => randomNd(shape, 100 * step + i));
        const expected = weights.map((w, i) => sgdStep(w, gradients[i], buffers[i], { ...options, lr }));
        bench.control.write({ first: Number(step === 0) });
        await bench.giveGradients(gradients);
        bench.write(bench.rates, Float32Array.of(lr));
        await bench.run('direction');
        const close = (found: Float32Array[], wanted: (Nd | null)[]) =>
          found.forEach((values, i) => expectClose(values, wanted[i]!.data, { atol: 3e-6, rtol: 2e-6 }));
        close(await bench.read(sgd.directions), expected.map(({ direction }) => direction));
        await bench.run('step');
        if (sgd.buffer) close(await bench.read(sgd.buffer), expected.map(({ buf }) => buf));
        close(await bench.read(store.parameterArena), expected.map(({ w }) => w));
        weights = expected.map(({ w }) => w);
        buffers = expected.map(({ buf }) => buf);
      }
    });
  });

  test('a set flag stops direction and step', async () => {
    await withBench(options, async (bench) => {
      const { sgd, store } = bench;
      await bench.giveGradients(shapes.map((shape, i) => randomNd(shape, i)));
      bench.write(bench.rates, Float32Array.of(0.1));
      for (const flag of [1, 2, 4, 8]) {
        bench.write(bench.flags, Uint32Array.of(flag));
        const arenas = [store.parameterArena, ...(sgd.isFormed ? [] : [sgd.gradients]), ...(sgd.buffer ? [sgd.buffer] : [])];
        const before = await Promise.all(arenas.map((arena) => bench.read(arena)));
        await bench.run('direction');
        await bench.run('step');
        expect(await Promise.all(arenas.map((arena) => bench.read(arena)))).toEqual(before);
      }
    });
  });
});

test('a step that would overflow one weight is not made by any', async () => {
  for (const [bad, lr] of [[3e38, 2], [-3e38, 2], [1e10, 3e38]]) {
    await withBench({}, async (bench) => {
      const gradients = shapes.map((shape, i) => randomNd(shape, i));
      gradients[2].data[17] = bad;
      await bench.giveGradients(gradients);
      const before = await bench.read(bench.store.parameterArena);
      bench.write(bench.rates, Float32Array.of(lr));
      await bench.run('step');
      expect(await bench.read(bench.store.parameterArena)).toEqual(before);
      expect(new Uint32Array(await device().read(bench.flags.buffer, 0, 4))[0]).toBe(4);
      bench.write(bench.flags, Uint32Array.of(0));
      bench.write(bench.rates, Float32Array.of(0.125));
      await bench.run('step');
      expect(await bench.read(bench.store.parameterArena)).not.toEqual(before);
    });
  }
});

test('the direction costs no memory of its own', async () => {
  for (const options of rows) {
    await withBench(options, async ({ sgd }) => {
      expect(sgd.isFormed).toBe(options.isFormed ?? false);
      expect(sgd.directions).toBe(options.momentum && !options.nesterov && !options.isFormed ? sgd.buffer : sgd.gradients);
      expect(sgd.buffer === null).toBe(!options.momentum);
    });
  }
});

describe('bad options throw', () => {
  const bad: [string, unknown][] = [
    ['momentum', { momentum: -0.1 }], ['momentum', { momentum: 1 }], ['momentum', { momentum: NaN }],
    ['dampening', { momentum: 0.9, dampening: Infinity }], ['dampening', { dampening: NaN }],
    ['weightDecay', { weightDecay: -1 }], ['weightDecay', { weightDecay: Infinity }], ['weightDecay', { weightDecay: NaN }],
    ['nesterov', { nesterov: true }], ['nesterov', { nesterov: true, momentum: 0.9, dampening: 0.1 }],
    ['nesterov', { nesterov: 1, momentum: 0.9 }],
    ['lr', { lr: 0.1 }],
  ];

  test.each(bad)('%s: %o', (arg, options) => {
    let thrown: unknown;
    try {
      resolveSgdOptions(options as SgdOptions);
    } catch (error) {
      thrown = error;
    }
    expect(thrown).toBeInstanceOf(AttrError);
    expect(thrown).toMatchObject({ op: 'sgd', arg });
  });

  test('the message says what to do', () => {
    expect(() => resolveSgdOptions({ momentum: 1 })).toThrow('sgd: momentum must be in [0, 1), got 1 (number); 0.9 is usual');
  });
});
