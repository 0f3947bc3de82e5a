/**
 * Float64 references of every op, written as the naive sum of their definition: the oracle that kernels are tested against.
 *
 * All are pure. An op `f(…inputs, attrs)` has its vector-Jacobian product `fVjp(…inputs, attrs, dy)`, which returns the
 * gradients of Σ dy·y by name. The products are written down from the derivative's formula, not by reversing the
 * forward's code; `reference.test.ts` holds them against central differences of the forward, and `torch.test.ts` both
 * against PyTorch.
 */
export * from './reference/batch.ts';
export * from './reference/conv.ts';
export * from './reference/elementwise.ts';
export * from './reference/loss.ts';
export * from './reference/norm.ts';
export * from './reference/pool.ts';
export * from './reference/sgd.ts';
export * from './nd.ts';
