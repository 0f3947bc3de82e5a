/** `compiling kernels 12/28`: one redrawn line on a terminal; elsewhere a line now and then, as long as it lasts. */
import type { ProgressStream } from './progress.ts';

/** Without a terminal: the shortest time between two lines. What is compiled sooner is not worth one. */
const quietMs = 3000;

/**
 * For `onCompile`.
 * @param name before the line, where several are compiled for @param now milliseconds, @default performance.now
 */
export function compileProgress(stream: ProgressStream, name = '', now: () => number = () => performance.now()) {
  const prefix = name === '' ? '' : `${name}: `;
  let lastMs = now();
  let hasTold = false;
  return (done: number, total: number): void => {
    const line = `${prefix}compiling kernels ${done}/${total}`;
    if (stream.isTTY) {
      stream.write(`\r\x1b[2K${line}${done === total ? '\n' : ''}`);
    } else if (now() - lastMs >= quietMs || (hasTold && done === total)) {
      stream.write(`${line}\n`);
      lastMs = now();
      hasTold = true;
    }
  };
}
