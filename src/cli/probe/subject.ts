/** What every `forkstep probe` has in common: weights and images in, JSON and a figure out. */
import { basename, dirname } from 'node:path';
import { EpochSampler, imageBatch } from '../../data/index.ts';
import { openDevice } from '../../gpu/device.ts';
import type { ResNet } from '../../nn/index.ts';
import type { ProbeOptions } from '../../probes/index.ts';
import { writeWhole } from '../../train/files.node.ts';
import { compileProgress } from '../compileProgress.ts';
import type { FigureText } from '../figure/document.ts';
import type { SubjectValues } from '../probeOptions.ts';
import { buildModel, checkCount, loadDataset, makeOutputFolder } from '../run/setup.ts';

export interface Subject {
  readonly options: ProbeOptions & { readonly model: ResNet };
  /** Another checkpoint of the same network. @throws DataError */
  other(arg: string, file: string): ResNet;
}

/** What a probe found. */
export interface Finding {
  /** For the JSON. */
  readonly result: object;
  /** A few words for people, a line each. */
  readonly summary: readonly string[];
  readonly title: string;
  figure(text: FigureText): string;
}

/** JSON has no NaN and no infinity: they become text, as in a run's events. */
const finiteOrText = (_: string, value: unknown): unknown => (typeof value === 'number' && !Number.isFinite(value) ? String(value) : value);

/**
 * Loads what the options name, measures, writes the figure and prints one JSON object; returns the exit code.
 *
 * The images are those of the first steps of a training run with the same seed and batch.
 */
export async function probe(name: string, values: SubjectValues, measure: (subject: Subject) => Promise<Finding>): Promise<number> {
  const { checkpoint = null, split, batch, batches, batchNorm, stem, width, seed, svg } = values;
  const dataset = loadDataset({ ...values, testLimit: undefined });
  const images = dataset[split];
  checkCount('--batch', batch, images);
  checkCount('--batches · --batch', batches * batch, images);
  const classes = dataset.train.classes.length;
  const load = (arg: string, file: string): ResNet => buildModel(values, classes, { arg, file });
  const model = checkpoint === null ? buildModel(values, classes) : load('--checkpoint', checkpoint);
  makeOutputFolder(dirname(svg), '--svg');
  const order = new EpochSampler({ count: images.count, batchSize: batch, shuffle: true, seed }).epochOrder(0);
  const device = await openDevice();
  try {
    const list = Array.from({ length: batches }, (_, i) => imageBatch(images, dataset, order.subarray(i * batch, (i + 1) * batch)));
    const finding = await measure({ options: { model, batches: list, batchNorm, device, onCompile: compileProgress(process.stderr) }, other: load });
    const weights = checkpoint === null ? `fresh weights, seed ${seed}` : basename(checkpoint);
    const of = `ResNet18, ${stem} stem, width ${width}, ${weights}`;
    const on = `${batches * batch} images of ${images.name}, ${batchNorm === 'batch' ? "each batch's own" : 'running'} statistics`;
    writeWhole(svg, finding.figure({ title: finding.title, subtitle: `${of}; ${on}` }));
    const adapter = device.adapter.description || device.adapter.device;
    const settings = { probe: name, checkpoint, dataset: dataset.name, split, batch, batches, batchNorm, stem, width, seed, adapter, svg };
    process.stdout.write(`${JSON.stringify({ ...settings, ...finding.result }, finiteOrText)}\n`);
    process.stderr.write([...finding.summary, `figure: ${svg}`].map((line) => `${line}\n`).join(''));
    return 0;
  } finally {
    device.close();
  }
}
