/** `forkstep train --resume` as a person runs it: Ctrl-C and on, other options, full disks, damage, longer runs. */
import { spawn } from 'node:child_process';
import { cpSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ROOT } from '../../scripts/build.mjs';
import { parseArgs } from '../../src/cli/args.ts';
import { trainOptions } from '../../src/cli/options.ts';
import { asFlags, continued, notesOf } from '../../src/cli/run/resume.ts';
import { AttrError } from '../../src/gpu/errors.ts';
import { nn, proceduralDataset } from '../../src/index.ts';
import type { Checkpoint, Json } from '../../src/train/checkpoint.ts';
import { parseRunLog, readAlrCheckpoint, readCheckpoint, RunFolder } from '../../src/train/runFolder.node.ts';
import { buildCli, forkstep } from '../support/builtCli.ts';
import { pointsOf } from '../support/tfevents.ts';

const folder = mkdtempSync(join(tmpdir(), 'forkstep-resume-'));
beforeAll(buildCli);
afterAll(() => rmSync(folder, { recursive: true }));

const small = ['--width', '4', '--batch', '8', '--train-limit', '48', '--test-limit', '8'];
const trial = [...small, '--momentum', '0.9', '--epochs', '3', '--preset', 'robust', '--every', '4steps', '--search', '2x4', '--factors', 'factor3', '--tensorboard'];
const at = (out: string, file: string): string => join(folder, out, file);
const read = (out: string, file: string): Buffer => readFileSync(at(out, file));
const train = (out: string, ...more: string[]) => forkstep(['train', ...more, '--out', join(folder, out)]);
const stepOf = (out: string): number => readCheckpoint(at(out, 'checkpoint.safetensors')).checkpoint.state.step;
const pointsIn = (out: string) => {
  const files = readdirSync(join(folder, out)).filter((name) => name.includes('tfevents')).sort();
  return pointsOf(Buffer.concat(files.map((name) => read(out, name))));
};
/** Exit code and the error, of which there is one line after what Dawn says of itself. */
const told = ({ code, stderr }: { code: number | null; stderr: string }): [number | null, string] => [code, stderr.trimEnd().split('\n').at(-1)!];

/** Ends a run by Ctrl-C once it has logged some steps. */
async function interrupt(out: string, args: readonly string[], steps: number): Promise<number | null> {
  const child = spawn(process.execPath, [join(ROOT, 'dist/cli.js'), 'train', ...args, '--out', join(folder, out)], { stdio: 'ignore' });
  const code = new Promise<number | null>((resolve) => child.on('close', resolve));
  const logged = () => existsSync(at(out, 'events.jsonl')) && parseRunLog(read(out, 'events.jsonl')).steps.length >= steps;
  while (child.exitCode === null && !logged()) await new Promise((resolve) => setTimeout(resolve, 10));
  child.kill('SIGINT');
  return code;
}

