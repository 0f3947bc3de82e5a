/** State dicts in PyTorch's names and layouts: a torchvision checkpoint loads here, and ours loads there. */
import { ShapeError, DataError } from '../gpu/errors.ts';
import type { Variable } from '../graph/tensor.ts';
import type { Module } from './module.ts';
import { decodeSafetensors, encodeSafetensors, type SafetensorsTensor } from './safetensors.ts';

/** [kH, kW, Cin, Cout] → [Cout, Cin, kH, kW], or [K, M] → [M, K]. */
export function toTorch(shape: readonly number[], values: Float32Array): { shape: number[]; data: Float32Array } {
  if (shape.length === 4) {
    const [kH, kW, cin, cout] = shape;
    const taps = kH * kW;
    const data = new Float32Array(values.length);
    for (let t = 0; t < taps; t++)
      for (let c = 0; c < cin; c++) for (let o = 0; o < cout; o++) data[(o * cin + c) * taps + t] = values[(t * cin + c) * cout + o];
    return { shape: [cout, cin, kH, kW], data };
  }
  if (shape.length === 2) {
    const [k, m] = shape;
    const data = new Float32Array(values.length);
    for (let i = 0; i < k; i++) for (let j = 0; j < m; j++) data[j * k + i] = values[i * m + j];
    return { shape: [m, k], data };
  }
  return { shape: [...shape], data: values.slice() };
}

function fromTorch(shape: readonly number[], values: Float32Array): Float32Array {
  const data = new Float32Array(values.length);
  if (shape.length === 4) {
    const [kH, kW, cin, cout] = shape;
    const taps = kH * kW;
    for (let t = 0; t < taps; t++)
      for (let c = 0; c < cin; c++) for (let o = 0; o < cout; o++) data[(t * cin + c) * cout + o] = values[(o * cin + c) * taps + t];
  } else if (shape.length === 2) {
    const [k, m] = shape;
    for (let i = 0; i < k; i++) for (let j = 0; j < m; j++) data[i * m + j] = values[j * k + i];
  } else data.set(values);
  return data;
}

/** PyTorch's shape of a variable. */
export const torchShape = (shape: readonly number[]): number[] =>
  shape.length === 4 ? [shape[3], shape[2], shape[0], shape[1]] : shape.length === 2 ? [shape[1], shape[0]] : [...shape];

const trackedName = (name: string): string | null =>
  name.endsWith('running_mean') ? name.replace(/running_mean$/, 'num_batches_tracked') : null;

/**
 * The values of a module's variables in PyTorch's names and layouts (OIHW convolutions, [out, in] linear layers).
 * @param batches PyTorch's `num_batches_tracked`: training steps made, @default 0
 * @param valuesOf the values of a variable, @default those of the host
 */
export function stateDict(module: Module, batches = 0, valuesOf = ({ data }: Variable): Float32Array => data): Map<string, SafetensorsTensor> {
  const tensors = new Map<string, SafetensorsTensor>();
  let statistic: string | null = null;
  for (const [name, variable] of module.namedVariables()) {
    tensors.set(name, { dtype: 'F32', ...toTorch(variable.shape, valuesOf(variable)) });
    statistic = trackedName(name) ?? statistic;
    if (statistic && name.endsWith('running_var'))
      tensors.set(statistic, { dtype: 'I64', shape: [], data: BigInt64Array.of(BigInt(batches)) });
  }
  return tensors;
}

/** A variable's values, of a tensor in PyTorch's layout. @throws ShapeError for another shape, DataError for other dtypes than F32 and F64 */
export function valuesOf(name: string, variable: Variable, tensor: SafetensorsTensor): Float32Array {
  const wanted = torchShape(variable.shape);
  if (String(tensor.shape) !== String(wanted)) {
    throw new ShapeError({
      op: 'loadStateDict',
      arg: name,
      rule: `must be [${wanted.join(', ')}]`,
      got: `[${tensor.shape.join(', ')}]`,
      fix: 'build the model with the stem, width and classes of the checkpoint',
    });
  }
  if (tensor.dtype !== 'F32' && tensor.dtype !== 'F64') {
    throw new DataError({
      op: 'loadStateDict',
      arg: name,
      rule: 'must be F32 or F64',
      got: tensor.dtype,
      fix: 'save the checkpoint in float32',
    });
  }
  return fromTorch(variable.shape, tensor.dtype === 'F32' ? tensor.data : Float32Array.from(tensor.data));
}

/**
 * The values that a state dict has for a module's variables.
 * @throws DataError for a name that is missing or unknown, ShapeError for a shape that differs
 */
export function stateDictValues(module: Module, tensors: ReadonlyMap<string, SafetensorsTensor>): Map<Variable, Float32Array> {
  const named = module.namedVariables();
  const missing = [...named.keys()].filter((name) => !tensors.has(name));
  const tracked = new Set([...named.keys()].map(trackedName));
  const unknown = [...tensors.keys()].filter((name) => !named.has(name) && !tracked.has(name));
  if (missing.length > 0 || unknown.length > 0) {
    const list = (names: string[]) =>
      `${names.length}${names.length > 0 ? ` (${names.slice(0, 3).join(', ')}${names.length > 3 ? ', …' : ''})` : ''}`;
    throw new DataError({
      op: 'loadStateDict',
      arg: 'tensors',
      rule: 'must hold exactly the names of the model',
      got: `${list(missing)} missing, ${list(unknown)} unknown`,
      fix: 'build the model that the checkpoint was saved from',
    });
  }
  return new Map([...named].map(([name, variable]) => [variable, valuesOf(name, variable, tensors.get(name)!)] as const));
}

/**
 * Sets a module's variables from a state dict; all or none. The module must not be in a trainer.
 * @throws DataError for a name that is missing or unknown, ShapeError for a shape that differs
 */
export function loadStateDict(module: Module, tensors: ReadonlyMap<string, SafetensorsTensor>): void {
  for (const [variable, data] of stateDictValues(module, tensors)) variable.data = data;
}

/** A module's variables as the bytes of a safetensors file. */
export const saveSafetensors = (module: Module, metadata: Record<string, string> = {}, batches = 0): Uint8Array =>
  encodeSafetensors(stateDict(module, batches), metadata);

/** Sets a module's variables from the bytes of a safetensors file. */
export const loadSafetensors = (module: Module, bytes: Uint8Array): void => loadStateDict(module, decodeSafetensors(bytes).tensors);
