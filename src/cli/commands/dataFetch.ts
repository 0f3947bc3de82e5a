/** `forkstep data fetch`: downloads a data set, checks it and unpacks it. */
import { fetchDataset } from '../../data/fetch.node.ts';
import type { FetchProgress } from '../../data/fetch.node.ts';
import { DataError } from '../../gpu/errors.ts';
import { formatBytes } from '../format.ts';
import type { DataFetchValues } from '../options.ts';

const phaseNames: Record<FetchProgress['phase'], string> = { download: 'Downloading', check: 'Checking', extract: 'Unpacking' };
const redrawMs = 200;

/** Draws each phase on one line of a terminal, or names it once elsewhere. */
function progressPrinter(dataset: string): (progress: FetchProgress) => void {
  let phase: FetchProgress['phase'] | undefined;
  let drawnAt = 0;
  return (progress) => {
    const isNew = progress.phase !== phase;
    const text = `${phaseNames[progress.phase]} ${dataset}`;
    if (!process.stderr.isTTY) {
      if (isNew) process.stderr.write(`${text}\n`);
    } else {
      const isDone = progress.doneBytes === progress.totalBytes;
      if (!isNew && !isDone && Date.now() - drawnAt < redrawMs) return;
      const total = progress.totalBytes === null ? '' : ` of ${formatBytes(progress.totalBytes)}`;
      process.stderr.write(`${isNew && phase ? '\n' : '\r\x1b[K'}${text}: ${formatBytes(progress.doneBytes)}${total}`);
      drawnAt = Date.now();
    }
    phase = progress.phase;
  };
}

/** Prints the folder the files lie in. Resolves with 1 where the download fails: the command line is not at fault then. */
export async function run({ data, baseUrl }: DataFetchValues, dataset: 'cifar10' | 'cifar100'): Promise<number> {
  let isLineOpen = false;
  const print = progressPrinter(dataset);
  const onProgress = (progress: FetchProgress): void => {
    isLineOpen = Boolean(process.stderr.isTTY);
    print(progress);
  };
  try {
    const { downloaded, folder } = await fetchDataset(dataset, { dir: data, baseUrl, onProgress });
    if (isLineOpen) process.stderr.write('\n');
    process.stdout.write(`${dataset} ${downloaded ? 'is in' : 'was there already, in'} ${folder}\n`);
    return 0;
  } catch (error) {
    if (isLineOpen) process.stderr.write('\n');
    if (!(error instanceof DataError)) throw error;
    process.stderr.write(`${error.message}\n`);
    return 1;
  }
}
