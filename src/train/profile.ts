/** Where the time of a training step goes, dispatch by dispatch. */
import { AttrError } from '../gpu/errors.ts';
import { measurePeaks, type Peaks } from '../graph/peaks.ts';
import { record, type Plan } from '../graph/plan.ts';
import { median, timeDispatches, timePass, type TimingMethod } from '../graph/timing.ts';
import type { Owner } from '../kernels/contract.ts';
import type { StepPlans } from './stepPlans.ts';

export interface DispatchProfile extends Owner {
  /** `gradient`, `slope`, `direction`, `event`, `update`. */
  readonly plan: string;
  readonly kernel: string;
  readonly workgroups: readonly [number, number, number];
  readonly ms: number;
  /** Operations that its result needs; 0 where nobody counts them: what is not a convolution is bound by its bytes. */
  readonly flops: number;
  /** Bytes of what it reads and of what it writes. */
  readonly bytes: number;
}

export interface StepProfile {
  readonly part: ProfiledPart;
  /** In the order in which they run. */
  readonly dispatches: readonly DispatchProfile[];
  /** All of them in one pass, as training runs them. */
  readonly passMs: number;
  readonly peaks: Peaks;
}

export const profiledParts = ['step', 'event'] as const;
/** A step without an event, or what an event adds to it. */
export type ProfiledPart = (typeof profiledParts)[number];

export interface ProfileOptions {
  /** @default 'step' */
  readonly part?: ProfiledPart;
  /** Times of each dispatch, of which the median counts. ≥ 1, @default 10 */
  readonly samples?: number;
  /** @default timestamps where they mean something */
  readonly method?: TimingMethod;
}

const refuse = (arg: string, rule: string, got: unknown, fix: string): never => {
  throw new AttrError({ op: 'profileStep', arg, rule, got, fix });
};

function plansOf({ gradient, slope, direction, event, update }: StepPlans, part: ProfiledPart): Plan[] {
  if (part === 'step') return [gradient, direction, update];
  return event ? [...(slope ? [slope] : []), event] : refuse('part', "must be 'step' without trials", part, 'make plans with trials');
}

/**
 * The GPU time of every dispatch of a step or of an event, with the adapter's peaks measured in the same sitting.
 *
 * For plans whose trainer has made a step, so that there is a batch. Weights and the learning rate's scale stay as they are; momentum and
 * running statistics do not: train on with others.
 * @throws AttrError for samples that are not an integer ≥ 1, an event that is not there, or weights of which a step would not be finite
 */
export async function profileStep(plans: StepPlans, options: ProfileOptions = {}): Promise<StepProfile> {
  const { part = 'step', samples = 10 } = options;
  if (!Number.isInteger(samples) || samples < 1) refuse('samples', 'must be an integer ≥ 1', samples, 'use 10');
  const parts = plansOf(plans, part);
  const { device } = plans.memory;
  const peaks = await measurePeaks(device, options.method);
  const rates = new Float32Array(await device.read(plans.rates.buffer, plans.rates.offset, plans.rates.size));
  rates[0] = 0;
  // A step of rate 0 moves no weight however often it is made, and a first one gathers no momentum; with a rule the rate is m · envelope.
  plans.control.write({ first: 1, envelope: 0 });
  const prepare = () => device.gpu.queue.writeBuffer(plans.rates.buffer, plans.rates.offset, rates);
  prepare();
  if (part === 'event') await runOnce([plans.gradient, plans.direction]);
  const dispatches = parts.flatMap((plan) => plan.steps.map((step) => ({ plan: plan.label, step })));
  const steps = dispatches.map(({ step }) => step);
  const timing = { method: peaks.method, samples, prepare };
  const taken = await timeDispatches(device, steps, timing);
  const passMs = median(await timePass(device, steps, timing));
  prepare();
  const [flags] = new Uint32Array(await device.read(plans.flags.buffer, plans.flags.offset, 4));
  // With a flag set, launches end at once.
  if (flags !== 0) refuse('plans', 'must hold finite values', `divergence flags ${flags}`, 'profile a training that has not diverged');
  return {
    part,
    passMs,
    peaks,
    dispatches: dispatches.map(({ plan, step: { name, owner, grid, flops, bytes } }, i) => ({
      plan,
      kernel: name,
      ...owner,
      workgroups: grid,
      ms: median(taken[i]),
      flops,
      bytes,
    })),
  };
}

async function runOnce(plans: readonly Plan[]): Promise<void> {
  const { device } = plans[0];
  const encoder = device.gpu.createCommandEncoder({ label: 'profile' });
  const pass = encoder.beginComputePass({ label: 'profile' });
  for (const plan of plans) record(pass, plan.steps);
  pass.end();
  device.gpu.queue.submit([encoder.finish()]);
  await device.idle();
}
