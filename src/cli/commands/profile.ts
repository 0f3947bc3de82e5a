/** `forkstep profile`: the GPU time of a training step or of a scheduling event, dispatch by dispatch. */
import { dirname } from 'node:path';
import { proceduralDataset, type ImageDataset, type ImageSet } from '../../data/index.ts';
import { openDevice } from '../../gpu/device.ts';
import { resnet18 } from '../../nn/index.ts';
import { asPublished, ConstantSchedule, TrialScheduler } from '../../sched/index.ts';
import { profileStep, Trainer, type StepProfile } from '../../train/index.ts';
import { compileProgress } from '../compileProgress.ts';
import { flameFigure } from '../profile/flame.ts';
import { profileTables, ratesOf } from '../profile/table.ts';
import type { ProfileValues } from '../profileOptions.ts';
import { writeWhole } from '../../train/files.node.ts';
import { makeOutputFolder } from '../run/setup.ts';

/** Images in another size, by their nearest pixels. */
function resized(set: ImageSet, size: number): ImageSet {
  const images = new Uint8Array(set.count * set.channels * size * size);
  for (let plane = 0; plane < set.count * set.channels; plane++) {
    for (let y = 0; y < size; y++) {
      const row = (plane * set.height + Math.floor((y * set.height) / size)) * set.width;
      for (let x = 0; x < size; x++) images[(plane * size + y) * size + x] = set.images[row + Math.floor((x * set.width) / size)];
    }
  }
  return { ...set, images, height: size, width: size };
}

function datasetOf({ batch, imageSize }: ProfileValues): ImageDataset {
  const dataset = proceduralDataset({ train: batch, test: 1 });
  return { ...dataset, train: resized(dataset.train, imageSize), test: resized(dataset.test, imageSize) };
}

/** Factors from 8 down to ⅛ in equal ratios. */
const factorsOf = (count: number): number[] =>
  Array.from({ length: count }, (_, i) => (count === 1 ? 1 : 8 ** (1 - (2 * i) / (count - 1))));

async function measure(values: ProfileValues, trainer: Trainer): Promise<StepProfile> {
  // Puts a batch and gradients of it where the profile runs on.
  await trainer.trainStep();
  await trainer.losses();
  return profileStep(trainer.plans, { part: values.trials === undefined ? 'step' : 'event', samples: values.samples, method: values.method });
}

export async function run(values: ProfileValues): Promise<number> {
  const { stem, width, batch, imageSize, classes, momentum, weightDecay, trials, svg } = values;
  makeOutputFolder(dirname(svg), '--svg');
  const device = await openDevice();
  try {
    const trainer = await Trainer.create({
      model: resnet18({ stem, width, numClasses: classes }),
      dataset: datasetOf(values),
      device,
      batchSize: batch,
      schedule: trials === undefined ? new ConstantSchedule({ lr: 0.01 }) : new TrialScheduler(asPublished(factorsOf(trials), { lr: 0.01 })),
      optimizer: { momentum, weightDecay },
      onCompile: compileProgress(process.stderr),
    });
    const profile = await measure(values, trainer);
    await trainer.close();
    const adapter = device.adapter.description || device.adapter.device;
    const what = trials === undefined ? 'a step' : `an event of ${trials} trials`;
    const of = `ResNet18, ${stem} stem, width ${width}, batch ${batch}, ${imageSize}×${imageSize} images, ${classes} classes`;
    writeWhole(svg, flameFigure(profile, { title: `GPU time of ${what}: ${of}`, subtitle: `${adapter}; timed by ${profile.peaks.method}` }));
    if (values.json) {
      const dispatches = profile.dispatches.map((one) => ({ ...one, ...ratesOf(one, profile.peaks) }));
      const settings = { stem, width, batch, imageSize, classes, momentum, weightDecay, trials: trials ?? null, samples: values.samples };
      process.stdout.write(`${JSON.stringify({ ...settings, adapter, ...profile, dispatches })}\n`);
    } else {
      process.stdout.write(`${what} of ${of}\nadapter: ${adapter}\n${profileTables(profile, values.rows)}`);
    }
    process.stderr.write(`flame graph: ${svg}\n`);
    return 0;
  } finally {
    device.close();
  }
}
