/** What every row of the op table goes through: forward, gradient, trials. See `runner.ts` for the care each run is taken with. */
import { expect } from 'vitest';
import { grad } from '../../src/autograd/grad.ts';
import type { Device } from '../../src/gpu/device.ts';
import type { ForkstepError } from '../../src/gpu/errors.ts';
import { mul, sum, tensor } from '../../src/graph/functional.ts';
import type { LowerContext } from '../../src/graph/lower/context.ts';
import { lowerContextOf } from '../../src/graph/plan.ts';
import type { Tensor, Variable } from '../../src/graph/tensor.ts';
import { trials } from '../../src/trials/trials.ts';
import { expectClose, type Tolerance } from '../support/close.ts';
import { likeCopies } from '../support/likeCopies.ts';
import { nd, type Nd } from '../support/nd.ts';
import { randomCotangent, randomInts } from '../support/random.ts';
import { constant, parameter, sideBySide } from '../support/tensors.ts';
import { firstDifference, runGuarded } from './runner.ts';

/** A row: an op at given shapes and attributes, with its float64 reference. */
export interface ValueCase {
  readonly name: string;
  /** Differentiable inputs; what else the op takes (labels), `build` puts in. */
  readonly inputs: () => Nd[];
  readonly build: (inputs: Tensor[]) => Tensor;
  readonly reference: (inputs: Nd[]) => Nd;
  /** Gradients of Σ dy·y with respect to each input; null where the op defines none. */
  readonly vjp: (inputs: Nd[], dy: Nd) => (Nd | null)[];
  readonly tolerance: Tolerance;
  /** Of all gradients, or of that of an input. @default `tolerance` */
  readonly gradTolerance?: Tolerance | ((input: number) => Tolerance);
  /** Tiles and splits. @default the adapter's */
  readonly lowering?: LowerContext;
  /**
   * How far trials may be from separate evaluations. @default null: not a bit, as the same kernels add the same numbers in the same order.
   * Where K is split, the number of trials has a say in how often, and so in the order of the sum.
   */
  readonly trialTolerance?: Tolerance;
  /** The op gives the same whatever its inputs (a softmax over one class), so trials cannot differ. @default false */
  readonly isConstant?: boolean;
  /** Inputs that may be f16: the others are parameters and statistics. @default the first */
  readonly activations?: readonly number[];
  /** The other inputs are operands of a product, rounded to f16 where activations are. @default false */
  readonly isProduct?: boolean;
  /** The result is f32 whatever x is. @default false */
  readonly hasF32Result?: boolean;
  /** Why the row has no f16 twin. @default it has one */
  readonly onlyF32?: string;
}

/** A row that must be refused when the graph is made. */
export interface ErrorCase {
  readonly name: string;
  readonly build: () => unknown;
  readonly throws: { readonly cls: new (...args: never[]) => ForkstepError; readonly op: string; readonly arg: string };
}

export type OpCase = ValueCase | ErrorCase;

const withShape = (value: Float32Array, shape: readonly number[]): Nd => nd(shape, value);

/** y and the gradients by a random cotangent against the reference; the first input is a constant, the others are variables. */
export async function checkForwardAndGradient(device: Device, row: ValueCase, seed: number): Promise<void> {
  const inputs = row.inputs();
  const expected = row.reference(inputs);
  const dy = randomCotangent(expected.shape, seed);
  const tensors = inputs.map((input, i) => (i === 0 ? constant(input) : parameter(input, `input ${i}`)));
  const y = row.build(tensors);
  expect(y.shape).toEqual(expected.shape);
  const gradients = grad(sum(mul(y, constant(dy))), tensors);
  const wanted = row.vjp(inputs, dy).flatMap((gradient, input) => (gradient ? [{ input, gradient }] : []));
  const [value, ...values] = await runGuarded(device, [y, ...wanted.map(({ input }) => gradients[input])], { lowering: row.lowering });
  expectClose(withShape(value, y.shape), expected, row.tolerance);
  const { gradTolerance = row.tolerance } = row;
  wanted.forEach(({ input, gradient }, i) => {
    const tolerance = typeof gradTolerance === 'function' ? gradTolerance(input) : gradTolerance;
    expectClose(withShape(values[i], gradients[input].shape), gradient, tolerance);
  });
}

const trialCount = 3;

/**
 * Directions and coefficients whose products are exact in float32, so that base + Σ c·D has one rounding a direction wherever it is formed,
 * with or without fused multiply-add. D has the scale of the input.
 */
function exactDirections(input: Nd, directions: number, seed: number): Nd[] {
  const scale = 2 ** Math.round(Math.log2(Math.max(...input.data.map(Math.abs), 1e-30)));
  return Array.from({ length: directions }, (_, k) => {
    const values = randomInts(input.data.length, 512, seed + 97 * k).map((value) => ((value - 256) / 256) * scale);
    return nd(input.shape, values);
  });
}

/** c[t, k], at most 1/4: two directions leave a variance positive. The first trial along the first direction is the base itself. */
function coefficientsFor(directions: number, seed: number): number[] {
  const values = randomInts(trialCount * directions, 64, seed + 5).map((value) => (value - 32) / 128);
  values[0] = 0;
  return values;
}

function perturb(input: Nd, directions: readonly Nd[], coefficients: readonly number[]): Nd {
  let data = input.data;
  directions.forEach((direction, k) => {
    data = data.map((value, i) => Math.fround(value + coefficients[k] * direction.data[i]));
  });
  return nd(input.shape, data);
}

