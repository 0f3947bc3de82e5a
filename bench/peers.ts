/** ResNet18's step and its ops in jax-js, TensorFlow.js and forkstep, a process each, run in turn; checks that results agree. */
import { copyFileSync } from 'node:fs';
import { resolve } from 'node:path';
import type { AdapterSummary } from '../src/gpu/device.ts';
import { cases, type Method } from './peers/cases.ts';
import { servePeer } from './peers/child.ts';
import { compare } from './peers/compare.ts';
import { installPeers, packages, peersFolder } from './peers/install.ts';
import { countsTable, goals, goalsTable, timesTable, type PeerRow } from './peers/rows.ts';
import { chosen, fail, optionsAndWords, positive, printTable, writeReport } from './support/report.ts';

const script = 'peers.mjs';

async function main(): Promise<void> {
  const { values, words } = optionsAndWords({
    rounds: { type: 'string', default: '5' },
    polling: { type: 'boolean', default: false },
    child: { type: 'string' },
  });
  if (values.child !== undefined) return servePeer(values.child as Method, cases.find(({ name }) => name === words[0])!);
  const rounds = positive('rounds', values.rounds);
  const some = chosen('case', cases, ({ name }) => name, words);
  installPeers();
  copyFileSync(process.argv[1], resolve(peersFolder, script));
  const rows: PeerRow[] = [];
  let adapter: AdapterSummary;
  for (const [i, one] of some.entries()) {
    const found = await compare(one, { rounds, polling: values.polling, script });
    adapter = found.adapter;
    rows.push(...found.rows);
    const times = found.rows.map(({ method, wallMs, cpuMs }) => `${method} ${wallMs} / ${cpuMs}`);
    process.stdout.write(`${i + 1}/${some.length} ${one.name}: ${times.join(', ')}\n`);
  }
  printTable('wall / CPU ms', timesTable(rows));
  printTable('dispatches / submits / MB of GPU buffers / s to the first run done', countsTable(rows));
  const reached = goalsTable(goals(rows, adapter!.isSoftware));
  if (reached.length > 0) printTable('To reach', reached);
  writeReport('peers', adapter!, rows.map((row) => ({ ...row })), values.json, { packages });
  process.exit(0);
}

await main().catch((error: Error) => fail(error.message));
