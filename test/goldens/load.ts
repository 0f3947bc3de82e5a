/** The goldens, typed. See README.md for what PyTorch computed and how. */
import { readFileSync } from 'node:fs';
import { decodeSafetensors, type SafetensorsTensor } from '../../src/nn/safetensors.ts';
import { generatedBatch, generatedStateDict, type GeneratedBatch, type TensorSpec } from './generate.ts';

export const goldenNames = ['cifar-w4', 'cifar-w5', 'cifar-w8', 'imagenet-w4', 'imagenet-w5'] as const;
export type GoldenName = (typeof goldenNames)[number];

/** A reference of PyTorch float64, and how far PyTorch's own float32 is from it. */
export interface Reference {
  shape: number[];
  data: Float64Array;
  /** ‖a − b‖ / ‖b‖ of PyTorch float32: the largest over the variants. */
  float32Distance: number;
  /** The same for each of `Golden.variants`. */
  float32Distances: number[];
}

/** A scalar of PyTorch float64; distances are |a − b| / |b|. */
export interface ScalarReference {
  value: number;
  float32Distance: number;
  float32Distances: number[];
}

/**
 * How far a float32 result may be from the reference: 5 × PyTorch float32's own distance, which counts as at least 2^-24, the
 * farthest that a correctly rounded float32 may be.
 */
export function parityBound({ float32Distance }: { float32Distance: number }): number {
  return 5 * Math.max(float32Distance, 2 ** -24);
}

/** ‖got − want‖ / ‖want‖; NaN if `got` has one, so compare with `distance <= bound`. */
export function distance(got: ArrayLike<number>, want: ArrayLike<number>): number {
  if (got.length !== want.length) throw new Error(`distance: got ${got.length} elements, want ${want.length}`);
  let error = 0;
  let norm = 0;
  for (let i = 0; i < want.length; i++) {
    error += (got[i] - want[i]) ** 2;
    norm += want[i] ** 2;
  }
  return Math.sqrt(error / norm);
}

export interface Training {
  /** Before steps 0 … steps − 1, step i on batch i; last, after all steps, on batch number `steps`. Train mode. */
  losses: ScalarReference[];
  /** Eval mode on batch 0 after the last step. */
  evalLogits: Reference;
}

export interface Golden {
  name: GoldenName;
  stem: 'cifar' | 'imagenet';
  width: number;
  classes: number;
  /** [N, C, H, W] */
  images: [number, number, number, number];
  /** The whole state dict, buffers included, in torchvision's order. */
  specs: TensorSpec[];
  /** Learnable tensors only, in torchvision's order. */
  params: TensorSpec[];
  stateDict: () => Map<string, SafetensorsTensor>;
  batch: (index: number) => GeneratedBatch;

  /** Batch 0, train mode: [N, classes]. */
  logits: Reference;
  /** Batch 0, train mode, mean cross-entropy. */
  loss: ScalarReference;
  /** Of that loss, by parameter name, PyTorch's layouts. */
  gradients: Map<string, Reference>;
  /** `….running_mean` and `….running_var` after that one forward. */
  running: Map<string, Reference>;
  /** Eval mode on batch 0 after train-mode forwards of batches 0, 1, 2 with the parameters unchanged. */
  evalLogits: Reference;
  /** Trials L(θ − coefficient · g), batch 0, train mode, g the raw gradient there; coefficient = factor · lr. */
  trials: { lr: number; factors: number[]; coefficients: number[]; losses: ScalarReference[] };
  /** Both runs start from the same state dict. */
  sgd: { lr: number; momentum: number; weightDecay: number; steps: number; plain: Training; nesterov: Training };

  /** Names of the float32 computations behind `float32Distances`. */
  variants: string[];
  kinkMargins: { batch0: number; training: number };
  versions: { torch: string; torchvision: string; numpy: string };
  /** To check the generator by. */
  checksums: {
    state: { name: string; checksum: number; first: number[] }[];
    batches: { images: number; firstImages: number[]; labels: number[] }[];
  };
}

/** What `make_goldens.py` puts in the metadata entry `case`. */
interface CaseInfo {
  stem: 'cifar' | 'imagenet';
  width: number;
  classes: number;
  seed: number;
  images: [number, number, number, number];
  sgd: { lr: number; momentum: number; weightDecay: number; steps: number };
  factors: number[];
  kinkMargins: { batch0: number; training: number };
  state: { name: string; shape: number[]; checksum: number; first: number[] }[];
  batches: { images: number; firstImages: number[]; labels: number[] }[];
}

export function loadGolden(name: GoldenName): Golden {
  const { tensors, metadata } = decodeSafetensors(new Uint8Array(readFileSync(new URL(`./${name}.safetensors`, import.meta.url))));
  const info = JSON.parse(metadata.case) as CaseInfo;
  const distances = JSON.parse(metadata.float32Distance) as Record<string, number[]>;
  const { stem, width, classes, seed, images, sgd, factors, kinkMargins } = info;

  const reference = (key: string): Reference => {
    const tensor = tensors.get(key);
    if (tensor?.dtype !== 'F64') throw new Error(`golden ${name}: no F64 tensor ${key}`);
    return { shape: [...tensor.shape], data: tensor.data, ...bothDistances(distances[key]) };
  };
  const group = (prefix: string): Map<string, Reference> => {
    const keys = [...tensors.keys()].filter((key) => key.startsWith(prefix));
    return new Map(keys.map((key) => [key.slice(prefix.length), reference(key)]));
  };
  const losses = (key: string): ScalarReference[] => {
    const tensor = tensors.get(key);
    if (tensor?.dtype !== 'F64') throw new Error(`golden ${name}: no F64 tensor ${key}`);
    return Array.from(tensor.data, (value, i) => ({ value, ...bothDistances(distances[`${key}/${i}`]) }));
  };
  const training = (key: string): Training => ({ losses: losses(`${key}/losses`), evalLogits: reference(`${key}/evalLogits`) });

  const specs = info.state.map(({ name: tensorName, shape }) => ({ name: tensorName, shape }));
  const gradients = group('gradient/');
  const { data: [loss], ...lossDistances } = reference('loss');
  return {
    name, stem, width, classes, images, specs, gradients, kinkMargins,
    params: specs.filter((spec) => gradients.has(spec.name)),
    stateDict: () => generatedStateDict(specs, seed),
    batch: (index) => generatedBatch(index, images, classes, seed),
    logits: reference('logits'),
    loss: { value: loss, float32Distance: lossDistances.float32Distance, float32Distances: lossDistances.float32Distances },
    running: group('running/'),
    evalLogits: reference('evalLogits'),
    trials: { lr: sgd.lr, factors, coefficients: factors.map((f) => f * sgd.lr), losses: losses('trials/losses') },
    sgd: { ...sgd, plain: training('sgd'), nesterov: training('nesterov') },
    variants: JSON.parse(metadata.variants) as string[],
    versions: { torch: metadata.torch, torchvision: metadata.torchvision, numpy: metadata.numpy },
    checksums: { state: info.state, batches: info.batches },
  };
}

function bothDistances(figures: number[]): { float32Distance: number; float32Distances: number[] } {
  return { float32Distance: Math.max(...figures), float32Distances: figures };
}
