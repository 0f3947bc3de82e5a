/** Data sets, their order and the random generator: everything here runs in browsers too. Files are read in `*.node.ts`. */
export { EpochSampler } from './batches.ts';
export type { EpochSamplerOptions } from './batches.ts';
export { CIFAR10_CLASSES, CIFAR100_CLASSES, parseCifar10, parseCifar100 } from './cifar.ts';
export type { CifarFile } from './cifar.ts';
export { limitSet } from './dataset.ts';
export type { DatasetName, ImageDataset, ImageSet } from './dataset.ts';
export { imageBatch } from './imageBatch.ts';
export { PROCEDURAL_CLASSES, PROCEDURAL_MEAN, PROCEDURAL_STD, proceduralDataset } from './procedural.ts';
export type { ProceduralOptions } from './procedural.ts';
export { CounterRandom, hash32, STREAM } from '../nn/random.ts';
