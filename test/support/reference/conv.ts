import type { Nd } from '../nd.ts';
import { requireRank, requireShape, windowsAlong, zeros } from '../nd.ts';

/** @property stride ≥ 1  @property padding ≥ 0: zeros on all four sides */
export interface Conv2dAttrs {
  stride: number;
  padding: number;
}

function conv2dSizes(x: Nd, w: Nd, { stride, padding }: Conv2dAttrs) {
  requireRank('conv2d: x', x, 4);
  requireRank('conv2d: w', w, 4);
  const [N, H, W, Cin] = x.shape;
  const [kH, kW, , Cout] = w.shape;
  requireShape('conv2d: w', w, [kH, kW, Cin, Cout]);
  const hOut = windowsAlong('conv2d', H, kH, stride, padding);
  const wOut = windowsAlong('conv2d', W, kW, stride, padding);
  return { N, H, W, Cin, kH, kW, Cout, hOut, wOut };
}

/**
 * y[n,i,j,o] = bias[o] + Σ_{a,b,c} x[n, i·s+a−p, j·s+b−p, c] · w[a,b,c,o]
 * @param x [N, H, W, Cin]  @param w [kH, kW, Cin, Cout]  @param bias [Cout] or null
 * @returns [N, hOut, wOut, Cout], hOut = floor((H + 2p − kH)/s) + 1
 */
export function conv2d(x: Nd, w: Nd, bias: Nd | null, attrs: Conv2dAttrs): Nd {
  const { N, H, W, Cin, kH, kW, Cout, hOut, wOut } = conv2dSizes(x, w, attrs);
  const { stride: s, padding: p } = attrs;
  if (bias) requireShape('conv2d: bias', bias, [Cout]);
  const y = zeros([N, hOut, wOut, Cout]);
  for (let n = 0, at = 0; n < N; n++) for (let i = 0; i < hOut; i++) for (let j = 0; j < wOut; j++) for (let o = 0; o < Cout; o++, at++) {
    let sum = bias ? bias.data[o] : 0;
    for (let a = 0; a < kH; a++) for (let b = 0; b < kW; b++) {
      const h = i * s + a - p;
      const v = j * s + b - p;
      if (h < 0 || h >= H || v < 0 || v >= W) continue;
      for (let c = 0; c < Cin; c++) {
        sum += x.data[((n * H + h) * W + v) * Cin + c] * w.data[((a * kW + b) * Cin + c) * Cout + o];
      }
    }
    y.data[at] = sum;
  }
  return y;
}

/**
 * dBias[o] = Σ_{n,i,j} dy[n,i,j,o]. dx and dWeight are the two functions below.
 * @param dy [N, hOut, wOut, Cout]  @returns dx like x, dWeight like w, dBias [Cout] (also where the forward had none)
 */
export function conv2dVjp(x: Nd, w: Nd, attrs: Conv2dAttrs, dy: Nd): { dx: Nd; dWeight: Nd; dBias: Nd } {
  const { N, Cout, hOut, wOut } = conv2dSizes(x, w, attrs);
  requireShape('conv2dVjp: dy', dy, [N, hOut, wOut, Cout]);
  const dBias = zeros([Cout]);
  dy.data.forEach((g, at) => { dBias.data[at % Cout] += g; });
  return { dx: conv2dInputGradient(x, w, attrs, dy), dWeight: conv2dWeightGradient(x, w, attrs, dy), dBias };
}

