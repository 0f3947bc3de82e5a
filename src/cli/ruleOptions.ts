/**
 * Rules that set the rate by each step's own numbers, on the command line: which there are, their parameters, and the rules that span them.
 */
import * as sched from '../sched/index.ts';
import type { AdaptiveSchedule, RuleName } from '../sched/index.ts';
import { choice, flag, flagOf, integer, UsageError } from './args.ts';
import type { OptionValues } from './args.ts';
import { asUsage, duration, real, scheduleParameters } from './scheduleOptions.ts';

/** Parameters of all rules, each its authors'; those that schedules have too stand for both. */
const parameterOptions = {
  c: real("sps, slsArmijo: share of the gradient's square, or of the slope, that counts"),
  gamma: real(`${scheduleParameters.gamma.help}; sps, slsArmijo: growth an epoch; dog: the larger, the more the last steps count`),
  initLr: real('sps, slsArmijo: where the bound, or the search, begins'),
  maxLr: real(`${scheduleParameters.maxLr.help}; sps, aliG, hypergradient, slsArmijo, cdat: the largest rate`),
  minLr: real(`${scheduleParameters.minLr.help}; hypergradient: likewise`),
  fStar: real('sps: least loss that a batch can have'),
  eps: real(`${scheduleParameters.eps.help}; sps, aliG, dog, cdat: beside what is divided by`),
  hypergradLr: real('hypergradient: the rate of the rate'),
  repsRel: real('dog: first distance, over 1 + the norm of the weights'),
  noAverage: flag('dog: evaluate at the weights, not at their average'),
  warmupSteps: duration(`${scheduleParameters.warmupSteps.help}; scheduleFree: likewise`),
  beta: real('slsArmijo: a trial over the one before; scheduleFree: in the place of momentum; cdat: of its averages'),
  r: real("scheduleFree: power of the step in the average's weights"),
  weightLrPower: real('scheduleFree: power of the rate in them'),
  statisticBatches: integer({ default: undefined, min: 0, help: 'scheduleFree: batches that an evaluation measures batch norms on' }),
  trials: integer({ default: undefined, min: 1, help: 'slsArmijo: trials a step' }),
  reset: choice(['grow', 'keep', 'init'], { default: undefined, help: 'slsArmijo: where the next search begins' }),
  fallbackLr: real('slsArmijo: rate where no trial is accepted'),
  measuringStep: real('pal: how far away the loss is measured'),
  maxStep: real('pal: the longest step'),
  updateFactor: real("pal: the step over the way to the parabola's minimum"),
  sigma: real("cdat: 1 takes the parabola's minimum, 2 the edge of stability"),
  span: real('cdat: share of the loss that the way to the trials stands for'),
};

type Parameter = keyof typeof parameterOptions;

interface Known {
  /** It begins at --lr. */
  readonly lr?: true;
  /** It makes trials. */
  readonly tries?: true;
  readonly own: readonly Parameter[];
  make(options: never): AdaptiveSchedule;
}

const known = {
  slsArmijo: { tries: true, own: ['initLr', 'c', 'beta', 'trials', 'reset', 'gamma', 'maxLr', 'fallbackLr'], make: sched.slsArmijo },
  pal: { tries: true, own: ['measuringStep', 'maxStep', 'updateFactor'], make: sched.pal },
  cdat: { tries: true, own: ['sigma', 'beta', 'eps', 'span', 'maxLr'], make: sched.cdat },
  hypergradient: { lr: true, own: ['hypergradLr', 'minLr', 'maxLr'], make: sched.hypergradient },
  sps: { own: ['c', 'gamma', 'initLr', 'maxLr', 'fStar', 'eps'], make: sched.sps },
  aliG: { own: ['maxLr', 'eps'], make: sched.aliG },
  dog: { own: ['repsRel', 'eps', 'gamma', 'noAverage'], make: sched.dog },
  scheduleFree: { lr: true, own: ['beta', 'warmupSteps', 'r', 'weightLrPower', 'statisticBatches'], make: sched.scheduleFree },
} as const satisfies Record<RuleName, Known>;

export const ruleNames = Object.keys(known) as RuleName[];
export const isRule = (name: string | undefined): name is RuleName => ruleNames.some((one) => one === name);

export const makesTrials = (name: string | undefined): boolean => isRule(name) && (known[name] as Known).tries === true;

/** What `forkstep train` makes schedules and rules of, after their name and --lr. */
export const trainParameters = { ...scheduleParameters, ...parameterOptions };

export type TrainParameter = keyof typeof trainParameters;
type ParameterValues = OptionValues<typeof parameterOptions> & { readonly lr: number };

/** The rule with the parameters that were given. @throws AttrError for those it refuses */
export function buildRule(name: RuleName, values: ParameterValues): AdaptiveSchedule {
  const { lr, own, make }: Known = known[name];
  const given = own.map((key) => [key, values[key]] as const).filter(([, value]) => value !== undefined && value !== false);
  const named = given.map(([key, value]) => (key === 'noAverage' ? (['average', false] as const) : ([key, value] as const)));
  return make({ ...Object.fromEntries(named), ...(lr && { lr: values.lr }) } as never);
}

interface Given {
  readonly values: ParameterValues & { readonly momentum: number; readonly scheduler: string | undefined };
  readonly given: ReadonlySet<string>;
}

/** A parameter of rules alone that is given, which a schedule would ignore. */
export const ruleParameterIn = (given: ReadonlySet<string>): string | undefined =>
  Object.keys(parameterOptions).find((key) => given.has(key) && !Object.hasOwn(scheduleParameters, key));

/** What a rule may not have. @throws UsageError */
export function checkRule(command: string, name: RuleName, { values, given }: Given): void {
  const refuse = (arg: string, rule: string, got: string, fix: string): never => {
    throw new UsageError({ op: command, arg, rule, got, fix });
  };
  const { lr, own }: Known = known[name];
  const { scheduler, momentum } = values;
  if (scheduler !== undefined) refuse('--scheduler', `must not be given with --schedule ${name}`, scheduler, 'a rule sets every rate itself');
  if (given.has('envelope')) refuse('--envelope', `must not be given with ${name}`, 'it', 'leave it out');
  if (given.has('lr') && !lr) refuse('--lr', `must not be given with ${name}`, 'it', 'leave it out: the rule finds the rate');
  const parameters = Object.keys(trainParameters);
  const idle = parameters.find((key) => given.has(key) && !own.some((one) => one === key));
  if (idle) refuse(flagOf(idle), `must be a parameter of ${name}`, 'it', `${name} has ${own.map(flagOf).join(', ')}`);
  const made = asUsage(command, () => buildRule(name, values), { ...trainParameters, lr: true });
  if (made.spec.isPlain && momentum > 0) refuse('--momentum', `must be 0 with ${name}`, String(momentum), 'leave it out');
}
