/** Rows of the op table once more, with activations stored as f16. */
import { cast } from '../../src/graph/functional.ts';
import type { Nd } from '../support/nd.ts';
import type { Tolerance } from '../support/close.ts';
import { roundHalves } from '../support/half.ts';
import type { ValueCase } from './check.ts';

/**
 * One more rounding, to f16, of what was computed in f32: half a place of 11 bits to nearest, a whole one on adapters that cut; and below the
 * least normal number whatever the places there are, or 0.
 */
const roundedToHalf = ({ atol, rtol }: Tolerance): Tolerance => ({ atol: atol + 2 ** -24, rtol: rtol + 2 ** -10 });

/** An operand below 2^−14, the least normal f16, may be taken for 0 (lavapipe does), and is met by one of up to 4 standard deviations. */
const flushedOperand = ({ atol, rtol }: Tolerance): Tolerance => ({ atol: atol + 2 ** -12, rtol });

/**
 * A row whose activations, result and their gradients are f16. The reference gets what the kernels do: activations and operands of products as
 * f16 holds them, the cotangent too; gradients of parameters stay f32, and as exact as before.
 */
export function inHalf(row: ValueCase): ValueCase {
  const { activations = [0], isProduct = false, hasF32Result = false, gradTolerance = row.tolerance, trialTolerance } = row;
  const isHalf = (input: number) => activations.includes(input);
  const ofGradient = (input: number) => (typeof gradTolerance === 'function' ? gradTolerance(input) : gradTolerance);
  const ofOperands = isProduct ? flushedOperand : (tolerance: Tolerance) => tolerance;
  const operands = (inputs: Nd[]) => (isProduct ? inputs.map(roundHalves) : inputs);
  return {
    ...row,
    name: `f16, ${row.name}`,
    inputs: () => row.inputs().map((input, i) => (isHalf(i) ? roundHalves(input) : input)),
    build: (inputs) => cast(row.build(inputs.map((input, i) => (isHalf(i) ? cast(input, 'f16') : input))), 'f32'),
    reference: (inputs) => row.reference(operands(inputs)),
    vjp: (inputs, dy) => row.vjp(operands(inputs), hasF32Result ? dy : roundHalves(dy)),
    tolerance: ofOperands(hasF32Result ? row.tolerance : roundedToHalf(row.tolerance)),
    gradTolerance: (input) => ofOperands(isHalf(input) ? roundedToHalf(ofGradient(input)) : ofGradient(input)),
    ...(trialTolerance && { trialTolerance: roundedToHalf(trialTolerance) }),
  };
}
