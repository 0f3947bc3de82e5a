/** Options of the trial scheduler and its two presets, which are nothing but sets of them. */
import { AttrError } from '../gpu/errors.ts';
import { checkCadence } from './cadence.ts';
import type { Cadence } from './cadence.ts';
import { controlNames } from './controls.ts';
import type { ControlName } from './controls.ts';
import { envelopes } from './envelopes.ts';
import type { EnvelopeName } from './envelopes.ts';
import { resolvePoints } from './factors.ts';
import type { FactorGrid, Factors, TrialPoints } from './factors.ts';
import { PureSchedule } from './pure.ts';
import { checkLr, given } from './schedule.ts';
import { checkName, checkScoring } from './scores.ts';
import type { NormalizeName, OwnScore, ScoreName } from './scores.ts';

/** On which images trials are scored. The direction always comes from the training batch. */
export type ScoreBatch = 'same' | 'heldOut' | 'both';
/**
 * Along what trials step: the batch's raw gradient; all that momentum will make of it in the steps that come, (1 − dampening)/(1 − momentum)
 * times the gradient ('accumulated'; without momentum the same); or the update that the optimizer would make (momentum, weight decay and all).
 */
export type Direction = 'gradient' | 'accumulated' | 'optimizer';

/**
 * So many events, so many steps apart, from the first step on. Those after them, at the scheduler's `every`, raise m no higher than these have
 * left it at most, whatever they would allow.
 */
export interface TrialSearch {
  /** an integer ≥ 1 */
  readonly events: number;
  /** an integer ≥ 1, steps */
  readonly every: number;
}

export interface TrialOptions {
  /** the scale m to start from, > 0; the presets' is 1 with a base */
  lr: number;
  /** trial i runs at m · f_i; or a grid over learning rate, momentum and weight decay */
  factors: Factors | FactorGrid;
  every: Cadence;
  normalize: NormalizeName;
  /** a name, or a function of the losses: then they are read back at every event, and one more trial gives the loss at the weights */
  score: ScoreName | OwnScore;
  /** temperature of the score, > 0 in float32; 1 is the published e^−x; pairedNoise and armijo have none and take 1 */
  tau: number;
  /** pairedNoise's κ, > 0 in float32: standard errors that noise may make; null for 1, and for the other scores */
  kappa: number | null;
  /** armijo's c, in (0, 1): the share of the linear decrease that it asks for; null for 0.1, and for the other scores */
  c: number | null;
  /** equal scores leave m as it is, whatever the factors */
  anchor: boolean;
  /** losses equal within rounding leave m as it is, to the bit */
  hold: boolean;
  /** 'same': the training batch; 'heldOut': other training images; 'both': the mean of the two losses */
  batch: ScoreBatch;
  /** images a trial is scored on (of the training batch its first ones); null: as many as the training batch has */
  scoreBatch: number | null;
  direction: Direction;
  /** update t is made at m · envelope(t / T) */
  envelope: EnvelopeName;
  /**
   * A schedule in closed form that m multiplies: trials at base(t) · m · f_i, update t at base(t) · m; null for none. With one there is no
   * envelope.
   */
  base: PureSchedule | null;
  /** [lowest, highest] m, or null for none */
  bounds: readonly [number, number] | null;
  /** how the run begins; null: with events at `every` from the first step, any of which may raise m as far as the bounds */
  search: TrialSearch | null;
  /**
   * Makes the run a control of one without it, all other options being those of the run that it stands beside: the rule fed equal losses
   * and no trial run ('blindDrift'), or its losses handed out among the factors at random ('shuffledLosses', by the run's seed). Null for
   * none.
   */
  control: ControlName | null;
}

/** The options with the factors, momenta and weight decays of all trials. */
export type ResolvedTrialOptions = TrialOptions & TrialPoints;

/** Normal positive numbers of float32: where m stays without bounds of one's own. */
export const FLOAT32 = { least: 2 ** -126, greatest: (2 - 2 ** -23) * 2 ** 127 } as const;

/** Smallest ranges of losses that count, in float32 ulps of the largest: below, `hold` keeps m. */
export const holdUlps = 4;

const batchNames: Record<ScoreBatch, true> = { same: true, heldOut: true, both: true };
const directionNames: Record<Direction, true> = { gradient: true, accumulated: true, optimizer: true };

/** What of a preset follows from the score: only 'exp' looks at losses that were normalised, and a gate has nothing to anchor. */
const followsScore = ({ score = 'exp' }: Partial<TrialOptions>, anchor: boolean) =>
  ({ normalize: score === 'exp' ? 'minMax' : 'none', anchor: anchor && score !== 'armijo' }) as const;

