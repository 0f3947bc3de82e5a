/**
 * The device: opened once, it owns pipelines, counts every live GPU byte, and turns GPU errors into rejections of the caller's await.
 */
import { adapterAdvice, politely, requestAdapter } from '#gpu-host';
import type { Kernel } from '../kernels/contract.ts';
import type { MatrixSize } from '../kernels/matrixUnit.ts';
import { AttrError, DeviceError, KernelError } from './errors.ts';

export interface AdapterSummary {
  readonly vendor: string;
  readonly architecture: string;
  readonly device: string;
  readonly description: string;
  /** True for a software rasteriser (lavapipe, SwiftShader, WARP): no GPU behind it. */
  readonly isSoftware: boolean;
  /** Invocations that run in step, where the adapter has subgroups of one fixed size; else null. */
  readonly subgroupSize: number | null;
  /** Fragments of f16 that its matrix units multiply into f32, of those they offer the largest; null without. */
  readonly matrices: MatrixSize | null;
}

export interface CompiledKernel {
  readonly pipeline: GPUComputePipeline;
  readonly layout: GPUBindGroupLayout;
}

const wantedLimits = [
  'maxBufferSize',
  'maxStorageBufferBindingSize',
  'maxStorageBuffersPerShaderStage',
  'maxComputeWorkgroupStorageSize',
  'maxComputeInvocationsPerWorkgroup',
  'maxComputeWorkgroupSizeX',
] as const;

/** The last one is not in the types of WebGPU yet. */
const matrixFeature = 'chromium-experimental-subgroup-matrix' as GPUFeatureName;
const wantedFeatures: readonly GPUFeatureName[] = ['timestamp-query', 'shader-f16', 'subgroups', matrixFeature];

/** Of a binding in a rehearsal: any element fits, and every adapter lets a range begin at a multiple. */
const rangeBytes = 256;

export class Device {
  readonly #pipelines = new Map<string, Promise<CompiledKernel>>();
  /** Sources of those that are done. */
  readonly #compiled = new Set<string>();
  readonly #live = new Map<GPUBuffer, number>();
  #error: Error | null = null;
  #lastDispatch = '';

