import { defineConfig } from 'vitest/config';
import { BaseSequencer, type TestSpecification } from 'vitest/node';
import { bundledTextsForVitest } from './scripts/bundled.mjs';

/** Files that take longest with a cold shader cache, the longest first. */
const long = [
  'ops/opsHalf', 'ops/opsSideBySide', 'ops/ops', 'ops/convFusion', 'trials/lossesAlong', 'cli/run', 'train/resume', 'nn/parity', 'trials/resnet',
  'graph/convChoice', 'ops/halfFusion', 'cli/kill', 'cli/study', 'study/runRecipe',
];

/** Long files first: one that begins last keeps a worker busy while the other has nothing left. */
class LongFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const place = ({ moduleId }: TestSpecification): number => {
      const at = long.findIndex((name) => moduleId.endsWith(`/test/${name}.test.ts`));
      return at === -1 ? long.length : at;
    };
    return (await super.sort(files)).sort((a, b) => place(a) - place(b));
  }
}

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
    sequence: { sequencer: LongFirst },
    testTimeout: 300_000,
    hookTimeout: 300_000,
    teardownTimeout: 20_000,
  },
});
