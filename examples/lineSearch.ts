/** The loss along the gradient at 12 step sizes, in one pass over a ResNet18: a line search in numbers. Arguments: [width] [batch] */
import { crossEntropy, grad, imageBatch, lossesAlong, mean, nn, proceduralDataset } from 'forkstep';

const width = Number(process.argv[2] ?? 8);
const batch = Number(process.argv[3] ?? 64);
const dataset = proceduralDataset({ train: batch, test: 1 });
const images = imageBatch(dataset.train, dataset, Array.from({ length: batch }, (_, i) => i));
const model = nn.resnet18({ width });
const parameters = model.parameters();
const loss = mean(crossEntropy(model.forward(images.x, nn.trainingContext()), images.labels));
const gradients = grad(loss, parameters);

// φ(c) = L(θ + c · ∇L), for c = −step: nothing is copied, and the weights stay as they are.
const steps = [0, ...Array.from({ length: 11 }, (_, i) => 2 ** (i - 9))];
const gradient = new Map(parameters.map((parameter, i) => [parameter, gradients[i]]));
const coefficients = steps.map((step) => -step);
const losses = await lossesAlong({ model, batches: images, directions: [gradient], coefficients });

const [low, high] = [Math.min(...losses), Math.max(...losses)];
for (const [i, step] of steps.entries()) {
  const bar = '#'.repeat(Math.round(((losses[i] - low) / (high - low)) * 60));
  console.log(`${step.toFixed(4).padStart(8)}  ${losses[i].toFixed(4)}  ${bar}`);
}
console.log(`least loss at step size ${steps[losses.indexOf(low)]}`);
