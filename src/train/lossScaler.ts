/**
 * Dynamic loss scaling: gradients of activations are kept in f16, where what is small vanishes, so those of S times the loss are computed and
 * divided by S again. S is a power of two, lives on the GPU and is moved there by the step's last launch. PyTorch's `GradScaler`, but that S
 * stays ≥ 1: gradients that overflow there are not finite in truth.
 */
import { AttrError } from '../gpu/errors.ts';
import type { Word } from '../graph/control.ts';
import { mul } from '../graph/functional.ts';
import { emit, type Ref } from '../graph/lower/context.ts';
import type { Memory } from '../graph/memory.ts';
import { externalTensor } from '../graph/ops.ts';
import { upload } from '../graph/plan.ts';
import type { Storage, Tensor } from '../graph/tensor.ts';
import { grid1d, type Launch } from '../kernels/contract.ts';
import { unscale } from '../kernels/sgd.ts';

export interface LossScaling {
  /** S at the start, a power of two from 1 to 2^126. @default 2^16 */
  readonly initScale?: number;
  /** Steps without an overflow after which S doubles, ≥ 1. @default 2000 */
  readonly growthInterval?: number;
}

/** @throws AttrError for the first option that is wrong */
export function resolveLossScaling({ initScale = 2 ** 16, growthInterval = 2000, ...rest }: LossScaling = {}): Required<LossScaling> {
  const refuse = (arg: string, rule: string, got: unknown, fix: string): never => {
    throw new AttrError({ op: 'Trainer', arg: `lossScaling.${arg}`, rule, got, fix });
  };
  const [unknown] = Object.keys(rest);
  if (unknown !== undefined) refuse(unknown, 'must be an option', unknown, 'options are initScale, growthInterval');
  const exponent = Math.log2(initScale);
  if (!Number.isInteger(exponent) || exponent < 0 || exponent > 126)
    refuse('initScale', 'must be a power of two in 1 … 2^126', initScale, '65536 is usual');
  if (!Number.isInteger(growthInterval) || growthInterval < 1 || growthInterval >= 2 ** 32)
    refuse('growthInterval', 'must be an integer in 1 … 2^32 − 1', growthInterval, '2000 is usual');
  return { initScale, growthInterval };
}

export class LossScaler {
  readonly growthInterval: number;
  /** f32: S, 1/S. */
  readonly scale: Storage;
  /** u32: 1 before the optimizer's first step, which may be skipped; steps since S changed; steps skipped. */
  readonly state: Storage;

  constructor(
    readonly memory: Memory,
    scaling: LossScaling,
  ) {
    const { initScale, growthInterval } = resolveLossScaling(scaling);
    this.growthInterval = growthInterval;
    this.scale = upload(memory, 'slots', 'loss scale', Float32Array.of(initScale, 1 / initScale, 0, 0));
    this.state = upload(memory, 'slots', 'loss scaling', Uint32Array.of(1, 0, 0, 0));
  }

  /** 1 on the first step that the optimizer makes. */
  get first(): Word {
    return { storage: this.state, word: 0 };
  }

  /** S, and steps made since it changed. Waits for the GPU. */
  async read(): Promise<{ scale: number; steps: number }> {
    const { device } = this.memory;
    const [scale] = new Float32Array(await device.read(this.scale.buffer, this.scale.offset, 4));
    const [, steps] = new Uint32Array(await device.read(this.state.buffer, this.state.offset, 8));
    return { scale, steps };
  }

  /** Sets S and its counts: of a run that goes on. */
  write({ scale, steps, isFirst, skipped }: { scale: number; steps: number; isFirst: boolean; skipped: number }): void {
    const { queue } = this.memory.device.gpu;
    queue.writeBuffer(this.scale.buffer, this.scale.offset, Float32Array.of(scale, 1 / scale));
    queue.writeBuffer(this.state.buffer, this.state.offset, Uint32Array.of(Number(isFirst), steps, skipped));
  }

  /** S · loss, for its gradient: nothing else reads it. */
  scaled(loss: Tensor): Tensor {
    return mul(loss, externalTensor(this.scale, { shape: [], dtype: 'f32', trials: 1 }));
  }

  /** Divides gradients by S where they lie, and sets `bit` in the flags where one is not finite. */
  unscaleLaunch(x: Storage, flags: Storage, bit: number): Launch<Ref> {
    return emit(unscale, { bindings: { scale: this.scale, flags, x }, uniforms: { n: x.size / 16, bit }, grid: grid1d(x.size / 16, 64) });
  }
}
