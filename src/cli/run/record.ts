/** The weights that a run leaves behind. */
import { join } from 'node:path';
import { saveSafetensors, type Module } from '../../nn/index.ts';
import { writeWhole } from '../../train/files.node.ts';

export function saveModel(folder: string, model: Module, steps: number, metadata: Record<string, string>): string {
  const file = join(folder, 'model.safetensors');
  writeWhole(file, saveSafetensors(model, metadata, steps));
  return file;
}
