import type { Nd } from './nd.ts';
import { map, requireShape } from './nd.ts';

/**
 * The vector-Jacobian product of f by central differences, in float64:
 * d_k[i] = Σ_o dy[o] · (f(… x_k + ε·e_i …)[o] − f(… x_k − ε·e_i …)[o]) / 2ε
 *
 * Calls f twice for each input element: for small shapes. The error is about ε²·f''' + 1e-16·|f|/ε, so about 1e-10 for values
 * around 1; within ε of a kink the result means nothing, so sample those away.
 * @param f pure; gets copies of the inputs  @param inputs one Nd for each argument of f  @param dy like f's output
 * @returns one gradient for each input, like it
 */
export function centralDifferenceVjp(f: (...inputs: Nd[]) => Nd, inputs: readonly Nd[], dy: Nd, epsilon = 1e-5): Nd[] {
  requireShape('centralDifferenceVjp: dy', dy, f(...inputs).shape);
  return inputs.map((input, k) => map(input, (value, i) => {
    const moved = (to: number) => f(...inputs.map((x, l) => map(x, (v, j) => (l === k && j === i ? to : v)))).data;
    const up = moved(value + epsilon);
    const down = moved(value - epsilon);
    return dy.data.reduce((total, g, o) => total + g * (up[o] - down[o]), 0) / (2 * epsilon);
  }));
}
