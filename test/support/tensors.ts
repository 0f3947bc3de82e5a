/** Arrays of the references as tensors of a graph. */
import { tensor } from '../../src/graph/functional.ts';
import { op } from '../../src/graph/ops.ts';
import { Variable, type Tensor } from '../../src/graph/tensor.ts';
import type { Nd } from './nd.ts';

export const constant = (value: Nd): Tensor => tensor(Float32Array.from(value.data), value.shape);
export const parameter = (value: Nd, name = 'p'): Variable => new Variable('parameter', name, value.shape, Float32Array.from(value.data));

/** Values of several models side by side, as a tensor with the trial axis. */
export const sideBySide = (values: readonly Nd[]): Tensor =>
  op('constant', [], {
    data: Float32Array.from(values.flatMap(({ data }) => [...data])), shape: values[0].shape, trials: values.length,
  })[0];
