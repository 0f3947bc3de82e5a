/** The import graph of src/ and the rules it must keep. */
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { builtinModules } from 'node:module';
import { dirname, join, posix, relative, sep } from 'node:path';
import ts from 'typescript';

export interface Import {
  /** As written: './a.ts', 'node:fs', '#gpu-host'. */
  specifier: string;
  /** Only types come through it, so it is gone at run time. */
  isTypeOnly: boolean;
}

/** Files by path relative to src/, with forward slashes, and what each imports. */
export type ImportGraph = ReadonlyMap<string, readonly Import[]>;

/**
 * Layers from the lowest up; those on one line may use each other, as long as no cycle comes of it. index.ts gathers the public API and
 * node.ts what is Node's alone: only the command may use them.
 */
const layers: readonly (readonly string[])[] = [
  ['kernels', 'gpu'],
  ['graph'],
  ['autograd'],
  ['nn', 'optim'],
  ['trials'],
  ['sched', 'probes'],
  ['data', 'train'],
  ['study'],
  ['index.ts'],
  ['node.ts'],
  ['cli'],
];

/** Every import, re-export, dynamic import and `import('…').T` of a file. */
export function importsOf(source: string, fileName = 'file.ts'): Import[] {
  const found: Import[] = [];
  const add = (node: ts.Node | undefined, isTypeOnly: boolean): void => {
    // What is imported as a text (`?bundled`) is imported all the same.
    if (node && ts.isStringLiteralLike(node)) found.push({ specifier: node.text.replace(/\?bundled$/, ''), isTypeOnly });
  };
  const visit = (node: ts.Node): void => {
    if (ts.isImportDeclaration(node)) {
      const { importClause: clause } = node;
      const named = clause?.namedBindings && ts.isNamedImports(clause.namedBindings) ? clause.namedBindings.elements : [];
      const hasOnlyTypes = !clause?.name && named.length > 0 && named.every((element) => element.isTypeOnly);
      add(node.moduleSpecifier, Boolean(clause?.isTypeOnly) || hasOnlyTypes);
    } else if (ts.isExportDeclaration(node)) {
      add(node.moduleSpecifier, node.isTypeOnly);
    } else if (ts.isImportTypeNode(node) && ts.isLiteralTypeNode(node.argument)) {
      add(node.argument.literal, true);
    } else if (ts.isCallExpression(node) && node.expression.kind === ts.SyntaxKind.ImportKeyword) {
      add(node.arguments[0], false);
    }
    ts.forEachChild(node, visit);
  };
  visit(ts.createSourceFile(fileName, source, ts.ScriptTarget.Latest, true));
  return found;
}

/** The graph of all .ts files below a folder. */
export function readImports(folder: string): ImportGraph {
  const names = readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts'))
    .sort();
  return new Map(names.map((name) => [name.split(sep).join('/'), importsOf(readFileSync(join(folder, name), 'utf8'), name)]));
}

/** The targets of package.json's `imports` entry of that name, relative to src/. */
export function subpathTargets(root: string, specifier: string): string[] {
  const { imports } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { imports: Record<string, Record<string, string>> };
  return Object.values(imports[specifier] ?? {}).map((target) => relative(join(root, 'src'), join(root, target)).split(sep).join('/'));
}

const layerOf = (file: string): string => (file.includes('/') ? file.slice(0, file.indexOf('/')) : file);
const rankOf = (file: string): number => layers.findIndex((names) => names.includes(layerOf(file)));
const isNodeOnly = (file: string): boolean => file.endsWith('.node.ts') || file === 'node.ts' || file.startsWith('cli/');
const isBuiltin = (specifier: string): boolean => specifier.startsWith('node:') || builtinModules.includes(specifier);

interface Edge {
  from: string;
  to: string;
  isTypeOnly: boolean;
}

