/** Random directions on the scale of the weights. */
import { AttrError } from '../gpu/errors.ts';
import { tensor } from '../graph/functional.ts';
import { lastDim, type Variable } from '../graph/tensor.ts';
import type { Module } from '../nn/module.ts';
import { CounterRandom, STREAM } from '../nn/random.ts';
import type { Direction } from '../trials/alongOptions.ts';

/** Scales each filter of a random tensor (all that share the last index) to the norm of the weights' filter. */
export function filterNormalised(weights: Float32Array, random: Float32Array, filters: number): Float32Array {
  const norms = (values: Float32Array): Float64Array => {
    const squares = new Float64Array(filters);
    values.forEach((value, i) => (squares[i % filters] += value * value));
    return squares.map(Math.sqrt);
  };
  const [wanted, present] = [norms(weights), norms(random)];
  return random.map((value, i) => (present[i % filters] > 0 ? (value * wanted[i % filters]) / present[i % filters] : 0));
}

/**
 * `count` random directions for loss landscapes: normal numbers, each filter scaled to the norm of the weights' own.
 *   d_f ← d_f / ‖d_f‖ · ‖θ_f‖
 *
 * A filter is what makes one output channel: [kH, kW, Cin] of a convolution, a row of PyTorch's linear layer. Biases and batch norms' weights
 * and biases stay where they are: they are left out of the directions, which zeros would say too.
 * @param options.seed a u32; the first direction does not depend on `count`. @default 0
 * @throws AttrError for a seed or count out of range, and where a variable lies on a device (close its trainer first)
 * @source Li et al., *Visualizing the Loss Landscape of Neural Nets*, NeurIPS 2018, §4; the authors' `--xignore biasbn`
 */
export function randomDirections(model: Module, options: { seed?: number; count?: number } = {}): Direction[] {
  const { seed = 0, count = 1 } = options;
  const op = 'randomDirections';
  if (!Number.isInteger(count) || count < 1)
    throw new AttrError({ op, arg: 'count', rule: 'must be an integer ≥ 1', got: count, fix: 'a slice takes 1, a plane 2' });
  const random = new CounterRandom(seed, STREAM.landscape);
  const weights = model.parameters().filter(({ shape }) => shape.length >= 2);
  const placed = weights.find(({ storage }) => storage !== null);
  if (placed)
    throw new AttrError({ op, arg: placed.name, rule: 'must be on the host', got: 'a placed variable', fix: 'close its trainer first' });
  const draw = (variable: Variable) => {
    const noise = Float32Array.from(variable.data, () => random.normal());
    return tensor(filterNormalised(variable.data, noise, lastDim(variable.shape)), variable.shape);
  };
  return Array.from({ length: count }, () => new Map(weights.map((variable) => [variable, draw(variable)])));
}