describe('a run that was ended by Ctrl-C', () => {
  beforeAll(async () => {
    expect(train('whole', ...trial, '--json').code).toBe(0);
    expect(await interrupt('broken', trial, 8)).toBe(130);
  });

  it('has left a checkpoint of its last step', () => {
    expect(stepOf('broken')).toBe(parseRunLog(read('broken', 'events.jsonl')).steps.length);
    expect(stepOf('broken')).toBeGreaterThanOrEqual(8);
    expect(existsSync(at('broken', 'result.json'))).toBe(false);
  });

  it('is not begun anew by mistake', () => {
    const before = read('broken', 'checkpoint.safetensors');
    const [code, line] = told(train('broken', ...trial));
    expect(code).toBe(2);
    expect(line).toBe(
      `forkstep train: --out ${join(folder, 'broken')} must not hold a run that is not over, got one at step ${stepOf('broken')}; ` +
        'add --resume to go on with it, or name another folder',
    );
    expect(read('broken', 'checkpoint.safetensors')).toEqual(before);
  });

  const goesOn = 'as in the run that --resume goes on with';
  it.each<[string[], string]>([
    [['--momentum', '0.8'], `--momentum must be 0.9, ${goesOn}, got 0.8; leave --momentum out`],
    [['--factors', '4,2'], `--factors must be factor3, ${goesOn}, got 4,2; leave --factors out`],
    [['--every', '1epoch'], `--every must be 4steps, ${goesOn}, got 1epochs; leave --every out`],
    [['--nesterov'], `--nesterov must be left out, ${goesOn}, got true; leave --nesterov out`],
    [['--scheduler', 'constant'], `--scheduler must be left out, ${goesOn}, got constant; leave --scheduler out`],
    [['--lr', '0.1', '--seed', '1'], `--lr must be 0.005, ${goesOn}, got 0.1; leave --lr out`],
    [['--tau', '2'], `--tau must be left out, ${goesOn}, got 2; leave --tau out`],
    [['--search', '3x4'], `--search must be 2x4, ${goesOn}, got 3x4; leave --search out`],
    [['--search', 'none'], `--search must be 2x4, ${goesOn}, got none; leave --search out`],
    [['--armijo-c', '0.3'], `--armijo-c must be left out, ${goesOn}, got 0.3; leave --armijo-c out`],
    [['--train-limit', '40'], `--train-limit must be 48, ${goesOn}, got 40; leave --train-limit out`],
    [['--envelope', 'linear'], `--envelope must be left out, ${goesOn}, got linear; leave --envelope out`],
  ])('refuses %j', (more, message) => {
    expect(told(train('broken', ...more, '--resume'))).toEqual([2, `forkstep train: ${message}`]);
  });

  it('refuses another length where the rates depend on it, and one that is past already', () => {
    const refused = (...more: string[]) => told(train('broken', ...more, '--resume'));
    const [code, line] = refused('--epochs', '4');
    expect([code, line]).toEqual([2, expect.stringMatching(/^forkstep train: --epochs must make a run of 18 steps, .*, got 24 steps; leave --epochs out$/)]);
    expect(refused('--max-steps', '3')).toEqual([2, expect.stringMatching(/^forkstep train: --max-steps must be no less than the \d+ steps that were made, got 3 steps/)]);
  });

  it('is none of this command where its options are not noted, as where the library kept it', () => {
    const { checkpoint } = readCheckpoint(at('broken', 'checkpoint.safetensors'));
    for (const notes of [null, { mine: 1 }, { values: { preset: 'gone' }, given: [] }] as Json[]) {
      RunFolder.begin(join(folder, 'foreign'), {}).keep(checkpoint, notes);
      expect(told(train('foreign', '--resume'))).toEqual([2, expect.stringMatching(
        /^forkstep train: checkpoint must be of a run that this version of forkstep train began, got (one that does not note its options|--preset "gone"); go on with it/)]);
    }
  });

  it('leaves its old checkpoint whole on a full disk, and says so in one line', () => {
    cpSync(join(folder, 'broken'), join(folder, 'full'), { recursive: true });
    const before = read('full', 'checkpoint.safetensors');
    symlinkSync('/dev/full', at('full', 'checkpoint.safetensors.part'));
    const [code, line] = told(train('full', '--resume', '--checkpoint-every', '1step'));
    expect([code, line]).toEqual([1, `forkstep: ${at('full', 'checkpoint.safetensors')} must be a file that can be written, got ENOSPC: no space left on device; free some space`]);
    expect(read('full', 'checkpoint.safetensors')).toEqual(before);
  });

  it('refuses a damaged checkpoint, and leaves it', () => {
    cpSync(join(folder, 'broken'), join(folder, 'damaged'), { recursive: true });
    const bytes = read('damaged', 'checkpoint.safetensors');
    bytes[5000] ^= 1;
    writeFileSync(at('damaged', 'checkpoint.safetensors'), bytes);
    for (const more of [['--resume'], trial]) {
      const [code, line] = told(train('damaged', ...more));
      expect([code, line]).toEqual([2, expect.stringMatching(/^readCheckpoint: .*damaged\/checkpoint\.safetensors must have the checksum/)]);
    }
    expect(read('damaged', 'checkpoint.safetensors')).toEqual(bytes);
  });

  it('goes on as if nothing had been, with other options where they do not matter', () => {
    const from = stepOf('broken');
    // Defaults of the preset, and of what was not given.
    const asItWas = ['--scheduler', 'trial', '--tau', '1', '--normalize', 'none', '--envelope', 'cosine', '--hold', 'on', '--score', 'armijo', '--armijo-c', '0.1',
      '--direction', 'accumulated', '--search', '2x4', '--score-batch', '8', '--factors', '2,1,0.5'];
    const run = train('broken', '--resume', '--checkpoint-every', '10min', '--memory-budget', '1MiB', '--log-every', '3', '--momentum', '0.9', ...asItWas, '--json');
    expect(run.code).toBe(0);
    expect(run.stderr).toContain(`trial: 18 steps of 8 images, from step ${from}\n`);
    for (const file of ['events.jsonl', 'model.safetensors']) expect(read('broken', file)).toEqual(read('whole', file));
    const numbers = (out: string) => {
      const { summary } = JSON.parse(read(out, 'result.json').toString()) as { summary: Record<string, unknown> };
      return { ...summary, imagesPerSecond: 0, memory: 0 };
    };
    expect(numbers('broken')).toEqual(numbers('whole'));
    expect(pointsIn('broken')).toEqual(pointsIn('whole'));
    const tags = new Map(pointsIn('whole').map(({ tag }) => [tag, pointsIn('whole').filter((point) => point.tag === tag).length]));
    expect([...tags].sort()).toEqual([['test/accuracy', 3], ['test/loss', 3], ['train/loss', 18], ['train/lr', 18], ['trial/factor', 5]]);
  });

  it('is over then: once more says what came of it', () => {
    const files = () => ['events.jsonl', 'result.json', 'checkpoint.safetensors'].map((file) => read('broken', file));
    const before = files();
    const again = train('broken', '--resume', '--json');
    expect([again.code, again.stderr]).toEqual([0, `the run in ${join(folder, 'broken')} is over\n`]);
    expect(JSON.parse(again.stdout)).toEqual((JSON.parse(before[1].toString()) as { summary: unknown }).summary);
    expect(files()).toEqual(before);
  });
});

