/** `forkstep study worker`: makes the runs that `forkstep study --jobs` tells it. Not for people. */
import { StudyFolder } from '../../study/folder.node.ts';
import { serve } from '../../study/workers.node.ts';
import { UsageError } from '../args.ts';
import type { WorkerValues } from '../studyOptions.ts';
import { builtVersion } from '../version.ts';

export async function run({ data, out }: WorkerValues): Promise<number> {
  if (!process.send) {
    const rule = 'must be started by forkstep study';
    throw new UsageError({ op: 'forkstep study worker', arg: 'process', rule, got: 'a command line', fix: 'use forkstep study NAME --jobs N' });
  }
  await serve(data, builtVersion, new StudyFolder(out));
  return 0;
}
