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
const generated: Kernel[] = [
  kernels.conv2dForward(tile), kernels.conv2dForward(tile, 3, true), kernels.conv2dBackwardInput(tile), kernels.conv2dBackwardWeight(tile),
  ...panels, kernels.conv2dPanel({ lanes: 8, window: 3, weight: 'forward', directions: 3, scaled: true }),
  kernels.conv2dBackwardInputLanes(8), kernels.conv2dBackwardWeightLanes(8),
  ...[false, true].flatMap((residual) => [kernels.batchNormApply(residual), kernels.batchNormBackwardApply(residual)]),
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
