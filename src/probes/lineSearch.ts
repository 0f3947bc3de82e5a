/** Line searches without a loop: all candidates are tried in one fused evaluation. */
import { AttrError } from '../gpu/errors.ts';
import { checkDescent, checkSteps } from './grids.ts';
import type { Line } from './line.ts';

export interface LineSearchOptions {
  /** Candidates for the step, > 0, in any order. */
  readonly steps: readonly number[];
  /** c, the share of the slope that counts. Armijo: 0 < c < 1, @default 0.1; Goldstein: 0 < c < ½, @default 0.1 */
  readonly c?: number;
}

/** One step that was tried. */
export interface Candidate {
  readonly step: number;
  readonly loss: number;
  readonly isAccepted: boolean;
}

export interface LineSearchResult {
  /** The largest accepted step; null where none is, also when every loss is NaN or infinite. Then stay, or search among smaller ones. */
  readonly step: number | null;
  /** The loss at that step, at 0 for null. */
  readonly loss: number;
  /** φ(0), of the same evaluation as the candidates. */
  readonly baseLoss: number;
  readonly slope: number;
  /** In the order of `steps`. */
  readonly candidates: readonly Candidate[];
}

async function search(
  op: string,
  line: Line,
  { steps, c = 0.1 }: LineSearchOptions,
  most: number,
  accepts: (rise: number, expected: number, c: number) => boolean,
): Promise<LineSearchResult> {
  checkSteps(op, 'steps', steps, 1);
  if (!(c > 0 && c < most)) throw new AttrError({ op, arg: 'c', rule: `must be in (0, ${most})`, got: c, fix: '0.1 is usual' });
  checkDescent(op, line.slope);
  const [baseLoss, ...losses] = Array.from(await line.losses([0, ...steps]));
  const candidates = steps.map((step, i): Candidate => {
    const loss = losses[i];
    const isAccepted = Number.isFinite(loss) && accepts(loss - baseLoss, step * line.slope, c);
    return { step, loss, isAccepted };
  });
  const accepted = candidates.filter(({ isAccepted }) => isAccepted).sort((a, b) => b.step - a.step);
  return { step: accepted[0]?.step ?? null, loss: accepted[0]?.loss ?? baseLoss, baseLoss, slope: line.slope, candidates };
}

/**
 * The largest step with sufficient decrease.   φ(η) ≤ φ(0) + c·η·φ'(0)
 *
 * Backtracking from the largest candidate down ends at the same step, after one forward pass a trial; here there is one for all.
 * On a quadratic with its minimum at η*, steps up to 2(1 − c)·η* are accepted.
 * @throws AttrError for steps or c out of range, and where the line does not descend
 * @source Armijo, *Minimization of functions having Lipschitz continuous first partial derivatives*, Pacific J. Math. 16, 1966;
 *   for minibatches Vaswani et al., *Painless Stochastic Gradient*, NeurIPS 2019, eq. 1. Differences: no reset rule between steps
 */
export const armijo = (line: Line, options: LineSearchOptions): Promise<LineSearchResult> =>
  search('armijo', line, options, 1, (rise, expected, c) => rise <= c * expected);

/**
 * The largest step with sufficient decrease that is not too short either.   φ(0) + (1 − c)·η·φ'(0) ≤ φ(η) ≤ φ(0) + c·η·φ'(0)
 *
 * On a quadratic with its minimum at η*, steps in 2c·η* … 2(1 − c)·η* are accepted.
 * @throws AttrError for steps or c out of range, and where the line does not descend
 * @source Goldstein, *On steepest descent*, J. SIAM Control 3, 1965; Nocedal & Wright, *Numerical Optimization*, 2006, eq. 3.11
 */
export const goldstein = (line: Line, options: LineSearchOptions): Promise<LineSearchResult> =>
  search('goldstein', line, options, 0.5, (rise, expected, c) => (1 - c) * expected <= rise && rise <= c * expected);
