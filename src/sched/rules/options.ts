/** Options of rules: defaults, names, and numbers that float32 holds. */
import { AttrError } from '../../gpu/errors.ts';
import { checkNumber } from '../pure.ts';
import { checkNames } from '../schedule.ts';
import type { Bounds } from '../pure.ts';
import { FLOAT32 } from '../trialOptions.ts';

/** The options with the defaults. @throws AttrError for one that the rule does not have, which would be ignored */
export function withDefaults<O extends object>(op: string, defaults: O, options: Partial<O>): O {
  checkNames(op, options, Object.keys(defaults));
  const given = Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined));
  return { ...defaults, ...given };
}

/** @throws AttrError unless the value is a number within the bounds, and 0 or a normal number of float32, as the GPU computes with it */
export function checkReal(op: string, arg: string, value: number, bounds: Bounds, usual: number | string): void {
  const fix = `${usual} is usual`;
  checkNumber(op, arg, value, bounds, fix);
  const size = Math.abs(value);
  if (size === 0 || (size >= FLOAT32.least && size <= FLOAT32.greatest)) return;
  throw new AttrError({ op, arg, rule: `must be 0 or lie in ${FLOAT32.least} … ${FLOAT32.greatest} (float32)`, got: value, fix });
}

/** @throws AttrError for an option that was given and that another makes void */
export function refuseIdle<O extends object>(op: string, options: O, arg: keyof O & string, isIdle: boolean, rule: string): void {
  const got: unknown = options[arg];
  if (isIdle && got !== undefined) throw new AttrError({ op, arg, rule, got, fix: 'leave it out: it would be ignored' });
}

/** A bound that is not there, as float32 holds it. */
export const upTo = (bound: number | null): number => bound ?? FLOAT32.greatest;
