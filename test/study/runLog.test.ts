/** The log of a run: thinned as it grows, and the same after a break. */
import { describe, expect, it } from 'vitest';
import { RunLog, type RunNotes } from '../../src/study/runLog.ts';

const event = (step: number) => ({
  step, lrBefore: 1, lrAfter: 1, multiplier: 1, factors: [1], losses: [step % 7 === 0 ? NaN : 1], weights: [1], baseLoss: null, clamped: false, nonFinite: 0,
  held: false, allNonFinite: false, path: 'gpu' as const,
});

/** Logs steps first … last − 1 of 100 an epoch. */
function logSteps(log: RunLog, first: number, last: number): void {
  for (let step = first; step < last; step++) {
    if (step % 2 === 0) log.addEvent(event(step));
    log.addSteps([{ step, loss: step, lr: 1 + Math.sin(step) / 2 }]);
    if (step % 100 === 99) log.addEvaluation({ step: step + 1, testLoss: 0.5, testAccuracy: 0.25 });
  }
}

const bare = (log: RunLog) => ({ ...log.end(), trainMs: 0, evaluationMs: 0 });

describe('the log of a run', () => {
  it('keeps few of many, the first and the last among them, and counts all', () => {
    const log = new RunLog(100);
    logSteps(log, 0, 5000);
    const { lr, events, eventCount, epochs } = log.end();
    expect([lr.length, lr[0], lr.at(-1)![0]]).toEqual([158, [0, 1], 4999]);
    expect([events.length, events[0].step, events.at(-1)!.step, eventCount]).toEqual([80, 0, 4998, 2500]);
    expect(epochs).toHaveLength(50);
    expect(epochs[1]).toEqual({ epoch: 2, step: 200, trainLoss: 149.5, testLoss: 0.5, testAccuracy: 0.25 });
  });

  it('keeps them evenly spaced over the whole, however often it was thinned', () => {
    const [log, last] = [new RunLog(1562), 156_200];
    for (let step = 0; step < last; step++) {
      log.addSteps([{ step, loss: 1, lr: 1 + step }]);
      log.addEvent(event(step));
    }
    const { lr, events } = log.end();
    const largest = (steps: number[]) => Math.max(...steps.map((step, i) => step - (steps[i - 1] ?? 0)));
    expect(largest(lr.map(([step]) => step))).toBeLessThanOrEqual((2.1 * last) / 200);
    expect(largest(events.map(({ step }) => step))).toBeLessThanOrEqual((2.1 * last) / 100);
    expect([lr.length >= 100, events.length >= 50]).toEqual([true, true]);
  });

  it('goes on from its notes as if it had not been broken off, wherever that was', () => {
    const whole = new RunLog(100);
    logSteps(whole, 0, 1234);
    for (const at of [1, 99, 100, 399, 400, 777]) {
      const first = new RunLog(100);
      logSteps(first, 0, at);
      const second = RunLog.from(JSON.parse(JSON.stringify(first.notes())) as RunNotes, 100);
      logSteps(second, at, 1234);
      expect(bare(second), `broken off at ${at}`).toEqual(bare(whole));
    }
  });

  it('has null for a mean of losses that is not finite, as JSON has', () => {
    const log = new RunLog(2);
    log.addSteps([{ step: 0, loss: 1, lr: 1 }, { step: 1, loss: Infinity, lr: 1 }]);
    log.addEvaluation({ step: 2, testLoss: 1, testAccuracy: 0.1 });
    expect(log.end().epochs).toEqual([{ epoch: 1, step: 2, trainLoss: null, testLoss: 1, testAccuracy: 0.1 }]);
  });

  it('leaves an evaluation out that is not finite', () => {
    const log = new RunLog(1);
    log.addSteps([{ step: 0, loss: 1, lr: 1 }]);
    log.addEvaluation({ step: 1, testLoss: NaN, testAccuracy: 0.1 });
    expect(log.end().epochs).toEqual([]);
  });
});
