/** What the bench of peers found: its rows, the tables it prints of them, and the goals it holds them against. */
import type { Row } from '../support/report.ts';
import { convShapes } from '../support/convShapes.ts';
import { batchNorms, convCase, methods, opName, wholeStep, wideStep, type Method } from './cases.ts';

/** Medians over samples, each the mean of `repeats` runs; counts are of one run. */
export interface PeerRow {
  readonly case: string;
  readonly method: Method;
  readonly wallMs: number;
  readonly wallMsIqr: number;
  /** User and system time of the whole process. */
  readonly cpuMs: number;
  readonly cpuMsIqr: number;
  readonly dispatches: number;
  readonly submits: number;
  /** Of live GPUBuffers during a run. */
  readonly peakBytes: number;
  /** From opening the library to its first run done, by the shader cache as it was. */
  readonly firstStepMs: number | null;
  /** Made in all. */
  readonly pipelines: number;
  /** max |theirs − ours| / max |ours|, over all results. */
  readonly maxRelativeError: number | null;
  readonly samples: number;
  readonly repeats: number;
}

const short = (value: number): string => (Math.abs(value) >= 100 ? String(Math.round(value)) : String(Number(value.toPrecision(3))));

function find(rows: readonly PeerRow[], name: string): Record<Method, PeerRow> | null {
  const found = methods.map((method) => [method, rows.find((row) => row.case === name && row.method === method)] as const);
  return found.every(([, row]) => row) ? (Object.fromEntries(found) as Record<Method, PeerRow>) : null;
}

const namesOf = (rows: readonly PeerRow[]): string[] => [...new Set(rows.map((row) => row.case))];

/** CPU time of ours in that of the faster peer. */
function timesFaster(rows: readonly PeerRow[], name: string): number | null {
  const found = find(rows, name);
  return found && found.forkstep.cpuMs / Math.min(found['jax-js'].cpuMs, found.tfjs.cpuMs);
}

/** One line a case, one column a library. */
function table(rows: readonly PeerRow[], cell: (row: PeerRow) => string, more: (name: string) => Row): Row[] {
  return namesOf(rows).map((name) => {
    const found = find(rows, name)!;
    return { case: name, ...Object.fromEntries(methods.map((method) => [method, cell(found[method])])), ...more(name) };
  });
}

export const timesTable = (rows: readonly PeerRow[]): Row[] =>
  table(
    rows,
    ({ wallMs, cpuMs, cpuMsIqr }) => `${short(wallMs)} / ${short(cpuMs)} ±${short(cpuMsIqr)}`,
    (name) => ({ 'CPU ÷ faster': timesFaster(rows, name) }),
  );

export const countsTable = (rows: readonly PeerRow[]): Row[] =>
  table(
    rows,
    ({ dispatches, submits, peakBytes, firstStepMs }) =>
      [dispatches, submits, short(peakBytes / 1e6), firstStepMs === null ? '–' : short(firstStepMs / 1000)].join(' / '),
    (name) => ({ 'error of jax-js': find(rows, name)!['jax-js'].maxRelativeError, 'of tfjs': find(rows, name)!.tfjs.maxRelativeError }),
  );

export interface Goal {
  readonly what: string;
  /** Ours must not be more than this. */
  readonly most: number;
  readonly values: Readonly<Record<Method, number | null>>;
  readonly isReached: boolean;
}

const goal = (what: string, most: number, values: Readonly<Record<Method, number | null>>): Goal => ({
  what, most, values, isReached: values.forkstep !== null && values.forkstep <= most,
});

const each = <T>(value: (method: Method) => T): Record<Method, T> =>
  Object.fromEntries(methods.map((method) => [method, value(method)])) as Record<Method, T>;

/** The most that a figure of a row may be. */
type Figure = readonly [what: string, most: number, value: (row: PeerRow) => number];

/** Goals for one case, of figures in its rows. */
function ofCase(rows: readonly PeerRow[], name: string, figures: readonly Figure[]): Goal[] {
  const found = find(rows, name);
  return found ? figures.map(([what, most, value]) => goal(`${name}: ${what}`, most, each((method) => value(found[method])))) : [];
}

/** Forward with gradients in the time of the forward pass alone. */
function againstForward(rows: readonly PeerRow[], of: string, most: number): Goal[] {
  const [forward, all] = [find(rows, opName(of, false)), find(rows, opName(of, true))];
  return forward && all ? [goal(`${of}: CPU of f+b ÷ f`, most, each((method) => all[method].cpuMs / forward[method].cpuMs))] : [];
}

/** The worst of all convolutions. */
function againstFaster(rows: readonly PeerRow[], isBackward: boolean, most: number): Goal[] {
  const names = convShapes.map((shape) => opName(convCase(shape), isBackward));
  const ratios = names.flatMap((name) => {
    const ratio = timesFaster(rows, name);
    return ratio === null ? [] : [{ name, ratio }];
  });
  if (ratios.length === 0) return [];
  const worst = ratios.reduce((a, b) => (b.ratio > a.ratio ? b : a));
  const within = ratios.filter(({ ratio }) => ratio <= most).length;
  const what = `${opName('conv', isBackward)}: CPU ÷ faster peer, worst of ${ratios.length} (${worst.name}); ${within} within`;
  return [goal(what, most, { forkstep: worst.ratio, 'jax-js': null, tfjs: null })];
}

/**
 * What ours is to reach, as far as the rows have it. Times are for lavapipe on two cores: elsewhere they would say nothing.
 * @param isSoftware whether the adapter computes in the process, so that CPU time is the cost
 */
export function goals(rows: readonly PeerRow[], isSoftware: boolean): Goal[] {
  const megabytes = ({ peakBytes }: PeerRow): number => peakBytes / 1e6;
  const counts = [
    ...ofCase(rows, wholeStep.name, [
      ['dispatches', 170, ({ dispatches }) => dispatches],
      ['submits', 1, ({ submits }) => submits],
      ['GPU buffers, MB', 70, megabytes],
    ]),
    ...ofCase(rows, wideStep.name, [['GPU buffers, MB', 240, megabytes]]),
    ...batchNorms
      .filter(({ isBackward }) => isBackward)
      .flatMap(({ name }) => ofCase(rows, name, [['dispatches', 4, ({ dispatches }) => dispatches]])),
  ];
  if (!isSoftware) return counts;
  return [
    ...ofCase(rows, wholeStep.name, [
      ['CPU ms', 900, ({ cpuMs }) => cpuMs],
      ['wall ms', 500, ({ wallMs }) => wallMs],
    ]),
    ...counts,
    ...convShapes
      .filter(({ kernel, stride }) => kernel === 3 && stride === 2)
      .flatMap((shape) => againstForward(rows, convCase(shape), 3.2)),
    ...[false, true].flatMap((isBackward) => againstFaster(rows, isBackward, 0.7)),
  ];
}

export const goalsTable = (all: readonly Goal[]): Row[] =>
  all.map(({ what, most, values, isReached }) => ({
    'to reach': what, 'jax-js': values['jax-js'], tfjs: values.tfjs, forkstep: values.forkstep, 'at most': most,
    verdict: isReached ? 'reached' : 'missed',
  }));
