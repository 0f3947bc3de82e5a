/** The option tables of `forkstep probe`, and the rules that span several options. */
import { UsageError, choice, integer, number, path, required } from './args.ts';
import type { OptionValues, Parsed } from './args.ts';
import { MAX_SEED, checkData, dataOptions, modelOptions } from './options.ts';

/** What is probed: weights, images and how batch norms see them. */
const subjectOptions = (name: string) => ({
  checkpoint: path('file', { default: undefined, defaultText: 'fresh weights of --seed', help: 'safetensors file of the weights' }),
  ...dataOptions,
  ...modelOptions,
  split: choice(['train', 'test'], { default: 'train', help: 'which images of the data set' }),
  batch: integer({ default: 32, min: 1, help: 'images a batch' }),
  batches: integer({ default: 1, min: 1, help: 'batches that each loss is averaged over' }),
  batchNorm: choice(['batch', 'running'], {
    default: 'batch',
    help: 'statistics of batch norms: of each loss its own batch, or running ones',
  }),
  seed: integer({ default: 0, min: 0, max: MAX_SEED, help: 'of fresh weights, procedural images and which images are taken' }),
  svg: path('outputFile', { default: `runs/probe-${name}.svg`, help: 'the figure' }),
});

const directionSeed = integer({ default: 0, min: 0, max: MAX_SEED, help: 'of the random directions' });

export const rangeOptions = {
  ...subjectOptions('range'),
  minLr: number({ default: 1e-5, above: 0, help: 'smallest learning rate' }),
  maxLr: number({ default: 10, above: 0, help: 'largest learning rate' }),
  points: integer({ default: 25, min: 2, help: 'learning rates, at equal ratios' }),
};

export const sliceOptions = {
  ...subjectOptions('slice'),
  from: number({ default: -1, help: 'first coefficient of the direction' }),
  to: number({ default: 1, help: 'last one' }),
  points: integer({ default: 41, min: 2, help: 'losses, at equal distances' }),
  directionSeed,
};

export const planeOptions = {
  ...subjectOptions('plane'),
  span: number({ default: 1, above: 0, help: 'both coefficients run from −span to span' }),
  points: integer({ default: 21, min: 2, help: 'losses a side' }),
  directionSeed,
};

export const curvatureOptions = {
  ...subjectOptions('curvature'),
  lr: number({ default: 0.005, above: 0, help: 'learning rate that the curvature is held against, as 2/lr' }),
  span: number({
    default: undefined,
    above: 0,
    defaultText: 'where the slope changes the loss by 2 %',
    help: 'largest step along the gradient, either way',
  }),
  points: integer({ default: 9, min: 5, help: 'losses, an odd number' }),
};

export const interpolateOptions = {
  ...subjectOptions('interpolate'),
  checkpoint: required(path('file', { default: undefined, help: 'safetensors file of the weights to start from' })),
  to: required(path('file', { default: undefined, help: 'safetensors file of the weights to end at' })),
  points: integer({ default: 21, min: 2, help: 'losses, at equal distances' }),
};

export type RangeValues = OptionValues<typeof rangeOptions>;
export type SliceValues = OptionValues<typeof sliceOptions>;
export type PlaneValues = OptionValues<typeof planeOptions>;
export type CurvatureValues = OptionValues<typeof curvatureOptions>;
export type InterpolateValues = OptionValues<typeof interpolateOptions>;
/** What all probes have. */
export type SubjectValues = OptionValues<ReturnType<typeof subjectOptions>>;

const refuse = (op: string, arg: string, rule: string, got: number, fix: string): never => {
  throw new UsageError({ op, arg, rule, got: String(got), fix });
};

/** @throws UsageError */
export function checkRange(command: string, { values }: Parsed<typeof rangeOptions>): void {
  checkData(command, { values });
  const { minLr, maxLr } = values;
  if (minLr >= maxLr) refuse(command, '--min-lr', `must be < --max-lr (${maxLr})`, minLr, 'give the smaller one first');
}

/** @throws UsageError */
export function checkSlice(command: string, { values }: Parsed<typeof sliceOptions>): void {
  checkData(command, { values });
  const { from, to } = values;
  if (from >= to) refuse(command, '--from', `must be < --to (${to})`, from, 'give the smaller one first');
}

/** @throws UsageError */
export function checkCurvature(command: string, { values }: Parsed<typeof curvatureOptions>): void {
  checkData(command, { values });
  if (values.points % 2 === 0) refuse(command, '--points', 'must be odd', values.points, 'one of them is the loss without a step');
}
