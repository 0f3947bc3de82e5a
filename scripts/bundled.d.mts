import type { Plugin as EsbuildPlugin } from 'esbuild';
import type { Plugin } from 'vitest/config';

export const bundledTexts: EsbuildPlugin;
export const bundledTextsForVitest: Plugin;
