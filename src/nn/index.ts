/** Modules, ResNet18, state dicts. */
export { BatchNorm2d, Conv2d, Linear, Relu, Sequential } from './layers.ts';
export { inferenceContext, Module, trainingContext, type ForwardContext, type StatisticUpdate } from './module.ts';
export { ResNet, resnet18, type ResNetOptions, type Stem } from './resnet.ts';
export { decodeSafetensors, encodeSafetensors, type SafetensorsTensor } from './safetensors.ts';
export { loadSafetensors, loadStateDict, saveSafetensors, stateDict } from './stateDict.ts';
export { CounterRandom, STREAM } from './random.ts';
