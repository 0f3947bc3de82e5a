export { isBalanced, factorSets, meanLogFactor, resolveFactors, resolvePoints } from './factors.ts';
export type { FactorGrid, Factors, FactorSetName, TrialPoints } from './factors.ts';
export { normalizers, scoreDefaults, scores, trialWeights } from './scores.ts';
export type { NamedScoreContext, NormalizeName, OwnScore, OwnScoreContext, ScoreContext, ScoreName, Scoring } from './scores.ts';
export { pairedDifferences } from './evidence.ts';
export type { Gate, Pairs, TrialEvidence } from './evidence.ts';
export { controlNames, shuffledTrials } from './controls.ts';
export type { ControlName } from './controls.ts';
export { meanOfPoints, trialUpdate } from './update.ts';
export type { TrialUpdate, TrialUpdateInput } from './update.ts';
export { envelopeAt, envelopes } from './envelopes.ts';
export type { EnvelopeName } from './envelopes.ts';
export { isDueAt } from './cadence.ts';
export type { Cadence } from './cadence.ts';
export { ConstantSchedule } from './schedule.ts';
export type { Schedule, ScheduleState } from './schedule.ts';
export { epochs, percent, steps } from './durations.ts';
export type { Duration, RunLength } from './durations.ts';
export {
  constantLr, cosineAnnealingLr, cosineAnnealingWarmRestarts, exponentialLr, lambdaLr, linearLr, multiStepLr, polynomialLr, stepLr,
} from './decays.ts';
export type {
  ConstantLrOptions, CosineAnnealingLrOptions, CosineAnnealingWarmRestartsOptions, LambdaLrOptions, LinearLrOptions, MultiStepLrOptions,
  PolynomialLrOptions, StepLrOptions,
} from './decays.ts';
export { cyclicLr, inverseSqrt, oneCycleLr, warmupStableDecay } from './cycles.ts';
export type { CyclicLrOptions, InverseSqrtOptions, OneCycleLrOptions, WarmupStableDecayOptions } from './cycles.ts';
export { chained, perEpoch, sequential, warmup } from './compose.ts';
export type { WarmupOptions } from './compose.ts';
export { ReduceLROnPlateau, reduceLROnPlateau } from './plateau.ts';
export type { ReduceLROnPlateauOptions } from './plateau.ts';
export { PureSchedule } from './pure.ts';
export type { PureSpec } from './pure.ts';
export { asPublished, FLOAT32, holdUlps, presetNames, presets, robust } from './trialOptions.ts';
export type { Direction, PresetName, ResolvedTrialOptions, ScoreBatch, TrialOptions, TrialSearch } from './trialOptions.ts';
export { eventFromJson, eventToJson, TrialScheduler } from './trialScheduler.ts';
export type { JsonNumber, OptimizerPoint, TrialEvent, TrialEventJson, TriedOptimizer } from './trialScheduler.ts';
export * from './rules/index.ts';
export { alrEventToJson, AlrTree } from './alrTree.ts';
export type { AlrBranch, AlrCandidate, AlrEvent, AlrEventJson, AlrOptions, AlrState } from './alrTree.ts';
