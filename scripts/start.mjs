/** `npm start -- […]`: finds or installs an adapter, builds what is out of date, and runs `forkstep compare […]` in this process. */
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { ensureAdapter } from './adapter.mjs';
import { ROOT, ensureBuilt } from './build.mjs';

await ensureAdapter();
await ensureBuilt({ types: false });
const cli = join(ROOT, 'dist/cli.js');
process.argv = [process.execPath, cli, 'compare', ...process.argv.slice(2)];
await import(pathToFileURL(cli).href);
