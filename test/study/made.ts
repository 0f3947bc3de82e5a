/** Results that nobody trained: what tests of tables and pages are made of. */
import { ConstantSchedule } from '../../src/sched/index.ts';
import { costOf, expectedCost, lengthOf } from '../../src/study/cost.ts';
import { methods } from '../../src/study/methods.ts';
import type { Recipe } from '../../src/study/recipe.ts';
import { resultFormat, type FinishedRun, type StudyResult } from '../../src/study/result.ts';
import type { Study } from '../../src/study/studies.ts';

/** A run that ended with this accuracy, in 0…1, or with null: one that diverged. */
export function madeRun(id: string, recipe: Recipe, testAccuracy: number | null): FinishedRun {
  const { lr, batch } = recipe;
  const steps = testAccuracy === null ? 7 : lengthOf(recipe).totalSteps;
  const events = methods[recipe.method].family === 'trial' ? 2 : 0;
  const cost = testAccuracy === null ? costOf(new ConstantSchedule({ lr }), batch, steps, 0) : expectedCost(recipe);
  const event = (step: number) => ({
    step, lrBefore: lr, lrAfter: 2 * lr, multiplier: 2, factors: [2, 1], losses: [1, 'NaN'] as [number, 'NaN'], weights: [1, 0],
    baseLoss: null, clamped: false, nonFinite: 1, held: false, allNonFinite: false, path: 'gpu' as const,
  });
  const ended = [1, 2].map((epoch) => ({ epoch, step: 50 * epoch, trainLoss: 1, testLoss: 1, testAccuracy: ((testAccuracy ?? 0) * epoch) / 2 }));
  return {
    format: resultFormat, id, recipe, version: '0.0.0', adapter: 'an adapter', status: testAccuracy === null ? 'diverged' : 'done',
    testAccuracy, testLoss: testAccuracy === null ? null : 1 - testAccuracy, steps,
    eventCount: events, events: Array.from({ length: events }, (_, i) => event(50 * i)), epochs: testAccuracy === null ? [] : ended,
    divergence: testAccuracy === null ? { step: 7, reason: 'the loss is not finite' } : null,
    lr: [[0, lr], [99, lr / 2]], cost, trainMs: 2000, evaluationMs: 100,
  };
}

/** A result of every run of a study, better from larger rates and by seed; from the largest rate `constant` diverges. */
export function madeResults(study: Study): Map<string, StudyResult> {
  return new Map(study.runs.map(({ id, recipe }) => {
    const hasDiverged = recipe.method === 'constant' && recipe.lr >= 0.5;
    return [id, madeRun(id, recipe, hasDiverged ? null : 0.5 + 0.05 * Math.log10(recipe.lr) + 0.01 * recipe.seed)];
  }));
}
