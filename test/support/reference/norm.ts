import type { Nd } from '../nd.ts';
import { map, requireShape, zeros } from '../nd.ts';

/** Channels are the last axis; everything before them is one sample axis of M = size / C values a channel. */
function channels(op: string, x: Nd, perChannel: Record<string, Nd>): { C: number; M: number } {
  const C = x.shape[x.shape.length - 1];
  for (const [name, a] of Object.entries(perChannel)) requireShape(`${op}: ${name}`, a, [C]);
  return { C, M: x.data.length / C };
}

/** Σ over the samples of f(at), channel by channel. */
function perChannelSum(x: Nd, C: number, f: (at: number, c: number) => number): Nd {
  const total = zeros([C]);
  for (let at = 0; at < x.data.length; at++) total.data[at % C] += f(at, at % C);
  return total;
}

/** Mean and biased variance of each channel, in two passes: no E[x²] − E[x]².  @param x [..., C]  @returns mean, var [C] */
export function batchStatistics(x: Nd): { mean: Nd; var: Nd } {
  const { C, M } = channels('batchStatistics', x, {});
  const mean = map(perChannelSum(x, C, (at) => x.data[at]), (s) => s / M);
  const squares = perChannelSum(x, C, (at, c) => (x.data[at] - mean.data[c]) ** 2);
  return { mean, var: map(squares, (s) => s / M) };
}

/**
 * y = weight·(x − mean)/√(var + eps) + bias, with the statistics of the batch (PyTorch `batch_norm(training=True)`).
 * @param x [..., C]  @param weight [C]  @param bias [C]
 * @returns y like x; mean [C]; var [C], biased (÷ M)
 */
export function batchNormTrain(x: Nd, weight: Nd, bias: Nd, eps: number): { y: Nd; mean: Nd; var: Nd } {
  const stats = batchStatistics(x);
  return { y: batchNormEval(x, weight, bias, stats.mean, stats.var, eps), ...stats };
}

/**
 * With x̂ = (x − mean)/√(var + eps) and ⟨·⟩ the mean over the batch: dBias = Σ dy, dWeight = Σ dy·x̂,
 * dx = weight/√(var + eps) · (dy − ⟨dy⟩ − x̂·⟨dy·x̂⟩).
 */
export function batchNormTrainVjp(x: Nd, weight: Nd, eps: number, dy: Nd): { dx: Nd; dWeight: Nd; dBias: Nd } {
  const { mean, var: variance } = batchStatistics(x);
  const { C, M } = channels('batchNormTrainVjp', x, { weight });
  const { dx: direct, dWeight, dBias } = batchNormEvalVjp(x, weight, mean, variance, eps, dy);
  const dx = map(direct, (g, at) => {
    const c = at % C;
    const invStd = 1 / Math.sqrt(variance.data[c] + eps);
    const xHat = (x.data[at] - mean.data[c]) * invStd;
    return g - weight.data[c] * invStd * (dBias.data[c] + xHat * dWeight.data[c]) / M;
  });
  return { dx, dWeight, dBias };
}

/** y = weight·(x − runningMean)/√(runningVar + eps) + bias.  @param x [..., C]; the others [C]  @returns like x */
export function batchNormEval(x: Nd, weight: Nd, bias: Nd, runningMean: Nd, runningVar: Nd, eps: number): Nd {
  const { C } = channels('batchNormEval', x, { weight, bias, runningMean, runningVar });
  return map(x, (value, at) => {
    const c = at % C;
    return weight.data[c] * (value - runningMean.data[c]) / Math.sqrt(runningVar.data[c] + eps) + bias.data[c];
  });
}

/** dx = dy·weight/√(runningVar + eps), dWeight = Σ dy·x̂, dBias = Σ dy: the statistics are constants. */
export function batchNormEvalVjp(
  x: Nd, weight: Nd, runningMean: Nd, runningVar: Nd, eps: number, dy: Nd,
): { dx: Nd; dWeight: Nd; dBias: Nd } {
  const { C } = channels('batchNormEvalVjp', x, { weight, runningMean, runningVar });
  requireShape('batchNormEvalVjp: dy', dy, x.shape);
  const std = map(runningVar, (v) => Math.sqrt(v + eps));
  return {
    dx: map(dy, (g, at) => g * weight.data[at % C] / std.data[at % C]),
    dWeight: perChannelSum(x, C, (at, c) => dy.data[at] * (x.data[at] - runningMean.data[c]) / std.data[c]),
    dBias: perChannelSum(x, C, (at) => dy.data[at]),
  };
}

/** @property M values a channel, ≥ 2  @property momentum @default 0.1: the weight of the new value */
export interface RunningStatisticsUpdate {
  runningMean: Nd;
  runningVar: Nd;
  mean: Nd;
  var: Nd;
  M: number;
  momentum?: number;
}

/**
 * running ← (1 − momentum)·running + momentum·new, new = the batch's mean and its unbiased variance var·M/(M − 1), as PyTorch.
 * @param update.var the biased variance, as `batchNormTrain` returns it
 * @throws RangeError if M < 2: one value has no unbiased variance
 */
export function updateRunningStatistics(update: RunningStatisticsUpdate): { runningMean: Nd; runningVar: Nd } {
  const { runningMean, runningVar, mean, var: variance, M, momentum = 0.1 } = update;
  if (!(M >= 2)) throw new RangeError(`updateRunningStatistics: M must be >= 2, got ${M}`);
  return {
    runningMean: map(runningMean, (v, c) => (1 - momentum) * v + momentum * mean.data[c]),
    runningVar: map(runningVar, (v, c) => (1 - momentum) * v + momentum * variance.data[c] * M / (M - 1)),
  };
}
