/** What a run leaves behind: its events as lines of JSON, its weights, its numbers. */
import { appendFileSync, mkdirSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { saveSafetensors, type Module } from '../../nn/index.ts';
import { eventToJson, type TrialEvent } from '../../sched/index.ts';
import type { Evaluation, LoggedStep } from '../../train/index.ts';

/** Everything logged in a run; `events.jsonl` holds the same, line by line, as it happens. */
export class RunRecord {
  readonly steps: LoggedStep[] = [];
  readonly events: TrialEvent[] = [];
  readonly evals: Evaluation[] = [];
  readonly #file: string;

  /** Starts a new `events.jsonl` in the folder, which is made if need be. */
  constructor(readonly folder: string) {
    mkdirSync(folder, { recursive: true });
    this.#file = join(folder, 'events.jsonl');
    writeFileSync(this.#file, '');
  }

  #append(lines: readonly object[]): void {
    appendFileSync(this.#file, lines.map((line) => `${JSON.stringify(line)}\n`).join(''));
  }

  addSteps(steps: readonly LoggedStep[]): void {
    this.steps.push(...steps);
    this.#append(steps.map((step) => ({ type: 'step', ...step })));
  }

  addEvent(event: TrialEvent): void {
    this.events.push(event);
    this.#append([{ type: 'event', ...eventToJson(event) }]);
  }

  addEvaluation(evaluation: Evaluation): void {
    this.evals.push(evaluation);
    this.#append([{ type: 'eval', ...evaluation }]);
  }

  addDivergence(divergence: { step: number; reason: string }): void {
    this.#append([{ type: 'divergence', ...divergence }]);
  }
}

/** Writes a file whole or not at all. */
export function writeWhole(file: string, content: string | Uint8Array): void {
  writeFileSync(`${file}.part`, content);
  renameSync(`${file}.part`, file);
}

export function saveModel(folder: string, model: Module, steps: number, metadata: Record<string, string>): string {
  const file = join(folder, 'model.safetensors');
  writeWhole(file, saveSafetensors(model, metadata, steps));
  return file;
}
