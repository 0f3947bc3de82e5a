/** A run's folder: what stands in it after a crash, a full disk, a foreign hand. */
import { appendFileSync, existsSync, mkdtempSync, readFileSync, rmSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeEach, describe, expect, test } from 'vitest';
import { DataError, FileError } from '../../src/gpu/errors.ts';
import type { TrialEvent } from '../../src/sched/index.ts';
import type { Checkpoint } from '../../src/train/checkpoint.ts';
import { writeWhole } from '../../src/train/files.node.ts';
import { findRun, parseRunLog, readCheckpoint, readResult, RunFolder, runFiles, writeCheckpoint } from '../../src/train/runFolder.node.ts';

const root = mkdtempSync(join(tmpdir(), 'forkstep-folder-'));
afterAll(() => rmSync(root, { recursive: true }));
let folder = root;
beforeEach(() => void (folder = mkdtempSync(join(root, 'run-'))));
const at = (name: keyof typeof runFiles): string => join(folder, runFiles[name]);

const checkpointAt = (step: number): Checkpoint => ({
  tensors: new Map([['model.w', { dtype: 'F32', shape: [2], data: Float32Array.of(step, -step) }]]),
  state: {
    step, epoch: 0, batch: step, updates: step, skipped: 0, totalSteps: 9, schedule: { kind: 'constant', lr: 0.1 }, lossScaler: null, adapter: 'a', recipe: {},
  },
});
const step = (at: number) => ({ step: at, loss: 1 / (at + 1), lr: 0.1 });
const event: TrialEvent = {
  step: 1, lrBefore: 0.1, lrAfter: 0.2, multiplier: 2, factors: [2, 1], losses: [NaN, 0.5], weights: [0, 1], baseLoss: Infinity,
  clamped: false, nonFinite: 1, held: false, allNonFinite: false, path: 'gpu',
};

/** Two steps, a checkpoint, a third step that it does not know of. */
function crashed(): RunFolder {
  const run = RunFolder.begin(folder);
  run.addSteps([step(0)]);
  run.addEvent(event);
  run.addSteps([step(1)]);
  run.addEvaluation({ step: 2, testLoss: NaN, testAccuracy: 0.5 });
  run.keep(checkpointAt(2), { of: ['mine'] });
  run.addSteps([step(2)]);
  return run;
}

describe('a run that goes on', () => {
  test('knows what the checkpoint knows, and cuts the rest of the log', () => {
    crashed();
    appendFileSync(at('events'), '{"type":"step","st');
    const before = readFileSync(at('events'));
    const found = findRun(folder)!;
    expect(readFileSync(at('events'))).toEqual(before);
    expect(found).toMatchObject({ checkpoint: checkpointAt(2), notes: { of: ['mine'] } });
    expect(found.log).toEqual({ steps: [step(0), step(1)], events: [event], evals: [{ step: 2, testLoss: NaN, testAccuracy: 0.5 }] });
    const run = RunFolder.resume(folder, found);
    run.addSteps([step(2), step(3)]);
    expect(parseRunLog(readFileSync(at('events'))).steps).toEqual([0, 1, 2, 3].map(step));
    run.keep(checkpointAt(4));
    expect(findRun(folder)!.log.steps).toEqual(run.steps);
  });

  test('has no result until it is over once more', () => {
    const run = crashed();
    run.finish({ loss: 1 });
    expect(readResult(folder)).toEqual({ loss: 1 });
    RunFolder.resume(folder, findRun(folder)!);
    expect(readResult(folder)).toBeNull();
  });

  test('is none where there is no checkpoint, or nothing at all', () => {
    RunFolder.begin(folder).addSteps([step(0)]);
    expect(findRun(folder)).toBeNull();
    expect(findRun(join(folder, 'not there'))).toBeNull();
  });

  test('is none once another has begun in its folder', () => {
    crashed().finish(1);
    RunFolder.begin(folder);
    expect([findRun(folder), readResult(folder), readFileSync(at('events'), 'utf8')]).toEqual([null, null, '']);
  });
});

test('a log gives each whole line, and not the torn last one', () => {
  const log = crashed();
  const bytes = readFileSync(at('events'));
  for (let end = 0; end <= bytes.length; end++) {
    const whole = bytes.subarray(0, end).toString().split('\n').length - 1;
    const { steps, events, evals } = parseRunLog(bytes.subarray(0, end));
    expect(steps.length + events.length + evals.length).toBe(whole);
  }
  expect(parseRunLog(bytes).events).toEqual(log.events);
});

