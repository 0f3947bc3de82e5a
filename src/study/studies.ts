/** The studies: each a pure list of rows, of which every seed is a run. Rows that two studies share are the same runs. */
import { AttrError } from '../gpu/errors.ts';
import { normalizers } from '../sched/index.ts';
import type { NormalizeName, ScoreName } from '../sched/index.ts';
import { methodNames, methods, type MethodName } from './methods.ts';
import { runId, type MethodOptions, type Recipe } from './recipe.ts';
import { scales, type Scale, type ScaleName } from './scales.ts';

export type StudyName = 'table' | 'factors' | 'scoring-batch' | 'initial-lr' | 'scores' | 'robustness';

/** One setting, run with several seeds. */
export interface Row {
  /** Its name in the study. */
  readonly key: string;
  readonly title: string;
  /** Rows of one group stand together; in pictures over the first rate a group is a line. */
  readonly group: string;
  readonly recipe: Omit<Recipe, 'seed'>;
  /** Test accuracy in the paper, %, of the row that this may be. */
  readonly paper?: number;
}

/** A row that is not run: the best of others. */
export interface BestRow {
  readonly key: string;
  readonly title: string;
  readonly group: string;
  /** Keys of the rows that it is chosen from. */
  readonly of: readonly string[];
}

export interface StudyRun {
  readonly id: string;
  readonly row: string;
  readonly recipe: Recipe;
}

export interface Study {
  readonly name: StudyName;
  readonly scale: ScaleName;
  readonly title: string;
  /** What it asks. */
  readonly question: string;
  readonly seeds: number;
  readonly rows: readonly Row[];
  readonly bests: readonly BestRow[];
  /** Rows × seeds, seed by seed, so that a study broken off has whole comparisons. */
  readonly runs: readonly StudyRun[];
}

/** Test accuracies of the paper: ResNet18, CIFAR-10, 100 epochs, batch 32, from 0.005. It tells neither seeds nor which factors are "ours". */
const paperColumn: Partial<Record<MethodName, number>> = {
  constant: 83.5, torchConstantLr: 83.5, linearDefault: 85.2, linearDecay: 85.2, cosine: 85.0, step: 84.4,
  published3: 87.0, published5: 87.0, published7: 87.0,
};

const tuneable: readonly MethodName[] = ['constant', 'cosine'];

type Rows = Pick<Study, 'rows' | 'bests'>;

interface Plan {
  readonly title: string;
  readonly question: string;
  rows(scale: Scale): Rows;
}

type Change = Partial<Omit<Recipe, 'seed' | 'method'>>;

function rowOf(base: Scale['base'], method: MethodName, change: Change, named: Omit<Row, 'recipe'>): Row {
  const { epochShare = 1 } = methods[method];
  return { ...named, recipe: { ...base, epochs: Math.max(1, Math.round(base.epochs * epochShare)), options: {}, ...change, method } };
}

/** Every method from the paper's first rate; constant and cosine from a grid of others, of which the best are rows too. */
function tableRows({ base, stems, rates }: Scale): Rows {
  const rows: Row[] = [];
  const bests: BestRow[] = [];
  for (const stem of stems) {
    const group = stems.length > 1 ? `${stem} stem` : '';
    const at = (name: string) => (stems.length > 1 ? `${stem}/${name}` : name);
    for (const method of methodNames) {
      // Other images are not what the paper's figures are of.
      const paper = base.dataset === 'cifar10' ? paperColumn[method] : undefined;
      rows.push(rowOf(base, method, { stem }, { key: at(method), title: methods[method].title, group, paper }));
    }
    for (const method of tuneable) {
      const others = rates.tuned.filter((lr) => lr !== base.lr);
      const keys = others.map((lr) => at(`${method}@${lr}`));
      others.forEach((lr, i) => rows.push(rowOf(base, method, { stem, lr }, { key: keys[i], title: `${methods[method].title} from ${lr}`, group })));
      bests.push({ key: at(`tuned ${method}`), title: `${methods[method].title}, tuned`, group, of: [at(method), ...keys] });
    }
  }
  return { rows, bests };
}

/** Methods from every first rate, those that take none once. */
const overRates = (base: Scale['base'], names: readonly MethodName[], rates: readonly number[]): Row[] =>
  names.flatMap((method) => (methods[method].takesRate ? rates : [base.lr]).map((lr) =>
    rowOf(base, method, { lr }, { key: `${method}@${lr}`, title: `${methods[method].title} from ${lr}`, group: methods[method].title })));

interface Variant {
  readonly score: ScoreName;
  readonly normalize: NormalizeName;
}

