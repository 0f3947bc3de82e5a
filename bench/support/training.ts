/** A ResNet18 in training on one fixed batch, at the level of plans: what one step costs, without a data loader around it. */
import { proceduralDataset } from '../../src/data/procedural.ts';
import type { Device } from '../../src/gpu/device.ts';
import { Control } from '../../src/graph/control.ts';
import { crossEntropy, mean } from '../../src/graph/functional.ts';
import { Memory } from '../../src/graph/memory.ts';
import type { Tensor } from '../../src/graph/tensor.ts';
import { trainingContext } from '../../src/nn/module.ts';
import { resnet18, type ResNet, type ResNetOptions } from '../../src/nn/resnet.ts';
import type { SgdOptions } from '../../src/optim/sgd.ts';
import { ImageFeed } from '../../src/train/feed.ts';
import type { Draft } from '../../src/graph/plan.ts';
import { StepPlans, type Batch, type StepPlanOptions } from '../../src/train/stepPlans.ts';
import { replay } from './plans.ts';

/** Of every training bench; `research/peers` used the same. */
export const sgdOptions: SgdOptions = { momentum: 0.9, weightDecay: 5e-4 };
export const learningRate = 0.05;

/** Factors from 8 down to ⅛ in equal ratios: as far as factor7 reaches, however many trials. */
export const factorsAround = (count: number): number[] =>
  Array.from({ length: count }, (_, i) => (count === 1 ? 1 : 8 ** (1 - (2 * i) / (count - 1))));

export interface TrainingOptions extends ResNetOptions {
  readonly batchSize: number;
  /** @default the first images of the procedural set, assembled on the GPU anew at every step */
  readonly batch?: Batch;
  /** @default a new one of the other options */
  readonly model?: ResNet;
  readonly trials?: { readonly count: number; readonly direction?: 'gradient' | 'optimizer' };
  /** Images on the GPU. @default as many as the trials see */
  readonly images?: number;
  /** Plans that share the slots; they are `plans.extra`. */
  readonly extra?: (parts: Pick<Training, 'memory' | 'model' | 'plans' | 'input' | 'feed'>) => readonly Draft[];
}

export class Training {
  #steps = 0;

  private constructor(
    readonly device: Device,
    readonly memory: Memory,
    readonly control: Control,
    readonly model: ResNet,
    readonly plans: StepPlans,
    readonly input: Batch,
    readonly feed: ImageFeed | null,
  ) {}

  static async create(device: Device, options: TrainingOptions): Promise<Training> {
    const { batchSize, batch, trials, images = batchSize * (trials?.count ?? 1), extra, ...network } = options;
    const memory = new Memory(device);
    const control = new Control(memory);
    const model = options.model ?? resnet18(network);
    let feed: ImageFeed | null = null;
    if (!batch) {
      const { train, mean, std } = proceduralDataset({ train: images, test: 1 });
      feed = new ImageFeed(memory, train, control, { mean, std, capacity: train.count });
      feed.writeOrder(Uint32Array.from({ length: train.count }, (_, i) => i));
    }
    const input = batch ?? feed!.batch(batchSize, 'cursor', 'counter', false);
    const plan: StepPlanOptions = {
      model, batch: input, optimizer: sgdOptions, trials: trials && { direction: 'optimizer', ...trials, batch: input },
      extra: extra && ((plans) => extra({ memory, model, plans, input, feed })),
    };
    return new Training(device, memory, control, model, await StepPlans.create(memory, control, plan), input, feed);
  }

  /** Frees the GPU's memory; the model can be trained again. */
  release(): void {
    this.plans.store.release();
    this.memory.release();
  }

  /** The loss of a training forward pass, to be planned apart from the step. */
  forwardLoss({ x, labels }: Batch = this.input): Tensor {
    return mean(crossEntropy(this.model.forward(x, trainingContext()), labels));
  }

  /** Forward, backward, SGD, running statistics: one submit; waits for it. */
  async step(lr = learningRate): Promise<void> {
    const { plans, control, device } = this;
    control.write({ cursor: 0, counter: 0, first: Number(this.#steps === 0), slot: plans.log.note(this.#steps++, lr) });
    device.gpu.queue.writeBuffer(plans.rates.buffer, plans.rates.offset, Float32Array.of(lr));
    await replay(device, [plans.gradient, plans.direction, plans.update]);
  }

  /** Losses of the steps since the last call. @throws when a step diverged */
  async losses(): Promise<number[]> {
    const { steps, divergence } = await this.plans.log.read();
    if (divergence) throw new Error(`step ${divergence.step} diverged: ${divergence.reason}`);
    return steps.map(({ loss }) => loss);
  }
}
