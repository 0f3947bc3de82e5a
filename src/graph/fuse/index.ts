/** Graph passes that save launches, memory traffic and arithmetic. Each can be switched off; what each does stands in its file. */
import type { Tensor } from '../tensor.ts';
import { gradientSums } from './gradientSums.ts';
import { head } from './head.ts';
import { convMoments, normOnLoad } from './convNorm.ts';
import { normRelu, normReluBackward } from './normRelu.ts';
import { sharedInput } from './sharedInput.ts';
import { weightStep } from './weightStep.ts';

type Pass = (outputs: readonly Tensor[], trials?: number) => Tensor[];

/** In the order in which they run. */
const passes = { normRelu, normReluBackward, sharedInput, normOnLoad, convMoments, gradientSums, classifierHead: head, weightStep } satisfies Record<string, Pass>;

export type Fusion = keyof typeof passes;
export const fusions = Object.keys(passes) as readonly Fusion[];

/**
 * Rewrites the graph of `outputs`.
 * @param trials those of the event in all its passes, so that each pass is rewritten alike; else those of the graph
 * @returns for every old output the tensor that holds its value now
 */
export function fuse(outputs: readonly Tensor[], enabled: readonly Fusion[] = fusions, trials?: number): Tensor[] {
  return fusions.filter((name) => enabled.includes(name)).reduce<Tensor[]>((present, name) => (passes[name] as Pass)(present, trials), [...outputs]);
}
