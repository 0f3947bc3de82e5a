/** Kernels whose activations are stored as f16: the WGSL of every variant. What they compute, `opsHalf.test.ts` checks. */
import { describe, expect, test } from 'vitest';
import * as kernels from '../../src/kernels/index.ts';
import { withHalves, type Kernel } from '../../src/kernels/contract.ts';
import { useDevice } from '../support/device.ts';

const device = useDevice();

const tile = { m: 64, n: 64, k: 16 };
const inputs = ['plain', 'affine', 'affineRelu'] as const;
const masks = ['none', 'output', 'affine'] as const;
/** Each by the uniform in which its kernel has the length of a row. */
const epilogues = (c4: string) => [
  kernels.noEpilogue, kernels.gradientEpilogue({ addend: true, mask: null }, c4),
  ...masks.map((mask) => kernels.gradientEpilogue({ addend: mask === 'none', mask }, c4)),
];
const directed = { directions: 2, scaled: true, input: 'affineRelu', epilogue: kernels.momentsEpilogue } as const;
const panels = ([null, 3] as const).flatMap((window) => [
  ...inputs.map((input) => kernels.conv2dPanel({ lanes: 8, window, weight: 'forward', input })),
  ...epilogues('u.cout4').map((epilogue) => kernels.conv2dPanel({ lanes: 8, window, weight: 'transposed', epilogue })),
  kernels.conv2dPanel({ lanes: 8, window, weight: 'forward', ...directed }),
]);
const generated: Kernel[] = [
  kernels.conv2dForward(tile, directed), kernels.sumPartialsThen(kernels.momentsEpilogue), ...panels,
  ...inputs.flatMap((input) => [
    kernels.conv2dForward(tile, { input }), kernels.conv2dBackwardWeight(tile, input), kernels.conv2dBackwardWeightLanes(8, input),
  ]),
  ...epilogues('u.cin4').flatMap((epilogue) => [kernels.conv2dBackwardInputLanes(8, epilogue), kernels.conv2dBackwardInput(tile, epilogue)]),
  ...epilogues('u.c4').map((epilogue) => kernels.sumPartialsThen(epilogue)),
  ...[false, true].flatMap((residual) => [kernels.batchNormApply(residual), ...masks.map((mask) => kernels.batchNormBackwardApply(mask, residual))]),
  ...[false, true].flatMap((carries) => masks.map((mask) => kernels.batchNormBackwardPartials(mask, carries))),
  ...[false, true].flatMap((more) => [
    kernels.batchNormPartials(more ? { scaled: true } : null), kernels.batchNormMergeApply(more),
    kernels.classifierHead({ gradient: more }), ...masks.map((mask) => kernels.batchNormBackwardMergeApply(mask, more)),
  ]),
];
const isKernel = (value: unknown): value is Kernel => typeof value === 'object' && value !== null && 'source' in value;
const floatsOf = ({ bindings }: Kernel): string[] => Object.keys(bindings).filter((name) => bindings[name].isFloats);
const all = [...Object.values<unknown>(kernels).filter(isKernel), ...generated].filter((kernel) => floatsOf(kernel).length > 0);

describe('f16 variants', () => {
  test.each(all.map((kernel) => [kernel.name, kernel] as const))('%s', async (_, kernel) => {
    const module = device().gpu.createShaderModule({ code: withHalves(kernel, floatsOf(kernel)).source });
    const { messages } = await module.getCompilationInfo();
    expect(messages.filter(({ type }) => type === 'error').map(({ message, lineNum }) => `${lineNum}: ${message}`)).toEqual([]);
  });
});
