/** What `lossesAlong` is asked, and the checks of it. */
import type { Device } from '../gpu/device.ts';
import { AttrError, DtypeError, ShapeError } from '../gpu/errors.ts';
import { crossEntropy, tensor } from '../graph/functional.ts';
import type { Fusion } from '../graph/fuse/index.ts';
import type { LowerContext } from '../graph/lower/context.ts';
import type { OnCompile } from '../graph/plan.ts';
import type { Tensor, Variable } from '../graph/tensor.ts';
import { maxDirections } from '../kernels/conv2d.ts';
import type { Module } from '../nn/module.ts';

/** A direction in the space of a model's variables. Variables it does not name it leaves alone; a `Variable` may serve as a tensor. */
export type Direction = ReadonlyMap<Variable, Tensor>;

export interface LossBatch {
  /** What the model takes: [B, …]. */
  readonly x: Tensor;
  /** What the loss takes beside the logits; for the default one class indices u32 [B], as a tensor or by themselves. */
  readonly labels: Tensor | Uint32Array;
}

export interface LossesAlongOptions {
  readonly model: Module;
  /** One batch or several; losses are averaged over all samples. */
  readonly batches: LossBatch | readonly LossBatch[];
  /** Losses [B], one a sample. @default `crossEntropy` */
  readonly loss?: (logits: Tensor, labels: Tensor) => Tensor;
  /** D_1 … D_K, K = 1 … 3. */
  readonly directions: readonly Direction[];
  /** c [N][K]; with one direction N numbers will do. */
  readonly coefficients: readonly number[] | readonly (readonly number[])[];
  /** a [N]: trial i takes all parameters a_i times, and running statistics that a direction names. @default 1, without a multiplication */
  readonly scales?: readonly number[];
  /** Which variables move and scale; the others stay: `({ name }) => name.startsWith('layer4.')`. @default all */
  readonly only?: (variable: Variable) => boolean;
  /** Batch norm by each trial's own statistics of the batch, as in training, or by the running ones. @default 'batch' */
  readonly batchNorm?: 'batch' | 'running';
  /** Losses of all samples instead of their mean. @default false */
  readonly perSample?: boolean;
  /** Most trials in one pass. @default as many as `memoryBudget` and the adapter's limits let in */
  readonly maxTrialsPerPass?: number;
  /** Bytes that the intermediates of a pass may take; a pass of one trial takes what it needs. @default 2^30, 1 GiB */
  readonly memoryBudget?: number;
  /** @default the shared device, opened at first use */
  readonly device?: Device;
  /** Graph passes to apply. @default all */
  readonly fusions?: readonly Fusion[];
  /** Tiles and splits. @default the adapter's */
  readonly lowering?: LowerContext;
  /** Called while kernels compile. */
  readonly onCompile?: OnCompile;
}

const optionNames: Record<keyof LossesAlongOptions, true> = {
  model: true,
  batches: true,
  loss: true,
  directions: true,
  coefficients: true,
  scales: true,
  only: true,
  batchNorm: true,
  perSample: true,
  maxTrialsPerPass: true,
  memoryBudget: true,
  device: true,
  fusions: true,
  lowering: true,
  onCompile: true,
};

/** The options with every choice made. */
export interface Along {
  readonly model: Module;
  readonly batches: readonly { x: Tensor; labels: Tensor }[];
  readonly loss: (logits: Tensor, labels: Tensor) => Tensor;
  /** For each variable that moves, its part of every direction; null where a direction leaves it alone. */
  readonly moves: ReadonlyMap<Variable, readonly (Tensor | null)[]>;
  /** For each trial its own numbers, as kernels take them: a − 1 where trials are scaled, c_1 … c_K. */
  readonly rows: readonly (readonly number[])[];
  readonly scaled: boolean;
  readonly batchNorm: 'batch' | 'running';
  readonly perSample: boolean;
  readonly maxTrialsPerPass: number;
  readonly memoryBudget: number;
}

const op = 'lossesAlong';

/** Trials are a dimension of the grid, together with up to 256 splits: 65,535 in all. */
const mostTrialsPerPass = 255;

