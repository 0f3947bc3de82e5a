/** Images on the GPU, and batches made of them there. */
import type { ImageSet } from '../data/dataset.ts';
import { AttrError } from '../gpu/errors.ts';
import { controlWords, type Control, type ControlWord } from '../graph/control.ts';
import type { Memory } from '../graph/memory.ts';
import { externalWords, op, type FloatDtype } from '../graph/ops.ts';
import { upload } from '../graph/plan.ts';
import type { Storage, Tensor } from '../graph/tensor.ts';

export interface Batch {
  readonly x: Tensor;
  readonly labels: Tensor;
}

export interface FeedOptions {
  readonly mean: readonly number[];
  readonly std: readonly number[];
  /** Longest list of image indices that is ever used at once. */
  readonly capacity: number;
}

export class ImageFeed {
  readonly #segments: Tensor[];
  readonly #labels: Tensor;
  readonly #indices: Storage;
  readonly #imagesPerSegment: number;

  /** Uploads the images, in as many buffers as the adapter's binding limit asks for. */
  constructor(
    readonly memory: Memory,
    readonly set: ImageSet,
    readonly control: Control,
    readonly options: FeedOptions,
  ) {
    if (set.channels > 4)
      throw new AttrError({
        op: 'ImageFeed',
        arg: 'set.channels',
        rule: 'must be ≤ 4',
        got: set.channels,
        fix: 'batches are assembled from images of at most 4 channels',
      });
    const imageBytes = set.channels * set.height * set.width;
    checkSet(set, imageBytes, options);
    const { maxStorageBufferBindingSize, maxBufferSize } = memory.device.limits;
    this.#imagesPerSegment = Math.min(
      Math.floor(Math.min(maxStorageBufferBindingSize, maxBufferSize) / imageBytes / 4) * 4,
      Math.ceil(set.count / 4) * 4,
    );
    this.#segments = [];
    for (let first = 0; first < set.count; first += this.#imagesPerSegment) {
      const bytes = set.images.subarray(first * imageBytes, Math.min(first + this.#imagesPerSegment, set.count) * imageBytes);
      const padded = bytes.byteLength % 4 === 0 ? bytes : new Uint8Array(Math.ceil(bytes.byteLength / 4) * 4);
      if (padded !== bytes) padded.set(bytes);
      this.#segments.push(externalWords(upload(memory, 'data', `${set.name} images`, padded)));
    }
    this.#labels = externalWords(upload(memory, 'data', `${set.name} labels`, Uint32Array.from(set.labels)));
    this.#indices = memory.storage('data', `${set.name} order`, options.capacity * 4);
  }

  /** Which images come, in order; batches begin at the control's cursor. */
  writeOrder(order: Uint32Array): void {
    this.memory.device.gpu.queue.writeBuffer(this.#indices.buffer, 0, order as Uint32Array<ArrayBuffer>);
  }

  /** x [batch, H, W, C] and labels u32 [batch]: the images that the order names from the cursor on. */
  batch(batch: number, cursor: ControlWord, counter: ControlWord, augment: boolean, dtype: FloatDtype = 'f32'): Batch {
    const { set, options } = this;
    const inputs = [...this.#segments, this.#labels, externalWords(this.#indices), externalWords(this.control.storage)];
    const [x, labels] = op('assembleBatch', inputs, {
      dtype,
      batch,
      height: set.height,
      width: set.width,
      channels: set.channels,
      count: set.count,
      imagesPerSegment: this.#imagesPerSegment,
      mean: options.mean,
      std: options.std,
      augment,
      cursorWord: controlWords[cursor],
      counterWord: controlWords[counter],
      seedWord: controlWords.seed,
    });
    return { x, labels };
  }
}

/** What the kernel takes on trust: as many bytes, labels and channel statistics as the sizes say, and labels that name classes. */
function checkSet(set: ImageSet, imageBytes: number, { mean, std }: FeedOptions): void {
  const { name, count, channels, images, labels, classes } = set;
  const refuse = (arg: string, rule: string, got: unknown): never => {
    throw new AttrError({ op: 'ImageFeed', arg: `${arg} of ${name}`, rule, got, fix: 'mend the data set' });
  };
  if (images.length !== count * imageBytes) refuse('images', `must hold ${count * imageBytes} bytes`, images.length);
  if (labels.length !== count) refuse('labels', `must hold ${count} values`, labels.length);
  const wrong = labels.find((label) => label >= classes.length);
  if (wrong !== undefined) refuse('labels', `must be < ${classes.length}, the number of classes`, wrong);
  if (mean.length !== channels) refuse('mean', `must hold ${channels} numbers, one a channel`, mean);
  if (std.length !== channels) refuse('std', `must hold ${channels} numbers, one a channel`, std);
}

/** 0 … count − 1, and 0s up to a whole number of batches. */
export function evaluationOrder(count: number, batchSize: number): Uint32Array {
  const order = new Uint32Array(Math.ceil(count / batchSize) * batchSize);
  for (let i = 0; i < count; i++) order[i] = i;
  return order;
}