interface Variant {
  readonly label: string;
  readonly perturbed: readonly number[];
  readonly directions: number;
}

/** All inputs together along one direction and along two, and each input alone. */
function variantsOf(inputs: readonly Nd[]): Variant[] {
  const all = inputs.map((_, i) => i);
  const alone = inputs.length > 1 ? all.map((i) => ({ label: `input ${i} alone`, perturbed: [i], directions: 1 })) : [];
  return [{ label: 'all, K = 1', perturbed: all, directions: 1 }, { label: 'all, K = 2', perturbed: all, directions: 2 }, ...alone];
}

/** The graph of a variant's trials, and the graphs of as many separate evaluations on variables with the perturbed values. */
function trialGraphs(row: ValueCase, inputs: readonly Nd[], variant: Variant, seed: number): { fused: Tensor; separate: Tensor[] } {
  const directions = inputs.map((input, i) => exactDirections(input, variant.directions, seed + 1000 * i));
  const coefficients = coefficientsFor(variant.directions, seed);
  const isPerturbed = (i: number) => variant.perturbed.includes(i);
  const tensors = inputs.map((input, i) => (isPerturbed(i) ? parameter(input, `input ${i}`) : constant(input)));
  const [fused] = trials([row.build(tensors)], {
    count: trialCount,
    directions: new Map(variant.perturbed.map((i) => [tensors[i] as Variable, directions[i].map(constant)])),
    coefficients: tensor(coefficients),
  });
  const separate = Array.from({ length: trialCount }, (_, t) => {
    const own = coefficients.slice(t * variant.directions, (t + 1) * variant.directions);
    return row.build(inputs.map((input, i) => constant(isPerturbed(i) ? perturb(input, directions[i], own) : input)));
  });
  return { fused, separate };
}

/** T trials in one pass against T separate evaluations. */
export async function checkTrials(device: Device, row: ValueCase, seed: number): Promise<void> {
  const inputs = row.inputs();
  const variants = variantsOf(inputs);
  const graphs = variants.map((variant, i) => trialGraphs(row, inputs, variant, seed + 10 * i));
  const values = await runGuarded(device, graphs.flatMap(({ fused, separate }) => [fused, ...separate]), { lowering: row.lowering, fusions: likeCopies });
  variants.forEach(({ label }, i) => {
    const [fused, ...separate] = values.slice(i * (1 + trialCount), (i + 1) * (1 + trialCount));
    const expected = Float32Array.from(separate.flatMap((one) => [...one]));
    expect(graphs[i].fused.trials, label).toBe(trialCount);
    if (row.trialTolerance) expectClose(fused, expected, row.trialTolerance);
    else expect(firstDifference(bits(fused), bits(expected)), `${label}: first value that differs from separate evaluation`).toBe(-1);
  });
  const differ = variants.some((_, i) => {
    const [first, ...others] = values.slice(i * (1 + trialCount) + 1, (i + 1) * (1 + trialCount));
    return others.some((other) => firstDifference(bits(first), bits(other)) >= 0);
  });
  expect(differ, 'trials differ from one another').toBe(!row.isConstant);
}

/**
 * Values and gradients of T models side by side, each with inputs and a cotangent of its own, against T separate runs: not a bit apart.
 * Also with the first input, a batch say, one for all.
 */
export async function checkSideBySide(device: Device, row: ValueCase, seed: number): Promise<void> {
  const inputs = row.inputs();
  const all = inputs.map((_, i) => i);
  const stacked = inputs.length > 1 ? [all, all.slice(1)] : [all];
  for (const own of stacked) {
    const models = Array.from({ length: trialCount }, (_, t) =>
      inputs.map((input, i) => (own.includes(i) ? perturb(input, exactDirections(input, 1, seed + 10 * i), [t / 8]) : input)));
    const dys = models.map((_, t) => randomCotangent(row.reference(inputs).shape, seed + 7 * t));
    const wanted = own.filter((i) => row.vjp(inputs, dys[0])[i] !== null);
    const outputsOf = (tensors: Tensor[], dy: Tensor): Tensor[] => {
      const y = row.build(tensors);
      return [y, ...grad(sum(mul(y, dy)), wanted.map((i) => tensors[i]))];
    };
    const given = inputs.map((input, i) => (own.includes(i) ? sideBySide(models.map((one) => one[i])) : constant(input)));
    const together = outputsOf(given, sideBySide(dys));
    const apart = models.map((one, t) => outputsOf(one.map(constant), constant(dys[t])));
    // Sums are cut as for all models at once.
    const lowering = { ...(row.lowering ?? lowerContextOf(device)), trials: trialCount };
    const values = await runGuarded(device, [...together, ...apart.flat()], { lowering });
    const n = together.length;
    together.forEach(({ trials: count }, k) => {
      expect(count).toBe(trialCount);
      const expected = Float32Array.from(apart.flatMap((_, t) => [...values[n * (t + 1) + k]]));
      const what = k === 0 ? 'value' : `gradient of input ${wanted[k - 1]}`;
      const label = `${what}: first number that differs from separate models, own ${own}`;
      expect(firstDifference(bits(values[k]), bits(expected)), label).toBe(-1);
    });
    expect(row.isConstant || firstDifference(bits(values[n]), bits(values[2 * n])) >= 0, 'models differ').toBe(true);
  }
}

/** −0 counts as 0: which of them a sum of zeros gives is nobody's concern. */
const bits = (values: Float32Array): Uint32Array => new Uint32Array(values.map((value) => value + 0).buffer);
