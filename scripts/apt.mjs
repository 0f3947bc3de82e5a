/** Installs lavapipe, Mesa's software Vulkan, through apt on Debian and Ubuntu. */
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, readFileSync, readdirSync } from 'node:fs';

const PACKAGES = ['mesa-vulkan-drivers', 'libvulkan1'];
const BACKPORTS_FILE = '/etc/apt/sources.list.d/forkstep-backports.sources';
const LOCK_WAIT = ['-o', 'DPkg::Lock::Timeout=120'];

/** {ID, VERSION_CODENAME, …} of /etc/os-release; {} where there is none. */
export function osRelease(text = existsSync('/etc/os-release') ? readFileSync('/etc/os-release', 'utf8') : '') {
  const entries = [...text.matchAll(/^([A-Z_]+)=(.*)$/gm)].map(([, key, value]) => [key, value.replace(/^["']|["']$/g, '')]);
  return Object.fromEntries(entries);
}

/** How to become root: [] as root, ['sudo', '-n'] with password-less sudo, null otherwise. */
export function rootPrefix() {
  if (process.getuid?.() === 0) return [];
  return spawnSync('sudo', ['-n', 'true'], { stdio: 'ignore' }).status === 0 ? ['sudo', '-n'] : null;
}

/** Whether this machine installs its software with apt-get. */
export const hasApt = () => process.platform === 'linux' && spawnSync('apt-get', ['--version'], { stdio: 'ignore' }).status === 0;

/** The release whose own Mesa is too old for Dawn (22.3.6 lacks shaderSampledImageArrayDynamicIndexing), so that backports are needed. */
export const needsBackports = (os) => os.VERSION_CODENAME === 'bookworm';

/** The stanzas of a deb822 sources file, as maps from lower-case field name to value; continuation lines are kept as they stand. */
function deb822Sources(text) {
  const stanzas = [];
  for (const block of text.replace(/^#.*\n?/gm, '').split(/\n\s*\n/)) {
    const fields = {};
    let last = '';
    for (const line of block.split('\n')) {
      const field = /^([\w-]+):\s*(.*)$/.exec(line);
      if (field) fields[(last = field[1].toLowerCase())] = field[2];
      else if (/^\s+\S/.test(line) && last) fields[last] += `\n${line}`;
    }
    if (fields.uris && !/^(no|false|0)$/i.test(fields.enabled ?? '')) stanzas.push(fields);
  }
  return stanzas;
}

/** The entries of a one-line-style sources list, as the same maps. */
function oneLineSources(text) {
  const stanzas = [];
  for (const line of text.split('\n')) {
    const entry = /^\s*(deb|deb-src)\s+(?:\[([^\]]*)\]\s+)?(\S+)\s+(\S+)\s*([^#]*)/.exec(line);
    if (!entry) continue;
    const options = (entry[2] ?? '')
      .trim()
      .split(/\s+/)
      .filter(Boolean)
      .map((option) => option.split(/=(.*)/s).slice(0, 2));
    const named = { arch: 'architectures' };
    const fields = Object.fromEntries(options.map(([key, value]) => [named[key] ?? key, value.replaceAll(',', ' ')]));
    stanzas.push({ ...fields, types: entry[1], uris: entry[3], suites: entry[4], components: entry[5].trim() });
  }
  return stanzas;
}

/** Every binary package source that apt reads on this machine. */
export function aptSources(etcApt = '/etc/apt') {
  const list = existsSync(`${etcApt}/sources.list`) ? [`${etcApt}/sources.list`] : [];
  const parts = existsSync(`${etcApt}/sources.list.d`)
    ? readdirSync(`${etcApt}/sources.list.d`).map((name) => `${etcApt}/sources.list.d/${name}`)
    : [];
  const stanzas = [...list, ...parts.sort()].flatMap((file) => {
    if (file.endsWith('.sources')) return deb822Sources(readFileSync(file, 'utf8'));
    return file.endsWith('.list') ? oneLineSources(readFileSync(file, 'utf8')) : [];
  });
  return stanzas.filter((fields) => /(^|\s)deb(\s|$)/.test(fields.types ?? ''));
}

/**
 * The deb822 text that adds a release's backports from the mirror the machine already uses for that release, signed by the same key.
 * @returns null where a source has the backports already
 * @throws Error if no source carries the release itself
 */
export function backportsSource(codename, sources) {
  const carries = (fields, suite) => (fields.suites ?? '').split(/\s+/).includes(suite);
  if (sources.some((fields) => carries(fields, `${codename}-backports`))) return null;
  const main = sources.find((fields) => carries(fields, codename) && /(^|\s)main(\s|$)/.test(fields.components ?? ''));
  if (!main) throw new Error(`apt's sources name no mirror for ${codename}`);
  const lines = ['Types: deb', `URIs: ${main.uris}`, `Suites: ${codename}-backports`, 'Components: main'];
  if (main.architectures) lines.push(`Architectures: ${main.architectures}`);
  if (main.trusted) lines.push(`Trusted: ${main.trusted}`);
  if (main['signed-by']) lines.push(`Signed-By: ${main['signed-by']}`);
  return `${lines.join('\n')}\n`;
}

/** Runs a command with its output appended to log; resolves with its exit code. */
function capture(command, log, input) {
  return new Promise((resolve) => {
    log.push(`$ ${command.join(' ')}\n`);
    const child = spawn(command[0], command.slice(1), { stdio: ['pipe', 'pipe', 'pipe'] });
    child.stdout.on('data', (chunk) => log.push(chunk.toString()));
    child.stderr.on('data', (chunk) => log.push(chunk.toString()));
    child.on('error', (error) => {
      log.push(`${error.message}\n`);
      resolve(127);
    });
    child.on('close', (code) => resolve(code ?? 1));
    child.stdin.on('error', () => {});
    child.stdin.end(input ?? '');
  });
}

/** A status line with the seconds gone by: redrawn on a terminal, printed once elsewhere. Returns the function that ends it. */
function elapsedLine(text) {
  const start = Date.now();
  const seconds = () => Math.round((Date.now() - start) / 1000);
  const isTerminal = Boolean(process.stderr.isTTY);
  const draw = () => process.stderr.write(`\r${text} … ${seconds()} s `);
  const timer = isTerminal ? setInterval(draw, 500) : undefined;
  process.stderr.write(isTerminal ? `\r${text} …` : `${text} …\n`);
  return (outcome) => {
    clearInterval(timer);
    process.stderr.write(`${isTerminal ? `\r${text} … ` : ''}${outcome} after ${seconds()} s\n`);
  };
}

/** The commands that do by hand what installLavapipe() does, for a message. */
export function manualSteps(os) {
  if (!needsBackports(os)) return `sudo apt-get update && sudo apt-get install ${PACKAGES.join(' ')}`;
  const suite = `${os.VERSION_CODENAME}-backports`;
  return `add ${suite} to apt's sources, then: sudo apt-get update && sudo apt-get install -t ${suite} ${PACKAGES.join(' ')}`;
}

/**
 * Installs lavapipe and the Vulkan loader.
 * @param prefix from rootPrefix(), not null
 * @returns null, or the log of what was run where it failed
 */
export async function installLavapipe(os, prefix) {
  const log = [];
  const apt = [...prefix, 'env', 'DEBIAN_FRONTEND=noninteractive', 'NEEDRESTART_SUSPEND=1', 'apt-get', ...LOCK_WAIT];
  const release = needsBackports(os) ? ['-t', `${os.VERSION_CODENAME}-backports`] : [];
  const end = elapsedLine(`Installing ${PACKAGES.join(' and ')}${release.length ? ` from ${release[1]}` : ''} with apt-get`);
  let source = null;
  try {
    source = release.length ? backportsSource(os.VERSION_CODENAME, aptSources()) : null;
    if (source !== null && (await capture([...prefix, 'tee', BACKPORTS_FILE], log, source)) !== 0)
      throw new Error(`could not write ${BACKPORTS_FILE}`);
    // A source that has nothing to do with ours may be broken: only the installation's own result counts.
    await capture([...apt, 'update'], log);
    if ((await capture([...apt, 'install', '-y', '--no-install-recommends', ...release, ...PACKAGES], log)) !== 0)
      throw new Error('apt-get install failed');
  } catch (error) {
    // A mirror without backports would trouble every later update.
    if (source !== null) await capture([...prefix, 'rm', '-f', BACKPORTS_FILE], log);
    end('failed');
    return `${log.join('')}${error.message}\n`;
  }
  end('done');
  return null;
}
