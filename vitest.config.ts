import { defineConfig } from 'vitest/config';

/**
 * One worker runs all files one after the other, in one module graph: they share one GPU device, and a software adapter has no core to
 * spare.
 */
export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    pool: 'forks',
    fileParallelism: false,
    maxWorkers: 1,
    isolate: false,
    testTimeout: 120_000,
    hookTimeout: 120_000,
    teardownTimeout: 20_000,
  },
});
