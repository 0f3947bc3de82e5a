/** `forkstep train`: one run. */
import { join } from 'node:path';
import { openDevice } from '../../gpu/device.ts';
import type { AlrCheckpointCadence, Json } from '../../train/index.ts';
import type { trainOptions, TrainValues } from '../options.ts';
import { runAlr } from '../run/alrTraining.ts';
import { continued, notesOf, runOf } from '../run/resume.ts';
import { buildModel, checkBatches, checkFits, loadDataset, makeOutputFolder, trainSchedule } from '../run/setup.ts';
import { interruptible, runTraining, summaryText, writeReport, type Summary } from '../run/training.ts';

interface Result {
  readonly name: string;
  readonly summary: Summary;
}

function tell({ name, summary }: Result, { json, out }: TrainValues): void {
  if (json) process.stdout.write(`${JSON.stringify(summary)}\n`);
  else process.stdout.write(`${summaryText([{ name, summary }])}report: ${join(out, 'report.html')}\n`);
}

export async function run(now: TrainValues, _: '', givenNow: ReadonlySet<keyof typeof trainOptions>): Promise<number> {
  const { values, given, from, result } = continued({ values: now, given: givenNow });
  if (result) {
    const over = result as unknown as Result;
    process.stderr.write(`the run in ${values.out} is over\n`);
    tell(over, values);
    return over.summary.diverged ? 1 : 0;
  }
  const dataset = loadDataset(values);
  checkBatches(values, dataset);
  // A checkpoint brings the weights, those that the run was begun with may be gone.
  const init = values.init === undefined || from ? undefined : { arg: '--init', file: values.init };
  const model = buildModel(values, dataset.train.classes.length, init);
  const { name, schedule } = values.scheduler === 'alr' ? { name: 'alr', schedule: null } : trainSchedule(values);
  if (schedule) checkFits(schedule, values, dataset);
  makeOutputFolder(values.out);
  const device = await openDevice();
  const { signal, release } = interruptible();
  const notes = notesOf({ values, given });
  try {
    const job = { name, values, dataset, model, device, folder: values.out, signal };
    const finished = await (schedule
      ? runTraining({ ...job, schedule, checkpoints: { every: values.checkpointEvery, notes, from: runOf(from, false) } })
      : runAlr({ ...job, checkpoints: { every: values.checkpointEvery as AlrCheckpointCadence, notes, from: runOf(from, true) } }));
    writeReport(values.out, `ResNet18 on ${dataset.name}: ${name}`, [finished], values, device);
    const { summary, record, aborted } = finished;
    if (!aborted) record.finish({ name, summary } as unknown as Json);
    tell({ name, summary }, values);
    return summary.diverged ? 1 : aborted ? 130 : 0;
  } finally {
    release();
    device.close();
  }
}
