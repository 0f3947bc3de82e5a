/** A network of your own: a perceptron with one hidden layer and batch norm, its learning rate set by trials. Argument: [epochs] */
import { asPublished, flatten, nn, proceduralDataset, Trainer, TrialScheduler, type Tensor } from 'forkstep';

/** x [N, H, W, C] → logits [N, 10]. Variables are found by the names of the properties that hold them. */
class Mlp extends nn.Module {
  readonly hidden: nn.Linear;
  readonly norm: nn.BatchNorm2d;
  readonly head: nn.Linear;
  readonly #relu = new nn.Relu();

  constructor(inFeatures: number, width: number, seed: number) {
    super();
    const random = new nn.CounterRandom(seed, nn.STREAM.init);
    this.hidden = new nn.Linear(inFeatures, width, { random });
    this.norm = new nn.BatchNorm2d(width);
    this.head = new nn.Linear(width, 10, { random });
  }

  override forward(x: Tensor, context: nn.ForwardContext): Tensor {
    const hidden = this.norm.forward(this.hidden.forward(flatten(x)), context);
    return this.head.forward(this.#relu.forward(hidden));
  }
}

const epochs = Number(process.argv[2] ?? 8);
const model = new Mlp(32 * 32 * 3, 64, 0);
console.log([...model.namedVariables()].map(([name, { shape }]) => `${name} [${shape.join(', ')}]`).join('\n'));

const trainer = await Trainer.create({
  model,
  dataset: proceduralDataset({ train: 1024, test: 512 }),
  // The published algorithm, once an epoch, on seven factors from 8 to 1/8.
  schedule: new TrialScheduler(asPublished('factor7', { lr: 0.005 })),
  epochs,
});
await trainer.run({
  onEvent: ({ step, lrBefore, lrAfter }) => console.log(`step ${step}: learning rate ${lrBefore.toFixed(4)} → ${lrAfter.toFixed(4)}`),
  onEvaluation: ({ step, testLoss, testAccuracy }) =>
    console.log(`step ${step}: test loss ${testLoss.toFixed(3)}, accuracy ${(testAccuracy * 100).toFixed(1)} %`),
});
await trainer.close();
