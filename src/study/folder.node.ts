/**
 * A study's folder: `runs/ID.json`, one result each, `runs/ID.checkpoint` of a run that was broken off, and `studies.json`, what was asked. Files
 * are written whole or not at all; the folder belongs to one process, and to those that it starts.
 */
import { closeSync, existsSync, mkdirSync, openSync, readFileSync, readdirSync, realpathSync, rmSync, statSync, writeSync } from 'node:fs';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { DataError } from '../gpu/errors.ts';
import { readIfThere, writeWhole, writing } from '../train/files.node.ts';
import type { RunKeeper } from './runJob.ts';
import { scaleNames, type ScaleName } from './scales.ts';
import { parseResult, type StudyResult } from './result.ts';
import { studyNames, type StudyName } from './studies.ts';

/** A study as it was asked for. */
export interface Asked {
  readonly name: StudyName;
  readonly scale: ScaleName;
  readonly seeds: number;
}

const listFile = 'studies.json';
const runsFolder = 'runs';
const lockFile = '.lock';

const isRunning = (pid: number): boolean => {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
};

/** Lock files that this process holds. */
const held = new Set<string>();

/** Writes a lock file that was not there; one that cannot be written is not left. */
function writeLock(file: string): void {
  const handle = openSync(file, 'wx');
  try {
    writeSync(handle, `${process.pid} ${hostname()}\n`);
  } catch (error) {
    rmSync(file, { force: true });
    throw error;
  } finally {
    closeSync(handle);
  }
}

/** How long a process may take from making its lock file to writing it, ms: older and empty, it is of one that died in between. */
const lockGrace = 10_000;

/** Who holds a folder by its lock file, 'PID HOST'; null where that is nobody any more. */
function holderOf(file: string): string | null {
  const bytes = readIfThere(file);
  // Given back a moment ago.
  if (!bytes) return null;
  const [pid, host = hostname()] = new TextDecoder().decode(bytes).trim().split(' ');
  const { mtimeMs = 0 } = statSync(file, { throwIfNoEntry: false }) ?? {};
  if (!(Number(pid) > 0)) return Date.now() - mtimeMs < lockGrace ? 'a process that is just starting' : null;
  if (host !== hostname()) return `process ${pid} of ${host}`;
  // Of this number was an earlier process, too, such as one of another container.
  const runs = Number(pid) === process.pid ? held.has(file) : isRunning(Number(pid));
  return runs ? `process ${pid}, which runs` : null;
}

const isAsked = (value: Partial<Asked> | null): value is Asked =>
  typeof value === 'object' && value !== null && studyNames.includes(value.name!) && scaleNames.includes(value.scale!) && Number.isInteger(value.seeds);

export class StudyFolder implements RunKeeper {
  constructor(readonly path: string) {}

  /** The studies that were asked for here, in order; none where the folder is not there yet. @throws DataError for a list that is none */
  studies(): Asked[] {
    const file = join(this.path, listFile);
    if (!existsSync(file)) return [];
    const refuse = (got: unknown): never => {
      throw new DataError({ op: 'study', arg: file, rule: 'must list studies: name, scale, seeds', got, fix: 'move it away' });
    };
    let list: unknown;
    try {
      list = (JSON.parse(readFileSync(file, 'utf8')) as { studies?: unknown } | null)?.studies;
    } catch (error) {
      return refuse((error as Error).message);
    }
    return Array.isArray(list) && list.every(isAsked) ? list : refuse(JSON.stringify(list));
  }

  /** Notes that a study is made here; more seeds of one that is stand in its place. */
  note({ name, scale, seeds }: Asked): void {
    const others = this.studies();
    const at = others.findIndex((one) => one.name === name && one.scale === scale);
    const most = at === -1 ? seeds : Math.max(seeds, others[at].seeds);
    others.splice(at === -1 ? others.length : at, 1, { name, scale, seeds: most });
    mkdirSync(join(this.path, runsFolder), { recursive: true });
    writeWhole(join(this.path, listFile), `${JSON.stringify({ format: 1, studies: others }, null, 1)}\n`);
  }

  /** All results by id. @throws DataError for a file that is none */
  results(): Map<string, StudyResult> {
    const folder = join(this.path, runsFolder);
    const names = existsSync(folder) ? readdirSync(folder).filter((name) => name.endsWith('.json')) : [];
    const results = names.sort().map((name) => parseResult(readFileSync(join(folder, name), 'utf8'), join(folder, name)));
    return new Map(results.map((result) => [result.id, result]));
  }

  /** A result; the checkpoint of a run that has ended goes. */
  write(result: StudyResult): void {
    writeWhole(join(this.path, runsFolder, `${result.id}.json`), `${JSON.stringify(result)}\n`);
    if (result.status !== 'failed') rmSync(this.#checkpoint(result.id), { force: true });
  }

  #checkpoint(id: string): string {
    return join(this.path, runsFolder, `${id}.checkpoint`);
  }

  /** @throws DataError where it is there and cannot be read */
  load(id: string): Uint8Array | null {
    return readIfThere(this.#checkpoint(id));
  }

  save(id: string, checkpoint: Uint8Array): void {
    writeWhole(this.#checkpoint(id), checkpoint);
  }

  /** Takes the folder for this process; returns what gives it back. @throws DataError where another process has it, or one of another machine had */
  lock(): () => void {
    mkdirSync(this.path, { recursive: true });
    const file = join(realpathSync(this.path), lockFile);
    for (let isSecond = false; ; isSecond = true) {
      try {
        writing(file, () => writeLock(file));
        held.add(file);
        return () => {
          rmSync(file, { force: true });
          held.delete(file);
        };
      } catch (error) {
        const { cause = error } = error as Error;
        if ((cause as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
        const got = holderOf(file) ?? (isSecond ? 'one that came between' : null);
        if (got !== null) {
          const fix = `let it end, or where it is none of forkstep's remove ${file}`;
          throw new DataError({ op: 'study', arg: this.path, rule: 'must be written by one process at a time', got, fix });
        }
        rmSync(file, { force: true });
      }
    }
  }
}
