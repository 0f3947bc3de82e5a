/** Lowering of a classifier's end. */
import { classifierHead } from '../../kernels/classifierHead.ts';
import { blockVec4s, ceil4, rowVec4s, type Node } from '../tensor.ts';
import { emit, trialStride, type LowerRule, type Ref } from './context.ts';
import { perturbation } from './conv.ts';

/** What the kernel forms weight and bias of; null where it reads them as they are. */
export function headPerturbation({ inputs: [, weight, bias] }: Node<'classifierHead'>) {
  const [w, b] = [perturbation(weight), perturbation(bias)];
  if (!w || !b) return null;
  const bindings = { weight: w.base, d_weight: w.directions[0], bias: b.base, d_bias: b.directions[0], coefficients: w.coefficients };
  return { scaled: w.scaled, bindings };
}

export const lowerClassifierHead: LowerRule<'classifierHead'> = (node) => {
  const [x, weight, bias, labels, dLosses] = node.inputs;
  const [losses, pooled, dLogits] = node.outputs;
  const { gradient, labelSmoothing } = node.attrs;
  const [images, h, w, c] = x.shape;
  const perturbed = headPerturbation(node);
  const bindings: Record<string, Ref> = {
    x,
    ...(perturbed?.bindings ?? { weight, bias }),
    labels,
    losses,
    ...(gradient ? { d_losses: dLosses, pooled, d_logits: dLogits } : {}),
  };
  return [
    emit(classifierHead({ perturbed, gradient }), {
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
        smoothing: labelSmoothing,
      },
      grid: [images, 1, losses.trials],
    }),
  ];
};
