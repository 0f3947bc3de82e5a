/** Modules: trees of named variables with a forward function, in PyTorch's manner. */
import type { BatchStatistics } from '../graph/functional.ts';
import { Variable, type Tensor } from '../graph/tensor.ts';

/** A running statistic and what the batch says of it. */
export interface StatisticUpdate {
  readonly runningMean: Variable;
  readonly runningVar: Variable;
  readonly statistics: BatchStatistics;
  /** running ← (1 − momentum)·running + momentum·batch */
  readonly momentum: number;
}

/** How a forward pass is traced. */
export interface ForwardContext {
  /** Batch statistics (and their updates noted) when true, running statistics when false. */
  readonly training: boolean;
  /** Filled while tracing a training pass. */
  readonly updates: StatisticUpdate[];
}

export const trainingContext = (): ForwardContext => ({ training: true, updates: [] });
export const inferenceContext = (): ForwardContext => ({ training: false, updates: [] });

/** PyTorch's spelling of a property: runningMean → running_mean. */
const snakeCase = (name: string): string => name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);

export abstract class Module {
  /** Adds the module's operations to the graph. */
  abstract forward(x: Tensor, context: ForwardContext): Tensor;

  /** Every variable below, by its state-dict name, in the order of definition. Also tells the variables their names. */
  namedVariables(prefix = ''): Map<string, Variable> {
    const named = new Map<string, Variable>();
    const add = (path: string, value: unknown): void => {
      if (value instanceof Variable) {
        value.name = path;
        named.set(path, value);
      } else if (value instanceof Module) {
        for (const [name, variable] of value.namedVariables(path)) named.set(name, variable);
      } else if (Array.isArray(value)) {
        value.forEach((item, index) => add(`${path}.${index}`, item));
      }
    };
    for (const [property, value] of Object.entries(this)) add(prefix ? `${prefix}.${snakeCase(property)}` : snakeCase(property), value);
    return named;
  }

  /** Learnable variables. */
  parameters(): Variable[] {
    return this.variables().filter((variable) => variable.kind === 'parameter');
  }

  /** Parameters and running statistics. */
  variables(): Variable[] {
    return [...this.namedVariables().values()];
  }
}
