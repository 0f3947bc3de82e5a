/** The ways to compute a convolution: each computes the same, and which there are does not depend on the pass. */
import { describe, expect, test } from 'vitest';
import { grad } from '../../src/autograd/grad.ts';
import { conv2d, mul, sum } from '../../src/graph/functional.ts';
import type { LowerContext } from '../../src/graph/lower/context.ts';
import { convChoices, defaultLowerContext } from '../../src/graph/lower/convChoice.ts';
import { choiceName, problemName, type ConvProblem } from '../../src/graph/lower/convProblem.ts';
import { lowerContextOf } from '../../src/graph/plan.ts';
import { trials } from '../../src/trials/trials.ts';
import { expectClose } from '../support/close.ts';
import { useDevice } from '../support/device.ts';
import { nd } from '../support/nd.ts';
import { randomCotangent, randomNd } from '../support/random.ts';
import * as ref from '../support/reference.ts';
import { constant, parameter } from '../support/tensors.ts';
import { runGuarded } from '../ops/runner.ts';

const device = useDevice();

const base: ConvProblem = {
  kind: 'forward', images: 32, h: 16, w: 16, cin: 128, hOut: 16, wOut: 16, cout: 128, kH: 3, kW: 3, stride: 1, padding: 1,
  trials: 1, eventTrials: 1, isXShared: true, isWeightShared: true, directions: 0, scaled: false,
  isHalf: false, input: 'plain', isAffineShared: true, after: null,
};
/** Convolutions of ResNet18 at width 64, and a linear layer. */
const problems: ConvProblem[] = (['forward', 'backwardInput', 'backwardWeight'] as const).flatMap((kind) => [
  { ...base, kind },
  { ...base, kind, h: 32, w: 32, hOut: 32, wOut: 32, cin: 64, cout: 64 },
  { ...base, kind, h: 4, w: 4, hOut: 4, wOut: 4, cin: 512, cout: 512 },
  { ...base, kind, hOut: 8, wOut: 8, cout: 256, stride: 2 },
  { ...base, kind, hOut: 8, wOut: 8, cout: 256, kH: 1, kW: 1, stride: 2, padding: 0 },
  { ...base, kind, h: 1, w: 1, hOut: 1, wOut: 1, cin: 512, cout: 10, kH: 1, kW: 1, padding: 0 },
]);
const contexts: [string, LowerContext][] = [
  ['a GPU', defaultLowerContext({ workgroupBytes: 49152, maxInvocations: 1024, isSoftware: false })],
  ['one of the least limits', defaultLowerContext({ workgroupBytes: 16384, maxInvocations: 256, isSoftware: false })],
  ['a software adapter', defaultLowerContext({ workgroupBytes: 32768, maxInvocations: 1024, isSoftware: true, subgroupSize: 8 })],
  ['one without subgroups', defaultLowerContext({ workgroupBytes: 32768, maxInvocations: 1024, isSoftware: true })],
];

describe.each(contexts)('the ways on %s', (_, context) => {
  test.each(problems.map((problem) => [problemName(problem), problem] as const))('%s: up to 8, the default one first', (_, problem) => {
    const choices = convChoices(problem, context);
    const names = choices.map(choiceName);
    expect(new Set(names).size).toBe(names.length);
    expect(names.length).toBeLessThanOrEqual(8);
    if (context.lanes === undefined) expect(names.length).toBeGreaterThanOrEqual(4);
    expect(choices.every(({ splits }) => Number.isInteger(splits) && splits >= 1 && splits <= 256)).toBe(true);
    // What the pass alone decides has no say, in the name or in what there is to choose.
    const inEvent = { ...problem, trials: 3, eventTrials: 7, directions: 1 };
    const shared = ['isXShared', 'isWeightShared', 'isAffineShared'].map((name) => ({ ...inEvent, [name]: false }));
    const others: ConvProblem[] = [{ ...inEvent, trials: 1 }, ...shared];
    for (const other of others) {
      expect(problemName(other)).toBe(problemName(inEvent));
      expect(convChoices(other, context)).toEqual(convChoices(inEvent, context));
    }
  });
});

