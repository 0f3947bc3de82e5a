/** A page as a browser sees it. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** The Chromium of this machine; undefined where there is none. */
export const chromium = ['chromium', 'chromium-browser', 'google-chrome'].find((name) => spawnSync(name, ['--version']).status === 0);

export interface Seen {
  /** What scripts threw, and what the page asked for beyond itself. */
  problems: string[];
  /** Of each plot by its id: pixels of its canvas that are drawn, of which so many colours, and the names in its legend. */
  plots: Record<string, { pixels: number; colors: number; legend: string[] }>;
  /** Width of the page beyond that of the window. */
  overflow: number;
}

const collect = `<script>window.problems = [];
addEventListener('error', (event) => problems.push(String(event.message || 'no ' + event.target.src)), true);
new PerformanceObserver((list) => list.getEntries().forEach(({ name }) => problems.push('asked for ' + name))).observe({ type: 'resource', buffered: true });
</script>`;

const tell = `<pre id="seen"></pre><script>addEventListener('load', () => setTimeout(() => {
  const plots = Object.fromEntries([...document.querySelectorAll('.plot')].map((host) => {
    const canvas = host.querySelector('canvas');
    const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
    const words = new Uint32Array(data.buffer).filter((word) => word >>> 24 === 255);
    const legend = [...host.querySelectorAll('.u-legend .u-label')].map((one) => one.textContent);
    return [host.id, { pixels: words.length, colors: new Set(words).size, legend }];
  }));
  const overflow = document.documentElement.scrollWidth - innerWidth;
  document.getElementById('seen').textContent = JSON.stringify({ problems, plots, overflow });
}, 100));</script>`;

/** Opens a page, without a network, and asks it what it has drawn. @throws Error with the browser's output where it does not answer */
export function see(html: string, { width, dark = false }: { width: number; dark?: boolean }): Seen {
  const folder = mkdtempSync(join(tmpdir(), 'forkstep-page-'));
  try {
    const file = join(folder, 'page.html');
    writeFileSync(file, html.replace('<head>', `<head>${collect}`).replace('</body>', `${tell}</body>`));
    const flags = ['--headless', '--no-sandbox', '--disable-gpu', `--user-data-dir=${join(folder, 'profile')}`, `--window-size=${width},900`];
    const scheme = `--blink-settings=preferredColorScheme=${dark ? 0 : 1}`;
    const { stdout, stderr } = spawnSync(chromium!, [...flags, scheme, '--virtual-time-budget=5000', '--dump-dom', `file://${file}`], {
      encoding: 'utf8', timeout: 120_000, maxBuffer: 1 << 28,
    });
    const seen = /<pre id="seen">(.*?)<\/pre>/s.exec(stdout)?.[1];
    if (!seen) throw new Error(`the page told nothing:\n${stderr}`);
    return JSON.parse(seen.replaceAll('&lt;', '<').replaceAll('&gt;', '>').replaceAll('&amp;', '&')) as Seen;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