/** dx[n,h,v,c] = Σ_{a,b,o} dy[n, (h+p−a)/s, (v+p−b)/s, o] · w[a,b,c,o], over the a, b that make both quotients whole and inside dy. */
function conv2dInputGradient(x: Nd, w: Nd, attrs: Conv2dAttrs, dy: Nd): Nd {
  const { N, H, W, Cin, kH, kW, Cout, hOut, wOut } = conv2dSizes(x, w, attrs);
  const { stride: s, padding: p } = attrs;
  const dx = zeros(x.shape);
  for (let n = 0, at = 0; n < N; n++) for (let h = 0; h < H; h++) for (let v = 0; v < W; v++) for (let c = 0; c < Cin; c++, at++) {
    let sum = 0;
    for (let a = 0; a < kH; a++) for (let b = 0; b < kW; b++) {
      const i = (h + p - a) / s;
      const j = (v + p - b) / s;
      if (!Number.isInteger(i) || !Number.isInteger(j) || i < 0 || i >= hOut || j < 0 || j >= wOut) continue;
      for (let o = 0; o < Cout; o++) {
        sum += dy.data[((n * hOut + i) * wOut + j) * Cout + o] * w.data[((a * kW + b) * Cin + c) * Cout + o];
      }
    }
    dx.data[at] = sum;
  }
  return dx;
}

/** dWeight[a,b,c,o] = Σ_{n,i,j} x[n, i·s+a−p, j·s+b−p, c] · dy[n,i,j,o] */
function conv2dWeightGradient(x: Nd, w: Nd, attrs: Conv2dAttrs, dy: Nd): Nd {
  const { N, H, W, Cin, kH, kW, Cout, hOut, wOut } = conv2dSizes(x, w, attrs);
  const { stride: s, padding: p } = attrs;
  const dWeight = zeros(w.shape);
  for (let a = 0, at = 0; a < kH; a++) for (let b = 0; b < kW; b++) for (let c = 0; c < Cin; c++) for (let o = 0; o < Cout; o++, at++) {
    let sum = 0;
    for (let n = 0; n < N; n++) for (let i = 0; i < hOut; i++) for (let j = 0; j < wOut; j++) {
      const h = i * s + a - p;
      const v = j * s + b - p;
      if (h < 0 || h >= H || v < 0 || v >= W) continue;
      sum += x.data[((n * H + h) * W + v) * Cin + c] * dy.data[((n * hOut + i) * wOut + j) * Cout + o];
    }
    dWeight.data[at] = sum;
  }
  return dWeight;
}

/** y[n,m] = b[m] + Σ_k x[n,k]·w[k,m].  @param x [N, K]  @param w [K, M]  @param b [M]  @returns [N, M] */
export function linear(x: Nd, w: Nd, b: Nd): Nd {
  const { N, K, M } = linearSizes(x, w);
  requireShape('linear: b', b, [M]);
  const y = zeros([N, M]);
  for (let n = 0; n < N; n++) for (let m = 0; m < M; m++) {
    let sum = b.data[m];
    for (let k = 0; k < K; k++) sum += x.data[n * K + k] * w.data[k * M + m];
    y.data[n * M + m] = sum;
  }
  return y;
}

/** dx = dy·wᵀ, dWeight = xᵀ·dy, dBias[m] = Σ_n dy[n,m].  @param dy [N, M] */
export function linearVjp(x: Nd, w: Nd, dy: Nd): { dx: Nd; dWeight: Nd; dBias: Nd } {
  const { N, K, M } = linearSizes(x, w);
  requireShape('linearVjp: dy', dy, [N, M]);
  const dx = zeros([N, K]);
  const dWeight = zeros([K, M]);
  const dBias = zeros([M]);
  for (let n = 0; n < N; n++) for (let k = 0; k < K; k++) for (let m = 0; m < M; m++) {
    dx.data[n * K + k] += dy.data[n * M + m] * w.data[k * M + m];
    dWeight.data[k * M + m] += x.data[n * K + k] * dy.data[n * M + m];
  }
  for (let n = 0; n < N; n++) for (let m = 0; m < M; m++) dBias.data[m] += dy.data[n * M + m];
  return { dx, dWeight, dBias };
}

function linearSizes(x: Nd, w: Nd) {
  requireRank('linear: x', x, 2);
  requireRank('linear: w', w, 2);
  const [N, K] = x.shape;
  const M = w.shape[1];
  requireShape('linear: w', w, [K, M]);
  return { N, K, M };
}