test('a problem has another name wherever anything else differs', () => {
  const changed = Object.entries(base).flatMap(([name, value]) => {
    if (['trials', 'isXShared', 'isWeightShared', 'isAffineShared'].includes(name)) return [];
    const other = typeof value === 'number' ? value + 1 : typeof value === 'boolean' ? !value : value === null ? { by: 'moments' } : 'another';
    return [problemName({ ...base, [name]: other } as ConvProblem)];
  });
  expect(new Set([problemName(base), ...changed]).size).toBe(1 + changed.length);
  expect(changed).toHaveLength(18);
  const sums = (mask: 'affine' | 'none') => problemName({ ...base, after: { by: 'gradient', addend: false, mask } });
  expect(sums('affine')).not.toBe(sums('none'));
});

const [N, H, W, Cin, Cout] = [2, 12, 13, 22, 18];
const adapters: [string, () => LowerContext][] = [
  ['this adapter', () => lowerContextOf(device())],
  ['a GPU', () => ({ ...defaultLowerContext({ workgroupBytes: 16384, maxInvocations: 256, isSoftware: false }), wantedWorkgroups: 32 })],
];

describe.each(adapters)('every way of %s gives value, gradients and trials', (_, context) => {
  test.each([
    [{ stride: 1, padding: 1 }, 3],
    [{ stride: 2, padding: 1 }, 3],
  ])('%j, kernel %i', async (attrs, kernel) => {
    const inputs = [randomNd([N, H, W, Cin], 1), randomNd([kernel, kernel, Cin, Cout], 2)];
    const direction = randomNd([kernel, kernel, Cin, Cout], 3);
    const coefficients = [0.5, -0.25];
    const expected = ref.conv2d(inputs[0], inputs[1], null, attrs);
    const dy = randomCotangent(expected.shape, 4);
    const { dx, dWeight } = ref.conv2dVjp(inputs[0], inputs[1], attrs, dy);
    const moved = coefficients.map((c) =>
      ref.conv2d(inputs[0], nd(inputs[1].shape, inputs[1].data.map((w, i) => w + c * direction.data[i])), null, attrs));
    const [x, weight] = inputs.map((input) => parameter(input));
    const y = conv2d(x, weight, attrs);
    const along = { directions: new Map([[weight, [constant(direction)]]]), coefficients: constant(nd([2], coefficients)), count: 2 };
    const outputs = [y, ...grad(sum(mul(y, constant(dy))), [x, weight]), ...trials([y], along)];
    const seen = new Map<string, Set<string>>();
    let most = 0;
    for (let turn = 0; turn === 0 || turn < most; turn++) {
      const choose: LowerContext['choose'] = (problem, choices) => {
        most = Math.max(most, choices.length);
        const choice = choices[turn % choices.length];
        seen.set(problem.kind, (seen.get(problem.kind) ?? new Set()).add(choiceName(choice)));
        return choice;
      };
      const values = await runGuarded(device(), outputs, { lowering: { ...context(), choose }, fusions: [] });
      const tolerance = { atol: 1e-4, rtol: 1e-5 };
      expectClose(values[0], expected, tolerance);
      expectClose(values[1], dx, tolerance);
      expectClose(values[2], dWeight, tolerance);
      expectClose(values[3], Float64Array.from(moved.flatMap(({ data }) => [...data])), tolerance);
    }
    expect(most).toBeGreaterThan(1);
    for (const kind of ['forward', 'backwardInput', 'backwardWeight']) expect(seen.get(kind)!.size).toBeGreaterThan(1);
    // A software adapter takes seconds for a kernel that it sees for the first time.
  }, 600_000);
});
