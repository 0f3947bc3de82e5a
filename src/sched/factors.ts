/** The factor sets of a trial: trial i is made at learning rate f_i · lr. */
import { AttrError } from '../gpu/errors.ts';

/** The sets of Kim & Yu's slides. factor5 is biased: mean ln f = −0.2 ln 2, so equal losses multiply lr by 0.8706 an event. */
export const factorSets = {
  factor3: [2, 1, 0.5],
  factor5: [4, 2, 1, 0.5, 0.125],
  factor7: [8, 4, 2, 1, 0.5, 0.25, 0.125],
} as const satisfies Record<string, readonly number[]>;

export type FactorSetName = keyof typeof factorSets;

/** A set by name, or the factors themselves. */
export type Factors = FactorSetName | readonly number[];

/**
 * The factors of a set by name, or of a list, as a fresh array in the order given.
 * @throws AttrError for an unknown name, an empty list, a factor that is not finite and > 0, and a factor given twice
 * (it would count twice).
 */
export function resolveFactors(factors: Factors): number[] {
  const op = 'resolveFactors';
  if (typeof factors === 'string') {
    if (!Object.hasOwn(factorSets, factors)) {
      throw new AttrError({
        op, arg: 'factors', rule: `must be one of ${Object.keys(factorSets).join(', ')} or a list`, got: factors,
        fix: 'pass a list such as [2, 1, 0.5] for factors of your own',
      });
    }
    return [...factorSets[factors]];
  }
  if (!Array.isArray(factors) || factors.length === 0) {
    throw new AttrError({ op, arg: 'factors', rule: 'must hold at least one factor', got: factors, fix: "pass 'factor3' or [2, 1, 0.5]" });
  }
  factors.forEach((f, i) => {
    if (!(Number.isFinite(f) && f > 0)) {
      throw new AttrError({
        op, arg: `factors[${i}]`, rule: 'must be finite and > 0', got: f, fix: 'factors multiply the learning rate; 1 keeps it',
      });
    }
    if (factors.indexOf(f) !== i) {
      throw new AttrError({ op, arg: `factors[${i}]`, rule: 'must appear once', got: f, fix: 'drop the second one' });
    }
  });
  return [...factors];
}

/**
 * Trials over the optimizer's numbers too: every factor of the learning rate with every momentum and every weight decay given. These are
 * values, not factors.
 */
export interface FactorGrid {
  readonly lr: Factors;
  /** In [0, 1), each once. @default the optimizer's own alone */
  readonly momentum?: readonly number[];
  /** > 0, each once. @default the optimizer's own alone */
  readonly weightDecay?: readonly number[];
}

/** One entry a trial; null where only the optimizer's own value is tried. */
export interface TrialPoints {
  factors: number[];
  momenta: number[] | null;
  weightDecays: number[] | null;
}

/** @throws AttrError as resolveFactors does, for values outside their range, and for names that no grid has */
export function resolvePoints(factors: Factors | FactorGrid): TrialPoints {
  if (typeof factors !== 'object' || factors === null || Array.isArray(factors)) {
    return { factors: resolveFactors(factors as Factors), momenta: null, weightDecays: null };
  }
  const { lr, momentum, weightDecay, ...rest } = factors as FactorGrid;
  const [unknown] = Object.keys(rest);
  if (unknown !== undefined) {
    throw new AttrError({
      op: 'resolvePoints', arg: `factors.${unknown}`, rule: 'must be lr, momentum or weightDecay', got: unknown, fix: 'leave it out',
    });
  }
  checkValues('momentum', momentum, 'in [0, 1)', (value) => value >= 0 && value < 1);
  checkValues('weightDecay', weightDecay, 'finite and > 0', (value) => value > 0 && Number.isFinite(value));
  const points = resolveFactors(lr).flatMap((f) =>
    (momentum ?? [null]).flatMap((mu) => (weightDecay ?? [null]).map((lambda) => ({ f, mu, lambda }))));
  return {
    factors: points.map(({ f }) => f),
    momenta: momentum ? points.map(({ mu }) => mu!) : null,
    weightDecays: weightDecay ? points.map(({ lambda }) => lambda!) : null,
  };
}

function checkValues(name: string, values: readonly number[] | undefined, rule: string, isGood: (value: number) => boolean): void {
  if (values === undefined) return;
  const isList = Array.isArray(values) && values.length > 0;
  if (isList && values.every((value, i) => isGood(value) && values.indexOf(value) === i)) return;
  throw new AttrError({
    op: 'resolvePoints', arg: `factors.${name}`, rule: `must be a list of numbers ${rule}, each once`, got: JSON.stringify(values),
    fix: 'leave it out for the optimizer\'s own',
  });
}

/** Mean of ln f: the drift of ln lr per event that losses without information (equal, or pure noise) cause without an anchor. */
export function meanLogFactor(factors: readonly number[]): number {
  return factors.reduce((sum, f) => sum + Math.log(f), 0) / factors.length;
}

/** True where uninformative losses leave the learning rate alone: |mean ln f| < 1e-6. */
export function isBalanced(factors: readonly number[]): boolean {
  return Math.abs(meanLogFactor(factors)) < 1e-6;
}
