/** The loss along a direction, and what inner products tell of it: what range curves, line searches and curvature stand on. */
import { grad } from '../autograd/grad.ts';
import { AttrError } from '../gpu/errors.ts';
import { crossEntropy, mean, tensor } from '../graph/functional.ts';
import { evaluate } from '../graph/run.ts';
import { elements, type Variable } from '../graph/tensor.ts';
import { inferenceContext, trainingContext } from '../nn/module.ts';
import { resolveAlong, type Direction, type LossBatch, type LossesAlongOptions } from '../trials/alongOptions.ts';
import { lossesAlong } from '../trials/lossesAlong.ts';
import { checkProbe } from './grids.ts';

/** What every probe takes: a model, one or several batches, and how to run them. */
export type ProbeOptions = Omit<LossesAlongOptions, 'directions' | 'coefficients' | 'scales' | 'perSample'>;

/** φ(η) = L(θ − η·d), whatever computes it. */
export interface Line {
  /** φ(η_i), one a step; steps may be 0 or negative. May be NaN or ±∞. */
  losses(steps: readonly number[]): Promise<ArrayLike<number>>;
  /** φ(0), about: for a sense of size. Probes compare losses of one evaluation. */
  readonly loss: number;
  /** φ'(0) = −⟨∇L, d⟩ */
  readonly slope: number;
  /** ‖d‖² */
  readonly squaredNorm: number;
}

export interface LineOptions extends ProbeOptions {
  /** d, f32 of the parameters' shapes; those left out stay. @default the gradient of the loss */
  readonly direction?: Direction;
}

export interface GradientLine extends Line {
  /** d as it was when the line was made, of the parameters that move. */
  readonly direction: Direction;
  /** ∇L of the parameters that move, averaged over the batches as the loss is. */
  readonly gradient: ReadonlyMap<Variable, Float32Array>;
}

/** Σ a·b in float64 */
const dot = (a: Float32Array, b: Float32Array): number => a.reduce((total, value, i) => total + value * b[i], 0);

/** The loss and its gradients, the batches weighing by their samples. */
async function lossAndGradients(
  options: ProbeOptions,
  parameters: readonly Variable[],
): Promise<{ loss: number; gradients: Float32Array[] }> {
  const { model, batches, loss = crossEntropy, batchNorm = 'batch' } = options;
  const list: readonly LossBatch[] = 'x' in batches ? [batches] : batches;
  const total = list.reduce((samples, { x }) => samples + x.shape[0], 0);
  let value = 0;
  const sums = parameters.map(({ shape }) => new Float64Array(elements(shape)));
  for (const { x, labels } of list) {
    const share = x.shape[0] / total;
    const logits = model.forward(x, batchNorm === 'running' ? inferenceContext() : trainingContext());
    const scalar = mean(loss(logits, labels instanceof Uint32Array ? tensor(labels) : labels));
    const [[batchLoss], ...gradients] = await evaluate([scalar, ...grad(scalar, parameters)], options);
    value += batchLoss * share;
    gradients.forEach((gradient, p) => gradient.forEach((g, i) => (sums[p][i] += g * share)));
  }
  return { loss: value, gradients: sums.map((sum) => Float32Array.from(sum)) };
}

/** The parameters that the line moves, in the model's order. @throws AttrError */
function movedParameters({ model, only, direction }: LineOptions): Variable[] {
  const own = model.parameters();
  const foreign = direction && [...direction.keys()].find((variable) => !own.includes(variable));
  const moved = own.filter((variable) => (direction?.has(variable) ?? true) && (only?.(variable) ?? true));
  if (foreign || moved.length === 0)
    throw new AttrError({
      op: 'gradientLine',
      arg: foreign || !only ? 'direction' : 'only',
      rule: 'must be of parameters of the model, at least one',
      got: foreign?.name ?? 'none',
      fix: 'take them from model.parameters()',
    });
  return moved;
}

/**
 * The line from θ along −d: computes gradient and direction once, reads them back, and takes slope and norm in float64, both over the
 * parameters that move. Each call of `losses` is one fused evaluation along that d, of θ at that time; θ and the running statistics stay as
 * they are.
 * @throws AttrError for a direction of anything but the model's parameters, and what `lossesAlong` throws
 * @example
 *   const line = await probes.gradientLine({ model, batches });
 *   const { step } = await probes.armijo(line, { steps: probes.logGrid(1e-3, 1, 16) });
 */
export async function gradientLine(given: LineOptions): Promise<GradientLine> {
  const { direction: chosen, ...options } = given;
  const parameters = movedParameters(given);
  checkProbe('gradientLine', options);
  // The other checks before the work. The gradient is none yet, and fits wherever the parameters do.
  resolveAlong({ ...options, directions: [chosen ?? new Map(parameters.map((own) => [own, own]))], coefficients: [0] });
  const { loss, gradients } = await lossAndGradients(options, parameters);
  const values = chosen
    ? ((await evaluate(
        parameters.map((variable) => chosen.get(variable)!),
        options,
      )) as Float32Array[])
    : gradients;
  const direction: Direction = new Map(parameters.map((variable, i) => [variable, tensor(values[i], variable.shape)]));
  return {
    losses: (steps) => lossesAlong({ ...options, directions: [direction], coefficients: steps.map((step) => -step) }),
    loss,
    slope: -values.reduce((total, d, i) => total + dot(d, gradients[i]), 0),
    squaredNorm: values.reduce((total, d) => total + dot(d, d), 0),
    direction,
    gradient: new Map(parameters.map((variable, i) => [variable, gradients[i]])),
  };
}
