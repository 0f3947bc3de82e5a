/** Whatever goes wrong on the GPU rejects an await of the caller, naming the kernel. Each test that breaks a device opens its own. */
import { afterEach, describe, expect, test } from 'vitest';
import { openDevice, type Device } from '../../src/gpu/device.ts';
import { DeviceError, KernelError } from '../../src/gpu/errors.ts';
import { conv2d, tensor } from '../../src/graph/functional.ts';
import { evaluate } from '../../src/graph/run.ts';
import { builtins, defineKernel, linearIndex, read, write, type Kernel } from '../../src/kernels/contract.ts';
import { conv2dForward } from '../../src/kernels/conv2d.ts';
import { testDevice, useDevice } from '../support/device.ts';

const kernel = (name: string, wgsl: string, bindings = { y: write('f32') }): Kernel =>
  defineKernel({ name, bindings, uniforms: { n: 'u32' }, wgsl }) as unknown as Kernel;

const good = kernel('good', `@compute @workgroup_size(64) fn main(${builtins}) { if (${linearIndex} < u.n) { y[${linearIndex}] = 1.0; } }`);

describe('a kernel that cannot be', () => {
  const device = useDevice();

  test('broken WGSL: line, column, the line itself and a caret under the place', async () => {
    const broken = kernel('broken', '@compute @workgroup_size(64)\nfn main() {\n  y[0] = missing;\n}');
    const error = await device().compile(broken).catch((e: unknown) => e);
    expect(error).toBeInstanceOf(KernelError);
    expect(error).toMatchObject({ op: 'broken', arg: 'WGSL' });
    const message = (error as KernelError).message;
    const line = broken.source.split('\n').findIndex((text) => text.includes('missing'));
    expect(message).toContain(`${line + 1}:10 `);
    expect(message).toContain(`\n  y[0] = missing;\n${' '.repeat(9)}^`);
    await expect(device().compile(broken)).rejects.toBe(error);
  });

  test('more workgroup memory than the adapter has', async () => {
    const tile = { m: 512, n: 512, k: 64 };
    const error = await device().compile(conv2dForward(tile)).catch((e: unknown) => e);
    expect(error).toBeInstanceOf(KernelError);
    expect(error).toMatchObject({ op: 'conv2dForward_512x512x64' });
  });

  test('more bindings than the adapter allows', async () => {
    const most = device().limits.maxStorageBuffersPerShaderStage;
    const many = Object.fromEntries(Array.from({ length: most + 1 }, (_, i) => [`b${i}`, read('f32')])) as unknown as { y: ReturnType<typeof write> };
    const error = await device().compile(kernel('many', '@compute @workgroup_size(1) fn main() {}', many)).catch((e: unknown) => e);
    expect(error).toBeInstanceOf(KernelError);
    expect(error).toMatchObject({ op: 'many', arg: 'bindings', got: most + 1 });
  });

  test('its failure reaches the caller of evaluate, and the device lives on', async () => {
    const graph = conv2d(tensor([1], [1, 1, 1, 1]), tensor([2], [1, 1, 1, 1]));
    const lowering = { wantedWorkgroups: 1, tiles: [{ m: 512, n: 512, k: 64 }] };
    await expect(evaluate([graph], { device: device(), lowering })).rejects.toBeInstanceOf(KernelError);
    expect(await evaluate([graph], { device: device() })).toEqual([Float32Array.of(2)]);
  });
});

test('a buffer larger than the adapter allows is refused before it is asked for', async () => {
  const device = await testDevice();
  const size = device.limits.maxBufferSize + 16;
  expect(() => device.createBuffer('huge', size, GPUBufferUsage.STORAGE)).toThrow(DeviceError);
  expect(() => device.createBuffer('huge', size, GPUBufferUsage.STORAGE)).toThrow(`createBuffer: huge must be ≤ ${device.limits.maxBufferSize} bytes`);
  device.check();
});

describe('a command that is invalid', () => {
  let device: Device;
  afterEach(() => device.close());

  test('a copy out of range rejects the next await', async () => {
    device = await openDevice();
    const buffer = device.createBuffer('small', 64, GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST);
    await device.idle();
    const encoder = device.gpu.createCommandEncoder();
    encoder.copyBufferToBuffer(buffer, 0, buffer, 32, 1024);
    device.noteDispatch('the kernel before it');
    device.gpu.queue.submit([encoder.finish()]);
    const error = await device.idle().catch((e: unknown) => e);
    expect(error).toBeInstanceOf(DeviceError);
    expect((error as DeviceError).message).toContain('the kernel before it');
  });

  test('a dispatch past the grid\'s limit rejects the next read', async () => {
    device = await openDevice();
    const { pipeline, layout } = await device.compile(good);
    const y = device.createBuffer('y', 256, GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC);
    const uniforms = device.createBuffer('uniforms', 16, GPUBufferUsage.UNIFORM);
    const entries = [y, uniforms].map((buffer, binding) => ({ binding, resource: { buffer } }));
    const bindGroup = device.gpu.createBindGroup({ layout, entries });
    const encoder = device.gpu.createCommandEncoder();
    const pass = encoder.beginComputePass();
    pass.setPipeline(pipeline);
    pass.setBindGroup(0, bindGroup);
    pass.dispatchWorkgroups(device.limits.maxComputeWorkgroupsPerDimension + 1);
    pass.end();
    device.gpu.queue.submit([encoder.finish()]);
    await expect(device.read(y, 0, 256)).rejects.toBeInstanceOf(DeviceError);
  });

  test('a lost device rejects from then on', async () => {
    device = await openDevice();
    const buffer = device.createBuffer('y', 256, GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC);
    device.gpu.destroy();
    await expect(device.read(buffer, 0, 256)).rejects.toBeInstanceOf(DeviceError);
  });

  test('its error names the plan and kernel that were encoded last', async () => {
    device = await openDevice();
    await evaluate([conv2d(tensor([1], [1, 1, 1, 1]), tensor([2], [1, 1, 1, 1]))], { device });
    const buffer = device.createBuffer('small', 64, GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST);
    const encoder = device.gpu.createCommandEncoder();
    encoder.copyBufferToBuffer(buffer, 0, buffer, 32, 1024);
    device.gpu.queue.submit([encoder.finish()]);
    await expect(device.idle()).rejects.toThrow(/last kernel encoded: conv2d\w*[fF]orward\w*, the last of plan read$/);
  });
});
