/** Kernels for matrix units (tensor cores), which no software adapter has: the WGSL of every variant, checked by Dawn's compiler without a device. */
import { create } from 'webgpu';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { withHalves, type Kernel } from '../../src/kernels/contract.ts';
import { defaultLowerContext } from '../../src/graph/lower/convChoice.ts';
import { fitsUnit, matrixWorkgroupBytes, subgroupsOf } from '../../src/kernels/igemmMatrix.ts';
import { tileName, type Tile } from '../../src/kernels/igemm.ts';
import * as kernels from '../../src/kernels/index.ts';
import { subgroupMatrices } from '../../src/kernels/matrixUnit.ts';

const traits = { workgroupBytes: 49152, maxInvocations: 1024, isSoftware: false } as const;

// Kept reachable: Dawn ends the process with what it returned.
let dawn: GPU;
let device: GPUDevice;

beforeAll(async () => {
  dawn = create(['backend=null', 'enable-dawn-features=allow_unsafe_apis']) as GPU;
  const adapter = (await dawn.requestAdapter())!;
  const requiredFeatures = ['shader-f16', 'subgroups', 'chromium-experimental-subgroup-matrix'] as GPUFeatureName[];
  device = await adapter.requestDevice({ requiredFeatures });
});
afterAll(() => device.destroy());

const units = [{ m: 16, n: 16, k: 16 }, { m: 16, n: 8, k: 16 }, { m: 8, n: 8, k: 8 }].map((size) => subgroupMatrices(size, 32));
const tiles = units.flatMap((unit) => defaultLowerContext({ ...traits, unit }).matrixTiles!);

const epilogues = (c4: string) => [
  kernels.noEpilogue,
  ...([null, 'none', 'output', 'affine'] as const).map((mask) => kernels.gradientEpilogue({ addend: mask === null || mask === 'none', mask }, c4)),
];
const inputs = ['plain', 'affine', 'affineRelu'] as const;
const variants = (tile: Tile): Kernel[] => [
  ...inputs.flatMap((input) => [
    kernels.conv2dForward(tile, { input }),
    kernels.conv2dForward(tile, { input, directions: 2, scaled: true, epilogue: kernels.momentsEpilogue }),
    kernels.conv2dBackwardWeight(tile, input, kernels.directionEpilogue),
  ]),
  ...epilogues('u.cin4').map((epilogue) => kernels.conv2dBackwardInput(tile, epilogue)),
];
const floatsOf = ({ bindings }: Kernel): string[] => Object.keys(bindings).filter((name) => bindings[name].isFloats);

describe('kernels by matrix units', () => {
  test.each(tiles.map((tile) => [tileName(tile), tile] as const))('%s: every variant compiles', async (_, tile) => {
    for (const kernel of variants(tile)) {
      const module = device.createShaderModule({ code: withHalves(kernel, floatsOf(kernel)).source });
      const { messages } = await module.getCompilationInfo();
      // Warnings too: what is deprecated would be an error in a later browser.
      const told = messages.map(({ message, lineNum }) => `${kernel.name} ${lineNum}: ${message}`).filter((line) => !line.includes('experimental'));
      expect(told).toEqual([]);
    }
  });

  test.each(tiles.map((tile) => [tileName(tile), tile] as const))('%s: subgroups share the block evenly, within the memory', (_, tile) => {
    const { unit } = tile;
    const { down, across, rows, columns } = subgroupsOf(tile, unit!);
    expect([down * rows * unit!.m, across * columns * unit!.n]).toEqual([tile.m, tile.n]);
    expect(matrixWorkgroupBytes(tile)).toBeLessThanOrEqual(traits.workgroupBytes);
  });

  test('pipelines can be made, of a tile within the little workgroup memory that Dawn has without a device', async () => {
    const unit = subgroupMatrices({ m: 16, n: 8, k: 8 }, 32);
    const tile: Tile = { m: 32, n: 64, k: 8, rows: 4, columns: 4, unit };
    expect(fitsUnit(tile, unit)).toBe(true);
    for (const kernel of variants(tile)) {
      const module = device.createShaderModule({ code: withHalves(kernel, floatsOf(kernel)).source });
      await device.createComputePipelineAsync({ layout: 'auto', compute: { module, entryPoint: 'main' } });
    }
  });

  test('an adapter without them, or f32, has none; tiles that fragments do not fill are refused', () => {
    expect(defaultLowerContext(traits).matrixTiles).toEqual([]);
    expect(fitsUnit({ m: 64, n: 64, k: 8 }, units[0])).toBe(false);
    expect(fitsUnit({ m: 64, n: 24, k: 16 }, units[0])).toBe(false);
    expect(fitsUnit({ m: 64, n: 64, k: 32, columns: 4 }, units[0])).toBe(true);
  });
});
