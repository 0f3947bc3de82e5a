/** `forkstep devices`: what adapters there are, which one forkstep chooses and why. */
import { adapterAdvice, requestAdapter } from '../../gpu/host.node.ts';
import { summarizeAdapter } from '../../gpu/device.ts';
import { DeviceError } from '../../gpu/errors.ts';
import { keptChoices } from '../../graph/tune/tuner.ts';
import type { DevicesValues } from '../options.ts';

interface AdapterReport {
  vendor: string;
  architecture: string;
  device: string;
  description: string;
  isSoftware: boolean;
  isChosen: boolean;
  /** Why it is the one chosen; absent for the others. */
  reason?: string;
  /** Of the chosen one: where --tune keeps what it has measured, and for how many convolutions there is something. */
  tuned?: { place: string; choices: number };
  features: string[];
  limits: Record<string, number>;
}

/** The limits that decide what fits, which the text shows; JSON has all. */
const shownLimits = [
  'maxBufferSize',
  'maxStorageBufferBindingSize',
  'maxStorageBuffersPerShaderStage',
  'maxComputeWorkgroupStorageSize',
  'maxComputeInvocationsPerWorkgroup',
  'maxComputeWorkgroupsPerDimension',
];

function describe(adapter: GPUAdapter): Omit<AdapterReport, 'isChosen'> {
  const { vendor, architecture, device, description, isFallbackAdapter } = adapter.info;
  // Limits are getters of the prototype: enumerable, but nobody's own.
  const limits: Record<string, number> = {};
  for (const name in adapter.limits) {
    const value: unknown = adapter.limits[name as keyof GPUSupportedLimits];
    if (typeof value === 'number') limits[name] = value;
  }
  return { vendor, architecture, device, description, isSoftware: isFallbackAdapter, features: [...adapter.features].sort(), limits };
}

/** All adapters that WebGPU's ways of asking bring up, the chosen one first, none twice. */
async function findAdapters(): Promise<AdapterReport[]> {
  const chosen = await requestAdapter();
  if (!chosen)
    throw new DeviceError({ op: 'forkstep devices', arg: 'adapter', rule: 'must be available', got: 'none', fix: adapterAdvice() });
  const { create } = await import('webgpu');
  // Kept until the end: Dawn aborts the process when an instance is collected while its adapters live.
  const instance = create([]) as GPU;
  const ways: GPURequestAdapterOptions[] = [
    {},
    { powerPreference: 'high-performance' },
    { powerPreference: 'low-power' },
    { forceFallbackAdapter: true },
  ];
  const found = new Map<string, AdapterReport>();
  const key = ({ vendor, architecture, device, description }: Omit<AdapterReport, 'isChosen'>) =>
    JSON.stringify([vendor, architecture, device, description]);
  const add = (adapter: GPUAdapter, isChosen: boolean): void => {
    const report = { ...describe(adapter), isChosen };
    if (!found.has(key(report))) found.set(key(report), report);
  };
  add(chosen, true);
  for (const way of ways) {
    const adapter = await instance.requestAdapter(way);
    if (adapter) add(adapter, false);
  }
  const all = [...found.values()];
  all[0].reason = reasonFor(all);
  all[0].tuned = await keptChoices(summarizeAdapter(chosen));
  return all;
}

/** Why the first of these adapters is chosen. */
function reasonFor([chosen, ...others]: readonly AdapterReport[]): string {
  if (others.length === 0)
    return chosen.isSoftware ? 'no GPU is available to WebGPU: the only adapter is a software one' : 'it is the only adapter';
  if (others.every((other) => other.isSoftware))
    return chosen.isSoftware ? 'the system lists it first; no GPU is available' : 'it is a GPU, the others are software';
  return chosen.isSoftware ? 'WebGPU prefers it for high performance' : 'it is the GPU that WebGPU prefers for high performance';
}

function asText(adapters: readonly AdapterReport[]): string {
  return adapters
    .map((adapter) => {
      const name = adapter.description || adapter.device || adapter.vendor;
      const lines = [
        `${adapter.isChosen ? '*' : ' '} ${name} (${adapter.isSoftware ? 'software' : 'GPU'})`,
        ...(adapter.reason ? [`    chosen: ${adapter.reason}`] : []),
        `    vendor ${adapter.vendor}, architecture ${adapter.architecture}`,
        `    features: ${adapter.features.join(', ')}`,
        ...(adapter.tuned ? [`    tuned: ${adapter.tuned.choices} convolutions, ${adapter.tuned.place}`] : []),
        ...shownLimits.map((limit) => `    ${limit}: ${adapter.limits[limit]}`),
      ];
      return `${lines.join('\n')}\n`;
    })
    .join('\n');
}

/** Prints the adapters. @throws DeviceError where there is none */
export async function run({ json }: DevicesValues): Promise<number> {
  const adapters = await findAdapters();
  process.stdout.write(json ? `${JSON.stringify({ adapters }, null, 2)}\n` : asText(adapters));
  return 0;
}