/**
 * Algorithm 1 as the slides give it: min-max, e^−x, weighted geometric mean; once an epoch, on the training batch, along its raw gradient;
 * no anchor, no hold, no envelope, no bounds. Start 0.005, factor5.
 * @source Kim & Yu, Automated learning rate scheduling with in-training information; where they leave a choice open: docs/ARCHITECTURE.md
 */
export function asPublished(factors: Factors | FactorGrid = 'factor5', overrides: Partial<TrialOptions> = {}): TrialOptions {
  return {
    lr: overrides.base ? 1 : 0.005, factors, every: { epochs: 1 }, ...followsScore(overrides, false), score: 'exp', tau: 1, kappa: null,
    c: null, hold: false, batch: 'same', scoreBatch: null, direction: 'gradient', envelope: 'none', base: null, bounds: null, search: null,
    control: null, ...given(overrides),
  };
}

/**
 * A rate found by trials, then a fixed decay. `armijo`: the largest factor of factor7 that lowers the batch's loss by a tenth of what its slope
 * promises, along all that momentum makes of the gradient. A search of 8 events, 32 steps apart or as `every` says in steps; after it four events
 * an epoch, which raise m no higher. Cosine envelope, m in [1e-8, 1]. Another score has an anchor, a grid over momentum or weight decay the score
 * 'exp' along the optimizer's own step. For a run of unknown length: `robust({ envelope: 'inverseSqrt' })`, or 'none'. With a base, of which m is
 * a multiple, there is no envelope, and m stays in [1e-3, 10]; a base that warms up is searched in its smallest rates: pass `search: null`.
 * Where it serves and where not: docs/study.md.
 */
export function robust(overrides: Partial<TrialOptions> = {}): TrialOptions {
  const { score, factors = 'factor7', every = { perEpoch: 4 } } = overrides;
  // A gate compares steps along one direction.
  const triesMore = typeof factors === 'object' && factors !== null && ('momentum' in factors || 'weightDecay' in factors);
  const chosen = { score: score ?? (triesMore ? 'exp' : 'armijo') } as const;
  return {
    lr: overrides.base ? 1 : 0.005, factors, every, ...followsScore(chosen, true), ...chosen, tau: 1, kappa: null, c: null,
    hold: true, batch: 'same', scoreBatch: null, direction: triesMore ? 'optimizer' : 'accumulated',
    envelope: overrides.base ? 'none' : 'cosine', base: null, bounds: overrides.base ? [1e-3, 10] : [1e-8, 1],
    control: null, search: { events: 8, every: stepCadence(every) ?? 32 }, ...given(overrides),
  };
}

/** Of a cadence in steps, how many; what is none is refused later. */
const stepCadence = (every: Cadence | null): number | undefined => (typeof every === 'object' && every && 'steps' in every ? every.steps : undefined);

/** By name, each a function of what is to differ from it. */
export const presets = {
  asPublished: (overrides: Partial<TrialOptions> = {}) => asPublished(overrides.factors, overrides),
  robust,
} as const;

export type PresetName = keyof typeof presets;

export const presetNames = Object.keys(presets) as PresetName[];

/** Checks every option and resolves the factors. @throws AttrError for the first that is wrong */
export function resolveTrialOptions(options: TrialOptions): ResolvedTrialOptions {
  const op = 'TrialScheduler';
  const known = Object.keys(asPublished());
  const unknown = Object.keys(options).find((name) => !known.includes(name));
  if (unknown !== undefined)
    throw new AttrError({ op, arg: unknown, rule: 'must be an option', got: unknown, fix: `options are ${known.join(', ')}` });
  checkLr(op, options.lr);
  checkFloat32(op, 'lr', options.lr, '0.005 is usual');
  checkCadence(op, options.every);
  checkScoring(op, options);
  checkFloat32(op, 'tau', options.tau, '1 is usual');
  if (options.kappa !== null) checkFloat32(op, 'kappa', options.kappa, '1 is usual');
  if (options.c !== null) checkFloat32(op, 'c', options.c, '0.1 is usual');
  checkName(op, 'batch', options.batch, batchNames);
  checkName(op, 'direction', options.direction, directionNames);
  checkName(op, 'envelope', options.envelope, envelopes);
  checkFlag('anchor', options.anchor);
  checkFlag('hold', options.hold);
  checkSearch(options);
  const { scoreBatch } = options;
  if (scoreBatch !== null && !(Number.isInteger(scoreBatch) && scoreBatch >= 1)) {
    throw new AttrError({ op, arg: 'scoreBatch', rule: 'must be an integer ≥ 1 or null', got: scoreBatch, fix: 'null: as training' });
  }
  const { base, envelope } = options;
  if (base !== null && !(base instanceof PureSchedule)) {
    const fix = 'pass one such as cosineAnnealingLr(…)';
    throw new AttrError({ op, arg: 'base', rule: 'must be a schedule in closed form or null', got: base as unknown, fix });
  }
  if (base && envelope !== 'none') {
    throw new AttrError({ op, arg: 'envelope', rule: "must be 'none' with a base", got: envelope, fix: 'the base is what decays' });
  }
  checkBounds(options);
  const every = { ...options.every };
  const bounds = options.bounds === null ? null : ([options.bounds[0], options.bounds[1]] as const);
  const search = options.search === null ? null : { events: options.search.events, every: options.search.every };
  const points = resolvePoints(options.factors);
  if ((points.momenta || points.weightDecays) && options.direction !== 'optimizer') {
    const fix = "a grid tries whole steps of the optimizer: pass direction 'optimizer'";
    throw new AttrError({ op, arg: 'direction', rule: "must be 'optimizer' with a grid", got: options.direction, fix });
  }
  const resolved = { ...options, every, bounds, search, ...points };
  checkScore(resolved);
  checkControl(resolved);
  return resolved;
}

