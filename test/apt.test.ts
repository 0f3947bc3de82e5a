import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { aptSources, backportsSource, manualSteps, needsBackports, osRelease } from '../scripts/apt.mjs';

const folders: string[] = [];
afterEach(() => folders.splice(0).forEach((folder) => rmSync(folder, { recursive: true })));

/** The backports source that follows from these files below /etc/apt. */
function backportsFrom(files: Record<string, string>): string | null {
  const folder = mkdtempSync(join(tmpdir(), 'forkstep-apt-'));
  folders.push(folder);
  mkdirSync(join(folder, 'sources.list.d'));
  for (const [name, text] of Object.entries(files)) writeFileSync(join(folder, name), text);
  return backportsSource('bookworm', aptSources(folder));
}

const debianSources = `# the release
Types: deb deb-src
# kept as a comment
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://mirror.example/debian-security
Suites: bookworm-security
Components: main
`;
const expected = `Types: deb
URIs: http://mirror.example/debian
Suites: bookworm-backports
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
`;

describe('the backports source', () => {
  it('takes mirror and key from deb822 sources', () => {
    expect(backportsFrom({ 'sources.list': '', 'sources.list.d/debian.sources': debianSources })).toBe(expected);
  });

  it('takes them from a one-line list, past source packages and other releases', () => {
    const list = `deb-src http://sources.example/debian bookworm main
deb http://other.example/apt stable main
deb [arch=amd64,arm64 signed-by=/key.gpg trusted=yes] http://mirror.example/debian bookworm main non-free # comment
`;
    expect(backportsFrom({ 'sources.list': list })).toBe(
      'Types: deb\nURIs: http://mirror.example/debian\nSuites: bookworm-backports\nComponents: main\n' +
        'Architectures: amd64 arm64\nTrusted: yes\nSigned-By: /key.gpg\n',
    );
  });

  it('needs no key: apt has its own', () => {
    expect(backportsFrom({ 'sources.list': 'deb http://mirror.example/debian/ bookworm main\n' })).toBe(
      'Types: deb\nURIs: http://mirror.example/debian/\nSuites: bookworm-backports\nComponents: main\n',
    );
  });

  it('keeps a key that stands in the file', () => {
    const key = 'Signed-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n abc\n -----END PGP PUBLIC KEY BLOCK-----';
    const text = debianSources.replace(/^Signed-By: .*$/m, key);
    expect(backportsFrom({ 'sources.list.d/debian.sources': text })).toBe(
      expected.replace(/^Signed-By: .*$/m, key.replace('By:\n', 'By: \n')),
    );
  });

  it('is not added twice', () => {
    const there = {
      'sources.list.d/debian.sources': debianSources,
      'sources.list.d/bp.list': 'deb http://mirror.example/debian bookworm-backports main\n',
    };
    expect(backportsFrom(there)).toBeNull();
  });

  it('does not count sources that are disabled, commented out or not read by apt', () => {
    const off = {
      'sources.list.d/off.sources': `Enabled: no\n${expected}`,
      'sources.list.d/comment.list': '# deb http://mirror.example/debian bookworm-backports main\n',
      'sources.list.d/off.list.disabled': 'deb http://mirror.example/debian bookworm-backports main\n',
    };
    expect(backportsFrom({ ...off, 'sources.list.d/debian.sources': debianSources })).toBe(expected);
  });

  it('cannot be made where no mirror of the release is known', () => {
    expect(() => backportsFrom({ 'sources.list': 'deb http://mirror.example/debian trixie main\n' })).toThrow('no mirror for bookworm');
  });
});

describe('the release', () => {
  it('needs backports on Debian 12 alone', () => {
    const debian = osRelease('PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nVERSION_CODENAME=bookworm\nID=debian\n');
    expect(debian).toEqual({ PRETTY_NAME: 'Debian GNU/Linux 12 (bookworm)', VERSION_CODENAME: 'bookworm', ID: 'debian' });
    expect(needsBackports(debian)).toBe(true);
    expect(manualSteps(debian)).toContain('-t bookworm-backports');
    const ubuntu = osRelease('ID=ubuntu\nVERSION_CODENAME=noble\n');
    expect(needsBackports(ubuntu)).toBe(false);
    expect(manualSteps(ubuntu)).toBe('sudo apt-get update && sudo apt-get install mesa-vulkan-drivers libvulkan1');
  });
});