/** Scores that look at losses through a normalisation take each; the others none. */
const variants: readonly Variant[] = [
  ...(Object.keys(normalizers) as NormalizeName[]).map((normalize) => ({ score: 'exp', normalize }) as const),
  { score: 'relGain', normalize: 'none' },
  { score: 'rank', normalize: 'none' },
  { score: 'pairedNoise', normalize: 'none' },
  { score: 'armijo', normalize: 'none' },
];

function scoreRows({ base }: Scale): Rows {
  // The gate takes one factor as it is: it has nothing to anchor.
  const rows = variants.flatMap((variant) => (variant.score === 'armijo' ? [false] : [false, true]).map((anchor) => {
    const options: MethodOptions = { ...variant, anchor };
    const normalized = variant.normalize === 'none' ? '' : `, ${variant.normalize}`;
    const name = `${variant.score}${normalized}${anchor ? ', anchored' : ''}`;
    return rowOf(base, 'published5', { options: withoutDefaults(options) }, { key: name, title: name, group: variant.score });
  }));
  return { rows: [...rows, rowOf(base, 'constant', {}, { key: 'constant', title: 'constant', group: 'no trials' })], bests: [] };
}

/** What the preset says anyway is left out, so that the run is the same as the preset's own. */
function withoutDefaults(options: MethodOptions): MethodOptions {
  const defaults: MethodOptions = { score: 'exp', normalize: 'minMax', anchor: false };
  return Object.fromEntries(Object.entries(options).filter(([name, value]) => defaults[name as keyof MethodOptions] !== value));
}

const plans: Record<StudyName, Plan> = {
  table: {
    title: 'Every method from one first rate',
    question: "The paper's table with the controls that it lacks: does the published rule do better than one that looks at no loss, and than a tuned rate?",
    rows: tableRows,
  },
  factors: {
    title: 'How many factors',
    question: 'Do 3, 5 or 7 factors serve best, on CIFAR-100 as in the paper?',
    rows: ({ base, factors }) => ({
      rows: (['published3', 'published5', 'published7', 'constant'] as const).map((method) =>
        rowOf({ ...base, ...factors }, method, {}, { key: method, title: methods[method].title, group: '' })),
      bests: [],
    }),
  },
  'scoring-batch': {
    title: 'How many images score a trial',
    question: 'The paper finds 32 images best. Is it the images, or the rate that they lead to?',
    rows: ({ base, scoreBatches }) => ({
      rows: [
        ...scoreBatches.map((scoreBatch) => rowOf(base, 'published5', scoreBatch === base.batch ? {} : { options: { scoreBatch } }, {
          key: `${scoreBatch}`, title: `published, 5 factors, ${scoreBatch} images`, group: '' })),
        rowOf(base, 'constant', {}, { key: 'constant', title: 'constant', group: '' }),
      ],
      bests: [],
    }),
  },
  'initial-lr': {
    title: 'The first rate',
    question: 'How far off may the first rate be? The paper saw 7 factors diverge from 1.',
    rows: ({ base, rates }) =>
      ({ rows: overRates(base, ['constant', 'cosine', 'published3', 'published5', 'published7', 'minMax', 'robust'], rates.initial), bests: [] }),
  },
  scores: {
    title: 'Scores, normalisations, anchor',
    question: 'How should losses become weights? The paper names its score as a limit. With 5 factors the anchor takes a drift away.',
    rows: scoreRows,
  },
  robustness: {
    title: 'Final accuracy against the first rate',
    question: 'Which method may be trusted without a tuned rate: within a point of the best tuned schedule from every first rate?',
    rows: ({ base, rates }) => ({ rows: overRates(base, methodNames, rates.robustness), bests: [] }),
  },
};

export const studyNames = Object.keys(plans) as StudyName[];

/** @throws AttrError unless seeds is an integer ≥ 1 */
export function makeStudy(name: StudyName, scale: ScaleName, seeds: number): Study {
  if (!(Number.isInteger(seeds) && seeds >= 1)) {
    throw new AttrError({ op: 'makeStudy', arg: 'seeds', rule: 'must be an integer ≥ 1', got: seeds, fix: 'pass 3' });
  }
  const { title, question, rows: make } = plans[name];
  const { rows, bests } = make(scales[scale]);
  const runs = Array.from({ length: seeds }, (_, seed) => rows.map((row): StudyRun => {
    const recipe = { ...row.recipe, seed };
    return { id: runId(recipe), row: row.key, recipe };
  })).flat();
  return { name, scale, title, question, seeds, rows, bests, runs };
}
