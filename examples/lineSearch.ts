/** The loss along the gradient at 12 step sizes, in one pass over a ResNet18: a line search in numbers. Arguments: [width] [batch] */
import { crossEntropy, grad, lossesAlong, mean, nn, proceduralDataset, tensor, type ImageDataset, type Tensor } from 'forkstep';

/** The first n training images as x f32 [n, H, W, C], normalised, and their labels. */
function firstImages({ train, mean: means, std }: ImageDataset, n: number): { x: Tensor; labels: Tensor } {
  const { height, width, channels, images } = train;
  const plane = height * width;
  const values = new Float32Array(n * plane * channels);
  for (let image = 0; image < n; image++) {
    for (let pixel = 0; pixel < plane; pixel++) {
      for (let c = 0; c < channels; c++) {
        const byte = images[(image * channels + c) * plane + pixel];
        values[(image * plane + pixel) * channels + c] = (byte / 255 - means[c]) / std[c];
      }
    }
  }
  return { x: tensor(values, [n, height, width, channels]), labels: tensor(Uint32Array.from(train.labels.subarray(0, n))) };
}

const width = Number(process.argv[2] ?? 8);
const batch = Number(process.argv[3] ?? 64);
const { x, labels } = firstImages(proceduralDataset({ train: batch, test: 1 }), batch);
const model = nn.resnet18({ width });
const parameters = model.parameters();
const loss = mean(crossEntropy(model.forward(x, nn.trainingContext()), labels));
const gradients = grad(loss, parameters);

// φ(−c) = L(θ − c · ∇L): nothing is copied, and the weights stay as they are.
const steps = [0, ...Array.from({ length: 11 }, (_, i) => 2 ** (i - 9))];
const directions = new Map(parameters.map((parameter, i) => [parameter, gradients[i]]));
const losses = [...(await lossesAlong({ loss, directions, coefficients: steps.map((step) => -step) }))];

const [low, high] = [Math.min(...losses), Math.max(...losses)];
for (const [i, step] of steps.entries()) {
  const bar = '#'.repeat(Math.round(((losses[i] - low) / (high - low)) * 60));
  console.log(`${step.toFixed(4).padStart(8)}  ${losses[i].toFixed(4)}  ${bar}`);
}
console.log(`least loss at step size ${steps[losses.indexOf(low)]}`);
