/** Ours. */
import { openDevice, type AdapterSummary } from '../../src/gpu/device.ts';
import { tensor } from '../../src/graph/functional.ts';
import { resnet18 } from '../../src/nn/resnet.ts';
import { loadStateDict, stateDict } from '../../src/nn/stateDict.ts';
import { Training } from '../support/training.ts';
import { imageSize, sgd, type Peer, type Problem } from './problem.ts';

export async function openForkstep({ width, batch, weights, x, labels }: Problem): Promise<Peer & { adapter: AdapterSummary }> {
  const device = await openDevice();
  const model = resnet18({ width });
  const state = stateDict(model);
  for (const [name, { shape, data }] of weights) state.set(name, { dtype: 'F32', shape, data });
  loadStateDict(model, state);
  const input = { x: tensor(x, [batch, imageSize, imageSize, 3]), labels: tensor(Uint32Array.from(labels)) };
  const training = await Training.create(device, { model, batchSize: batch, batch: input });
  return {
    name: 'forkstep', version: 'this commit', adapter: device.adapter,
    step: async () => {
      await training.step(sgd.lr);
      return (await training.losses())[0];
    },
  };
}
