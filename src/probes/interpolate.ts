/** The loss on the straight line between two checkpoints. */
import { AttrError, ShapeError } from '../gpu/errors.ts';
import type { Tensor, Variable } from '../graph/tensor.ts';
import type { Module } from '../nn/module.ts';
import { lossesAlong } from '../trials/lossesAlong.ts';
import { checkProbe } from './grids.ts';
import type { Slice } from './landscape.ts';
import type { ProbeOptions } from './line.ts';

export interface InterpolateOptions extends ProbeOptions {
  /** The model at α = 1, with the same variables as `model`, which is the one at α = 0. */
  readonly to: Module;
  /** α; within 0 … 1 for `batchNorm: 'running'`, whose variances beyond might be negative. */
  readonly at: readonly number[];
}

/** Each variable of one model with the other's of the same name. @throws ShapeError where names or shapes differ */
function pairs(model: Module, to: Module): [Variable, Variable][] {
  const others = to.namedVariables();
  const own = model.namedVariables();
  return [...own].map(([name, variable]) => {
    const other = others.get(name);
    if (!other || String(other) !== String(variable) || others.size !== own.size)
      throw new ShapeError({
        op: 'interpolate',
        arg: `to: ${name}`,
        rule: `must be ${variable}, and the models must have the same variables`,
        got: other ? String(other) : 'none',
        fix: 'build both models alike',
      });
    return [variable, other];
  });
}

/**
 * L((1 − α)·θ₀ + α·θ₁), all α in one fused evaluation: θ₀ is scaled by 1 − α and θ₁ the direction, so that both ends are the checkpoints
 * themselves, bit for bit (θ₀ + (θ₁ − θ₀) would round).
 *
 * Batch norms: with 'batch', the default, each α has the statistics of its own activations, computed anew from the batch, which is what an
 * average of networks needs. With 'running', running means and variances are interpolated as the weights are; between the ends they are
 * not those of the network there, and a barrier may come from them alone.
 * @throws ShapeError for models that differ, AttrError for α out of range, and what `lossesAlong` throws
 * @source Goodfellow et al., *Qualitatively characterizing neural network optimization problems*, ICLR 2015: its linear paths; on the statistics
 *   Izmailov et al., *Averaging Weights Leads to Wider Optima and Better Generalization*, UAI 2018, §3.2
 */
export async function interpolate({ to, at, ...options }: InterpolateOptions): Promise<Slice> {
  const op = 'interpolate';
  checkProbe(op, options);
  const isRunning = options.batchNorm === 'running';
  const outside = at.find((alpha) => !Number.isFinite(alpha) || (isRunning && !(alpha >= 0 && alpha <= 1)));
  if (at.length === 0 || outside !== undefined)
    throw new AttrError({
      op,
      arg: 'at',
      rule: isRunning ? "must be numbers in 0 … 1 with batchNorm 'running'" : 'must be finite numbers, at least one',
      got: outside ?? at,
      fix: 'linearGrid(0, 1, 21) makes such a list',
    });
  const all = pairs(options.model, to);
  const moved = isRunning ? all : all.filter(([{ kind }]) => kind === 'parameter');
  const losses = await lossesAlong({
    ...options,
    directions: [new Map<Variable, Tensor>(moved)],
    coefficients: at.map((alpha) => [alpha]),
    scales: at.map((alpha) => 1 - alpha),
  });
  return { at: [...at], losses: Array.from(losses) };
}