  /** Use `openDevice()`. */
  constructor(
    readonly gpu: GPUDevice,
    readonly adapter: AdapterSummary,
  ) {
    gpu.addEventListener('uncapturederror', (event) => {
      const { error } = event as GPUUncapturedErrorEvent;
      this.#error ??= new DeviceError(
        {
          op: 'device',
          arg: 'command',
          rule: 'must be valid',
          got: error.message.slice(0, 2000),
          fix: `last kernel encoded: ${this.#lastDispatch || 'none'}`,
        },
        { cause: error },
      );
    });
    void gpu.lost.then((info) => {
      if (info.reason === 'destroyed') return;
      this.#error = new DeviceError({
        op: 'device',
        arg: 'GPU',
        rule: 'must stay available',
        got: `lost: ${info.message}`,
        fix: `open a new device; last kernel encoded: ${this.#lastDispatch || 'none'}`,
      });
    });
  }

  get limits(): GPUSupportedLimits {
    return this.gpu.limits;
  }

  /** @throws DeviceError where the adapter has no 16-bit floats */
  requireHalf(op: string): void {
    if (this.gpu.features.has('shader-f16')) return;
    const got = `an adapter without it (${this.adapter.description || this.adapter.vendor})`;
    throw new DeviceError({ op, arg: 'shader-f16', rule: 'must be there for f16', got, fix: 'compute in f32' });
  }

  /** Bytes of all live GPU buffers made through this device. */
  get liveBytes(): number {
    return [...this.#live.values()].reduce((sum, size) => sum + size, 0);
  }

  /** @throws the first GPU error since the device was opened: a validation error, out of memory, or loss. */
  check(): void {
    if (this.#error) throw this.#error;
  }

  /** Remembered for error messages: the plan and kernel encoded last. */
  noteDispatch(name: string): void {
    this.#lastDispatch = name;
  }

  createBuffer(label: string, sizeBytes: number, usage: GPUBufferUsageFlags): GPUBuffer {
    const size = Math.max(16, Math.ceil(sizeBytes / 16) * 16);
    if (size > this.limits.maxBufferSize) {
      throw new DeviceError({
        op: 'createBuffer',
        arg: label,
        rule: `must be ≤ ${this.limits.maxBufferSize} bytes on this adapter`,
        got: size,
        fix: 'use a smaller batch or model',
      });
    }
    const buffer = this.gpu.createBuffer({ label, size, usage });
    this.#live.set(buffer, size);
    return buffer;
  }

  /** Whether a buffer was made through this device and is live. */
  holds(buffer: GPUBuffer): boolean {
    return this.#live.has(buffer);
  }

  destroyBuffer(buffer: GPUBuffer): void {
    if (this.#live.delete(buffer)) buffer.destroy();
  }

  /** The compiled pipeline of a kernel, made at most once per source. Rejects with the compiler's message, line and caret. */
  compile(kernel: Kernel): Promise<CompiledKernel> {
    let compiled = this.#pipelines.get(kernel.source);
    if (!compiled) {
      compiled = this.#compile(kernel);
      this.#pipelines.set(kernel.source, compiled);
    }
    return compiled;
  }

  /** Whether `compile` would have nothing left to do. */
  hasCompiled(kernel: Kernel): boolean {
    return this.#compiled.has(kernel.source);
  }

  async #compile(kernel: Kernel): Promise<CompiledKernel> {
    const names = Object.keys(kernel.bindings);
    if (kernel.halves.length > 0) this.requireHalf(kernel.name);
    if (names.length > this.limits.maxStorageBuffersPerShaderStage) {
      throw new KernelError({
        op: kernel.name,
        arg: 'bindings',
        rule: `must be ≤ ${this.limits.maxStorageBuffersPerShaderStage} on this adapter`,
        got: names.length,
        fix: 'bind fewer buffers',
      });
    }
    this.gpu.pushErrorScope('validation');
    const module = this.gpu.createShaderModule({ label: kernel.name, code: kernel.source });
    const layout = this.gpu.createBindGroupLayout({
      label: kernel.name,
      entries: [
        ...names.map((name, binding) => ({
          binding,
          visibility: GPUShaderStage.COMPUTE,
          buffer: { type: kernel.bindings[name].access === 'read' ? 'read-only-storage' : 'storage' } as const,
        })),
        { binding: names.length, visibility: GPUShaderStage.COMPUTE, buffer: { type: 'uniform' } },
      ],
    });
    const scope = this.gpu.popErrorScope();
    const info = await module.getCompilationInfo();
    const failure = info.messages.find((message) => message.type === 'error');
    if (failure) {
      await scope;
      throw new KernelError({
        op: kernel.name,
        arg: 'WGSL',
        rule: 'must compile',
        got: compilerMessage(kernel.source, failure),
        fix: `mend the kernel (adapter: ${this.adapter.description})`,
      });
    }
    const invalid = await scope;
    if (invalid)
      throw new KernelError({ op: kernel.name, arg: 'WGSL', rule: 'must be valid', got: invalid.message, fix: 'mend the kernel' });
    try {
      const pipeline = await politely(
        this.gpu.createComputePipelineAsync({
          label: kernel.name,
          layout: this.gpu.createPipelineLayout({ label: kernel.name, bindGroupLayouts: [layout] }),
          compute: { module, entryPoint: 'main' },
        }),
      );
      if (this.adapter.isSoftware) await this.#rehearse(kernel, pipeline, layout);
      this.#compiled.add(kernel.source);
      return { pipeline, layout };
    } catch (cause) {
      throw new KernelError(
        {
          op: kernel.name,
          arg: 'pipeline',
          rule: 'must fit this adapter',
          got: String((cause as Error).message ?? cause),
          fix: 'use smaller tiles',
        },
        { cause },
      );
    }
  }

  /**
   * A dispatch of no workgroups: software adapters compile a shader when it is first run, not when its pipeline is made, and would do so in
   * the middle of the first step, which nobody could tell from a hang.
   */
  async #rehearse(kernel: Kernel, pipeline: GPUComputePipeline, layout: GPUBindGroupLayout): Promise<void> {
    const { STORAGE, UNIFORM, INDIRECT } = GPUBufferUsage;
    const names = Object.keys(kernel.bindings);
    const uniformBytes = 4 * Object.keys(kernel.uniforms).length;
    const make = (sizeBytes: number, usage: number): GPUBuffer => this.createBuffer('rehearsal', sizeBytes, usage);
    const [read, written, uniforms, grid] = [
      make(rangeBytes, STORAGE),
      make(rangeBytes * names.length, STORAGE),
      make(uniformBytes, UNIFORM),
      make(12, INDIRECT),
    ];
    try {
      const entries = names.map((name, binding) => ({
        binding,
        // One buffer must not be in both roles, nor be written in two ranges that overlap.
        resource:
          kernel.bindings[name].access === 'read' ? { buffer: read } : { buffer: written, offset: rangeBytes * binding, size: rangeBytes },
      }));
      const bindGroup = this.gpu.createBindGroup({
        label: kernel.name,
        layout,
        entries: [...entries, { binding: names.length, resource: { buffer: uniforms } }],
      });
      const encoder = this.gpu.createCommandEncoder({ label: `rehearsal of ${kernel.name}` });
      const pass = encoder.beginComputePass();
      pass.setPipeline(pipeline);
      pass.setBindGroup(0, bindGroup);
      // Dawn warns of a direct dispatch of none.
      pass.dispatchWorkgroupsIndirect(grid, 0);
      pass.end();
      this.gpu.queue.submit([encoder.finish()]);
      await politely(this.gpu.queue.onSubmittedWorkDone());
    } finally {
      for (const buffer of [read, written, uniforms, grid]) this.destroyBuffer(buffer);
    }
  }

  /** Waits until everything submitted has run. @throws pending GPU errors */
  async idle(): Promise<void> {
    await this.wait(this.gpu.queue.onSubmittedWorkDone());
    this.check();
  }

  /** Awaits a GPU promise; on software adapters without taking the processor from the adapter's threads. */
  wait<T>(promise: Promise<T>): Promise<T> {
    return this.adapter.isSoftware ? politely(promise) : promise;
  }

  /** Copies bytes to the host. For exploring, tests and logs; never called inside a training step. */
  async read(source: GPUBuffer, offset: number, sizeBytes: number): Promise<ArrayBuffer> {
    const size = Math.ceil(sizeBytes / 4) * 4;
    const staging = this.createBuffer('read', size, GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST);
    try {
      const encoder = this.gpu.createCommandEncoder({ label: 'read' });
      encoder.copyBufferToBuffer(source, offset, staging, 0, size);
      this.gpu.queue.submit([encoder.finish()]);
      return await this.readStaging(staging, sizeBytes, source.label);
    } finally {
      this.destroyBuffer(staging);
    }
  }

  /** A copy of a staging buffer's first bytes, once what was submitted before has run. @throws pending GPU errors */
  async readStaging(staging: GPUBuffer, sizeBytes = staging.size, label = staging.label): Promise<ArrayBuffer> {
    await this.wait(staging.mapAsync(GPUMapMode.READ)).catch((cause) => {
      this.check();
      throw new DeviceError({ op: 'read', arg: label, rule: 'must be readable', got: String(cause), fix: 'see the cause' }, { cause });
    });
    const bytes = staging.getMappedRange().slice(0, sizeBytes);
    staging.unmap();
    this.check();
    return bytes;
  }

  /** Frees every buffer and the device itself. */
  close(): void {
    for (const buffer of [...this.#live.keys()]) this.destroyBuffer(buffer);
    this.gpu.destroy();
  }
}

function compilerMessage(source: string, message: GPUCompilationMessage): string {
  const line = source.split('\n')[message.lineNum - 1] ?? '';
  return `${message.lineNum}:${message.linePos} ${message.message}\n${line}\n${' '.repeat(Math.max(0, message.linePos - 1))}^`;
}

const softwareNames = /llvmpipe|lavapipe|swiftshader|basic render|warp|software/i;

/** One kind of product that an adapter's matrix units offer, as `adapter.info.subgroupMatrixConfigs` lists them. */
interface MatrixConfig {
  readonly componentType: string;
  readonly resultComponentType: string;
  readonly M: number;
  readonly N: number;
  readonly K: number;
}

function matricesOf({ features, info }: GPUAdapter): MatrixSize | null {
  if (!features.has(matrixFeature) || !features.has('shader-f16')) return null;
  const { subgroupMatrixConfigs: configs = [] } = info as { subgroupMatrixConfigs?: readonly MatrixConfig[] };
  const usable = configs.filter(({ componentType, resultComponentType }) => componentType === 'f16' && resultComponentType === 'f32');
  const [largest] = usable.map(({ M: m, N: n, K: k }) => ({ m, n, k })).sort((a, b) => b.m * b.n * b.k - a.m * a.n * a.k);
  return largest ?? null;
}

export function summarizeAdapter(adapter: GPUAdapter): AdapterSummary {
  const { vendor, architecture, device, description, subgroupMinSize, subgroupMaxSize } = adapter.info;
  const isFixed = adapter.features.has('subgroups') && subgroupMinSize === subgroupMaxSize;
  const isFallback = (adapter.info as { isFallbackAdapter?: boolean }).isFallbackAdapter === true;
  return {
    vendor,
    architecture,
    device,
    description,
    subgroupSize: isFixed ? (subgroupMaxSize ?? null) : null,
    matrices: isFixed ? matricesOf(adapter) : null,
    isSoftware: isFallback || softwareNames.test(`${vendor} ${architecture} ${device} ${description}`),
  };
}

let opened: Promise<Device> | null = null;

/**
 * Opens the best adapter with every limit and feature that forkstep can use.
 * @throws DeviceError when there is no adapter, saying what to install
 */
export async function openDevice(): Promise<Device> {
  const adapter = await requestAdapter();
  if (!adapter) {
    throw new DeviceError({ op: 'openDevice', arg: 'adapter', rule: 'must exist', got: 'no WebGPU adapter', fix: adapterAdvice() });
  }
  const requiredLimits = Object.fromEntries(wantedLimits.map((name) => [name, adapter.limits[name]]));
  const requiredFeatures = wantedFeatures.filter((name) => adapter.features.has(name));
  const gpu = await adapter.requestDevice({ label: 'forkstep', requiredLimits, requiredFeatures });
  return new Device(gpu, summarizeAdapter(adapter));
}

/** The device that `tensor.read()` and friends use when none is named: opened at first use, shared afterwards. */
export function defaultDevice(): Promise<Device> {
  if (!opened) {
    const attempt = openDevice();
    opened = attempt;
    // One that failed is not kept: a driver may have been installed since.
    attempt.catch(() => {
      if (opened === attempt) opened = null;
    });
  }
  return opened;
}

/** Makes `device` the one that `defaultDevice()` returns. */
export function setDefaultDevice(device: Device): void {
  if (!(device instanceof Device)) {
    throw new AttrError({
      op: 'setDefaultDevice',
      arg: 'device',
      rule: 'must be a Device',
      got: device,
      fix: 'pass what openDevice() returned',
    });
  }
  opened = Promise.resolve(device);
}
