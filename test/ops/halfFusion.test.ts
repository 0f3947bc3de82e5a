/** What fusions do to a network on f16: forming a norm's output while a convolution loads it rounds as storing it does; the rest within places of f16. */
import { expect, test } from 'vitest';
import { grad } from '../../src/autograd/grad.ts';
import { add, batchNorm, cast, conv2d, mul, relu, sum, tensor } from '../../src/graph/functional.ts';
import { fuse, fusions, type Fusion } from '../../src/graph/fuse/index.ts';
import type { LowerContext } from '../../src/graph/lower/context.ts';
import type { Tensor, Variable } from '../../src/graph/tensor.ts';
import { topologicalOrder } from '../../src/graph/traverse.ts';
import { trials } from '../../src/trials/trials.ts';
import { relativeDistance } from '../support/close.ts';
import { useDevice } from '../support/device.ts';
import { emulatedTiles } from '../support/emulatedMatrices.ts';
import { randomNd } from '../support/random.ts';
import { constant, parameter } from '../support/tensors.ts';
import { runGuarded } from './runner.ts';

const device = useDevice();
// More channels than a panel holds, so that sums go on from panel to panel.
const channels = 70;
const random = (name: string, shape: number[], seed: number, scale = 1): Variable => parameter(randomNd(shape, seed, { scale }), name);

interface Net { parameters: Variable[]; y: Tensor }

/** conv → norm → relu → conv → norm, and x on the way: a residual block. */
function block(): Net {
  const w1 = random('w1', [3, 3, 6, channels], 1, 0.2);
  const w2 = random('w2', [3, 3, channels, 6], 2, 0.05);
  const vectors = [3, 4].map((seed, i) => [random(`weight${i}`, [i ? 6 : channels], seed), random(`bias${i}`, [i ? 6 : channels], seed + 2)]);
  const x = cast(constant(randomNd([2, 6, 5, 6], 7)), 'f16');
  const a = relu(batchNorm(conv2d(x, w1, { padding: 1 }), vectors[0][0], vectors[0][1]).y);
  const b = relu(add(batchNorm(conv2d(a, w2, { padding: 1 }), vectors[1][0], vectors[1][1]).y, x));
  return { parameters: [w1, w2, ...vectors.flat()], y: cast(mul(b, cast(constant(randomNd([2, 6, 5, 6], 8)), 'f16')), 'f32') };
}

// Where a norm adds a residual itself, the sum is rounded once instead of twice.
const norms: Fusion[] = ['normRelu', 'normReluBackward'];

test('forming a norm while loading rounds as storing it does; other fusions within places of f16', async () => {
  const { parameters, y } = block();
  const outputs = [y, ...grad(sum(y), parameters)];
  const run = (enabled: readonly Fusion[]) => runGuarded(device(), outputs, { fusions: enabled });
  const plain = await run(norms);
  expect(await run([...norms, 'normOnLoad'])).toEqual(plain);
  const fused = await run(fusions);
  fused.forEach((values, i) => expect(relativeDistance(values, plain[i]), `output ${i}`).toBeLessThan(4e-3));
  expect(fused[0]).not.toEqual(plain[0]);
});

const byUnits: LowerContext = { wantedWorkgroups: 1, tiles: [], matrixTiles: emulatedTiles.slice(0, 1) };

test.each([
  ['tiles', { wantedWorkgroups: 1, tiles: [{ m: 64, n: 16, k: 8 }] }],
  ['matrix units', byUnits],
] satisfies [string, LowerContext][])('by %s too', async (_, lowering) => {
  const { parameters, y } = block();
  const outputs = [y, ...grad(sum(y), [parameters[1]])];
  const run = (enabled: readonly Fusion[]) => runGuarded(device(), outputs, { fusions: enabled, lowering });
  expect(await run([...norms, 'normOnLoad'])).toEqual(await run(norms));
});

test.each([1, 64])('matrix units compute what tiles do, with all fusions, K for %i workgroups', async (wantedWorkgroups) => {
  const { parameters, y } = block();
  const directions = new Map(parameters.map((variable) => [variable, [constant(randomNd([...variable.shape], 9))]]));
  const tried = trials([y], { count: 3, directions, coefficients: tensor([0, 0.1, 0.2]) });
  const outputs = [...fuse([y, ...grad(sum(y), parameters)]), ...fuse(tried)];
  const run = (lowering: LowerContext) => runGuarded(device(), outputs, { lowering: { ...lowering, wantedWorkgroups } });
  const byTiles = await run({ ...byUnits, tiles: [{ m: 64, n: 16, k: 8 }], matrixTiles: [] });
  (await run(byUnits)).forEach((values, i) => expect(relativeDistance(values, byTiles[i]), `output ${i}`).toBeLessThan(4e-3));
});

test('trials form every weight in f32, the first layer too', () => {
  const { parameters, y } = block();
  const directions = new Map(parameters.map((variable) => [variable, [constant(randomNd([...variable.shape], 9))]]));
  const graph = trials([y], { count: 5, directions, coefficients: tensor([0, 0.1, 0.2, 0.3, 0.4]) });
  expect(topologicalOrder(fuse(graph)).filter((node) => node.op === 'conv2d')).toHaveLength(2);
});
