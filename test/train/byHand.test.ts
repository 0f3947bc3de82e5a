/** Training without a trainer, with nothing but the public entry point. */
import { expect, test } from 'vitest';
import {
  CounterRandom, crossEntropy, evaluate, grad, lossesAlong, mean, nn, relu, STREAM, tensor, type Tensor, type Variable,
} from '../../src/index.ts';
import { useDevice } from '../support/device.ts';
import { randomNd } from '../support/random.ts';

useDevice();

/** Two classes that a line does not part: the sign of x₀·x₁. */
function xor(n: number): { x: Float32Array; labels: Uint32Array } {
  const x = Float32Array.from(randomNd([n, 2], 4, { awayFromZero: 0.3 }).data);
  return { x, labels: Uint32Array.from({ length: n }, (_, i) => Number(x[2 * i] * x[2 * i + 1] > 0)) };
}

class Mlp extends nn.Module {
  readonly fc1: nn.Linear;
  readonly fc2: nn.Linear;

  constructor() {
    super();
    const random = new CounterRandom(3, STREAM.init);
    this.fc1 = new nn.Linear(2, 16, { random });
    this.fc2 = new nn.Linear(16, 2, { random });
  }

  override forward(x: Tensor): Tensor {
    return this.fc2.forward(relu(this.fc1.forward(x)));
  }
}

test('an MLP learns xor through grad(), its rate chosen by lossesAlong() every step', async () => {
  const { x, labels } = xor(64);
  const model = new Mlp();
  const parameters = model.parameters();
  const losses: number[] = [];
  for (let step = 0; step < 40; step++) {
    const loss = mean(crossEntropy(model.forward(tensor(x, [64, 2])), tensor(labels)));
    const [value, ...gradients] = await evaluate([loss, ...grad(loss, parameters)]);
    losses.push(value[0]);
    const directions = new Map<Variable, Tensor>(parameters.map((p, i) => [p, tensor(gradients[i] as Float32Array, p.shape)]));
    const rates = [0, 0.3, 1, 3, 10];
    const batches = { x: tensor(x, [64, 2]), labels };
    const along = await lossesAlong({ model, batches, directions: [directions], coefficients: rates.map((rate) => -rate) });
    // At c = 0 it is the loss itself.
    expect(along[0]).toBe(value[0]);
    const lr = rates[along.indexOf(Math.min(...along))];
    parameters.forEach((p, i) => (p.data = p.data.map((w, k) => w - lr * gradients[i][k])));
  }
  expect(losses[0]).toBeGreaterThan(0.5);
  expect(losses.at(-1)).toBeLessThan(0.15);
  // A line search never goes up.
  for (let i = 1; i < losses.length; i++) expect(losses[i]).toBeLessThanOrEqual(losses[i - 1] + 1e-5);
  const logits = await model.forward(tensor(x, [64, 2])).read();
  const right = [...labels].filter((label, i) => Number(logits[2 * i + 1] > logits[2 * i]) === label).length;
  expect(right).toBeGreaterThanOrEqual(61);
});
