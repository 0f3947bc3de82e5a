/** ResNet18 as torchvision builds it, with its state-dict names, at any width and with either stem. */
import { AttrError } from '../gpu/errors.ts';
import { add, globalAvgPool2d, maxPool2d, relu } from '../graph/functional.ts';
import type { Tensor } from '../graph/tensor.ts';
import { CounterRandom, STREAM } from './random.ts';
import { BatchNorm2d, Conv2d, Linear, Sequential } from './layers.ts';
import { Module, type ForwardContext } from './module.ts';

export type Stem = 'cifar' | 'imagenet';

export interface ResNetOptions {
  /** `cifar`: 3×3 convolution, no pooling; `imagenet`: torchvision's 7×7 stride 2 and 3×3 max pool. @default 'cifar' */
  readonly stem?: Stem;
  /** Channels of the first stage; the others have 2, 4 and 8 times as many. ≥ 1, @default 64 */
  readonly width?: number;
  /** @default 10 */
  readonly numClasses?: number;
  /** @default 3 */
  readonly inChannels?: number;
  /** Seed of the initial weights, a u32. @default 0 */
  readonly seed?: number;
}

class BasicBlock extends Module {
  readonly conv1: Conv2d;
  readonly bn1: BatchNorm2d;
  readonly conv2: Conv2d;
  readonly bn2: BatchNorm2d;
  readonly downsample: Sequential | null;

  constructor(inChannels: number, channels: number, stride: number, random: CounterRandom) {
    super();
    this.conv1 = new Conv2d(inChannels, channels, 3, { stride, padding: 1, random });
    this.bn1 = new BatchNorm2d(channels);
    this.conv2 = new Conv2d(channels, channels, 3, { padding: 1, random });
    this.bn2 = new BatchNorm2d(channels);
    this.downsample =
      stride !== 1 || inChannels !== channels
        ? new Sequential(new Conv2d(inChannels, channels, 1, { stride, random }), new BatchNorm2d(channels))
        : null;
  }

  override forward(x: Tensor, context: ForwardContext): Tensor {
    const first = relu(this.bn1.forward(this.conv1.forward(x), context));
    const second = this.bn2.forward(this.conv2.forward(first), context);
    return relu(add(second, this.downsample ? this.downsample.forward(x, context) : x));
  }
}

export class ResNet extends Module {
  readonly conv1: Conv2d;
  readonly bn1: BatchNorm2d;
  readonly layer1: readonly BasicBlock[];
  readonly layer2: readonly BasicBlock[];
  readonly layer3: readonly BasicBlock[];
  readonly layer4: readonly BasicBlock[];
  readonly fc: Linear;
  readonly #stem: Stem;
  readonly #numClasses: number;

  /** Use `resnet18()`. */
  constructor(blocks: readonly [number, number, number, number], options: ResNetOptions = {}) {
    super();
    const { stem = 'cifar', width = 64, numClasses = 10, inChannels = 3, seed = 0 } = options;
    if (stem !== 'cifar' && stem !== 'imagenet')
      throw new AttrError({ op: 'resnet18', arg: 'stem', rule: "must be 'cifar' or 'imagenet'", got: stem, fix: 'pick one' });
    for (const [arg, value] of Object.entries({ width, numClasses, inChannels })) {
      if (!Number.isInteger(value) || value < 1)
        throw new AttrError({ op: 'resnet18', arg, rule: 'must be an integer ≥ 1', got: value, fix: 'pass 1 or more' });
    }
    const random = new CounterRandom(seed, STREAM.init);
    this.#stem = stem;
    this.#numClasses = numClasses;
    this.conv1 =
      stem === 'cifar'
        ? new Conv2d(inChannels, width, 3, { padding: 1, random })
        : new Conv2d(inChannels, width, 7, { stride: 2, padding: 3, random });
    this.bn1 = new BatchNorm2d(width);
    const stage = (index: number): BasicBlock[] => {
      const channels = width * 2 ** index;
      return Array.from({ length: blocks[index] }, (_, i) => {
        const before = i > 0 ? channels : index === 0 ? width : channels / 2;
        return new BasicBlock(before, channels, i === 0 && index > 0 ? 2 : 1, random);
      });
    };
    this.layer1 = stage(0);
    this.layer2 = stage(1);
    this.layer3 = stage(2);
    this.layer4 = stage(3);
    this.fc = new Linear(width * 8, numClasses, { random });
  }

  /** Classes that the logits tell apart. */
  get numClasses(): number {
    return this.#numClasses;
  }

  /** x f32 [N, H, W, inChannels] → logits [N, numClasses]. */
  override forward(x: Tensor, context: ForwardContext): Tensor {
    let y = relu(this.bn1.forward(this.conv1.forward(x), context));
    if (this.#stem === 'imagenet') y = maxPool2d(y, { kernelSize: 3, stride: 2, padding: 1 });
    for (const block of [...this.layer1, ...this.layer2, ...this.layer3, ...this.layer4]) y = block.forward(y, context);
    return this.fc.forward(globalAvgPool2d(y));
  }
}

/**
 * ResNet18 (He et al. 2016): 11,173,962 parameters with the cifar stem, 11,181,642 with the imagenet stem, at width 64 and 10 classes.
 * @source torchvision 0.14 `models.resnet18`; `width` scales every channel
 */
export const resnet18 = (options: ResNetOptions = {}): ResNet => new ResNet([2, 2, 2, 2], options);