/** Imports of files of src/; `seams` maps '#name' to the files that stand behind it. */
function edges(graph: ImportGraph, seams: ReadonlyMap<string, readonly string[]>): { edges: Edge[]; problems: string[] } {
  const problems: string[] = [];
  const found: Edge[] = [];
  for (const [from, imports] of graph) {
    for (const { specifier, isTypeOnly } of imports) {
      const to = posix.normalize(posix.join(dirname(from), specifier));
      const targets = specifier.startsWith('#')
        ? seams.get(specifier)
        : specifier.startsWith('.') && !specifier.endsWith('.json')
          ? [to]
          : [];
      if (!targets || targets.some((target) => !graph.has(target))) problems.push(`${from} imports ${specifier}, which is not there`);
      else found.push(...targets.map((target) => ({ from, to: target, isTypeOnly })));
    }
  }
  return { edges: found, problems };
}

/** One cycle per group of files (or layers) that reach each other, as 'a → b → a'; [] where there is none. */
export function findCycles(arrows: readonly { from: string; to: string }[]): string[] {
  const next = new Map<string, Set<string>>();
  for (const { from, to } of arrows) next.set(from, (next.get(from) ?? new Set()).add(to));
  const done = new Set<string>();
  const cycles: string[] = [];
  const walk = (node: string, path: string[]): void => {
    const at = path.indexOf(node);
    if (at >= 0) cycles.push([...path.slice(at), node].join(' → '));
    if (at >= 0 || done.has(node)) return;
    for (const target of next.get(node) ?? []) walk(target, [...path, node]);
    done.add(node);
  };
  for (const node of next.keys()) walk(node, []);
  return cycles;
}

/**
 * Every rule of the house that the graph breaks, one line each:
 * - no import of a higher layer, types included: a lower layer that names a higher one's types knows of it;
 * - no cycle of files, nor of layers of equal rank; imports of types alone do not count here, as nothing is loaded through them;
 * - kernels import nothing from gpu or graph;
 * - Node's built-ins and packages only in *.node.ts, node.ts and cli/, and these are reached only from one another (or through a '#' seam).
 */
export function checkArchitecture(graph: ImportGraph, seams: ReadonlyMap<string, readonly string[]>): string[] {
  const { edges: all, problems } = edges(graph, seams);
  for (const file of graph.keys()) if (rankOf(file) < 0) problems.push(`${file} belongs to no layer`);
  for (const { from, to } of all) {
    if (rankOf(to) > rankOf(from)) problems.push(`${from} imports upward: ${to}`);
    if (layerOf(from) === 'kernels' && ['gpu', 'graph'].includes(layerOf(to))) problems.push(`${from} is pure data but imports ${to}`);
  }
  for (const [file, imports] of graph) {
    if (isNodeOnly(file)) continue;
    for (const { specifier } of imports) {
      if (isBuiltin(specifier)) problems.push(`${file} runs in browsers but imports ${specifier}`);
      else if (!/^[.#]/.test(specifier)) problems.push(`${file} imports the package ${specifier}`);
      else if (specifier.endsWith('.node.ts')) problems.push(`${file} runs in browsers but imports ${specifier}`);
    }
  }
  const loaded = all.filter((edge) => !edge.isTypeOnly);
  const between = loaded.filter(({ from, to }) => rankOf(from) === rankOf(to) && layerOf(from) !== layerOf(to));
  const crossLayer = between.map(({ from, to }) => ({ from: layerOf(from), to: layerOf(to) }));
  const cycles = new Set([...findCycles(loaded), ...findCycles(crossLayer)]);
  return [...problems, ...[...cycles].map((cycle) => `cycle: ${cycle}`)];
}

/** The seams that a graph uses, from package.json. */
export function seamsOf(root: string, graph: ImportGraph): Map<string, string[]> {
  const names = new Set(
    [...graph.values()]
      .flat()
      .map(({ specifier }) => specifier)
      .filter((specifier) => specifier.startsWith('#')),
  );
  return new Map(
    [...names].map((name) => [name, subpathTargets(root, name)]).filter(([, targets]) => targets.length > 0) as [string, string[]][],
  );
}

/** @throws Error where the folder holds no source at all, so that an empty walk cannot pass */
export function architectureProblems(root: string): string[] {
  const src = join(root, 'src');
  const graph = existsSync(src) ? readImports(src) : new Map<string, Import[]>();
  if (graph.size === 0) throw new Error('src/ holds no .ts file');
  return checkArchitecture(graph, seamsOf(root, graph));
}
