export interface KitOptions {
  out: string;
  node?: string;
  lavapipe: boolean;
  peers: boolean;
  loader: boolean;
}
export function buildKit(options: KitOptions): Promise<{ folder: string; warnings: string[] }>;
