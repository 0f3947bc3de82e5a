/** What profiling a step or an event leaves as it was. */
import { expect, test } from 'vitest';
import { asPublished } from '../../src/sched/trialOptions.ts';
import { TrialScheduler } from '../../src/sched/trialScheduler.ts';
import { profiledParts, profileStep } from '../../src/train/profile.ts';
import { useDevice } from '../support/device.ts';
import { ConvNet, randomDataset, withTrainer } from './nets.ts';

const device = useDevice();

test.each(profiledParts)('a profile of the %s moves no weight and not the scale of the rate', async (part) => {
  const schedule = new TrialScheduler(asPublished([4, 2, 1, 0.5], { lr: 0.01 }));
  const options = { model: new ConvNet(), dataset: randomDataset({ train: 40, size: 16 }), batchSize: 8, optimizer: { momentum: 0.9 }, schedule };
  await withTrainer(options, async (trainer) => {
    await trainer.trainStep();
    await trainer.losses();
    const { rates, store } = trainer.plans;
    const held = async () => ({
      scale: [...new Float32Array(await device().read(rates.buffer, rates.offset, rates.size))].slice(1),
      weights: await Promise.all(store.parameters.map((variable) => store.read(variable))),
    });
    const before = await held();
    expect(before.scale[0]).not.toBe(0.01);
    await profileStep(trainer.plans, { part, samples: 2 });
    expect(await held()).toEqual(before);
  });
});
