/** `forkstep train`: one run. */
import { openDevice } from '../../gpu/device.ts';
import type { TrainValues } from '../options.ts';
import { buildModel, checkBatches, loadDataset, makeOutputFolder, trainSchedule } from '../run/setup.ts';
import { interruptible, runTraining, summaryText, writeReport } from '../run/training.ts';

export async function run(values: TrainValues): Promise<number> {
  const dataset = loadDataset(values);
  checkBatches(values, dataset);
  const checkpoint = values.init === undefined ? undefined : { arg: '--init', file: values.init };
  const model = buildModel(values, dataset.train.classes.length, checkpoint);
  const { name, schedule } = trainSchedule(values);
  makeOutputFolder(values.out);
  const device = await openDevice();
  const { signal, release } = interruptible();
  try {
    const finished = await runTraining({ name, values, dataset, model, schedule, device, folder: values.out, signal });
    const report = writeReport(values.out, `ResNet18 on ${dataset.name}: ${name}`, [finished], values, device);
    if (values.json) process.stdout.write(`${JSON.stringify(finished.summary)}\n`);
    else process.stdout.write(`${summaryText([finished])}report: ${report}\n`);
    return finished.summary.diverged ? 1 : finished.aborted ? 130 : 0;
  } finally {
    release();
    device.close();
  }
}
