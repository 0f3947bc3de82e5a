/** The whole training loop again, in float64 on the host, for softmax regression: what the trainer is held against. */
import { EpochSampler } from '../../src/data/batches.ts';
import type { ImageDataset } from '../../src/data/dataset.ts';
import { hash32, STREAM } from '../../src/nn/random.ts';
import type { Schedule } from '../../src/sched/schedule.ts';
import { TrialScheduler, type TrialEvent } from '../../src/sched/trialScheduler.ts';
import * as ref from '../support/reference.ts';
import { nd, scalar, type Nd } from '../support/nd.ts';
import type { LinearNet } from './nets.ts';

export interface HostOptions {
  readonly dataset: ImageDataset;
  readonly schedule: Schedule;
  readonly batchSize: number;
  readonly steps: number;
  readonly optimizer?: Omit<ref.SgdAttrs, 'lr'>;
  readonly labelSmoothing?: number;
  readonly augment?: 'none' | 'crop-flip';
  readonly shuffle?: boolean;
  readonly seed?: number;
}

export interface Weights {
  readonly weight: Nd;
  readonly bias: Nd;
}

export interface HostRun {
  readonly steps: { step: number; loss: number; lr: number }[];
  readonly events: TrialEvent[];
  readonly final: Weights;
}

interface HostBatch {
  readonly x: Nd;
  readonly labels: number[];
}

export const weightsOf = ({ fc: { weight, bias } }: LinearNet): Weights =>
  ({ weight: nd(weight.shape, weight.data), bias: nd(bias.shape, bias.data) });

/** Images by index, the first of them the `counter`th that the run draws. */
function hostBatch({ dataset, augment, seed = 0 }: HostOptions, indices: ArrayLike<number>, counter: number): HostBatch {
  const { train: { images, labels, channels: C, height: H, width: W }, mean, std } = dataset;
  const list = Array.from(indices);
  const picked = Uint8Array.from(list.flatMap((index) => [...images.subarray(index * C * H * W, (index + 1) * C * H * W)]));
  const draws = list.map((_, sample) => hash32(seed, counter + sample, STREAM.augment));
  const bytes = augment === 'crop-flip' ? ref.cropFlip(picked, { C, H, W }, draws) : picked;
  const { data } = ref.assembleBatch(bytes, { C, H, W }, list.map((_, i) => i), mean, std);
  return { x: nd([list.length, C * H * W], data), labels: list.map((index) => labels[index]) };
}

interface HostLoss {
  readonly loss: number;
  readonly losses: readonly number[];
  readonly gradient: Weights;
}

function lossAndGradient({ weight, bias }: Weights, { x, labels }: HostBatch, labelSmoothing = 0): HostLoss {
  const logits = ref.linear(x, weight, bias);
  const { mean, losses } = ref.crossEntropy(logits, labels, { labelSmoothing });
  const { dLogits } = ref.crossEntropyMeanVjp(logits, labels, { labelSmoothing }, scalar(1));
  const { dWeight, dBias } = ref.linearVjp(x, weight, dLogits);
  return { loss: mean.data[0], losses: [...losses.data], gradient: { weight: dWeight, bias: dBias } };
}

const along = (w: Nd, c: number, d: Nd): Nd => ({ shape: w.shape, data: w.data.map((value, i) => value - c * d.data[i]) });

const dot = (a: Nd, b: Nd): number => a.data.reduce((sum, value, i) => sum + value * b.data[i], 0);

/** `net` gives the weights to start from; it stays as it is. */
export function hostRun(net: LinearNet, options: HostOptions): HostRun {
  const { dataset: { train }, schedule, batchSize, shuffle = true, seed = 0, labelSmoothing } = options;
  let { optimizer = {} } = options;
  const sampler = new EpochSampler({ count: train.count, batchSize, shuffle, seed });
  const run: HostRun = { steps: [], events: [], final: weightsOf(net) };
  let { final: weights } = run;
  let momentum: { weight: Nd | null; bias: Nd | null } = { weight: null, bias: null };
  for (let step = 0; step < options.steps; step++) {
    const order = sampler.epochOrder(Math.floor(step / sampler.stepsPerEpoch));
    const cursor = (step % sampler.stepsPerEpoch) * batchSize;
    // The order goes round at its end; a batch may not be larger than it.
    const images = (offset: number, count: number) =>
      hostBatch(options, Array.from({ length: count }, (_, i) => order[(cursor + offset + i) % order.length]), step * batchSize + offset);
    const { loss, gradient } = lossAndGradient(weights, images(0, batchSize), labelSmoothing);
    const sgd = (part: 'weight' | 'bias', lr: number, point: Partial<ref.SgdAttrs> = {}) =>
      ref.sgdStep(weights[part], gradient[part], momentum[part], { ...optimizer, ...point, lr });
    if (schedule instanceof TrialScheduler && schedule.options.control === 'blindDrift') {
      if (schedule.isDue(step, sampler.stepsPerEpoch)) run.events.push(schedule.drift(step));
    } else if (schedule instanceof TrialScheduler && schedule.isDue(step, sampler.stepsPerEpoch)) {
      const { direction, batch, scoreBatch, factors, momenta, weightDecays } = schedule.options;
      const d = direction === 'gradient' ? gradient : { weight: sgd('weight', 0).direction, bias: sgd('bias', 0).direction };
      const offsets = { same: [0], heldOut: [batchSize], both: [0, batchSize] }[batch];
      const isGrid = momenta !== null || weightDecays !== null;
      /** Trial i of a grid is the step that the optimizer would make with the trial's own numbers. */
      const stepOf = (c: number, i: number) => {
        const point = { ...(momenta && { momentum: momenta[i] }), ...(weightDecays && { weightDecay: weightDecays[i] }) };
        return { weight: sgd('weight', c, point).w, bias: sgd('bias', c, point).w };
      };
      const trialLoss = (c: number, i: number) => {
        const moved = { weight: along(weights.weight, c, d.weight), bias: along(weights.bias, c, d.bias) };
        const there = isGrid && i < factors.length ? stepOf(c, i) : moved;
        const of = offsets.map((offset) => lossAndGradient(there, images(offset, scoreBatch ?? batchSize), labelSmoothing));
        return { loss: of.reduce((sum, one) => sum + one.loss, 0) / of.length, losses: of.flatMap((one) => one.losses) };
      };
      const baseRate = schedule.baseAt(step, options.steps, sampler.stepsPerEpoch);
      const tried = schedule.trialRates(baseRate).map(trialLoss);
      const slope = dot(gradient.weight, d.weight) + dot(gradient.bias, d.bias);
      const evidence = { samples: tried.map(({ losses }) => losses), slope, baseRate, seed };
      run.events.push(schedule.apply(step, tried.map((one) => one.loss), trialLoss(0, factors.length).loss, evidence));
      const { momentum: mu, weightDecay } = schedule.optimizer;
      optimizer = { ...optimizer, ...(mu !== null && { momentum: mu }), ...(weightDecay !== null && { weightDecay }) };
    }
    const lr = schedule.lrAt(step, options.steps, sampler.stepsPerEpoch);
    run.steps.push({ step, loss, lr });
    const next = { weight: sgd('weight', lr), bias: sgd('bias', lr) };
    weights = { weight: next.weight.w, bias: next.bias.w };
    momentum = { weight: next.weight.buf, bias: next.bias.buf };
  }
  return { ...run, final: weights };
}
