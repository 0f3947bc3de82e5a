/** How large the runs of a study are. */
import type { Stem } from '../nn/resnet.ts';
import type { Recipe } from './recipe.ts';

export type ScaleName = 'smoke' | 'small' | 'paper';

export interface Scale {
  /** What it is for, in one line. */
  readonly note: string;
  /** Of every run, unless its study says otherwise. */
  readonly base: Omit<Recipe, 'method' | 'options' | 'seed'>;
  /** Networks of the table; other studies have the first. */
  readonly stems: readonly Stem[];
  /** Data set of the study of factors, which the paper made on CIFAR-100. */
  readonly factors: Pick<Recipe, 'dataset' | 'train' | 'test'>;
  /** Images that trials are scored on, in the study of that. */
  readonly scoreBatches: readonly number[];
  /** First rates of the robustness picture; of the study of the first rate; and those that a tuned schedule is the best of. */
  readonly rates: { readonly robustness: readonly number[]; readonly initial: readonly number[]; readonly tuned: readonly number[] };
}

/** The paper's: plain SGD, no augmentation as none is told. */
const plain = { optimizer: { momentum: 0, weightDecay: 0, nesterov: false }, augment: 'none', lr: 0.005 } as const;

const rates = {
  robustness: [0.0005, 0.005, 0.05, 0.5],
  initial: [0.0001, 0.001, 0.01, 0.1, 1],
  tuned: [0.005, 0.015, 0.05, 0.15, 0.5, 1.5],
} as const;

export const scales: Record<ScaleName, Scale> = {
  smoke: {
    note: 'procedural images, minutes without a GPU: shows that everything runs, says nothing about learning rates',
    base: { ...plain, dataset: 'procedural', train: 128, test: 64, stem: 'imagenet', width: 4, batch: 16, epochs: 2 },
    stems: ['imagenet'],
    factors: { dataset: 'procedural', train: 128, test: 64 },
    scoreBatches: [16, 32, 64],
    rates: { robustness: [0.005, 0.5], initial: [0.0001, 1], tuned: [0.005, 0.05] },
  },
  small: {
    note: 'the first images of CIFAR-10 and a narrow network, hours on 2 cores: signs, not the figures of the paper',
    base: { ...plain, dataset: 'cifar10', train: 4000, test: 2000, stem: 'imagenet', width: 8, batch: 32, epochs: 10 },
    stems: ['imagenet'],
    factors: { dataset: 'cifar100', train: 4000, test: 2000 },
    scoreBatches: [32, 128, 512],
    rates,
  },
  paper: {
    note: "the paper's setting on all of CIFAR: needs a GPU",
    base: { ...plain, dataset: 'cifar10', train: 50_000, test: 10_000, stem: 'imagenet', width: 64, batch: 32, epochs: 100 },
    stems: ['imagenet', 'cifar'],
    factors: { dataset: 'cifar100', train: 50_000, test: 10_000 },
    scoreBatches: [32, 128, 512, 2048],
    rates,
  },
};

export const scaleNames = Object.keys(scales) as ScaleName[];
