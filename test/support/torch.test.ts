/** The references against PyTorch's float64: `make_reference_values.py` made the numbers. */
import { describe, expect, test } from 'vitest';
import { expectClose } from './close.ts';
import type { Nd } from './reference.ts';
import * as ref from './reference.ts';
import values from './referenceValues.json';

const nd = ({ shape, data }: { shape: number[]; data: number[] }): Nd => ref.nd(shape, data);

/** Both sides are float64 and differ by the order of sums only. */
const close = (actual: Nd, expected: { shape: number[]; data: number[] }) => expectClose(actual, expected, { atol: 1e-12, rtol: 1e-12 });

describe.each(values.conv2d)('conv2d $attrs', (v) => {
  test('forward and gradients', () => {
    const [x, w] = [nd(v.x), nd(v.w)];
    close(ref.conv2d(x, w, nd(v.bias), v.attrs), v.y);
    const g = ref.conv2dVjp(x, w, v.attrs, nd(v.dy));
    close(g.dx, v.dx);
    close(g.dWeight, v.dWeight);
    close(g.dBias, v.dBias);
  });
});

test('conv2d without bias is conv2d with a bias of zeros', () => {
  const v = values.conv2d[0];
  const zeroBias = ref.zeros(v.bias.shape);
  expect(ref.conv2d(nd(v.x), nd(v.w), null, v.attrs)).toEqual(ref.conv2d(nd(v.x), nd(v.w), zeroBias, v.attrs));
});

test('batchNormTrain: forward, statistics, running statistics, gradients', () => {
  const v = values.batchNormTrain;
  const x = nd(v.x);
  const out = ref.batchNormTrain(x, nd(v.weight), nd(v.bias), v.eps);
  close(out.y, v.y);
  close(out.mean, v.mean);
  close(out.var, v.var);
  const next = ref.updateRunningStatistics({
    runningMean: nd(v.runningMean), runningVar: nd(v.runningVar), mean: out.mean, var: out.var, M: x.data.length / 3,
  });
  close(next.runningMean, v.nextRunningMean);
  close(next.runningVar, v.nextRunningVar);
  const g = ref.batchNormTrainVjp(x, nd(v.weight), v.eps, nd(v.dy));
  close(g.dx, v.dx);
  close(g.dWeight, v.dWeight);
  close(g.dBias, v.dBias);
});

test('batchNormEval: forward and gradients', () => {
  const v = values.batchNormEval;
  const statistics = [nd(v.runningMean), nd(v.runningVar)] as const;
  close(ref.batchNormEval(nd(v.x), nd(v.weight), nd(v.bias), ...statistics, v.eps), v.y);
  const g = ref.batchNormEvalVjp(nd(v.x), nd(v.weight), ...statistics, v.eps, nd(v.dy));
  close(g.dx, v.dx);
  close(g.dWeight, v.dWeight);
  close(g.dBias, v.dBias);
});

describe.each(values.maxPool2d)('maxPool2d $attrs of $x.shape', (v) => {
  test('forward and gradient, ties included', () => {
    close(ref.maxPool2d(nd(v.x), v.attrs), v.y);
    close(ref.maxPool2dVjp(nd(v.x), v.attrs, nd(v.dy)).dx, v.dx);
  });
});

test('globalAvgPool', () => {
  const v = values.globalAvgPool;
  close(ref.globalAvgPool(nd(v.x)), v.y);
  close(ref.globalAvgPoolVjp(nd(v.x), nd(v.dy)).dx, v.dx);
});

test('relu, also at 0', () => {
  const v = values.relu;
  const y = ref.relu(nd(v.x));
  close(y, v.y);
  close(ref.reluVjp(y, nd(v.dy)).dx, v.dx);
});

test('linear', () => {
  const v = values.linear;
  close(ref.linear(nd(v.x), nd(v.w), nd(v.b)), v.y);
  const g = ref.linearVjp(nd(v.x), nd(v.w), nd(v.dy));
  close(g.dx, v.dx);
  close(g.dWeight, v.dWeight);
  close(g.dBias, v.dBias);
});

describe.each(values.crossEntropy)('crossEntropy, labelSmoothing $labelSmoothing', (v) => {
  test('losses, mean and both gradients', () => {
    const logits = nd(v.logits);
    const attrs = { labelSmoothing: v.labelSmoothing };
    const out = ref.crossEntropy(logits, v.labels, attrs);
    close(out.losses, v.losses);
    close(out.mean, v.mean);
    close(ref.crossEntropyVjp(logits, v.labels, attrs, nd(v.dLosses)).dLogits, v.dLogits);
    close(ref.crossEntropyMeanVjp(logits, v.labels, attrs, ref.scalar(1)).dLogits, v.dLogitsOfMean);
  });
});

describe.each(values.sgd)('sgd $attrs', ({ attrs, w, gradients, weights }) => {
  test('three steps', () => {
    let state: { w: Nd; buf: Nd | null } = { w: nd(w), buf: null };
    gradients.forEach((g, step) => {
      const before = state.w;
      const next = ref.sgdStep(before, nd(g), state.buf, attrs);
      close(next.w, weights[step]);
      expectClose(next.w, ref.add(before, ref.scale(next.direction, -attrs.lr)), { atol: 1e-15, rtol: 0 });
      state = next;
    });
  });
});

test('assembleBatch', () => {
  const v = values.assembleBatch;
  close(ref.assembleBatch(Uint8Array.from(v.images), v.size, v.indices, v.mean, v.std), v.y);
});