describe('what is refused, in one line, with nothing changed', () => {
  const cases: Record<string, { spoil(): void; arg: RegExp; rule: RegExp }> = {
    'a checkpoint that is cut off': {
      spoil: () => truncateSync(at('checkpoint'), readFileSync(at('checkpoint')).length - 3), arg: /checkpoint\.safetensors$/, rule: /checksum/,
    },
    'an empty one': { spoil: () => truncateSync(at('checkpoint'), 0), arg: /checkpoint\.safetensors$/, rule: /must be a checkpoint of forkstep/ },
    'a foreign one': { spoil: () => writeFileSync(at('checkpoint'), 'PK\x03\x04 of torch.save'), arg: /checkpoint\.safetensors$/, rule: /must be a checkpoint of forkstep/ },
    'a damaged one': {
      spoil: () => {
        const bytes = readFileSync(at('checkpoint'));
        bytes[bytes.length - 1] ^= 8;
        writeFileSync(at('checkpoint'), bytes);
      },
      arg: /checkpoint\.safetensors$/, rule: /checksum/,
    },
    'one without a folder': { spoil: () => writeCheckpoint(at('checkpoint'), checkpointAt(2)), arg: /checkpoint\.safetensors$/, rule: /run that has a folder/ },
    'a folder in its place': {
      spoil: () => {
        rmSync(at('checkpoint'));
        symlinkSync('/', at('checkpoint'));
      },
      arg: /checkpoint\.safetensors$/, rule: /can be read/,
    },
    'a log that is gone': { spoil: () => rmSync(at('events')), arg: /events\.jsonl$/, rule: /of 2 steps that checkpoint/ },
    'a log that is too short': { spoil: () => truncateSync(at('events'), 20), arg: /events\.jsonl$/, rule: /must begin with the \d+ bytes/ },
    'a log of another run': {
      spoil: () => writeFileSync(at('events'), readFileSync(at('events'), 'utf8').replace('"loss":0.5', '"loss":0.7')), arg: /events\.jsonl$/, rule: /must begin with/,
    },
    'a log that is none': { spoil: () => writeFileSync(at('events'), 'x'.repeat(2000).replace(/.{9}$/, '\n')), arg: /events\.jsonl$/, rule: /must begin with/ },
  };
  test.each(Object.entries(cases))('%s', (_, { spoil, arg, rule }) => {
    crashed();
    spoil();
    const before = existsSync(at('events')) && readFileSync(at('events'));
    let error: unknown;
    try {
      findRun(folder);
    } catch (thrown) {
      error = thrown;
    }
    expect(error).toBeInstanceOf(DataError);
    expect(error).toMatchObject({ arg: expect.stringMatching(arg) as string, expected: expect.stringMatching(rule) as string });
    expect((error as Error).message).not.toContain('\n');
    expect(existsSync(at('events')) && readFileSync(at('events'))).toEqual(before);
  });

  test('a result that is none', () => {
    writeFileSync(at('result'), '{');
    expect(() => readResult(folder)).toThrow(DataError);
  });

  test('a checkpoint file that is not there', () => expect(() => readCheckpoint(at('checkpoint'))).toThrow(/must be a file, got nothing/));
});

describe('a full disk', () => {
  /** Files of this name beside the real one take no byte. */
  const full = (file: string): void => symlinkSync('/dev/full', file);

  test('leaves the old checkpoint as it was, and no half of the new one', () => {
    const run = crashed();
    const before = readFileSync(at('checkpoint'));
    full(`${at('checkpoint')}.part`);
    expect(() => run.keep(checkpointAt(3))).toThrow(FileError);
    expect(readFileSync(at('checkpoint'))).toEqual(before);
    expect(existsSync(`${at('checkpoint')}.part`)).toBe(false);
    expect(findRun(folder)!.checkpoint.state.step).toBe(2);
    run.keep(checkpointAt(3));
    expect(findRun(folder)!.checkpoint.state.step).toBe(3);
  });

  test('is told in one line that names the file', () => {
    full(join(folder, 'x.part'));
    expect(() => writeWhole(join(folder, 'x'), 'text')).toThrow(
      `forkstep: ${join(folder, 'x')} must be a file that can be written, got ENOSPC: no space left on device; free some space`,
    );
  });

  test('ends a log where it was', () => {
    const run = crashed();
    const kept = join(folder, 'kept');
    writeFileSync(kept, readFileSync(at('events')));
    rmSync(at('events'));
    full(at('events'));
    expect(() => run.addSteps([step(3)])).toThrow(FileError);
    rmSync(at('events'));
    writeFileSync(at('events'), Buffer.concat([readFileSync(kept), Buffer.from('{"type":"st')]));
    expect(findRun(folder)!.log.steps).toHaveLength(2);
  });

  test('a folder that is gone is told too', () => {
    const run = crashed();
    rmSync(folder, { recursive: true });
    expect(() => run.keep(checkpointAt(3))).toThrow(FileError);
    expect(() => run.addSteps([step(3)])).toThrow(FileError);
  });
});

test('writeWhole replaces a file, and leaves nothing beside it', () => {
  const file = join(folder, 'x');
  for (const text of ['one', 'another']) writeWhole(file, text);
  expect([readFileSync(file, 'utf8'), existsSync(`${file}.part`)]).toEqual(['another', false]);
});
