/** Where a kit finds Vulkan: the machine's loader and driver, else those that it carries. */
import { existsSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';

/** NVIDIA's driver, which is one of two libraries: the first needs those of X11, which machines without a screen may lack. */
const NVIDIA_LIBRARIES = ['libGLX_nvidia.so.0', 'libEGL_nvidia.so.0'];
const LIBRARY_FOLDERS = ['/usr/lib/x86_64-linux-gnu', '/usr/lib64', '/usr/lib', '/usr/local/nvidia/lib64', '/usr/local/nvidia/lib'];
/** For their manifests; what a driver supports it says itself. */
const API_VERSION = '1.3.0';

/** `path`, which may be unset, with folders at its front; and one with a folder at its end. */
const prepend = (path, ...folders) => [...folders, ...(path ? [path] : [])].join(':');
const append = (path, folder) => [...(path ? [path] : []), folder].join(':');

/** Whether the dynamic linker finds and opens a library, which process.dlopen() then refuses as it is no addon of Node. */
export function opens(library) {
  try {
    process.dlopen({ exports: {} }, library);
  } catch (error) {
    return /did not self-register/.test(error.message);
  }
  return true;
}

/** Candidates for a driver of NVIDIA's whose library is here, whether or not a manifest describes it; manifests go into `folder`. */
function nvidiaCandidates(folder, env, folders) {
  const libraries = NVIDIA_LIBRARIES.flatMap((name) => folders.map((path) => join(path, name)).find((path) => existsSync(path)) ?? []);
  return libraries.map((library) => {
    const manifest = join(folder, `${basename(library, '.so.0')}.json`);
    writeFileSync(manifest, JSON.stringify({ file_format_version: '1.0.0', ICD: { library_path: library, api_version: API_VERSION } }));
    return { VK_DRIVER_FILES: manifest, LD_LIBRARY_PATH: append(env.LD_LIBRARY_PATH, dirname(library)) };
  });
}

/** Every file below a folder. */
const filesBelow = (folder) =>
  existsSync(folder)
    ? readdirSync(folder, { recursive: true, withFileTypes: true })
        .filter((entry) => !entry.isDirectory())
        .map((entry) => join(entry.parentPath, entry.name))
    : [];

/** The variables that let processes to come load libvulkan.so.1: none where the machine has one, else one from driver/ or the kit's own. */
export function loaderEnvironment(root, env, canOpen) {
  if (canOpen('libvulkan.so.1')) return {};
  const carried = [join(root, 'driver'), join(root, 'lib/vulkan')].flatMap(filesBelow).find((file) => basename(file) === 'libvulkan.so.1');
  return carried ? { LD_LIBRARY_PATH: prepend(env.LD_LIBRARY_PATH, dirname(carried)) } : {};
}

/** What a manifest says; null, and a line on stderr, for one that is no JSON: the machine's own driver may do. */
function readManifest(file) {
  try {
    return JSON.parse(readFileSync(file, 'utf8'));
  } catch (error) {
    process.stderr.write(`run: ${file} must be a driver's manifest, got ${error.message}; left out\n`);
    return null;
  }
}

/**
 * The candidate for the drivers below driver/, be they single libraries or unpacked packages: a manifest there may name its library by a
 * path on the machine that it was packed for, so copies that name it by where it lies now go into `folder`.
 */
function carriedCandidate(root, folder, env) {
  const files = filesBelow(join(root, 'driver'));
  const manifests = files
    .filter((file) => /icd[^/]*\.json$/.test(file))
    .flatMap((file) => {
      const described = readManifest(file);
      const library = files.find((path) => basename(path) === basename(described?.ICD?.library_path ?? ''));
      if (!library) return [];
      const copy = join(folder, basename(file));
      writeFileSync(copy, JSON.stringify({ ...described, ICD: { ...described.ICD, library_path: library } }));
      return [copy];
    });
  if (manifests.length === 0) return [];
  const libraries = [...new Set(files.filter((file) => /\.so(\.|$)/.test(file)).map((file) => dirname(file)))].sort();
  return [{ VK_DRIVER_FILES: manifests.join(':'), LD_LIBRARY_PATH: prepend(env.LD_LIBRARY_PATH, ...libraries) }];
}

/**
 * The environments in which an adapter may be found besides those of a checkout, best first.
 * @param root the kit's folder   @param folder where manifests may be written; they must stay as long as the driver is used
 * @param env the environment that they are added to   @param folders where libraries lie
 */
export function kitCandidates(root, folder, env, folders = LIBRARY_FOLDERS) {
  if (env.VK_DRIVER_FILES || env.VK_ICD_FILENAMES) return [];
  const machines = nvidiaCandidates(folder, env, [...(env.LD_LIBRARY_PATH ?? '').split(':').filter(Boolean), ...folders]);
  return [
    ...machines.map((add) => ({ env: add, isLavapipe: false })),
    ...carriedCandidate(root, folder, env).map((add) => ({ env: add, isLavapipe: true })),
  ];
}
