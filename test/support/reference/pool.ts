import type { Nd } from '../nd.ts';
import { requireRank, requireShape, windowsAlong, zeros } from '../nd.ts';

/** @property kernelSize ≥ 1  @property stride ≥ 1  @property padding 0 … kernelSize/2: places that never win */
export interface MaxPool2dAttrs {
  kernelSize: number;
  stride: number;
  padding: number;
}

/**
 * For each output the flat index into x of its window's maximum: the first in row-major window order where several are
 * equal; a NaN wins, the last of several (PyTorch's CPU kernel: `val > max || isnan(val)`).
 */
function maxPool2dWinners(x: Nd, { kernelSize, stride, padding }: MaxPool2dAttrs): { shape: number[]; winners: Int32Array } {
  requireRank('maxPool2d: x', x, 4);
  if (2 * padding > kernelSize) throw new RangeError(`maxPool2d: padding must be <= kernelSize / 2, got ${padding} vs ${kernelSize}`);
  const [N, H, W, C] = x.shape;
  const hOut = windowsAlong('maxPool2d', H, kernelSize, stride, padding);
  const wOut = windowsAlong('maxPool2d', W, kernelSize, stride, padding);
  const winners = new Int32Array(N * hOut * wOut * C).fill(-1);
  for (let n = 0, at = 0; n < N; n++) for (let i = 0; i < hOut; i++) for (let j = 0; j < wOut; j++) for (let c = 0; c < C; c++, at++) {
    for (let a = 0; a < kernelSize; a++) for (let b = 0; b < kernelSize; b++) {
      const h = i * stride + a - padding;
      const v = j * stride + b - padding;
      if (h < 0 || h >= H || v < 0 || v >= W) continue;
      const from = ((n * H + h) * W + v) * C + c;
      const value = x.data[from];
      if (winners[at] < 0 || value > x.data[winners[at]] || Number.isNaN(value)) winners[at] = from;
    }
  }
  return { shape: [N, hOut, wOut, C], winners };
}

/**
 * y[n,i,j,c] = max over a, b < kernelSize of x[n, i·s+a−p, j·s+b−p, c]; places outside x do not take part.
 * @param x [N, H, W, C]  @returns [N, hOut, wOut, C], hOut = floor((H + 2p − kernelSize)/s) + 1
 */
export function maxPool2d(x: Nd, attrs: MaxPool2dAttrs): Nd {
  const { shape, winners } = maxPool2dWinners(x, attrs);
  return { shape, data: Float64Array.from(winners, (from) => x.data[from]) };
}

/** dx[k] = Σ of dy over the windows that x[k] wins; of equal values the first in row-major window order wins, as in PyTorch. */
export function maxPool2dVjp(x: Nd, attrs: MaxPool2dAttrs, dy: Nd): { dx: Nd } {
  const { shape, winners } = maxPool2dWinners(x, attrs);
  requireShape('maxPool2dVjp: dy', dy, shape);
  const dx = zeros(x.shape);
  winners.forEach((from, at) => { dx.data[from] += dy.data[at]; });
  return { dx };
}

/** y[n,c] = (1/HW)·Σ_{h,w} x[n,h,w,c].  @param x [N, H, W, C]  @returns [N, C] */
export function globalAvgPool(x: Nd): Nd {
  requireRank('globalAvgPool: x', x, 4);
  const [N, H, W, C] = x.shape;
  const y = zeros([N, C]);
  for (let n = 0; n < N; n++) for (let c = 0; c < C; c++) {
    let sum = 0;
    for (let place = 0; place < H * W; place++) sum += x.data[(n * H * W + place) * C + c];
    y.data[n * C + c] = sum / (H * W);
  }
  return y;
}

/** dx[n,h,w,c] = dy[n,c]/(HW).  @param dy [N, C] */
export function globalAvgPoolVjp(x: Nd, dy: Nd): { dx: Nd } {
  requireRank('globalAvgPoolVjp: x', x, 4);
  const [N, H, W, C] = x.shape;
  requireShape('globalAvgPoolVjp: dy', dy, [N, C]);
  const dx = zeros(x.shape);
  for (let at = 0; at < dx.data.length; at++) {
    const n = Math.floor(at / (H * W * C));
    dx.data[at] = dy.data[n * C + at % C] / (H * W);
  }
  return { dx };
}
