/** Lowering of a classifier's end. */
import { classifierHead, type HeadVariant } from '../../kernels/classifierHead.ts';
import { blockVec4s, ceil4, rowVec4s, type Node } from '../tensor.ts';
import { emit, trialStride, type LowerRule, type Ref } from './context.ts';
import { perturbation } from './conv.ts';

interface Formed {
  readonly variant: Pick<HeadVariant, 'directions' | 'scaled' | 'formsBias'>;
  readonly bindings: Record<string, Ref>;
}

/**
 * What the kernel forms of the trials' parameters, as far as it has bindings: weight and bias along one direction, the weight along two. The others
 * are written out, an entry a trial.
 */
function formedBy({ inputs: [, weight, bias] }: Node<'classifierHead'>): Formed | null {
  const [w, b] = [perturbation(weight), perturbation(bias)];
  if (!w || w.directions.length > 2) return null;
  const directions = w.directions.length;
  const formsBias = directions === 1 && b !== null && b.directions.length === 1 && b.coefficients === w.coefficients && b.scaled === w.scaled;
  const ofWeight = Object.fromEntries(w.directions.map((d, k) => [`d${k}`, d]));
  const ofBias: Record<string, Ref> = formsBias ? { bias: b.base, bias_d0: b.directions[0] } : { bias };
  return {
    variant: { directions, scaled: w.scaled, formsBias },
    bindings: { weight: w.base, ...ofWeight, coefficients: w.coefficients, ...ofBias },
  };
}

/** Whether the kernel forms its weight (input 1) or bias (input 2) by itself. */
export const headForms = (node: Node<'classifierHead'>, input: number): boolean => {
  const formed = formedBy(node);
  return formed !== null && (input === 1 || (input === 2 && formed.variant.formsBias === true));
};

export const lowerClassifierHead: LowerRule<'classifierHead'> = (node) => {
  const [x, weight, bias, labels, dLosses] = node.inputs;
  const [losses, pooled, dLogits] = node.outputs;
  const { gradient, labelSmoothing } = node.attrs;
  const [images, h, w, c] = x.shape;
  const formed = formedBy(node);
  const bindings: Record<string, Ref> = {
    x,
    ...(formed?.bindings ?? { weight, bias }),
    labels,
    losses,
    ...(gradient ? { d_losses: dLosses, pooled, d_logits: dLogits } : {}),
  };
  return [
    emit(classifierHead({ ...formed?.variant, gradient }), {
      bindings,
      uniforms: {
        images,
        padded: ceil4(images),
        plane: h * w,
        c,
        c4: rowVec4s(x.shape),
        classes: weight.shape[1],
        m4: rowVec4s(weight.shape),
        x_stride: trialStride(x, blockVec4s(x.shape)),
        weight_stride: formed ? 0 : trialStride(weight, blockVec4s(weight.shape)),
        bias_stride: formed?.variant.formsBias ? 0 : trialStride(bias, rowVec4s(bias.shape)),
        smoothing: labelSmoothing,
      },
      grid: [images, 1, losses.trials],
    }),
  ];
};
