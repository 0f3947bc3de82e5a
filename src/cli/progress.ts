/** Progress in a terminal: one redrawn line on a TTY, a plain line now and then elsewhere. */
import { AttrError } from '../gpu/errors.ts';
import { formatDuration, formatLoss, formatNumber } from './format.ts';

/** What progress writes to; process.stderr fits. */
export interface ProgressStream {
  write(text: string): unknown;
  isTTY?: boolean;
  /** width now; read at each line, so that a resized window is followed */
  columns?: number;
}

export interface ProgressOptions {
  stream: ProgressStream;
  /** updates in the whole run, ≥ 1 */
  total: number;
  /** redraw one line? @default stream.isTTY */
  isTTY?: boolean;
  /** width in characters @default stream.columns, or 80 */
  columns?: number;
  /** without a TTY: a line every so many updates @default a twentieth of the run */
  every?: number;
  /** colours on a TTY @default unless the environment sets NO_COLOR or TERM=dumb */
  color?: boolean;
  /** milliseconds, for at most 20 redraws a second @default performance.now */
  now?: () => number;
}

export interface ProgressUpdate {
  /** updates done, 1 … total */
  step: number;
  loss: number;
  lr: number;
  imagesPerSecond?: number;
  secondsLeft?: number;
}

const redrawMs = 50;
const widestBar = 28;
const narrowestBar = 8;
const eighths = ['', '▏', '▎', '▍', '▌', '▋', '▊', '▉'];
const escapes = { bar: '\x1b[36m', event: '\x1b[33m', off: '\x1b[0m', clear: '\r\x1b[2K' };

export class Progress {
  readonly #stream: ProgressStream;
  readonly #total: number;
  readonly #isTTY: boolean;
  readonly #columns: number | undefined;
  readonly #every: number;
  readonly #color: boolean;
  readonly #now: () => number;
  #last: ProgressUpdate | null = null;
  #shown: ProgressUpdate | null = null;
  #drawnMs = -Infinity;
  #isDone = false;

  /** @throws AttrError unless total and every are integers ≥ 1 */
  constructor(options: ProgressOptions) {
    const { stream, total, every = Math.max(1, Math.ceil(total / 20)) } = options;
    for (const [arg, value] of Object.entries({ total, every })) {
      if (Number.isInteger(value) && value >= 1) continue;
      throw new AttrError({ op: 'Progress', arg, rule: 'must be an integer ≥ 1', got: value, fix: 'count updates' });
    }
    this.#stream = stream;
    this.#total = total;
    this.#every = every;
    this.#isTTY = options.isTTY ?? stream.isTTY === true;
    this.#columns = options.columns;
    this.#color = this.#isTTY && (options.color ?? wantsColor());
    this.#now = options.now ?? (() => performance.now());
  }

  /** Shows an update: on a TTY by redrawing (at most 20 times a second, the last one always), else as a line every `every` updates. */
  update(update: ProgressUpdate): void {
    if (this.#isDone) return;
    this.#last = update;
    const isFinal = update.step >= this.#total;
    if (this.#isTTY) {
      if (isFinal || this.#now() - this.#drawnMs >= redrawMs) this.#draw();
    } else if (isFinal || update.step % this.#every === 0) {
      this.#printLine();
    }
  }

  /** A line that stays, above the bar. */
  event(text: string): void {
    const line = this.#color ? `${escapes.event}${text}${escapes.off}` : text;
    this.#stream.write(this.#isTTY ? `${escapes.clear}${line}\n` : `${line}\n`);
    if (this.#isTTY && !this.#isDone && this.#last !== null) this.#draw();
  }

  /** Leaves the last state on the screen and ends the line; further updates show nothing. */
  done(): void {
    if (this.#isDone) return;
    if (this.#last !== null) {
      if (this.#isTTY) {
        this.#draw();
        this.#stream.write('\n');
      } else if (this.#shown !== this.#last) {
        this.#printLine();
      }
    }
    this.#isDone = true;
  }

  #printLine(): void {
    this.#shown = this.#last;
    this.#stream.write(`${fields(this.#last!, this.#total).join('  ')}\n`);
  }

  #draw(): void {
    this.#drawnMs = this.#now();
    const columns = this.#columns ?? this.#stream.columns ?? 80;
    this.#stream.write(escapes.clear + progressLine(this.#last!, this.#total, columns, this.#color));
  }
}

/** The line of a TTY, at most columns − 1 wide: the bar shrinks first, then goes, then fields go from the right (time left stays long). */
export function progressLine(update: ProgressUpdate, total: number, columns: number, color: boolean): string {
  const width = Math.max(1, columns - 1);
  const shown = fields(update, total);
  const textWidth = (): number => shown.join('  ').length;
  const barWidth = Math.min(widestBar, width - textWidth() - 2);
  if (barWidth >= narrowestBar) {
    const bar = drawBar(update.step / total, barWidth);
    return `${color ? `${escapes.bar}${bar}${escapes.off}` : bar}  ${shown.join('  ')}`;
  }
  while (textWidth() > width && shown.length > 1) shown.splice(shown.length > 2 ? shown.length - 2 : 1, 1);
  return shown.join('  ').slice(0, width);
}

function fields(update: ProgressUpdate, total: number): string[] {
  const { step, loss, lr, imagesPerSecond, secondsLeft } = update;
  const list = [`${String(step).padStart(String(total).length)}/${total}`, `loss ${formatLoss(loss)}`, `lr ${formatNumber(lr, 3)}`];
  if (imagesPerSecond !== undefined && Number.isFinite(imagesPerSecond)) list.push(`${formatNumber(imagesPerSecond, 3)} images/s`);
  if (secondsLeft !== undefined) list.push(`${formatDuration(secondsLeft)} left`);
  return list;
}

function drawBar(fraction: number, width: number): string {
  const filled = Math.floor(Math.min(1, Math.max(0, fraction)) * width * 8);
  const bar = '█'.repeat(Math.floor(filled / 8)) + eighths[filled % 8];
  return bar + '░'.repeat(width - bar.length);
}

/** NO_COLOR (any value but empty, no-color.org) and TERM=dumb say no. */
function wantsColor(): boolean {
  const env = typeof process === 'undefined' ? {} : process.env;
  return (env.NO_COLOR ?? '') === '' && env.TERM !== 'dumb';
}
