import type { Nd } from '../nd.ts';
import { map, nd, requireRank, requireShape, zeros } from '../nd.ts';
import { mean } from './elementwise.ts';

/** @property labelSmoothing 0 … 1, @default 0: the target is (1 − ls)·onehot + ls/C */
export interface CrossEntropyAttrs {
  labelSmoothing?: number;
}

/** The distribution that the loss compares with, [N, C]. */
function targets(logits: Nd, labels: ArrayLike<number>, { labelSmoothing = 0 }: CrossEntropyAttrs): Nd {
  requireRank('crossEntropy: logits', logits, 2);
  const [N, C] = logits.shape;
  if (labels.length !== N) throw new RangeError(`crossEntropy: labels.length must equal ${N}, got ${labels.length}`);
  if (!(labelSmoothing >= 0 && labelSmoothing <= 1)) {
    throw new RangeError(`crossEntropy: labelSmoothing must be in 0 … 1, got ${labelSmoothing}`);
  }
  const target = zeros([N, C]);
  for (let n = 0; n < N; n++) {
    const label = labels[n];
    if (!Number.isInteger(label) || label < 0 || label >= C) {
      throw new RangeError(`crossEntropy: labels[${n}] must be a class 0 … ${C - 1}, got ${label}`);
    }
    for (let c = 0; c < C; c++) target.data[n * C + c] = labelSmoothing / C + (c === label ? 1 - labelSmoothing : 0);
  }
  return target;
}

/** logits − logΣexp(logits), row by row, the row's maximum taken out first. */
function logSoftmax(logits: Nd): Nd {
  const [N, C] = logits.shape;
  const y = zeros([N, C]);
  for (let n = 0; n < N; n++) {
    const row = logits.data.subarray(n * C, (n + 1) * C);
    const top = row.reduce((a, b) => Math.max(a, b), -Infinity);
    const logSum = top + Math.log(row.reduce((total, value) => total + Math.exp(value - top), 0));
    row.forEach((value, c) => { y.data[n * C + c] = value - logSum; });
  }
  return y;
}

/**
 * losses[n] = −Σ_c target[n,c] · logSoftmax(logits)[n,c] (PyTorch `cross_entropy`, reduction 'none' and 'mean').
 * @param logits [N, C]  @param labels N classes
 * @returns losses [N]; mean, shape []
 * @throws RangeError if a label is no class, or labelSmoothing lies outside 0 … 1
 */
export function crossEntropy(logits: Nd, labels: ArrayLike<number>, attrs: CrossEntropyAttrs = {}): { losses: Nd; mean: Nd } {
  const target = targets(logits, labels, attrs);
  const [N, C] = logits.shape;
  const logP = logSoftmax(logits);
  const losses = zeros([N]);
  for (let n = 0; n < N; n++) for (let c = 0; c < C; c++) losses.data[n] -= target.data[n * C + c] * logP.data[n * C + c];
  return { losses, mean: mean(losses) };
}

/** Of the per-sample losses: dLogits[n,c] = dLosses[n] · (softmax(logits)[n,c] − target[n,c]).  @param dLosses [N] */
export function crossEntropyVjp(
  logits: Nd, labels: ArrayLike<number>, attrs: CrossEntropyAttrs, dLosses: Nd,
): { dLogits: Nd } {
  const target = targets(logits, labels, attrs);
  const [N, C] = logits.shape;
  requireShape('crossEntropyVjp: dLosses', dLosses, [N]);
  return { dLogits: map(logSoftmax(logits), (l, at) => dLosses.data[Math.floor(at / C)] * (Math.exp(l) - target.data[at])) };
}

/** Of the mean: every sample's loss has the cotangent dMean/N.  @param dMean shape [] */
export function crossEntropyMeanVjp(
  logits: Nd, labels: ArrayLike<number>, attrs: CrossEntropyAttrs, dMean: Nd,
): { dLogits: Nd } {
  requireShape('crossEntropyMeanVjp: dMean', dMean, []);
  const N = logits.shape[0];
  return crossEntropyVjp(logits, labels, attrs, nd([N], new Float64Array(N).fill(dMean.data[0] / N)));
}
