/** What a study prints while it runs: one redrawn line in a terminal, and a line that stays for each run that ends. */
import { isFinished, type StudyResult } from '../study/result.ts';
import type { Progress } from '../study/runner.ts';
import { formatDuration, formatLoss, formatNumber } from './format.ts';
import type { ProgressStream } from './progress.ts';

const redrawMs = 100;

/** '12/45 runs  cosine-lr0.005-s1-…  40 %  1:23:00 left  1 failed' */
export function studyLine(name: string, { total, done, failed, running, secondsLeft }: Progress): string {
  const present = running.map(({ run, share }) => `${run.id.replace(/-[0-9a-f]+$/, '')} ${Math.floor(share * 100)} %`);
  const lost = failed > 0 ? [`${failed} failed`] : [];
  return [`${name}: ${done}/${total} runs`, ...present, `${formatDuration(secondsLeft)} left`, ...lost].join('  ');
}

/** 'cosine, lr 0.005, seed 1: 46.3 % after 34 s' */
export function resultLine(result: StudyResult): string {
  const { method, lr, seed } = result.recipe;
  const options = Object.entries(result.recipe.options).map(([key, value]) => `, ${key} ${String(value)}`).join('');
  const what = `${method}${options}, lr ${formatNumber(lr)}, seed ${seed}`;
  if (!isFinished(result)) return `${what}: failed: ${result.error}`;
  if (result.divergence) return `${what}: diverged at step ${result.divergence.step}: ${result.divergence.reason}`;
  const seconds = (result.trainMs + result.evaluationMs) / 1000;
  const loss = result.testLoss === null ? '' : `, test loss ${formatLoss(result.testLoss)}`;
  return `${what}: ${(100 * (result.testAccuracy ?? NaN)).toFixed(1)} %${loss}, in ${formatDuration(seconds)}`;
}

export class StudyProgress {
  #drawnMs = -Infinity;
  #last: Progress | null = null;

  constructor(
    readonly stream: ProgressStream,
    readonly name: string,
    readonly now: () => number = () => performance.now(),
  ) {}

  update(progress: Progress): void {
    this.#last = progress;
    if (this.stream.isTTY !== true || this.now() - this.#drawnMs < redrawMs) return;
    this.#drawnMs = this.now();
    this.stream.write(`\r\x1b[2K${studyLine(this.name, progress).slice(0, (this.stream.columns ?? 80) - 1)}`);
  }

  /** In a pipe, the line says how far the study is, too. */
  result(result: StudyResult): void {
    const line = resultLine(result);
    const { total = 0, done = 0, secondsLeft = NaN } = this.#last ?? {};
    this.tell(this.stream.isTTY === true ? line : `${done + 1}/${total}  ${line}  (${formatDuration(secondsLeft)} left)`);
  }

  /** A line that stays. */
  tell(line: string): void {
    this.stream.write(this.stream.isTTY === true ? `\r\x1b[2K${line}\n` : `${line}\n`);
  }

  done(): void {
    if (this.stream.isTTY === true && this.#last) this.stream.write('\r\x1b[2K');
  }
}