const refuse = (arg: string, rule: string, got: unknown, fix: string): never => {
  throw new AttrError({ op: 'TrialScheduler', arg, rule, got, fix });
};

const isGrid = ({ momenta, weightDecays }: TrialPoints): boolean => momenta !== null || weightDecays !== null;

function checkScore(options: ResolvedTrialOptions): void {
  const { score, anchor, factors, scoreBatch, batch } = options;
  if (score === 'armijo' && anchor) {
    refuse('anchor', "must be false with score 'armijo'", anchor, 'it takes one factor as it is: nothing drifts');
  }
  if (score === 'armijo' && isGrid(options)) {
    const fix = 'it compares steps along one direction: pass factors of the rate alone';
    refuse('score', "must not be 'armijo' with a grid", `${factors.length} trials`, fix);
  }
  if (score === 'pairedNoise' && scoreBatch === 1 && batch !== 'both') {
    refuse('scoreBatch', "must be ≥ 2 with score 'pairedNoise'", scoreBatch, 'one sample has no standard error');
  }
}

function checkControl(options: ResolvedTrialOptions): void {
  const { control, score } = options;
  if (control === null) return;
  checkName('TrialScheduler', 'control', control, controlNames);
  if (control !== 'blindDrift') return;
  if (typeof score === 'function' || score === 'armijo') {
    const got = typeof score === 'function' ? 'a function' : score;
    refuse('control', "must not be 'blindDrift' with this score", got, 'what it makes of equal losses is no drift: shuffle them');
  }
  const fix = 'pass factors of the rate alone, or shuffle the losses';
  if (isGrid(options)) refuse('control', "must not be 'blindDrift' with a grid", control, fix);
}

/** m and τ live on the GPU. @throws AttrError where float32 would make them 0 or infinite */
export function checkFloat32(op: string, arg: string, value: number, fix: string): void {
  if (value >= FLOAT32.least && value <= FLOAT32.greatest) return;
  throw new AttrError({ op, arg, rule: `must lie in ${FLOAT32.least} … ${FLOAT32.greatest} (float32)`, got: value, fix });
}

function checkFlag(arg: string, value: boolean): void {
  if (typeof value === 'boolean') return;
  throw new AttrError({ op: 'TrialScheduler', arg, rule: 'must be true or false', got: value, fix: 'start from a preset' });
}

function checkSearch({ search }: TrialOptions): void {
  if (search === null) return;
  const { events, every, ...rest }: Partial<TrialSearch> = search ?? {};
  if ([events, every].every((n) => Number.isSafeInteger(n) && n! >= 1) && Object.keys(rest).length === 0) return;
  refuse('search', 'must be { events: n, every: steps }, integers ≥ 1, or null', JSON.stringify(search), 'pass { events: 8, every: 32 }');
}

function checkBounds({ bounds, lr }: TrialOptions): void {
  const op = 'TrialScheduler';
  if (bounds === null) return;
  const isPair = Array.isArray(bounds) && bounds.length === 2 && bounds.every(Number.isFinite);
  if (!isPair || !(bounds[0] > 0 && bounds[0] < bounds[1])) {
    const rule = 'must be [low, high] with 0 < low < high, or null';
    throw new AttrError({ op, arg: 'bounds', rule, got: bounds, fix: 'pass [1e-8, 1]' });
  }
  for (const bound of bounds) checkFloat32(op, 'bounds', bound, 'pass [1e-8, 1]');
  if (lr < bounds[0] || lr > bounds[1]) {
    throw new AttrError({ op, arg: 'lr', rule: `must lie within bounds [${bounds.join(', ')}]`, got: lr, fix: 'widen the bounds' });
  }
}
