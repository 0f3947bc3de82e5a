import type { BuildOptions } from 'esbuild';

export const ROOT: string;
export const browserOptions: BuildOptions;
export function buildPackage(options: { types: boolean }): Promise<void>;
export function isFresh(options: { types: boolean }): boolean;
export function ensureBuilt(options: { types: boolean }): Promise<void>;
