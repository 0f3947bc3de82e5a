/** Fields of an apt source by lower-case name: uris, suites, components, 'signed-by', … */
export type AptSource = Record<string, string>;

export function osRelease(text?: string): Record<string, string>;
export function rootPrefix(): string[] | null;
export function hasApt(): boolean;
export function needsBackports(os: Record<string, string>): boolean;
export function aptSources(etcApt?: string): AptSource[];
export function backportsSource(codename: string, sources: readonly AptSource[]): string | null;
export function manualSteps(os: Record<string, string>): string;
export function installLavapipe(os: Record<string, string>, prefix: readonly string[]): Promise<string | null>;
