/** Kernels whose activations are stored as f16: the WGSL of every variant. What they compute, `ops.test.ts` checks. */
import { describe, expect, test } from 'vitest';
import * as kernels from '../../src/kernels/index.ts';
import { withHalves, type Kernel } from '../../src/kernels/contract.ts';
import { useDevice } from '../support/device.ts';

const device = useDevice();

const tile = { m: 64, n: 64, k: 16 };
const panels = ([null, 3] as const).flatMap((window) =>
  (['forward', 'transposed'] as const).map((weight) => kernels.conv2dPanel({ lanes: 8, window, weight })),
);
const masks = ['none', 'output', 'affine'] as const;
const epilogues = [false, true].flatMap((addend) => [null, ...masks].map((mask) => ({ addend, mask })));
const inputs = ['plain', 'affine', 'affineRelu'] as const;
const { momentsEpilogue, gradientEpilogue } = kernels;
const generated: Kernel[] = [
  ...inputs.flatMap((input) => [
    kernels.conv2dForward(tile, { input, epilogue: momentsEpilogue }), kernels.conv2dBackwardWeight(tile, input),
    kernels.conv2dBackwardWeightLanes(8, input), kernels.conv2dPanel({ lanes: 8, window: 3, weight: 'forward', input, epilogue: momentsEpilogue }),
    kernels.conv2dPanel({ lanes: 8, window: null, weight: 'forward', input }),
  ]),
  ...epilogues.flatMap((epilogue) => [
    kernels.conv2dBackwardInput(tile, gradientEpilogue(epilogue, 'u.cin4')), kernels.conv2dBackwardInputLanes(8, gradientEpilogue(epilogue, 'u.cin4')),
    kernels.conv2dPanel({ lanes: 8, window: 3, weight: 'transposed', epilogue: gradientEpilogue(epilogue, 'u.cout4') }),
    kernels.sumPartialsThen(gradientEpilogue(epilogue, 'u.c4')),
  ]),
  kernels.sumPartialsThen(momentsEpilogue),
  kernels.conv2dForward(tile, { directions: 3, scaled: true }), ...panels,
  kernels.conv2dPanel({ lanes: 8, window: 3, weight: 'forward', directions: 3, scaled: true }),
  kernels.batchNormApply(false), kernels.batchNormApply(true),
  ...masks.flatMap((mask) => [
    kernels.batchNormBackwardPartials(mask), kernels.batchNormBackwardApply(mask, false), kernels.batchNormBackwardApply(mask, true),
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
