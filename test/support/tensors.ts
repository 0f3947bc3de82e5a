/** Arrays of the references as tensors of a graph. */
import { tensor } from '../../src/graph/functional.ts';
import { Variable, type Tensor } from '../../src/graph/tensor.ts';
import type { Nd } from './nd.ts';

export const constant = (value: Nd): Tensor => tensor(Float32Array.from(value.data), value.shape);
export const parameter = (value: Nd, name = 'p'): Variable => new Variable('parameter', name, value.shape, Float32Array.from(value.data));
