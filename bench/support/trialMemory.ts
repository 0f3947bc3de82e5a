/** What a way to run trials takes of the GPU's memory: live buffers of a trainer that can, less those of one that cannot. */
import type { Device } from '../../src/gpu/device.ts';
import type { ImageDataset } from '../../src/data/dataset.ts';
import type { ResNet } from '../../src/nn/resnet.ts';
import { asPublished, ConstantSchedule, TrialScheduler, type Schedule } from '../../src/sched/index.ts';
import { Trainer } from '../../src/train/trainer.ts';
import { gpuCounts } from './gpuCounts.ts';
import { learningRate, sgdOptions, Training, type TrainingOptions } from './training.ts';
import { trialMethods, type MethodName } from './trialMethods.ts';

export interface MemoryOptions {
  readonly device: Device;
  readonly model: ResNet;
  readonly batchSize: number;
  readonly dataset: ImageDataset;
  readonly factors: readonly number[];
}

/** Bytes that `make` adds to the live buffers. */
async function liveBytesOf(make: () => Promise<{ release(): void | Promise<void> }>): Promise<number> {
  const before = gpuCounts().liveBytes;
  const made = await make();
  const bytes = gpuCounts().liveBytes - before;
  await made.release();
  return bytes;
}

/** Of a whole `Trainer` with the built-in event. */
async function trainerBytes({ device, model, batchSize, dataset }: MemoryOptions, schedule: Schedule): Promise<number> {
  return liveBytesOf(async () => {
    const trainer = await Trainer.create({ device, model, batchSize, dataset, schedule, optimizer: sgdOptions });
    return { release: () => trainer.close() };
  });
}

/** Of the plans of a trainer and what the method adds to them. */
async function plansBytes({ device, model, batchSize, factors }: MemoryOptions, method: MethodName | null): Promise<number> {
  const rates = factors.map((factor) => factor * learningRate);
  const extra: TrainingOptions['extra'] = method ? (parts) => trialMethods[method]({ ...parts, rates }).drafts : undefined;
  return liveBytesOf(() => Training.create(device, { model, batchSize, images: batchSize * factors.length, extra }));
}

/** For each method its extra bytes. */
export async function extraBytes(options: MemoryOptions, methods: readonly MethodName[]): Promise<Map<MethodName, number>> {
  const lr = learningRate;
  const found = new Map<MethodName, number>();
  const bare = await plansBytes(options, null);
  for (const method of methods) {
    if (method !== 'fused') found.set(method, (await plansBytes(options, method)) - bare);
    else {
      const event = new TrialScheduler(asPublished([...options.factors], { lr }));
      found.set(method, (await trainerBytes(options, event)) - (await trainerBytes(options, new ConstantSchedule({ lr }))));
    }
  }
  return found;
}
