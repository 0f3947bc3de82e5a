/** The kernels, for those who study and edit them: contracts, and the whole WGSL of any variant in `.source`. */
export * from './assembleBatch.ts';
export * from './batchNorm.ts';
export * from './contract.ts';
export * from './conv2d.ts';
export * from './conv2dLanes.ts';
export * from './conv2dNaive.ts';
export * from './crossEntropy.ts';
export * from './elementwise.ts';
export * from './igemm.ts';
export * from './igemmLanes.ts';
export * from './peak.ts';
export * from './perturbed.ts';
export * from './pool.ts';
export * from './reduce.ts';
export * from './sgd.ts';
export * from './trialRule.ts';
