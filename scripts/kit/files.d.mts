export function carriedPackages(): string[];
