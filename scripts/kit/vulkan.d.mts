export interface Candidate {
  env: Record<string, string>;
  isLavapipe: boolean;
}
export function opens(library: string): boolean;
export function loaderEnvironment(root: string, env: NodeJS.ProcessEnv, canOpen: (library: string) => boolean): Record<string, string>;
export function kitCandidates(root: string, folder: string, env: NodeJS.ProcessEnv, folders?: string[]): Candidate[];
