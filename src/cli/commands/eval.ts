/** `forkstep eval`: a checkpoint on the test images. */
import { openDevice } from '../../gpu/device.ts';
import { ConstantSchedule } from '../../sched/index.ts';
import { Trainer } from '../../train/index.ts';
import { compileProgress } from '../compileProgress.ts';
import { formatLoss } from '../format.ts';
import type { EvalValues } from '../options.ts';
import { buildModel, loadDataset } from '../run/setup.ts';

export async function run(values: EvalValues): Promise<number> {
  const dataset = loadDataset(values);
  const model = buildModel(values, dataset.test.classes.length, { arg: '--checkpoint', file: values.checkpoint });
  const device = await openDevice();
  try {
    // Nothing is trained: the test images stand in for the others, so that only they are uploaded.
    const trainer = await Trainer.create({
      model,
      dataset: { ...dataset, train: dataset.test },
      device,
      batchSize: Math.min(values.batch, dataset.test.count),
      schedule: new ConstantSchedule({ lr: 1 }),
      onCompile: compileProgress(process.stderr),
    });
    const { testLoss, testAccuracy } = await trainer.evaluate();
    const adapter = device.adapter.description || device.adapter.device;
    if (values.json) process.stdout.write(`${JSON.stringify({ testLoss, testAccuracy, images: dataset.test.count, adapter })}\n`);
    else
      process.stdout.write(
        `test loss ${formatLoss(testLoss)}, accuracy ${(testAccuracy * 100).toFixed(2)} % on ${dataset.test.count} images of ${dataset.name}\n`,
      );
    await trainer.close();
    return 0;
  } finally {
    device.close();
  }
}
