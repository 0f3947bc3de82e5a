/** The arithmetic of ALR: which branches there are, which are kept, ties, divergence, state. */
import { describe, expect, test } from 'vitest';
import { AttrError } from '../../src/gpu/errors.ts';
import { alrEventToJson, AlrTree, type AlrOptions } from '../../src/sched/alrTree.ts';

const tree = (more: Partial<AlrOptions> = {}) => new AlrTree({ lr: 0.1, ...more });
const ratesOf = (one: AlrTree) => one.branches().map(({ lr }) => lr);

describe('branches', () => {
  test('are every beam at every factor, beam by beam', () => {
    const one = tree({ lr: [0.1, 0.03], factors: [2, 1] });
    expect(one.branches()).toEqual([
      { beam: 0, factor: 2, lr: 0.2 }, { beam: 0, factor: 1, lr: 0.1 }, { beam: 1, factor: 2, lr: 0.06 }, { beam: 1, factor: 1, lr: 0.03 },
    ]);
    expect(one.branchesPerEpoch).toBe(4);
  });

  test('of one rate are one while the beams have the same weights, and only then', () => {
    const one = tree({ lr: [0.1, 0.05], beam: 2, factors: [2, 1] });
    expect(ratesOf(one)).toEqual([0.2, 0.1, 0.05]);
    // The beams are now 0.2 and 0.1, of different weights.
    one.next([1, 2, 3]);
    expect(ratesOf(one)).toEqual([0.4, 0.2, 0.2, 0.1]);
  });

  test('grow from one beam to as many as there may be', () => {
    const one = tree({ beam: 3, factors: [2, 1] });
    expect(one.branches()).toHaveLength(2);
    one.next([1, 2]);
    expect(one.branches()).toHaveLength(4);
    one.next([1, 2, 3, 4]);
    expect(one.branches()).toHaveLength(6);
    expect(one.rates).toHaveLength(3);
  });
});

describe('an epoch ends', () => {
  test('with the branches of the least loss, in that order', () => {
    const one = tree({ lr: [0.1, 0.03], beam: 2, factors: [2, 1] });
    const event = one.next([4, 2, 3, 1]);
    expect(event).toMatchObject({ epoch: 0, kept: [3, 1], rates: [0.03, 0.1], allNonFinite: false });
    expect(event.candidates.map(({ loss }) => loss)).toEqual([4, 2, 3, 1]);
    expect(one.rates).toEqual([0.03, 0.1]);
    expect(one.state().epoch).toBe(1);
  });

  test.each<[string, AlrOptions, number[], number[]]>([
    ['equal losses leave the rate alone', { lr: 0.1, factors: [2, 1, 0.5] }, [7, 7, 7], [0.1]],
    ['the factor nearest 1 in ratio wins a tie', { lr: 0.1, factors: [4, 0.3, 2] }, [7, 7, 7], [0.2]],
    ['of factors as far the smaller rate', { lr: 0.1, factors: [4, 0.25] }, [7, 7], [0.025]],
    ['of reciprocals that are no powers of 2 too', { lr: 0.1, factors: [3, 1 / 3] }, [7, 7], [0.1 / 3]],
    ['a lesser loss comes before all that', { lr: 0.1, factors: [4, 1] }, [6.999999, 7], [0.4]],
    ['of beams alike the smaller rate', { lr: [0.1, 0.05], factors: [1] }, [7, 7], [0.05, 0.1]],
  ])('%s', (_, options, losses, rates) => {
    expect(new AlrTree(options).next(losses).rates).toEqual(rates);
  });

  test.each([NaN, Infinity, -Infinity])('a loss of %d is never kept', (bad) => {
    const one = tree({ beam: 3 });
    const event = one.next([bad, 5, bad]);
    expect(event).toMatchObject({ kept: [1], rates: [0.1], allNonFinite: false });
    expect(event.candidates.map(({ loss }) => loss)).toEqual([Infinity, 5, Infinity]);
    expect(alrEventToJson(event).candidates.map(({ loss }) => loss)).toEqual([null, 5, null]);
    expect(JSON.parse(JSON.stringify(alrEventToJson(event)))).toEqual(alrEventToJson(event));
  });

  test('where none is finite, every beam stays and its rate is multiplied by the least factor', () => {
    const one = tree({ lr: [0.1, 0.04], factors: [2, 0.25, 1] });
    const branches = one.branches().length;
    expect(one.next(new Array<number>(branches).fill(NaN))).toMatchObject({ kept: [], rates: [0.025, 0.01], allNonFinite: true });
    expect(one.isRoot).toBe(true);
    expect(one.state().epoch).toBe(1);
    one.next(one.branches().map((_, i) => i));
    expect(one.isRoot).toBe(false);
  });
});

test('state() and load() go on in a fresh tree at every epoch', () => {
  const losses = (epoch: number, n: number) => Array.from({ length: n }, (_, i) => ((i * 7 + epoch * 3) % 5) + (i === epoch ? NaN : 0));
  const make = () => tree({ lr: [0.1, 0.05, 0.025], beam: 3 });
  for (let at = 0; at < 4; at++) {
    const [whole, before, after] = [make(), make(), make()];
    const run = (one: AlrTree, from: number, to: number) =>
      Array.from({ length: to - from }, (_, i) => one.next(losses(from + i, one.branches().length)));
    const events = run(whole, 0, 5);
    run(before, 0, at);
    after.load(JSON.parse(JSON.stringify(before.state())) as ReturnType<AlrTree['state']>);
    expect(run(after, at, 5)).toEqual(events.slice(at));
  }
});

test.each<[string, () => unknown, string]>([
  ['a rate of 0', () => tree({ lr: 0 }), 'lr'],
  ['no rate', () => tree({ lr: [] }), 'lr'],
  ['more rates than beams', () => tree({ lr: [1, 2], beam: 1 }), 'lr'],
  ['half a beam', () => tree({ beam: 1.5 }), 'beam'],
  ['a factor of 0', () => tree({ factors: [1, 0] }), 'factors[1]'],
  ['a loss too few', () => tree().next([1, 2]), 'losses'],
  ['the state of another schedule', () => tree().load({ kind: 'constant', lr: 1 }), 'state.kind'],
  ['the state of more beams', () => tree().load(tree({ lr: [1, 2] }).state()), 'state.beam'],
  ['the state of other factors', () => tree().load(tree({ factors: [3, 1] }).state()), 'state.factors'],
  ['a state before the beginning', () => tree().load({ ...tree().state(), epoch: -1 } as never), 'state'],
  ['an unknown option', () => tree({ beams: 2 } as never), 'beams'],
])('refuses %s', (_, make, arg) => {
  expect(make).toThrow(AttrError);
  expect(make).toThrow(expect.objectContaining({ arg }));
});
