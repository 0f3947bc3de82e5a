import type { Nd } from '../nd.ts';
import { map, requireShape } from '../nd.ts';

/** PyTorch `torch.optim.SGD`; all but lr @default 0 or false. */
export interface SgdAttrs {
  lr: number;
  momentum?: number;
  dampening?: number;
  weightDecay?: number;
  nesterov?: boolean;
}

/**
 * One step of PyTorch's SGD, for one parameter:
 *   d = g + weightDecay·w
 *   buf = d on the first step, else momentum·buf + (1 − dampening)·d      (only with momentum)
 *   direction = d + momentum·buf with Nesterov, buf with plain momentum, d without
 *   w ← w − lr·direction
 * @param w [..]  @param g like w  @param buf like w; null before the first step
 * @returns w, direction and the next buf (null without momentum); the inputs stay as they are
 * @throws RangeError if nesterov goes without momentum or with dampening, as in PyTorch
 */
export function sgdStep(w: Nd, g: Nd, buf: Nd | null, attrs: SgdAttrs): { w: Nd; direction: Nd; buf: Nd | null } {
  const { lr, momentum = 0, dampening = 0, weightDecay = 0, nesterov = false } = attrs;
  requireShape('sgdStep: g', g, w.shape);
  if (nesterov && (momentum <= 0 || dampening !== 0)) {
    throw new RangeError(`sgdStep: nesterov must go with momentum > 0 and dampening 0, got ${momentum} and ${dampening}`);
  }
  const d = map(g, (value, i) => value + weightDecay * w.data[i]);
  const step = (direction: Nd, next: Nd | null) => ({ w: map(w, (value, i) => value - lr * direction.data[i]), direction, buf: next });
  if (momentum === 0) return step(d, null);
  if (buf) requireShape('sgdStep: buf', buf, w.shape);
  const next = buf ? map(d, (value, i) => momentum * buf.data[i] + (1 - dampening) * value) : map(d, (value) => value);
  return step(nesterov ? map(d, (value, i) => value + momentum * next.data[i]) : map(next, (value) => value), next);
}
