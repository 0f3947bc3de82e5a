/** A run's scalars as event files that TensorBoard shows: `tensorboard --logdir` on the folder, or on one above it. */
import { appendFileSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { writing } from './files.node.ts';
import { encodeRecord, fileVersion, type TensorboardEvent } from './tensorboard.ts';

const pattern = /^events\.out\.tfevents\.(\d+)\.forkstep$/;

export class TensorboardWriter {
  readonly #file: string;

  /**
   * Begins a file of its own, as TensorBoard reads a folder's files in the order of their names.
   * @param start the first step that comes. From 0 the folder's earlier files go; else what they hold of this step and later ones is void.
   */
  constructor(folder: string, start: number) {
    const others = readdirSync(folder).filter((name) => pattern.test(name));
    const latest = Math.max(0, ...others.map((name) => Number(pattern.exec(name)![1])));
    if (start === 0) for (const name of others) writing(join(folder, name), () => rmSync(join(folder, name)));
    const seconds = Math.max(Math.floor(Date.now() / 1000), latest + 1);
    this.#file = join(folder, `events.out.tfevents.${seconds}.forkstep`);
    this.#append([fileVersion, ...(start > 0 ? [{ start }] : [])]);
  }

  /** Appends points, in order of step. */
  add(points: readonly Extract<TensorboardEvent, { scalars: unknown }>[]): void {
    this.#append(points);
  }

  #append(events: readonly TensorboardEvent[]): void {
    const records = events.map((event) => encodeRecord(event, Date.now() / 1000));
    writing(this.#file, () => appendFileSync(this.#file, Buffer.concat(records)));
  }
}