describe('a run by ALR that was ended by Ctrl-C within an epoch', () => {
  const alr = [...small, '--scheduler', 'alr', '--beam', '2', '--factors', '2,1', '--lr', '0.02', '--momentum', '0.9', '--epochs', '4'];
  beforeAll(async () => {
    expect(train('alr', ...alr).code).toBe(0);
    // The first checkpoint that is due by itself is the end's.
    expect(await interrupt('alrBroken', [...alr, '--checkpoint-every', '4epochs'], 6)).toBe(130);
  });

  it('has left the checkpoint of the last epoch that was whole, though none was due', () => {
    const { checkpoint } = readAlrCheckpoint(at('alrBroken', 'checkpoint.safetensors'));
    expect(checkpoint.state.step % 6).toBe(0);
    expect(checkpoint.state.step).toBeGreaterThanOrEqual(6);
  });

  it('goes on as if nothing had been, and refuses other options', () => {
    expect(told(train('alrBroken', '--resume', '--factors', '4,1'))[1]).toMatch(/--factors must be 2,1, as in the run/);
    expect(told(train('alrBroken', '--resume', '--checkpoint-every', '3steps'))[1]).toMatch(/must be in epochs or minutes/);
    const run = train('alrBroken', '--resume', '--checkpoint-every', '2epochs');
    expect(run.code, run.stderr).toBe(0);
    expect(run.stderr).toMatch(/alr: 24 steps of 8 images, up to 4 branches side by side, from step (6|12|18)\n/);
    for (const file of ['events.jsonl', 'model.safetensors']) expect(read('alrBroken', file)).toEqual(read('alr', file));
    expect(train('alrBroken', '--resume').stderr).toContain('is over');
  });
});

describe('--resume', () => {
  it('needs a run, or to be told of one', () => {
    expect(told(train('nothing', '--resume'))).toEqual([
      2, `forkstep train: --out ${join(folder, 'nothing')} must hold a checkpoint, got none; check the path, or say what to train`,
    ]);
    expect(told(train('nothing', '--resume', '--nesterov', '--seed', '1'))[1]).toMatch(/--nesterov must go with --momentum/);
  });

  it('makes a run longer whose rates do not depend on its length, without the file of its first weights', () => {
    const init = join(folder, 'init.safetensors');
    writeFileSync(init, nn.saveSafetensors(nn.resnet18({ width: 4, seed: 5 })));
    const recipe = [...small, '--scheduler', 'constant', '--lr', '0.02', '--init', init];
    expect(train('longer', ...recipe, '--max-steps', '8').code).toBe(0);
    expect(train('long', ...recipe, '--max-steps', '12').code).toBe(0);
    rmSync(init);
    const run = train('longer', '--resume', '--max-steps', '12');
    expect(run.stderr).toContain('from step 8\n');
    const losses = (out: string) => parseRunLog(read(out, 'events.jsonl')).steps;
    expect(losses('longer')).toEqual(losses('long'));
    expect(losses('longer')).toHaveLength(12);
    expect(read('longer', 'model.safetensors')).toEqual(read('long', 'model.safetensors'));
  });

  it('tells of a run that diverged what it told', () => {
    const wild = train('wild', ...small, '--scheduler', 'constant', '--lr', '1e30', '--epochs', '1', '--json');
    const again = train('wild', '--resume', '--json');
    expect([wild.code, again.code]).toEqual([1, 1]);
    expect(JSON.parse(again.stdout)).toEqual(JSON.parse(wild.stdout));
    // It is over, so that its folder may be used again.
    expect(train('wild', ...small, '--scheduler', 'constant', '--max-steps', '1').code).toBe(0);
  });

  it('takes what is not given from the run, where its data lie too', () => {
    const given = ['--dataset', 'cifar10', '--data', folder, '--momentum', '0.9', '--nesterov', '--checkpoint-every', '5min', '--json'];
    const parsed = parseArgs('forkstep train', trainOptions, given);
    const out = join(folder, 'cifar');
    const state = { step: 3, epoch: 0, batch: 3 } as Checkpoint['state'];
    RunFolder.begin(out).keep({ tensors: new Map(), state }, notesOf(parsed));
    const { values, given: all, from } = continued(parseArgs('forkstep train', trainOptions, ['--resume', '--out', out, '--log-every', '7']));
    expect(values).toEqual({ ...parsed.values, resume: true, out, logEvery: 7, json: false });
    expect([...all].sort()).toEqual(['checkpointEvery', 'data', 'dataset', 'logEvery', 'momentum', 'nesterov', 'out', 'resume']);
    expect(from!.checkpoint.state.step).toBe(3);
  });

  it('speaks of images, not of checksums', async () => {
    const fields = { op: 'Trainer', arg: 'dataset.train.crc32c', rule: 'must be "1"', got: '"2"', fix: 'x' };
    const refused = asFlags(Promise.reject(new AttrError(fields)), proceduralDataset({ train: 1, test: 1 }));
    await expect(refused).rejects.toThrow('forkstep train: images of procedural must be those of the run that --resume goes on with, got others');
  });
});
