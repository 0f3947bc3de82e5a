/**
 * Sees to it that this machine has a WebGPU adapter. A GPU is taken as it is; where there is no adapter at all and the machine is Linux
 * with apt, lavapipe is installed; elsewhere one message says what to install.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { hasApt, installLavapipe, manualSteps, osRelease, rootPrefix } from './apt.mjs';
import { kit } from './kit/info.mjs';

const PROBE = fileURLToPath(new URL('./probeAdapter.mjs', import.meta.url));
/** Where Vulkan drivers are described; the loader searches the first two itself, the last is where GPU containers mount the driver. */
const ICD_FOLDERS = ['/usr/share/vulkan/icd.d', '/etc/vulkan/icd.d', '/usr/local/nvidia/share/vulkan/icd.d'];

/** What probeAdapter.mjs says with these variables added to the environment. */
function probe(env) {
  const child = spawnSync(process.execPath, [PROBE], { env: { ...process.env, ...env }, encoding: 'utf8', timeout: 60_000 });
  const line = child.stdout?.split('\n').find((text) => text.startsWith('{'));
  if (line) return JSON.parse(line);
  return { found: false, bindingFailed: false, reason: `the probe ended with ${child.signal ?? `exit code ${child.status}`}` };
}

/**
 * The environments to try, best first: as it is, then the driver of a GPU that the Vulkan loader does not look for, then lavapipe alone,
 * which a broken driver beside it may have kept from loading.
 */
function candidates() {
  if (process.platform !== 'linux' || chosenDriver()) return [{ env: {}, isLavapipe: false }];
  const files = ICD_FOLDERS.filter((folder) => existsSync(folder)).flatMap((folder) =>
    readdirSync(folder).map((name) => `${folder}/${name}`),
  );
  const drivers = (pattern, isLavapipe) =>
    files.filter((file) => pattern.test(file)).map((file) => ({ env: { VK_DRIVER_FILES: file }, isLavapipe }));
  return [{ env: {}, isLavapipe: false }, ...drivers(/\/nvidia_icd[^/]*\.json$/, false), ...drivers(/\/lvp_icd[^/]*\.json$/, true)];
}

/** The driver that the user chose by the Vulkan loader's own variables, if any. */
const chosenDriver = () => process.env.VK_DRIVER_FILES || process.env.VK_ICD_FILENAMES;

/**
 * The best adapter to be had: the first GPU, else the first software adapter.
 * @param more environments to try besides candidates()
 * @returns {found: true, env, software, description, …}: env holds the variables it needs; or {found: false, reason, bindingFailed}
 */
export function findAdapter(more = []) {
  let best;
  const all = [...candidates(), ...more].sort((a, b) => Number(a.isLavapipe) - Number(b.isLavapipe));
  for (const { env, isLavapipe } of all) {
    if (best?.found && isLavapipe) break;
    const result = { ...probe(env), env };
    if (result.bindingFailed || (result.found && !result.software)) return result;
    if (!best || (result.found && !best.found)) best = result;
  }
  return best;
}

/** What to install by hand on this machine. */
function advice(os) {
  if (process.platform === 'darwin')
    return 'macOS gives one by Metal on every Mac with a GPU; in a virtual machine without one there is none.';
  if (process.platform === 'win32') return "Install the GPU maker's current driver (Direct3D 12).";
  const family = `${os.ID ?? ''} ${os.ID_LIKE ?? ''}`;
  const gpuDriver = "For a GPU, install its maker's Vulkan driver. Without a GPU, install Mesa's lavapipe:";
  if (hasApt()) return `${gpuDriver} ${manualSteps(os)}`;
  if (/\barch\b/.test(family)) return `${gpuDriver} sudo pacman -S vulkan-swrast vulkan-icd-loader`;
  if (/\b(fedora|rhel)\b/.test(family)) return `${gpuDriver} sudo dnf install mesa-vulkan-drivers vulkan-loader`;
  if (/suse/.test(family)) return `${gpuDriver} sudo zypper install libvulkan_lvp libvulkan1`;
  return `${gpuDriver} it is in the package of Mesa's Vulkan drivers (mesa-vulkan-drivers, vulkan-swrast).`;
}

/** Prints why there is no adapter and ends the process with code 1. */
function giveUp(reason, hint, log) {
  if (log) process.stderr.write(`${log.trimEnd()}\n\n`);
  process.stderr.write(`forkstep: no WebGPU adapter found (${reason}). ${hint}\n`);
  process.exit(1);
}

/**
 * The adapter that findAdapter() gives, after an installation where that is needed and possible; its env is set in this process, for
 * children. Ends the process with code 1 and one message where none is to be had.
 */
export async function ensureAdapter() {
  let adapter = findAdapter();
  if (!adapter.found && kit) giveUp(adapter.reason, 'A portable kit installs nothing: put a Vulkan driver into its folder driver/.');
  if (!adapter.found) {
    const os = osRelease();
    if (adapter.bindingFailed)
      giveUp(
        adapter.reason,
        "Dawn's Node binding (package webgpu) does not load on this system; it is built for glibc Linux, macOS and Windows.",
      );
    if (chosenDriver())
      giveUp(adapter.reason, `The environment names the Vulkan driver ${chosenDriver()} (VK_DRIVER_FILES); unset it or correct it.`);
    const prefix = hasApt() ? rootPrefix() : null;
    if (prefix === null) giveUp(adapter.reason, advice(os));
    process.stderr.write("No WebGPU adapter found: installing lavapipe, Mesa's software Vulkan.\n");
    const log = await installLavapipe(os, prefix);
    if (log !== null) giveUp(adapter.reason, `The installation failed; by hand: ${manualSteps(os)}`, log);
    adapter = findAdapter();
    const untried = 'Mesa is installed but Dawn refuses it: versions older than 25.0 are untried, and 22.3 is known to be too old.';
    if (!adapter.found) giveUp(adapter.reason, `${untried} Use a newer release, or a GPU with a Vulkan driver.`);
  }
  Object.assign(process.env, adapter.env);
  return adapter;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const adapter = await ensureAdapter();
  process.stdout.write(`${adapter.description || adapter.device} (${adapter.software ? 'software' : 'GPU'})\n`);
}