/** @throws AttrError, ShapeError, DtypeError */
export function resolveAlong(options: LossesAlongOptions): Along {
  const { model, directions, perSample = false, batchNorm = 'batch', memoryBudget = 2 ** 30, loss = crossEntropy } = options;
  const unknown = Object.keys(options).find((name) => !Object.hasOwn(optionNames, name));
  if (unknown !== undefined) refuse(unknown, 'must be an option', unknown, `options are ${Object.keys(optionNames).join(', ')}`);
  if (batchNorm !== 'batch' && batchNorm !== 'running') refuse('batchNorm', "must be 'batch' or 'running'", batchNorm, 'leave it out');
  if (typeof perSample !== 'boolean') refuse('perSample', 'must be true or false', perSample, 'leave it out');
  if (!(memoryBudget > 0)) refuse('memoryBudget', 'must be > 0 bytes', memoryBudget, 'leave it out');
  const { maxTrialsPerPass = mostTrialsPerPass } = options;
  if (!Number.isInteger(maxTrialsPerPass) || maxTrialsPerPass < 1)
    refuse('maxTrialsPerPass', 'must be an integer ≥ 1', maxTrialsPerPass, 'leave it out');
  if (!Array.isArray(directions) || directions.length < 1 || directions.length > maxDirections) {
    const got = Array.isArray(directions) ? directions.length : String(directions);
    refuse('directions', `must be a list of 1 to ${maxDirections} maps`, got, 'for more, transform the graph with trials()');
  }
  return {
    model,
    loss,
    batchNorm,
    perSample,
    memoryBudget,
    scaled: options.scales !== undefined,
    batches: resolveBatches(options.batches),
    moves: resolveMoves(options, batchNorm),
    rows: resolveRows(options),
    maxTrialsPerPass: Math.min(maxTrialsPerPass, mostTrialsPerPass),
  };
}

function refuse(arg: string, rule: string, got: unknown, fix: string): never {
  throw new AttrError({ op, arg, rule, got, fix });
}

function resolveBatches(batches: LossesAlongOptions['batches']): Along['batches'] {
  const list = 'x' in batches ? [batches] : batches;
  if (list.length === 0) refuse('batches', 'must hold at least one', 0, 'pass { x, labels }');
  return list.map(({ x, labels }, i) => {
    const inputs = { x, labels: labels instanceof Uint32Array ? tensor(labels) : labels };
    for (const [name, input] of Object.entries(inputs)) {
      if (input.shape.length > 0 && input.shape[0] === x.shape[0] && input.trials === 1) continue;
      const rule = 'must hold a row a sample, the same for all trials';
      throw new ShapeError({ op, arg: `${name} of batch ${i}`, rule, got: `${input} (x ${x})`, fix: 'the first dimension counts samples' });
    }
    return inputs;
  });
}

/** The numbers of each trial. */
function resolveRows({ directions, coefficients, scales }: LossesAlongOptions): number[][] {
  const rows = [...coefficients].map((c) => (typeof c === 'number' ? [c] : [...c]));
  const uneven = rows.find((row) => row.length !== directions.length);
  if (rows.length === 0 || uneven) {
    const got = uneven ? `${uneven.length} numbers for ${directions.length} directions` : 'no trials';
    refuse('coefficients', 'must hold one number a direction for each trial, at least one trial', got, 'pass [[c_1, …, c_K], …]');
  }
  if (scales && scales.length !== rows.length)
    refuse('scales', `must hold ${rows.length} numbers, one a trial`, scales.length, 'leave them out for 1');
  checkFinite('coefficients', rows.flat());
  checkFinite('scales', scales ?? []);
  return scales ? rows.map((row, i) => [scales[i] - 1, ...row]) : rows;
}

function checkFinite(arg: string, values: readonly number[]): void {
  const wrong = values.find((value) => !Number.isFinite(Math.fround(value)));
  if (wrong !== undefined) refuse(arg, 'must be finite in float32', wrong, 'pass numbers');
}

/** What moves: all that a direction names, with scales every parameter too; of it what `only` lets through. */
function resolveMoves({ model, directions, scales, only }: LossesAlongOptions, batchNorm: string): Along['moves'] {
  const own = [...model.namedVariables().values()];
  for (const [k, direction] of directions.entries()) checkDirection(direction, k, own, batchNorm);
  const named = own.filter((variable) => directions.some((direction) => direction.has(variable)));
  const scaled = scales ? own.filter(({ kind }) => kind === 'parameter') : [];
  const moving = [...new Set([...named, ...scaled])].filter((variable) => only?.(variable) ?? true);
  if (moving.length === 0) {
    const got = only && named.length > 0 ? 'none of those that directions name' : 'no variable';
    refuse(only ? 'only' : 'directions', 'must leave at least one variable to move', got, 'names are those of the state dict');
  }
  return new Map(moving.map((variable) => [variable, directions.map((direction) => direction.get(variable) ?? null)]));
}

function checkDirection(direction: Direction, k: number, own: readonly Variable[], batchNorm: string): void {
  for (const [variable, d] of direction) {
    const arg = `directions[${k}] of ${variable.name}`;
    if (!own.includes(variable)) refuse(arg, "must be of one of the model's variables", String(variable), 'take them from the model');
    if (variable.kind === 'statistic' && batchNorm === 'batch')
      refuse(arg, "must be a parameter's where batchNorm is 'batch'", 'a running statistic', "pass batchNorm: 'running'");
    if (String(d.shape) !== String(variable.shape))
      throw new ShapeError({ op, arg, rule: `must be ${variable}`, got: String(d), fix: "pass a tensor of the variable's own shape" });
    if (d.dtype !== 'f32' || d.trials !== 1)
      throw new DtypeError({ op, arg, rule: 'must be f32, the same for all trials', got: String(d), fix: 'trials differ by coefficients' });
  }
}
