/** The option table of `forkstep profile`. */
import { timingMethods } from '../train/index.ts';
import { choice, flag, integer, number, path } from './args.ts';
import type { OptionValues } from './args.ts';
import { modelOptions } from './options.ts';

export const profileOptions = {
  ...modelOptions,
  width: integer({ default: 16, min: 1, help: modelOptions.width.help }),
  batch: integer({ default: 32, min: 1, help: 'images a step' }),
  imageSize: integer({ default: 32, min: 1, help: 'side of the images, which are the procedural ones in that size' }),
  classes: integer({ default: 10, min: 10, help: 'logits of the network' }),
  momentum: number({ default: 0.9, min: 0, below: 1, help: 'of SGD' }),
  weightDecay: number({ default: 5e-4, min: 0, help: 'of SGD' }),
  trials: integer({ default: undefined, min: 1, defaultText: 'the step', help: 'look at a scheduling event of N trials instead of a step' }),
  method: choice(timingMethods, {
    default: undefined,
    defaultText: 'timestamps where they mean something',
    help: 'timestamp queries around each dispatch, or each one replayed and waited for',
  }),
  samples: integer({ default: 10, min: 1, help: 'times of each dispatch, of which the median counts' }),
  rows: integer({ default: 25, min: 1, help: 'rows of the table by layers' }),
  svg: path('outputFile', { default: 'runs/profile.svg', help: 'the flame graph' }),
  json: flag('print one JSON object instead of the tables'),
};

export type ProfileValues = OptionValues<typeof profileOptions>;
