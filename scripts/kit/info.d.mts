export const kit: { commit: string; node: string; sources: string } | null;
export const leftOut: Record<string, string>;
export function sourcesDigest(root: string): string;
