/**
 * Several models of one shape side by side in memory: of every variable the models' values one behind the other, as tensors with a trial
 * axis lie.
 */
import { Arena, type Memory } from './memory.ts';
import { externalTensor } from './ops.ts';
import { upload } from './plan.ts';
import { pack, sizeBytes, type Storage, type Tensor, type Variable } from './tensor.ts';
import { requireUnplaced } from './variables.ts';

/** What a model keeps from step to step. */
export const modelParts = ['parameters', 'momentum', 'statistics'] as const;
export type ModelPart = (typeof modelParts)[number];

export interface ModelStackOptions {
  readonly label: string;
  readonly models: number;
  /** Whether the optimizer keeps a buffer. */
  readonly momentum: boolean;
}

export class ModelStack {
  readonly models: number;
  /** Those that training keeps; parts without variables have no memory. */
  readonly arenas: Readonly<Partial<Record<ModelPart, Arena>>>;
  readonly variables: Readonly<Record<ModelPart, readonly Variable[]>>;

  constructor(
    readonly memory: Memory,
    variables: readonly Variable[],
    { label, models, momentum }: ModelStackOptions,
  ) {
    this.models = models;
    const parameters = variables.filter(({ kind }) => kind === 'parameter');
    const statistics = variables.filter(({ kind }) => kind === 'statistic');
    this.variables = { parameters, momentum: momentum ? parameters : [], statistics };
    const arena = (part: ModelPart, category: 'parameters' | 'optimizer' | 'statistics'): Partial<Record<ModelPart, Arena>> => {
      const own = this.variables[part];
      const sizes = own.map((one) => models * sizeBytes(one));
      return own.length === 0 ? {} : { [part]: new Arena(memory, category, `${part} of ${label}`, sizes) };
    };
    this.arenas = { ...arena('parameters', 'parameters'), ...arena('momentum', 'optimizer'), ...arena('statistics', 'statistics') };
  }

  /** Every parameter and statistic with the models as trials. */
  tensors(): Map<Variable, Tensor> {
    return new Map(
      (['parameters', 'statistics'] as const).flatMap((part) =>
        this.variables[part].map((variable, i) => [variable, stackedTensor(this.arenas[part]!.at(i), variable, this.models)] as const),
      ),
    );
  }

  /** Where one model's values of a variable of a part lie. Only model 0's place may be bound. */
  at(part: ModelPart, index: number, model: number): Storage {
    const size = sizeBytes(this.variables[part][index]);
    const { buffer, offset } = this.arenas[part]!.at(index);
    return { buffer, offset: offset + model * size, size };
  }

  /**
   * Uploads the variables' own values as those of every model, and lets the variables lie where model 0's do.
   * @throws AttrError when a variable is on a device already
   */
  lend(): void {
    const { parameters, statistics } = this.variables;
    requireUnplaced('ModelStack', [...parameters, ...statistics]);
    for (const part of ['parameters', 'statistics'] as const) {
      this.variables[part].forEach((variable, i) => {
        for (let model = 0; model < this.models; model++) this.write(part, i, model, variable.data);
        variable.storage = this.at(part, i, 0);
      });
    }
  }

  /** Overwrites one model's values of a variable; `values` in logical layout. */
  write(part: ModelPart, index: number, model: number, values: Float32Array): void {
    const { buffer, offset } = this.at(part, index, model);
    this.memory.device.gpu.queue.writeBuffer(buffer, offset, pack(this.variables[part][index], values) as Float32Array<ArrayBuffer>);
  }

  /** Records copies of all that a model keeps from another stack of the same variables. */
  copyFrom(encoder: GPUCommandEncoder, source: ModelStack, from: number, to: number): void {
    for (const part of modelParts) {
      this.variables[part].forEach((_, i) => {
        const [x, y] = [source.at(part, i, from), this.at(part, i, to)];
        encoder.copyBufferToBuffer(x.buffer, x.offset, y.buffer, y.offset, x.size);
      });
    }
  }
}

/** A tensor of so many models' values of a variable that lie in `storage`. */
export const stackedTensor = (storage: Storage, { shape, dtype }: Variable, models: number): Tensor =>
  externalTensor(storage, { shape, dtype, trials: models });

/** For each segment of some models' values, where it is told which model a vec4 is of: a byte a vec4. */
export function uploadOwners(
  memory: Memory,
  label: string,
  arena: Pick<Arena, 'segments' | 'at'>,
  items: number,
  models: number,
): Storage[] {
  return arena.segments.map((segment) => {
    const owners = new Uint8Array(Math.ceil(segment.size / 16 / 4) * 4);
    for (let index = 0; index < items; index++) {
      const { buffer, offset, size } = arena.at(index);
      if (buffer !== segment.buffer) continue;
      const [start, vec4s] = [(offset - segment.offset) / 16, size / models / 16];
      for (let model = 0; model < models; model++) owners.fill(model, start + model * vec4s, start + (model + 1) * vec4s);
    }
    return upload(memory, 'slots', `owners of ${label}`, owners);
  });
}
