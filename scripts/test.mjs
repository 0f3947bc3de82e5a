/**
 * `npm test [-- FILTER …]`: finds or installs an adapter, builds, runs vitest with its own live output, and ends in the line `N passed, N
 * failed[, N skipped]`. Arguments go to vitest. The exit code is 0 only if something ran, nothing failed and vitest itself was content.
 */
import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { ensureAdapter } from './adapter.mjs';
import { ROOT, ensureBuilt } from './build.mjs';
import { kit, leftOutHere } from './kit/info.mjs';

const REPORT = join(ROOT, '.cache/test-report.json');

/** Runs vitest; resolves with its exit code (1 where a signal ended it). */
function runVitest(filters) {
  const vitest = join(ROOT, 'node_modules/vitest/vitest.mjs');
  const reporters = ['--reporter=default', '--reporter=json', `--outputFile.json=${REPORT}`];
  const child = spawn(process.execPath, [vitest, 'run', ...reporters, ...filters], { cwd: ROOT, stdio: 'inherit' });
  // Ctrl-C reaches vitest as well: it ends, and with it this process.
  process.on('SIGINT', () => {});
  process.on('SIGTERM', () => child.kill('SIGTERM'));
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code) => resolve(code ?? 1));
  });
}

/**
 * The counts of vitest's JSON report. A file that failed as a whole counts as one failure, and so does whatever made vitest exit with an
 * error without a failed test: a crashed worker, an unhandled rejection, no test found.
 */
function count(exitCode) {
  const report = existsSync(REPORT) ? JSON.parse(readFileSync(REPORT, 'utf8')) : { testResults: [] };
  const files = report.testResults;
  const tests = files.flatMap((file) => file.assertionResults);
  const withStatus = (...wanted) => tests.filter((test) => wanted.includes(test.status)).length;
  const failedFiles = files.filter(
    (file) => file.status === 'failed' && !file.assertionResults.some((test) => test.status === 'failed'),
  ).length;
  const passed = withStatus('passed');
  const failed = withStatus('failed') + failedFiles;
  const skipped = withStatus('skipped', 'pending', 'todo', 'disabled');
  const isUnexplained = failed === 0 && (exitCode !== 0 || passed === 0);
  return { passed, failed: isUnexplained ? 1 : failed, skipped, isUnexplained };
}

await ensureAdapter();
await ensureBuilt({ types: !kit });
mkdirSync(join(ROOT, '.cache'), { recursive: true });
rmSync(REPORT, { force: true });
const omitted = kit ? Object.entries(leftOutHere()) : [];
for (const [file, reason] of omitted) process.stdout.write(`left out ${file}: ${reason}\n`);
const exitCode = await runVitest([...process.argv.slice(2), ...omitted.map(([file]) => `--exclude=${file}`)]);
const { passed, failed, skipped, isUnexplained } = count(exitCode);
if (isUnexplained)
  process.stdout.write(`No test failed, but vitest exited with code ${exitCode} and ${passed} passed: counted as a failure (see above).\n`);
process.stdout.write(`${passed} passed, ${failed} failed${skipped ? `, ${skipped} skipped` : ''}\n`);
process.exitCode = failed ? 1 : 0;
