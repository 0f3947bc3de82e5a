/** Small nets and data for tests of the training path. */
import type { ImageDataset, ImageSet } from '../../src/data/dataset.ts';
import { conv2d, flatten, globalAvgPool2d, linear, relu } from '../../src/graph/functional.ts';
import type { Tensor } from '../../src/graph/tensor.ts';
import { BatchNorm2d, Conv2d, Linear } from '../../src/nn/layers.ts';
import { Module, type ForwardContext } from '../../src/nn/module.ts';
import { CounterRandom, STREAM } from '../../src/nn/random.ts';
import type { Schedule } from '../../src/sched/schedule.ts';
import { Trainer } from '../../src/train/trainer.ts';
import type { TrainerOptions } from '../../src/train/trainerOptions.ts';
import { randomInts } from '../support/random.ts';

export interface DataOptions {
  /** Training and test images. @default 22, 10 */
  readonly train?: number;
  readonly test?: number;
  /** Height and width. @default 8 */
  readonly size?: number;
  /** @default 5 */
  readonly classes?: number;
  readonly seed?: number;
}

function randomSet(part: string, count: number, { size = 8, classes = 5 }: DataOptions, seed: number): ImageSet {
  return {
    name: `random ${part}`, count, channels: 3, height: size, width: size,
    images: Uint8Array.from(randomInts(count * 3 * size * size, 256, seed)),
    labels: Uint8Array.from(randomInts(count, classes, seed + 1)),
    classes: Array.from({ length: classes }, (_, i) => `class ${i}`),
  };
}

/** Noise with labels: no two images alike, so a loss tells which of them it is of. */
export function randomDataset(options: DataOptions = {}): ImageDataset {
  const { train = 22, test = 10, seed = 1 } = options;
  return {
    name: 'procedural', train: randomSet('training', train, options, seed), test: randomSet('test', test, options, seed + 100),
    mean: [0.5, 0.45, 0.4], std: [0.25, 0.3, 0.35],
  };
}

/** Softmax regression on the pixels. */
export class LinearNet extends Module {
  readonly fc: Linear;

  constructor(features = 3 * 8 * 8, classes = 5, seed = 3) {
    super();
    this.fc = new Linear(features, classes, { random: new CounterRandom(seed, STREAM.init) });
  }

  override forward(x: Tensor): Tensor {
    return linear(flatten(x), this.fc.weight, this.fc.bias);
  }
}

/** Two convolutions with batch norms, a pooling and a linear layer: 4 and 8 channels. */
export class ConvNet extends Module {
  readonly conv1: Conv2d;
  readonly bn1: BatchNorm2d;
  readonly conv2: Conv2d;
  readonly bn2: BatchNorm2d;
  readonly fc: Linear;

  /** @param momenta of the running statistics of the two batch norms */
  constructor(readonly momenta: readonly [number, number] = [0.1, 0.1], seed = 3, classes = 5) {
    super();
    const random = new CounterRandom(seed, STREAM.init);
    this.conv1 = new Conv2d(3, 4, 3, { padding: 1, random });
    this.bn1 = new BatchNorm2d(4, { momentum: momenta[0] });
    this.conv2 = new Conv2d(4, 8, 3, { stride: 2, padding: 1, random });
    this.bn2 = new BatchNorm2d(8, { momentum: momenta[1] });
    this.fc = new Linear(8, classes, { random });
  }

  override forward(x: Tensor, context: ForwardContext): Tensor {
    const first = relu(this.bn1.forward(conv2d(x, this.conv1.weight, { padding: 1 }), context));
    const second = relu(this.bn2.forward(conv2d(first, this.conv2.weight, { stride: 2, padding: 1 }), context));
    return this.fc.forward(globalAvgPool2d(second));
  }
}

/** A schedule of given rates, without events. */
export const ratesAt = (lrAt: Schedule['lrAt']): Schedule =>
  ({ lrAt, isDue: () => false, state: () => ({ kind: 'given', lr: 1 }), load: () => {} });

/** Makes a trainer, lends it, closes it: afterwards its model holds the final weights. */
export async function withTrainer<T>(options: TrainerOptions, use: (trainer: Trainer) => Promise<T>): Promise<T> {
  const trainer = await Trainer.create(options);
  try {
    return await use(trainer);
  } finally {
    await trainer.close();
  }
}
