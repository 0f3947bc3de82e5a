/** `forkstep compare`, which is `npm start`: a constant learning rate against the trial scheduler, from the same start. */
import { join } from 'node:path';
import { openDevice } from '../../gpu/device.ts';
import type { CompareValues } from '../options.ts';
import { buildModel, checkBatches, loadDataset, makeOutputFolder, scheduleOf } from '../run/setup.ts';
import { interruptible, runTraining, summaryText, writeReport, type FinishedRun } from '../run/training.ts';

export async function run(values: CompareValues): Promise<number> {
  const dataset = loadDataset(values);
  checkBatches(values, dataset);
  const checkpoint = values.init === undefined ? undefined : { arg: '--init', file: values.init };
  const classes = dataset.train.classes.length;
  const jobs = (['constant', 'trial'] as const).map((name) => ({
    name,
    model: buildModel(values, classes, checkpoint),
    schedule: scheduleOf(name, values),
  }));
  for (const { name } of jobs) makeOutputFolder(join(values.out, name));
  const device = await openDevice();
  const { signal, release } = interruptible();
  try {
    const software = device.adapter.isSoftware ? ' (software: no GPU found)' : '';
    process.stderr.write(
      `ResNet18, ${values.stem} stem, width ${values.width}, on ${dataset.name} (${dataset.train.count} training and ${dataset.test.count} test images)\n` +
        `adapter: ${device.adapter.description || device.adapter.device}${software}\n` +
        `learning rate from ${values.lr}, momentum ${values.momentum}, batch ${values.batch}, seed ${values.seed}\n\n`,
    );
    const finished: FinishedRun[] = [];
    for (const { name, model, schedule } of jobs) {
      if (signal.aborted) break;
      finished.push(await runTraining({ name, values, dataset, model, schedule, device, folder: join(values.out, name), signal }));
      process.stderr.write('\n');
    }
    const report = writeReport(
      values.out,
      `ResNet18 on ${dataset.name}: constant learning rate against fused trials`,
      finished,
      values,
      device,
    );
    if (values.json) process.stdout.write(`${JSON.stringify(Object.fromEntries(finished.map(({ name, summary }) => [name, summary])))}\n`);
    else process.stdout.write(`${summaryText(finished)}report: ${report}\n`);
    return finished.some(({ summary }) => summary.diverged) ? 1 : signal.aborted ? 130 : 0;
  } finally {
    release();
    device.close();
  }
}
