/** Variables placed on a device: all parameters in one flat memory, all statistics in another, so that an optimizer updates them in one launch. */
import { AttrError, ShapeError } from '../gpu/errors.ts';
import { Arena, type Memory } from './memory.ts';
import { readStorage } from './run.ts';
import { elements, pack, sizeBytes, unpack, type Storage, type Variable } from './tensor.ts';

/** @throws AttrError when a variable is on a device already */
export function requireUnplaced(op: string, variables: readonly Variable[]): void {
  const placed = variables.find(({ storage }) => storage);
  if (!placed) return;
  const fix = 'release its trainer first, or build another model';
  throw new AttrError({ op, arg: placed.name, rule: 'must not be on a device already', got: 'a placed variable', fix });
}

export class VariableStore {
  readonly parameters: readonly Variable[];
  readonly statistics: readonly Variable[];
  readonly parameterArena: Arena;
  /** In which order parameters lie in memory, by their indices: weights of layers, then vectors, so that either kind is in a row. */
  readonly parameterOrder: readonly number[];
  readonly statisticArena: Arena;

  /**
   * Uploads the variables' values and binds them to the device.
   * @throws AttrError when a variable is on a device already
   */
  constructor(
    readonly memory: Memory,
    variables: readonly Variable[],
  ) {
    requireUnplaced('VariableStore', variables);
    this.parameters = variables.filter((variable) => variable.kind === 'parameter');
    this.statistics = variables.filter((variable) => variable.kind === 'statistic');
    const indices = [...this.parameters.keys()];
    const isVector = (index: number): boolean => this.parameters[index].shape.length < 2;
    this.parameterOrder = [...indices.filter((index) => !isVector(index)), ...indices.filter(isVector)];
    this.parameterArena = new Arena(memory, 'parameters', 'parameters', this.parameters.map(sizeBytes), this.parameterOrder);
    this.statisticArena = new Arena(memory, 'statistics', 'running statistics', this.statistics.map(sizeBytes));
    this.parameters.forEach((variable, i) => this.#place(variable, this.parameterArena.at(i)));
    this.statistics.forEach((variable, i) => this.#place(variable, this.statisticArena.at(i)));
  }

  #place(variable: Variable, storage: Storage): void {
    variable.storage = storage;
    this.write(variable, variable.data);
  }

  /** Overwrites a variable on the device; `values` in logical layout. */
  write(variable: Variable, values: Float32Array): void {
    if (values.length !== elements(variable.shape)) {
      throw new ShapeError({
        op: 'write',
        arg: variable.name,
        rule: `must hold ${elements(variable.shape)} values`,
        got: values.length,
        fix: `its shape is ${variable}`,
      });
    }
    const { buffer, offset } = variable.storage!;
    this.memory.device.gpu.queue.writeBuffer(buffer, offset, pack(variable, values) as Float32Array<ArrayBuffer>);
  }

  /** The variable's present values, in logical layout. */
  async read(variable: Variable): Promise<Float32Array> {
    return (await readStorage(this.memory.device, variable, variable.storage!)) as Float32Array;
  }

  /** What an arena with a place a variable holds for each of them, in logical layout: one copy a segment. */
  async readArena(arena: Arena, variables: readonly Variable[]): Promise<Map<Variable, Float32Array>> {
    const values = new Map<Variable, Float32Array>();
    for (const { buffer, offset, size } of arena.segments) {
      const bytes = await this.memory.device.read(buffer, offset, size);
      for (const [i, variable] of variables.entries()) {
        const place = arena.at(i);
        if (place.buffer === buffer) values.set(variable, unpack(variable, new Float32Array(bytes, place.offset - offset, sizeBytes(variable) / 4)));
      }
    }
    return values;
  }

  /** Writes into a variable's place of an arena, in logical layout. */
  writeArena(arena: Arena, variables: readonly Variable[], values: ReadonlyMap<Variable, Float32Array>): void {
    for (const [i, variable] of variables.entries()) {
      const { buffer, offset } = arena.at(i);
      this.memory.device.gpu.queue.writeBuffer(buffer, offset, pack(variable, values.get(variable)!) as Float32Array<ArrayBuffer>);
    }
  }

  /** Brings all values back to the host variables. */
  async pull(): Promise<void> {
    for (const variable of [...this.parameters, ...this.statistics]) variable.data = await this.read(variable);
  }

  /** Unbinds the variables; their buffers go with the memory. */
  release(): void {
    for (const variable of [...this.parameters, ...this.statistics]) variable.storage = null;
  }
}
