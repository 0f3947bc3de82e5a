import { defineConfig } from 'vitest/config';
import { bundledTextsForVitest } from './scripts/bundled.mjs';

/**
 * Two workers, each with one module graph and one GPU device for all its files. A software adapter computes on all cores, but compiles a kernel
 * on one, and with a cold shader cache that is most of the time.
 */
export default defineConfig({
  plugins: [bundledTextsForVitest],
  test: {
    include: ['test/**/*.test.ts'],
    pool: 'forks',
    maxWorkers: 2,
    isolate: false,
    testTimeout: 300_000,
    hookTimeout: 300_000,
    teardownTimeout: 20_000,
  },
});
