export const tableReports: readonly string[];
export function benchTable(folder?: string): string;
export function markedTable(text: string): string;
export function withTable(text: string, table: string): string;
