/** Layers, with PyTorch's names, defaults and initialisation. */
import { AttrError } from '../gpu/errors.ts';
import { batchNorm, batchNormInference, conv2d, linear, relu } from '../graph/functional.ts';
import { Variable, type Tensor } from '../graph/tensor.ts';
import { CounterRandom } from './random.ts';
import { Module, type ForwardContext } from './module.ts';

function requirePositive(op: string, arg: string, value: number): void {
  if (!Number.isInteger(value) || value < 1)
    throw new AttrError({ op, arg, rule: 'must be an integer ≥ 1', got: value, fix: 'pass 1 or more' });
}

const fill = (n: number, value: () => number): Float32Array => Float32Array.from({ length: n }, value);

export class Conv2d extends Module {
  readonly weight: Variable;
  readonly bias: Variable | null;

  /**
   * x [N, H, W, inChannels] → [N, hOut, wOut, outChannels].
   * @param options.bias @default false @param options.stride @default 1 @param options.padding @default 0
   * @source torchvision's ResNet initialisation: N(0, 2 / (outChannels·k²)), i.e. Kaiming normal, fan out; bias U(±1/√fanIn)
   */
  constructor(
    inChannels: number,
    outChannels: number,
    kernelSize: number,
    readonly options: { stride?: number; padding?: number; bias?: boolean; random: CounterRandom },
  ) {
    super();
    requirePositive('Conv2d', 'inChannels', inChannels);
    requirePositive('Conv2d', 'outChannels', outChannels);
    requirePositive('Conv2d', 'kernelSize', kernelSize);
    const { random } = options;
    const taps = kernelSize * kernelSize;
    const std = Math.sqrt(2 / (outChannels * taps));
    this.weight = new Variable(
      'parameter',
      'weight',
      [kernelSize, kernelSize, inChannels, outChannels],
      fill(taps * inChannels * outChannels, () => random.normal() * std),
    );
    const bound = 1 / Math.sqrt(inChannels * taps);
    this.bias = options.bias
      ? new Variable(
          'parameter',
          'bias',
          [outChannels],
          fill(outChannels, () => (random.uniform() * 2 - 1) * bound),
        )
      : null;
  }

  override forward(x: Tensor): Tensor {
    const { stride, padding } = this.options;
    return conv2d(x, this.weight, { stride, padding, bias: this.bias ?? undefined });
  }
}

export class BatchNorm2d extends Module {
  readonly weight: Variable;
  readonly bias: Variable;
  readonly runningMean: Variable;
  readonly runningVar: Variable;

  /** x [..., features]. @param options.eps @default 1e-5 @param options.momentum of the running statistics, @default 0.1 */
  constructor(
    features: number,
    readonly options: { eps?: number; momentum?: number } = {},
  ) {
    super();
    requirePositive('BatchNorm2d', 'features', features);
    const momentum = options.momentum ?? 0.1;
    if (!(momentum > 0 && momentum <= 1))
      throw new AttrError({ op: 'BatchNorm2d', arg: 'momentum', rule: 'must be in (0, 1]', got: momentum, fix: 'PyTorch uses 0.1' });
    this.weight = new Variable(
      'parameter',
      'weight',
      [features],
      fill(features, () => 1),
    );
    this.bias = new Variable('parameter', 'bias', [features], new Float32Array(features));
    this.runningMean = new Variable('statistic', 'running_mean', [features], new Float32Array(features));
    this.runningVar = new Variable(
      'statistic',
      'running_var',
      [features],
      fill(features, () => 1),
    );
  }

  override forward(x: Tensor, context: ForwardContext): Tensor {
    const { eps = 1e-5, momentum = 0.1 } = this.options;
    if (!context.training) return batchNormInference(x, this.weight, this.bias, this.runningMean, this.runningVar, { eps });
    const { y, statistics } = batchNorm(x, this.weight, this.bias, { eps });
    context.updates.push({ runningMean: this.runningMean, runningVar: this.runningVar, statistics, momentum });
    return y;
  }
}

export class Linear extends Module {
  readonly weight: Variable;
  readonly bias: Variable;

  /** x [N, inFeatures] → [N, outFeatures]; weight and bias U(±1/√inFeatures), PyTorch's default. */
  constructor(inFeatures: number, outFeatures: number, options: { random: CounterRandom }) {
    super();
    requirePositive('Linear', 'inFeatures', inFeatures);
    requirePositive('Linear', 'outFeatures', outFeatures);
    const bound = 1 / Math.sqrt(inFeatures);
    const draw = () => (options.random.uniform() * 2 - 1) * bound;
    this.weight = new Variable('parameter', 'weight', [inFeatures, outFeatures], fill(inFeatures * outFeatures, draw));
    this.bias = new Variable('parameter', 'bias', [outFeatures], fill(outFeatures, draw));
  }

  override forward(x: Tensor): Tensor {
    return linear(x, this.weight, this.bias);
  }
}

export class Relu extends Module {
  override forward(x: Tensor): Tensor {
    return relu(x);
  }
}

/** Modules one after another; state-dict names are their indices, as in PyTorch's `nn.Sequential`. */
export class Sequential extends Module {
  readonly modules: readonly Module[];

  constructor(...modules: Module[]) {
    super();
    this.modules = modules;
  }

  override namedVariables(prefix = ''): Map<string, Variable> {
    const named = new Map<string, Variable>();
    this.modules.forEach((module, index) => {
      for (const [name, variable] of module.namedVariables(prefix ? `${prefix}.${index}` : String(index))) named.set(name, variable);
    });
    return named;
  }

  override forward(x: Tensor, context: ForwardContext): Tensor {
    return this.modules.reduce((value, module) => module.forward(value, context), x);
  }
}
